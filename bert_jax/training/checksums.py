"""A number for each array of a tree, by which bits that changed on their way to a disk and back are noticed.

It is computed on the devices, where the arrays are, and does not depend on how they are sharded: sums of uint32 wrap
around, so their order does not matter. Orbax' own check covers the tables of a checkpoint, not the numbers in it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import first_names
from bert_jax.training.optimizers import parameter_name

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by the bytes of an element


class NotFiniteError(ValueError):
    """Arrays that are to be saved have infinities or NaNs; the message has their names."""


def checksums(tree: Any) -> dict[str, int]:
    """Return the checksum of each array by its name; of a tree without arrays nothing.

    One flipped bit always changes it; other damage goes unnoticed once in 2^32 times, but for two elements that are
    exchanged and differ in their highest bit alone, such as x and −x.

    Args:
        tree: arrays of up to 32 bits an element, on any mesh; every process of it calls this.

    Raises:
        NotFiniteError: there are infinities or NaNs; it names the arrays.
    """
    read = _read(tree)
    if names := [name for name, (_, finite) in read.items() if not finite]:
        raise NotFiniteError(first_names(names))
    return {name: value for name, (value, _) in read.items()}


def changed(tree: Any, saved: dict[str, int] | None) -> list[str]:
    """Return the names of the arrays that do not have the checksums of `saved`; of None nothing is known."""
    if saved is None:
        return []
    return [name for name, (value, _) in _read(tree).items() if saved.get(name) != value]


def other_names(tree: Any, saved: dict[str, int]) -> list[str]:
    """Return how the names in `saved` differ from a tree's, in words; nothing where they are the same."""
    names = {parameter_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
    differ = (("lacks", sorted(names - saved.keys())), ("has besides", sorted(saved.keys() - names)))
    return [f"{how} {first_names(found)}" for how, found in differ if found]


def _read(tree: Any) -> dict[str, tuple[int, bool]]:
    """Return each array's checksum, and whether it is finite, by its name."""
    read = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        # One after the other. Several at once, over devices that a CPU plays, can wait for each other for ever: each
        # holds a thread of XLA's pool for each of its devices until all of them have come.
        value, finite = jax.device_get(_sum(leaf))  # scalars, which are whole on every device
        read[parameter_name(path)] = (int(value), bool(finite))
    return read


# For each shape, not for a tree: moments have the shapes of parameters, and compiling is most of a run's first save.
@jax.jit
def _sum(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return Σ bits · (2 · index + 1) mod 2^32, where an odd factor loses no bit, and whether all is finite."""
    finite = jnp.all(jnp.isfinite(array)) if jnp.issubdtype(array.dtype, jnp.floating) else jnp.array(True)
    bits = array.astype(jnp.uint8) if array.dtype == bool else array
    bits = jax.lax.bitcast_convert_type(bits, _UNSIGNED[bits.dtype.itemsize]).astype(jnp.uint32)
    index = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):  # a reshape to one axis would gather a sharded array
        stride = np.uint32(math.prod(bits.shape[axis + 1 :]) % 2**32)
        index += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * stride
    return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32), finite
