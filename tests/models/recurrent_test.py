import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from bert_jax.models.recurrent import LstmStacks, LstmState, RecurrentConfig, zero_state

WORDS, BATCH, SIZE, CELLS = 7, 3, 5, 6
CLIPS = (0.7, 0.9)  # small enough to clip many


def tiny_config(**overrides: Any):
    sizes = {"dim": CELLS, "projection_dim": SIZE, "cell_clip": CLIPS[0], "proj_clip": CLIPS[1]}
    return RecurrentConfig(**{**sizes, **overrides})


def normals(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape))


def random_params(config, seed=0):
    inputs = jnp.zeros((2, 1, 1, config.projection_dim))
    shapes = meta.unbox(jax.eval_shape(LstmStacks(config).init, jax.random.key(0), inputs, zero_state(config, 1)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), shapes)


@functools.cache
def compiled(config):
    return jax.jit(LstmStacks(config).apply)


def run(config, inputs, state=None, mask=None, seed=None, params=None):
    state = zero_state(config, inputs.shape[1]) if state is None else state
    params = random_params(config) if params is None else params
    return compiled(config)(params, jnp.asarray(inputs, jnp.float32), state, mask, seed)


def test_carried_state_makes_windows_one_long_text():
    config, inputs = tiny_config(), normals(2, BATCH, 8, SIZE)
    whole, last = run(config, inputs)
    first, state = run(config, inputs[:, :, :3])
    second, state = run(config, inputs[:, :, 3:], state)
    np.testing.assert_allclose(jnp.concatenate([first, second], axis=3), whole, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, last)


def test_the_state_has_the_batch_in_front():
    config, inputs = tiny_config(n_layers=3), normals(2, BATCH, 4, SIZE)
    _, state = run(config, inputs)
    assert state.cell.shape == (BATCH, 3, 2, CELLS)
    assert state.hidden.shape == (BATCH, 3, 2, SIZE)
    _, alone = run(config, inputs[:, 1:2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1:2], b, atol=1e-6), state, alone)


def test_padding_changes_no_output_and_no_state():
    config, inputs = tiny_config(), normals(2, BATCH, WORDS, SIZE)
    lengths = np.array([7, 4, 0])
    mask = jnp.asarray(np.arange(WORDS) < lengths[:, None])
    before = LstmState(normals(BATCH, 2, 2, CELLS).astype("float32"), normals(BATCH, 2, 2, SIZE).astype("float32") / 3)
    outputs, state = run(config, inputs, before, mask)
    changed, same = run(config, jnp.where(mask[None, :, :, None], inputs, 9.0), before, mask)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(outputs[:, :, row, :length], changed[:, :, row, :length])
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), state, same)
    alone, after = run(config, inputs[:, 1:2, :4], jax.tree.map(lambda leaf: leaf[1:2], before))
    np.testing.assert_allclose(outputs[:, :, 1:2, :4], alone, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1:2], b, atol=1e-6), state, after)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[2], b[2]), state, before)


def test_the_directions_are_independent():
    config, inputs = tiny_config(), normals(2, BATCH, 4, SIZE)
    outputs, _ = run(config, inputs)
    changed, _ = run(config, inputs.at[1].add(1.0))
    np.testing.assert_array_equal(outputs[:, 0], changed[:, 0])
    assert np.abs(np.asarray(outputs[:, 1] - changed[:, 1])).max() > 0.01


def test_skip_connections_add_a_layers_input_to_its_output_alone():
    inputs = normals(2, BATCH, 4, SIZE)
    outputs, state = run(tiny_config(), inputs)
    plain, plain_state = run(tiny_config(use_skip_connections=False), inputs)
    np.testing.assert_array_equal(outputs[0], plain[0])
    np.testing.assert_allclose(outputs[1], plain[1] + plain[0], atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, state, plain_state)


def test_dropout_drops_every_layers_input_and_the_last_output():
    # With zero parameters a layer gives 0, and with a skip connection its dropped input.
    config = tiny_config(n_layers=3, dropout=0.5)
    params = jax.tree.map(jnp.zeros_like, random_params(config))
    inputs, seed = jnp.ones((2, 8, 8, SIZE)), jnp.uint32(1)
    assert not np.asarray(run(config, inputs, None, None, seed, params)[0]).any()
    inputs = normals(2, 8, 8, SIZE)
    first, again, other = (run(config, inputs, seed=jnp.uint32(number))[0] for number in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    for layer in range(3):
        assert np.abs(np.asarray(first[layer] - other[layer])).max() > 0.01
    # The last output alone has zeros of its own.
    assert (np.asarray(first[2]) == 0).mean() == pytest.approx(0.5, abs=0.1)
    assert (np.asarray(first[:2]) == 0).mean() < 0.01


def test_bfloat16_keeps_cells_and_parameters_in_float32():
    config, inputs = tiny_config(dtype="bfloat16"), normals(2, BATCH, WORDS, SIZE).astype("float32")
    params = random_params(config)
    exact, _ = run(tiny_config(), inputs)
    outputs, state = run(config, inputs)
    assert outputs.dtype == jnp.bfloat16
    assert state.cell.dtype == state.hidden.dtype == jnp.float32
    np.testing.assert_allclose(outputs.astype("float32"), exact, atol=0.1)

    def loss(params, config):
        return jnp.square(run(config, inputs, params=params)[0].astype("float32")).sum()

    gradients, expected = (jax.jit(jax.grad(loss), static_argnums=1)(params, c) for c in (config, tiny_config()))
    for found, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert found.dtype == jnp.float32
        assert np.corrcoef(np.ravel(found), np.ravel(wanted))[0, 1] > 0.99


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dim": 0}, "dim is 0; it takes 1 or more"),
        ({"cell_clip": -1.0}, r"cell_clip is -1.0; it takes 0 \(no clipping\)"),
        ({"dropout": 1.0}, "it takes 0 ≤ rate < 1"),
        ({"dtype": "float16"}, "accepted: "),
    ],
)
def test_impossible_configs_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**overrides)
