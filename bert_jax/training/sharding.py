"""Where arrays live: one table from the logical axes that modules name to the mesh axes that split them.

An axis that its mesh axes do not divide stays whole; `undivided` collects the sentences that say so. Within one
array a mesh axis is used once, for the first logical axis that asks for it.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.input.placement import BATCH_AXES

LOGICAL_AXES: dict[str, tuple[str, ...]] = {
    "batch": BATCH_AXES,  # rows
    "length": (),  # tokens of a row stay together
    "embed": ("fsdp",),  # hidden size
    "heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),  # the inner layer
    "vocab": ("tensor",),
    "layers": (),  # scanned over
}
BATCH = PartitionSpec(LOGICAL_AXES["batch"])  # of every array of a batch and of a carry: leading axis


@contextlib.contextmanager
def on_mesh(mesh: Mesh) -> Iterator[None]:
    """Trace and run with this mesh, and with the table for the axes that modules name in their constraints."""
    rules = [(name, axes or None) for name, axes in LOGICAL_AXES.items()]
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        yield


def partition_spec(
    names: tuple[str | None, ...],
    shape: tuple[int, ...],
    mesh_shape: Mapping[str, int],
    undivided: list[str] | None = None,
) -> PartitionSpec:
    """Return how an array with these logical axes is split over the mesh.

    Args:
        names: a logical axis (or None) for each dimension.
        shape: the array's shape, of the same length.
        mesh_shape: the sizes of the mesh's axes.
        undivided: receives a sentence for each dimension that stays whole because its size is not divisible.
    """
    used: set[str] = set()
    spec: list[tuple[str, ...] | None] = []
    for name, size in zip(names, shape, strict=True):
        axes = tuple(axis for axis in LOGICAL_AXES[name] if axis not in used) if name else ()
        ways = math.prod(mesh_shape[axis] for axis in axes)
        if ways > 1 and size % ways == 0:
            used.update(axes)
            spec.append(axes)
            continue
        if ways > 1 and undivided is not None:
            undivided.append(f"axis {name} of size {size} stays whole: {' × '.join(axes)} = {ways} does not divide it")
        spec.append(None)
    return PartitionSpec(*spec)


def boxed_shardings(boxed: Any, mesh: Mesh, undivided: list[str] | None = None) -> Any:
    """Return a `NamedSharding` for each array of a tree whose leaves carry logical axis names.

    Args:
        boxed: arrays or shapes, boxed by `nn.with_logical_partitioning`; leaves without a box are replicated.
        mesh: the devices.
        undivided: see `partition_spec`.
    """

    def sharding(leaf: Any) -> NamedSharding:
        if not isinstance(leaf, nn.Partitioned):
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, partition_spec(leaf.names, leaf.value.shape, mesh.shape, undivided))

    return jax.tree.map(sharding, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))


def unbox(boxed: Any) -> Any:
    """Return the tree without its axis names."""
    return nn.unbox(boxed)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch's arrays: rows over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)
