import dataclasses

import jax
import pytest
from jax.experimental import mesh_utils

from bert_jax.training.mesh import MeshConfig, arrange, check_batch_size, make_mesh, mesh_shape


@pytest.mark.parametrize(
    ("config", "devices", "shape"),
    [
        (MeshConfig(), 1, (1, 1, 1)),
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(data=2, fsdp=-1, tensor=2), 8, (2, 2, 2)),
        (MeshConfig(data=1, fsdp=1, tensor=4), 4, (1, 1, 4)),
    ],
)
def test_minus_one_takes_the_devices_that_are_left(config, devices, shape):
    assert mesh_shape(config, devices) == shape


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (MeshConfig(data=3), "does not fit 8 devices"),
        (MeshConfig(data=-1, fsdp=3), "does not fit 8 devices"),
        (MeshConfig(data=-1, fsdp=-1), "at most one of them -1"),
        (MeshConfig(data=8, tensor=0), "1 or more"),
    ],
)
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(config, text):
    with pytest.raises(ValueError, match=text):
        mesh_shape(config, 8)


@dataclasses.dataclass(frozen=True)
class Chip:
    """What the order of devices depends on; of a TPU v6e, whose hosts have 2 × 2 chips."""

    id: int
    coords: tuple[int, int, int]
    process_index: int
    slice_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v6 lite"
    core_on_chip: int = 0


def chips_4x4(slice_index=0):
    return [
        Chip(16 * slice_index + 4 * y + x, (x, y, 0), 4 * slice_index + 2 * (y // 2) + x // 2, slice_index)
        for y in range(4)
        for x in range(4)
    ]


@pytest.mark.parametrize("shape", [(16, 1, 1), (1, 16, 1), (4, 4, 1), (4, 1, 4), (2, 4, 2), (1, 2, 8)])
def test_every_host_of_a_torus_holds_neighbouring_parts_of_a_batch(shape):
    array = arrange(shape, chips_4x4())
    assert sorted(chip.id for chip in array.flat) == list(range(16))
    for process in range(4):
        held = sorted({index // shape[2] for index, chip in enumerate(array.flat) if chip.process_index == process})
        assert held == list(range(held[0], held[-1] + 1))


def test_the_order_of_the_links_is_kept_where_hosts_lie_along_it():
    chips, shape = chips_4x4(), (2, 4, 2)
    by_links = mesh_utils.create_device_mesh(shape, chips, allow_split_physical_axes=True)
    assert [chip.process_index for chip in by_links.flat] != sorted(chip.process_index for chip in chips)
    assert (arrange(shape, chips) == by_links).all()


def test_several_slices_split_the_first_axis():
    array = arrange((8, 2, 2), chips_4x4(1) + chips_4x4(0))
    assert [{chip.slice_index for chip in half.flat} for half in (array[:4], array[4:])] == [{0}, {1}]
    assert all(len({chip.process_index for chip in pair}) == 1 for pair in array.reshape(-1, 2))


def test_devices_of_one_process_keep_their_order():
    assert list(arrange((len(jax.devices()), 1, 1), jax.devices()).flat) == jax.devices()


def test_a_batch_size_that_the_microbatches_do_not_divide_is_refused_with_the_multiple():
    mesh = make_mesh(MeshConfig(data=1))
    check_batch_size("config.data.batch_size", 12, mesh, microbatches=4)
    with pytest.raises(ValueError, match=r"config\.data\.batch_size is 10.*use a multiple of 4"):
        check_batch_size("config.data.batch_size", 10, mesh, microbatches=4)
