"""From a process' part of a global batch to global arrays, sharded over the mesh's batch axes.

Rows lie along the mesh axes `data` and `fsdp`; devices that differ in `tensor` alone hold the same rows. Where the
tensor axis spans processes, these processes load the same rows.
"""

import functools
import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")  # that split rows


def local_rows(batch_size: int, mesh: Mesh) -> slice:
    """Return the rows of the global batch that this process must load.

    Args:
        batch_size: one that the mesh divides (`training.mesh.check_batch_size`).
        mesh: with the axes data, fsdp and tensor.

    Raises:
        ValueError: the mesh' device order scatters this process' rows.
    """
    num_parts = num_row_shards(mesh)
    assert batch_size % num_parts == 0, (batch_size, mesh.shape)
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
        parts, num_parts = _local_parts(mesh), num_row_shards(mesh)

        def place(array: np.ndarray) -> jax.Array:
            num_rows = len(array) * num_parts // (parts.stop - parts.start)
            return jax.make_array_from_process_local_data(sharding, array, (num_rows, *array.shape[1:]))

        return {name: place(array) for name, array in batch.items()}
    return jax.device_put(batch, sharding)


def num_row_shards(mesh: Mesh) -> int:
    """Return into how many parts a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


@functools.lru_cache(maxsize=8)
def _local_parts(mesh: Mesh) -> slice:
    """Return which of the data × fsdp parts of a batch lie on this process' devices."""
    num_parts = num_row_shards(mesh)
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
