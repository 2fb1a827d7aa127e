import pytest

from bert_jax.tpu.chips import CHIPS
from bert_jax.tpu.topologies import accelerator_types, parse_topology
from bert_jax.training.throughput import peak_flops


@pytest.mark.parametrize(
    ("name", "shape", "chips", "devices"),
    [
        ("v3-8", (2, 2), 4, 8),
        ("v3-128", (8, 8), 64, 128),
        ("v4-8", (2, 2, 1), 4, 4),
        ("v4-16", (2, 2, 2), 8, 8),
        ("v4-1024", (8, 8, 8), 512, 512),
        ("v5e-1", (1, 1), 1, 1),
        ("v5e-8", (2, 4), 8, 8),
        ("v5e-256", (16, 16), 256, 256),
        ("v5p-32", (2, 2, 4), 16, 16),
        ("v5p-8192", (16, 16, 16), 4096, 4096),
        ("v6e-64", (8, 8), 64, 64),
        ("tpu7x-8", (2, 2, 1), 4, 8),
        ("v5p:4x4x12", (4, 4, 12), 192, 192),
    ],
)
def test_shapes_are_those_of_the_cloud(name, shape, chips, devices):
    topology = parse_topology(name)
    assert (topology.shape, topology.num_chips, topology.num_devices) == (shape, chips, devices)
    assert topology.name == name


def test_several_slices():
    topology = parse_topology("v5e-16", 2)
    assert (topology.num_chips, topology.name, topology.shape_name) == (32, "2 × v5e-16", "v5e:4x4")


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("v9-8", "v3, v4, v5e, v5p, v6e, tpu7x"),
        ("v5e-3", "v5e-1, v5e-4, v5e-8"),
        ("v5e:3x3", "v5e:2x2"),
        ("v5p:2x2", "3 sides"),
        ("v5e:32x32", "256 chips"),
        ("", "v5e-8"),
    ],
)
def test_an_unknown_name_is_answered_by_those_that_are_known(name, accepted):
    with pytest.raises(ValueError, match=accepted):
        parse_topology(name)


def test_every_type_is_parsed_to_its_shape_and_no_two_share_one():
    for chip in CHIPS.values():
        types = accelerator_types(chip)
        assert len(set(types.values())) == len(types)
        assert all(parse_topology(name).shape == shape for name, shape in types.items())


def test_peaks_agree_with_those_of_running_devices():
    kinds = {"v3": "TPU v3", "v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}
    for generation, kind in {**kinds, "tpu7x": "TPU7x"}.items():
        chip = CHIPS[generation]
        assert peak_flops(kind) == chip.flops_per_second / chip.devices_per_chip
