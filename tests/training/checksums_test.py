import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.training.checksums import NotFiniteError, changed, checksums

ARRAYS = {
    "a": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4), "bias": np.ones(2, jnp.bfloat16)},
    "step": np.int32(7),
    "flags": np.array([True, False]),
}


def by_hand(array):
    bits = np.ascontiguousarray(array).view({1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize])
    return sum(int(value) * (2 * index + 1) for index, value in enumerate(bits.ravel())) % 2**32


def test_sums_are_those_of_the_definition_by_name():
    wanted = {"a/kernel": ARRAYS["a"]["kernel"], "a/bias": ARRAYS["a"]["bias"]}
    wanted |= {"step": np.asarray(ARRAYS["step"]), "flags": ARRAYS["flags"]}
    assert checksums(ARRAYS) == {name: by_hand(array) for name, array in wanted.items()}
    assert checksums({}) == {}


@pytest.mark.parametrize("bit", range(0, 12 * 32, 29))
def test_any_flipped_bit_is_seen_and_its_array_alone(bit):
    flipped = ARRAYS["a"]["kernel"].copy()
    flipped.view(np.uint8).reshape(-1)[bit // 8] ^= 1 << bit % 8
    assert changed(ARRAYS | {"a": ARRAYS["a"] | {"kernel": flipped}}, checksums(ARRAYS)) == ["a/kernel"]


def test_exchanged_elements_are_seen():
    exchanged = ARRAYS["a"]["kernel"].copy()
    exchanged[0, 1], exchanged[2, 3] = exchanged[2, 3], exchanged[0, 1]
    assert checksums({"x": exchanged}) != checksums({"x": ARRAYS["a"]["kernel"]})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_checksum_and_is_named(value):
    kernel = ARRAYS["a"]["kernel"].copy()
    kernel[2, 1] = value
    with pytest.raises(NotFiniteError, match=r"^a/kernel$"):
        checksums(ARRAYS | {"a": ARRAYS["a"] | {"kernel": kernel}})
    assert changed(ARRAYS | {"a": {"kernel": kernel}}, checksums(ARRAYS)) == ["a/kernel"]


@pytest.mark.multidevice
def test_the_sharding_does_not_matter():
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    array = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    spread = jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x", "y")))
    assert checksums({"x": spread}) == checksums({"x": array})


@pytest.mark.multidevice
def test_many_sharded_arrays_do_not_wait_for_each_other():
    """If they do, XLA ends the process after 40 seconds; with all of them begun at once it did so within a minute."""
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    specs = [("x",), ("x", "y"), ("y", "x"), ("y",)]
    tree = {
        str(number): jax.device_put(
            np.full((128,) * len(specs[number % 4]), number, np.float32),
            jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*specs[number % 4])),
        )
        for number in range(40)
    }
    expected = checksums(jax.device_get(tree))
    for _ in range(100):
        assert checksums(tree) == expected
