"""The device mesh: axes `data`, `fsdp` and `tensor`, over devices in an order in which a host holds neighbouring rows.

`data` replicates parameters, `fsdp` splits parameters and rows, `tensor` splits heads, the inner layer and the
vocabulary. Every process must build the same mesh.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from bert_jax.input.placement import num_row_shards

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
    array = arrange(mesh_shape(config, len(devices)), devices)
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def arrange(shape: tuple[int, int, int], devices: Sequence[Any]) -> np.ndarray:
    """Return the devices as an array of this shape, in which every process holds neighbouring parts of a batch.

    Within one slice that is the order that follows the links between the chips (`jax.make_mesh`'s), where the hosts
    lie along it. Elsewhere (several slices; a host of 2 × 2 chips in a torus of 4 × 4) devices are taken host by host,
    so that the tensor axis lies within a host, and within a slice, wherever it fits there.
    """
    if len({getattr(device, "slice_index", 0) for device in devices}) == 1:
        try:
            array = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        except NotImplementedError:  # a shape that the links have no order for
            array = None
        if array is not None and _holds_neighbours(array):
            return array
    by_host = sorted(devices, key=lambda device: (getattr(device, "slice_index", 0), device.process_index, device.id))
    return np.array(by_host).reshape(shape)


def _holds_neighbours(array: np.ndarray) -> bool:
    """Return whether every process holds a contiguous range of the data × fsdp parts of a batch."""
    parts: dict[int, set[int]] = {}
    for part, devices in enumerate(array.reshape(-1, array.shape[-1])):
        for device in devices:
            parts.setdefault(device.process_index, set()).add(part)
    return all(max(held) - min(held) + 1 == len(held) for held in parts.values())


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
