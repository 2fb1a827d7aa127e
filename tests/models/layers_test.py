import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models import layers
from bert_jax.models.layers import Dense, LayerNorm, dropout, fold_seed, gelu, gelu_tanh, random_bits, truncated_normal

RATE = 0.1


def dropped(shape, seed: Any = 0, rate=RATE):
    """The mask of `dropout` as float64: 1 where an element is zeroed."""
    return np.asarray(dropout(jnp.ones(shape), rate, jnp.uint32(seed)) == 0, np.float64)


def correlation(first, second):
    """Pearson's correlation in standard errors: within ±4 for independent masks."""
    first, second = first.ravel() - first.mean(), second.ravel() - second.mean()
    return np.sqrt(first.size) * (first * second).mean() / np.sqrt((first**2).mean() * (second**2).mean())


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(1_000_000,), (32, 128, 256), (8, 4, 128, 128)], ids=str)
def test_dropout_rate(shape, rate):
    mask = dropped(shape, rate=rate)
    deviation = math.sqrt(rate * (1 - rate) / mask.size)
    assert abs(mask.mean() - rate) < 4 * deviation


def test_dropout_rate_holds_in_every_row_column_and_slice():
    mask = dropped((64, 128, 128))
    for axes in ((1, 2), (0, 2), (0, 1), (0,), (1,), (2,)):
        means = mask.mean(axis=axes)
        deviation = math.sqrt(RATE * (1 - RATE) * means.size / mask.size)
        assert np.abs(means - RATE).max() < 6 * deviation
        assert means.std() == pytest.approx(deviation, rel=5 / math.sqrt(means.size))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("lag", [1, 2, 3, 8, 32])
def test_neighbours_are_dropped_independently(axis, lag):
    mask = np.moveaxis(dropped((64, 128, 128)), axis, 0)
    assert abs(correlation(mask[:-lag], mask[lag:])) < 4


def test_seeds_sites_and_steps_are_independent():
    masks = [dropped((64, 4096), seed) for seed in (0, 1, 2, 2**31, 2**32 - 1)]
    masks += [dropped((64, 4096), fold_seed(jnp.uint32(seed), number)) for seed in (0, 1) for number in (0, 1, 2)]
    for i, first in enumerate(masks):
        for second in masks[:i]:
            assert abs(correlation(first, second)) < 4


def test_one_element_is_dropped_at_the_rate_over_many_seeds():
    seeds = jax.vmap(lambda number: fold_seed(jnp.uint32(5), number))(jnp.arange(20_000, dtype=jnp.uint32))
    mask = jax.vmap(lambda seed: dropout(jnp.ones((2, 3)), RATE, seed) == 0)(seeds)
    np.testing.assert_allclose(mask.mean(0), RATE, atol=4 * math.sqrt(RATE * (1 - RATE) / 20_000))
    assert abs(correlation(np.asarray(mask[:-1], np.float64), np.asarray(mask[1:], np.float64))) < 4


def test_high_bits_are_uniform():
    counts = np.bincount(np.asarray(random_bits((256, 1024), jnp.uint32(0)) >> 24).ravel(), minlength=256)
    chi_squared = ((counts - 1024.0) ** 2 / 1024.0).sum()
    assert chi_squared < 255 + 5 * math.sqrt(2 * 255)


def test_the_mask_of_a_row_depends_on_its_global_index_only():
    # This is what lets every device hash its own rows.
    np.testing.assert_array_equal(dropped((16, 8, 8))[:4], dropped((4, 8, 8)))


def test_rows_are_not_shifted_copies_of_each_other():
    # With one 32-bit key a row, two of 256 rows start within 60,000 elements of each other in one long stream.
    rows, columns = 256, 65_536
    first = np.asarray(layers._mix(jnp.arange(rows, dtype=jnp.uint32) * layers._GOLDEN_RATIO), np.int64)  # seed 0
    order = np.argsort(first)
    closest = np.argmin(np.diff(first[order]))
    low, high = order[closest], order[closest + 1]
    shift = first[high] - first[low]
    assert 0 < shift < 60_000
    mask = dropped((rows, columns), seed=0)
    assert abs(correlation(mask[low, shift:], mask[high, : columns - shift])) < 4


def test_fold_seed_has_no_collisions_where_it_is_used():
    seeds = jax.vmap(lambda seed: jax.vmap(lambda n: fold_seed(seed, n))(jnp.arange(300, dtype=jnp.uint32)))
    found = np.asarray(seeds(jnp.arange(300, dtype=jnp.uint32))).ravel()
    assert len(np.unique(found)) >= found.size - 5  # 90,000 draws of 2^32 have 0.9 collisions on average


def test_dropout_scales_what_it_keeps_and_its_gradient_alike():
    inputs = jnp.linspace(1.0, 2.0, 64).reshape(8, 8)
    outputs, backward = jax.vjp(lambda x: dropout(x, 0.25, jnp.uint32(3)), inputs)
    kept = np.asarray(outputs) != 0
    np.testing.assert_allclose(outputs, np.where(kept, inputs / 0.75, 0), rtol=1e-6)
    np.testing.assert_allclose(backward(2 * inputs)[0], np.where(kept, 2 * inputs / 0.75, 0), rtol=1e-6)


def test_dropout_stores_no_mask():
    _, backward = jax.vjp(lambda x: dropout(x, 0.25, jnp.uint32(3)), jnp.ones((64, 64)))
    assert sum(leaf.size for leaf in jax.tree.leaves(backward)) <= 1


def test_dropout_in_bfloat16_is_unbiased():
    # 1 / 0.9 itself is not a bfloat16; the kept value must still be its nearest neighbour, and 0 elsewhere.
    outputs = dropout(jnp.full((1000,), 0.9, jnp.bfloat16), RATE, jnp.uint32(0))
    assert outputs.dtype == jnp.bfloat16
    assert set(np.asarray(outputs, np.float32)) == {0.0, 1.0}


def test_dropout_is_off_without_seed_or_rate():
    inputs = jnp.ones((4, 4))
    assert dropout(inputs, RATE, None) is inputs
    assert dropout(inputs, 0.0, jnp.uint32(0)) is inputs


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_dropout_rates_are_refused(rate):
    with pytest.raises(ValueError, match="it takes 0 ≤ rate < 1"):
        dropout(jnp.ones(4), rate, jnp.uint32(0))


def test_gelu_and_its_slope_are_exact():
    inputs = np.linspace(-8, 8, 1001)
    phi = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in inputs])
    slope = phi + inputs * np.exp(-inputs * inputs / 2) / math.sqrt(2 * math.pi)
    values, backward = jax.vjp(gelu, jnp.asarray(inputs, jnp.float32))
    np.testing.assert_allclose(values, inputs * phi, atol=1e-6)
    np.testing.assert_allclose(backward(jnp.ones(1001))[0], slope, atol=1e-6)


def test_gelu_tanh_is_the_formula_of_googles_second_release():
    inputs = np.linspace(-8, 8, 1001)
    expected = 0.5 * inputs * (1 + np.tanh(math.sqrt(2 / math.pi) * (inputs + 0.044715 * inputs**3)))
    np.testing.assert_allclose(gelu_tanh(jnp.asarray(inputs, jnp.float32)), expected, atol=1e-6)
    assert np.abs(np.asarray(gelu(jnp.asarray(inputs, jnp.float32))) - expected).max() > 1e-4


def test_layer_norm_matches_numpy():
    rng = np.random.default_rng(0)
    inputs, scale, bias = rng.normal(3, 5, (4, 6, 32)), rng.normal(size=32), rng.normal(size=32)
    expected = (inputs - inputs.mean(-1, keepdims=True)) / np.sqrt(inputs.var(-1, keepdims=True) + 1e-12) * scale + bias
    params = {"scale": jnp.asarray(scale, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    outputs: Any = LayerNorm(1e-12).apply({"params": params}, jnp.asarray(inputs, jnp.float32))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_layer_norm_of_bfloat16_takes_its_statistics_in_float32():
    inputs = jnp.asarray(100 + np.random.default_rng(0).normal(size=(4, 1024)), jnp.bfloat16)
    params = {"scale": jnp.ones(1024), "bias": jnp.zeros(1024)}
    outputs: Any = LayerNorm(1e-12).apply({"params": params}, inputs)
    assert outputs.dtype == jnp.bfloat16
    wide = np.asarray(inputs, np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    np.testing.assert_allclose(outputs.astype(jnp.float32), expected, rtol=0.005, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_layer_norms_gradients_are_autodiffs_from_one_array_kept(dtype):
    rng = np.random.default_rng(0)
    inputs, gradient = (jnp.asarray(rng.normal(1, 2, (3, 5, 64)), dtype) for _ in range(2))
    params = {name: jnp.asarray(rng.normal(size=64), jnp.float32) for name in ("scale", "bias")}

    def plain(inputs, params):
        wide = inputs.astype(jnp.float32)
        deviation = jnp.sqrt(jnp.var(wide, axis=-1, keepdims=True) + 1e-12)
        normalised = (wide - jnp.mean(wide, axis=-1, keepdims=True)) / deviation
        return (normalised * params["scale"] + params["bias"]).astype(dtype)

    def ours(inputs, params) -> Any:
        return LayerNorm(1e-12).apply({"params": params}, inputs)

    _, backward = jax.vjp(ours, inputs, params)
    # In bfloat16 both round float32 results once, which may fall to either side.
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-7
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(
            one.astype(jnp.float32), other.astype(jnp.float32), rtol=tolerance, atol=tolerance
        ),
        backward(gradient),
        jax.vjp(plain, inputs, params)[1](gradient),
    )
    large = [leaf.dtype for leaf in jax.tree.leaves(backward) if leaf.size == inputs.size]
    assert large == [dtype]


def test_the_platform_is_that_of_the_meshs_devices():
    assert layers.on_cpu() == (jax.default_backend() == "cpu")
    for platform in ("tpu", "cpu"):
        device = jax.sharding.AbstractDevice(device_kind=platform, num_cores=1, platform=platform)
        mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
        with jax.sharding.use_abstract_mesh(mesh):
            assert layers.on_cpu() == (platform == "cpu")


def test_truncated_normal_is_tensorflows():
    values = np.asarray(truncated_normal(0.02)(jax.random.key(0), (1000, 1000)))
    assert np.abs(values).max() <= 0.04
    assert np.abs(values).max() > 0.0399
    assert values.std() == pytest.approx(0.02 * 0.87962566, rel=0.005)  # of a normal cut at 2 standard deviations
    assert abs(values.mean()) < 4 * 0.02 / 1000
    # Below -1 standard deviation lies Φ(-1) - Φ(-2) of Φ(2) - Φ(-2).
    assert (values < -0.02).mean() == pytest.approx(0.1359051 / 0.9544997, rel=0.01)


def test_truncated_normal_differs_between_keys_and_repeats_with_one():
    first, again, other = (truncated_normal(1.0)(jax.random.key(seed), (512, 64)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(correlation(np.asarray(first, np.float64), np.asarray(other, np.float64))) < 4


@pytest.mark.parametrize(
    ("shape", "features", "axes"),
    [
        ((2, 3, 4), (7,), ("embed", "mlp")),
        ((2, 3, 7), (4,), ("mlp", "embed")),
        ((2, 3, 4), (2, 5), ("embed", "heads", "head_dim")),
        ((2, 3, 2, 5), (4,), ("heads", "head_dim", "embed")),
    ],
    ids=["widen", "narrow", "to heads", "from heads"],
)
@pytest.mark.parametrize("on_cpu", [True, False], ids=["CPU", "elsewhere"])
def test_dense_and_its_gradients_match_numpy(monkeypatch, on_cpu, shape, features, axes):
    monkeypatch.setattr(layers, "on_cpu", lambda: on_cpu)
    rng = np.random.default_rng(0)
    contracted = len(axes) - len(features)
    inputs, kernel = rng.normal(size=shape), rng.normal(size=(*shape[-contracted:], *features))
    bias, gradient = rng.normal(size=features), rng.normal(size=(2, 3, *features))
    module = Dense(features, axes, 0.02, jnp.float32)
    params = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}

    def run(params, inputs):
        outputs: Any = module.apply({"params": params}, inputs)
        return outputs

    outputs, backward = jax.vjp(run, params, jnp.asarray(inputs, jnp.float32))
    params_gradient, inputs_gradient = backward(jnp.asarray(gradient, jnp.float32))
    np.testing.assert_allclose(outputs, np.tensordot(inputs, kernel, contracted) + bias, rtol=1e-5, atol=1e-5)
    kernel_gradient = np.tensordot(inputs, gradient, ((0, 1), (0, 1)))
    np.testing.assert_allclose(params_gradient["kernel"], kernel_gradient, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(params_gradient["bias"], gradient.sum((0, 1)), rtol=1e-5, atol=1e-5)
    flat = gradient.reshape(6, -1) @ kernel.reshape(math.prod(kernel.shape[:contracted]), -1).T
    np.testing.assert_allclose(inputs_gradient, flat.reshape(shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("width", "features"), [(64, 256), (256, 64)])
def test_a_cpu_multiplies_bfloat16_forward_and_backward_without_converting_it(width, features):
    if jax.default_backend() != "cpu":
        pytest.skip("is about XLA's CPU back end")
    module = Dense((features,), ("embed", None), 0.02, jnp.bfloat16)
    rows = jnp.ones((512, width), jnp.bfloat16)
    params = module.init(jax.random.key(0), rows)

    def step(params, rows, gradient):
        outputs, backward = jax.vjp(module.apply, params, rows)
        return outputs, backward(gradient)

    text = str(jax.jit(step).lower(params, rows, jnp.ones((512, features), jnp.bfloat16)).compile().as_text())
    # "%x = f32[512,256]{1,0} dot(%a, %b), …" in a computation whose parameters' types name the factors'.
    types = dict(re.findall(r"%([\w.]+) = (\w+)\[", text))
    factors = [[types[name] for name in pair] for pair in re.findall(r" dot\(%([\w.]+), %([\w.]+)\)", text)]
    products = [pair for pair in factors if pair == ["bf16", "bf16"]]
    assert len(products) == 3, f"forward, to the rows, to the kernel; got factors of {factors}"


def test_dense_in_bfloat16_sums_its_parameters_gradients_in_float32():
    # 4,096 rows of gradient 1: in bfloat16 a running sum would stop at 256.
    module = Dense((1,), ("embed", None), 0.02, jnp.bfloat16)
    params = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}

    def total(params):
        outputs: Any = module.apply({"params": params}, jnp.ones((4096, 1), jnp.bfloat16))
        assert outputs.dtype == jnp.bfloat16
        return outputs.astype(jnp.float32).sum()

    gradient = jax.grad(total)(params)
    assert gradient["kernel"].dtype == gradient["bias"].dtype == jnp.float32
    assert float(gradient["kernel"][0, 0]) == float(gradient["bias"][0]) == 4096


def test_sinusoids_have_the_asked_deviation_and_one_distance_a_shift():
    waves = layers.sinusoids(0.05)(jax.random.key(0), (64, 32))
    np.testing.assert_allclose(np.std(np.asarray(waves)[:, :8]), 0.05, rtol=0.1)  # the fast waves go round often
    products = np.asarray(waves) @ np.asarray(waves).T
    np.testing.assert_allclose(np.diag(products, 3), products[0, 3], rtol=1e-4)  # a function of the shift alone
