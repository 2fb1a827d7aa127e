import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from bert_jax.models import recurrent
from bert_jax.models.recurrent import LstmStacks, LstmState, RecurrentConfig, lstm_layer, zero_state

WORDS, BATCH, SIZE, CELLS = 7, 3, 5, 6
CLIPS = (0.7, 0.9)  # small enough to clip many


def tiny_config(**overrides: Any):
    sizes = {"dim": CELLS, "projection_dim": SIZE, "cell_clip": CLIPS[0], "proj_clip": CLIPS[1]}
    return RecurrentConfig(**{**sizes, **overrides})


def normals(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape))


def layer_arguments():
    """Inputs, weights, cell and hidden state of one layer."""
    weights = recurrent._Weights(
        normals(2, SIZE, 4 * CELLS), normals(2, SIZE, 4 * CELLS, seed=1), normals(2, 4 * CELLS), normals(2, CELLS, SIZE)
    )
    return normals(2, WORDS, BATCH, SIZE), weights, normals(2, BATCH, CELLS) / 3, normals(2, BATCH, SIZE) / 3


def plain_layer(clips, inputs, mask, weights, cell, hidden):
    """The same as `lstm_layer`, word by word, for autodiff."""

    def clip(values, limit):
        return jnp.clip(values, -limit, limit) if limit else values

    outputs = []
    for time in range(inputs.shape[1]):
        sums = inputs[:, time] @ weights.input_kernel + hidden @ weights.hidden_kernel + weights.bias[:, None]
        i, j, f, o = jnp.split(sums, 4, axis=-1)
        new = clip(jax.nn.sigmoid(f + 1) * cell + jax.nn.sigmoid(i) * jnp.tanh(j), clips[0])
        projected = clip((jax.nn.sigmoid(o) * jnp.tanh(new)) @ weights.projection, clips[1])
        if mask is not None:
            new, projected = jnp.where(mask[time], new, cell), jnp.where(mask[time], projected, hidden)
        cell, hidden = new, projected
        outputs.append(hidden)
    return jnp.stack(outputs, axis=1), cell, hidden


@pytest.mark.parametrize("apart", [False, True], ids=["directions batched", "apart"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("clips", [CLIPS, (0.0, 0.0)], ids=["clips", "no clips"])
def test_the_layer_and_its_gradients_are_those_of_a_plain_scan(monkeypatch, clips, masked, apart):
    monkeypatch.setattr(recurrent, "on_cpu", lambda: apart)
    with jax.enable_x64(True):
        arguments = layer_arguments()
        assert arguments[0].dtype == jnp.float64
        mask = jnp.asarray(np.random.default_rng(0).random((WORDS, BATCH, 1)) < 0.6) if masked else None
        gradients = normals(2, WORDS, BATCH, SIZE, seed=2), normals(2, BATCH, CELLS), normals(2, BATCH, SIZE)

        def run(layer):
            def call(inputs, weights, cell, hidden):
                return layer(clips, inputs, mask, weights, cell, hidden)

            outputs, backward = jax.vjp(call, *arguments)
            return outputs, backward(gradients)

        found, expected = jax.jit(lambda: run(lstm_layer))(), jax.jit(lambda: run(plain_layer))()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)
        if clips[0]:
            assert (np.abs(expected[0][1]) == clips[0]).mean() > 0.1
            assert (np.abs(expected[0][0]) == clips[1]).mean() > 0.05


@pytest.mark.parametrize("apart", [False, True], ids=["directions batched", "apart"])
def test_the_backward_pass_forms_weight_gradients_once(monkeypatch, apart):
    monkeypatch.setattr(recurrent, "on_cpu", lambda: apart)
    # Inside its loop a backward pass has two products: with the projection and with the hidden kernel.
    arguments = layer_arguments()

    def loss(inputs, weights, cell, hidden):
        result: Any = lstm_layer(CLIPS, inputs, None, weights, cell, hidden)
        return result[0].sum()

    text = str(jax.make_jaxpr(jax.grad(loss, argnums=1))(*arguments))
    # Forward; in the loop; inputs', kernels', bias', projection's.
    assert text.count("dot_general") == (3 + 2 + 4) * (recurrent.DIRECTIONS if apart else 1)
    # Words are read and written in place, which accelerators do not do with these.
    assert "gather" not in text
    assert "scatter" not in text


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
