"""From a process' part of a global batch to global arrays, sharded over the mesh's batch axes.

Rows lie along the mesh axes `data` and `fsdp`; devices that differ in `tensor` alone hold the same rows. Where the
tensor axis spans processes, these processes load the same rows.
"""

import functools

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")


def local_rows(batch_size: int, mesh: Mesh) -> slice:
    """Return the rows of the global batch that this process must load.

    Raises:
        ValueError: the mesh does not divide the batch, or its device order scatters this process' rows.
    """
    num_parts = _num_parts(mesh)
    if batch_size < 1 or batch_size % num_parts:
        data, fsdp = (mesh.shape[axis] for axis in BATCH_AXES)
        raise ValueError(
            f"batch_size {batch_size} is not divisible by {num_parts} parts (data {data} × fsdp {fsdp}); "
            f"use a multiple of {num_parts}, such as {max(1, round(batch_size / num_parts)) * num_parts}"
        )
    parts = _local_parts(mesh)
    rows_per_part = batch_size // num_parts
    return slice(parts.start * rows_per_part, parts.stop * rows_per_part)


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Return global arrays, the leading axis sharded over ("data", "fsdp").

    Args:
        batch: this process' rows, as `local_rows` says, under any names.
        mesh: with the axes data, fsdp and tensor, over one process or many.
    """
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    if not sharding.is_fully_addressable:
        parts, num_parts = _local_parts(mesh), _num_parts(mesh)

        def place(array: np.ndarray) -> jax.Array:
            num_rows = len(array) * num_parts // (parts.stop - parts.start)
            return jax.make_array_from_process_local_data(sharding, array, (num_rows, *array.shape[1:]))

        return {name: place(array) for name, array in batch.items()}
    return jax.device_put(batch, sharding)


def _num_parts(mesh: Mesh) -> int:
    return mesh.shape["data"] * mesh.shape["fsdp"]


@functools.lru_cache(maxsize=8)
def _local_parts(mesh: Mesh) -> slice:
    """Return which of the data × fsdp parts of a batch lie on this process' devices."""
    num_parts = _num_parts(mesh)
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    held = sharding.addressable_devices_indices_map((num_parts,)).values()
    parts = sorted({(index[0].start or 0) for index in held if index is not None})
    if not parts:
        raise ValueError(
            f"process {jax.process_index()} has no device in the mesh {dict(mesh.shape)}; "
            "make the mesh of the devices of all processes"
        )
    if parts != list(range(parts[0], parts[-1] + 1)):
        raise ValueError(
            f"the devices of process {jax.process_index()} hold the parts {parts} of the batch, which are not "
            f"contiguous; order the devices of the mesh {dict(mesh.shape)} by process along data and fsdp"
        )
    return slice(parts[0], parts[-1] + 1)
