"""The device mesh: axes `data`, `fsdp` and `tensor`, in that order, so that a host's devices hold neighbouring rows.

`data` replicates parameters, `fsdp` splits parameters and rows, `tensor` splits heads, the inner layer and the
vocabulary. Every process must build the same mesh.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many ways each axis splits; one of them may be -1, which takes the devices that are left.

    Attributes:
        data: copies of the parameters; each takes its part of a batch.
        fsdp: parts of the parameters and optimizer state; each takes its part of a batch too.
        tensor: parts of every layer; all of them work on the same rows.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def mesh_shape(config: MeshConfig, num_devices: int) -> tuple[int, int, int]:
    """Return the sizes of the axes, -1 filled in.

    Raises:
        ValueError: the sizes do not multiply to the number of devices, two are -1, or one is 0.
    """
    sizes = dataclasses.astuple(config)
    text = " × ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
    if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"config.mesh is {text}; sizes are 1 or more, and at most one of them -1 (= what is left)")
    known = math.prod(size for size in sizes if size != -1)
    if num_devices % known or (-1 not in sizes and known != num_devices):
        raise ValueError(
            f"config.mesh is {text}, which does not fit {num_devices} devices; the sizes must multiply to "
            f"{num_devices}: set one to -1 to take what is left, or choose divisors of {num_devices}"
        )
    data, fsdp, tensor = (num_devices // known if size == -1 else size for size in sizes)
    return data, fsdp, tensor


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Return the mesh over `devices` (default: those of all processes); see `mesh_shape` for the errors."""
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, len(devices))
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def num_row_shards(mesh: Mesh) -> int:
    """Return into how many parts a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch_size(name: str, batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Refuse a global batch size that the mesh and the microbatches do not divide.

    Raises:
        ValueError: with the multiple to choose.
    """
    multiple = num_row_shards(mesh) * microbatches
    if batch_size <= 0 or batch_size % multiple:
        raise ValueError(
            f"{name} is {batch_size}, which is not divisible by {multiple} (data {mesh.shape['data']} × fsdp "
            f"{mesh.shape['fsdp']} × {microbatches} microbatches); use a multiple of {multiple}"
        )
