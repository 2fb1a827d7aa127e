import pytest

from bert_jax.training.mesh import MeshConfig, check_batch_size, make_mesh, mesh_shape


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


def test_a_batch_size_that_the_microbatches_do_not_divide_is_refused_with_the_multiple():
    mesh = make_mesh(MeshConfig(data=1))
    check_batch_size("config.data.batch_size", 12, mesh, microbatches=4)
    with pytest.raises(ValueError, match=r"config\.data\.batch_size is 10.*use a multiple of 4"):
        check_batch_size("config.data.batch_size", 10, mesh, microbatches=4)
