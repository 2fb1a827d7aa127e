from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models import lstm
from bert_jax.models.lstm import LstmWeights, lstm_layer

WORDS, BATCH, SIZE, CELLS, FEATURES = 7, 3, 5, 6, 4
CLIPS = (0.7, 0.9)  # small enough to clip many


def normals(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape))


def layer_arguments(projected=True):
    """Inputs, weights, cell and hidden state of one layer."""
    size = SIZE if projected else CELLS
    weights = LstmWeights(
        normals(2, FEATURES, 4 * CELLS),
        normals(2, size, 4 * CELLS, seed=1),
        normals(2, 4 * CELLS),
        normals(2, CELLS, SIZE) if projected else None,
    )
    return normals(2, WORDS, BATCH, FEATURES), weights, normals(2, BATCH, CELLS) / 3, normals(2, BATCH, size) / 3


def plain_layer(clips, inputs, mask, weights, cell, hidden):
    """The same as `lstm_layer`, word by word, for autodiff."""

    def clip(values, limit):
        return jnp.clip(values, -limit, limit) if limit else values

    outputs = []
    for time in range(inputs.shape[1]):
        sums = inputs[:, time] @ weights.input_kernel + hidden @ weights.hidden_kernel + weights.bias[:, None]
        i, j, f, o = jnp.split(sums, 4, axis=-1)
        new = clip(jax.nn.sigmoid(f + 1) * cell + jax.nn.sigmoid(i) * jnp.tanh(j), clips[0])
        shown = jax.nn.sigmoid(o) * jnp.tanh(new)
        projected = clip(shown if weights.projection is None else shown @ weights.projection, clips[1])
        if mask is not None:
            new, projected = jnp.where(mask[time], new, cell), jnp.where(mask[time], projected, hidden)
        cell, hidden = new, projected
        outputs.append(hidden)
    return jnp.stack(outputs, axis=1), cell, hidden


@pytest.mark.parametrize("apart", [False, True], ids=["directions batched", "apart"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("clips", [CLIPS, (0.0, 0.0)], ids=["clips", "no clips"])
@pytest.mark.parametrize("projected", [True, False], ids=["projected", "not"])
def test_the_layer_and_its_gradients_are_those_of_a_plain_scan(monkeypatch, projected, clips, masked, apart):
    monkeypatch.setattr(lstm, "on_cpu", lambda: apart)
    clips = clips if projected else (clips[0], clips[1] / 3)  # what cells show is below tanh(0.7)
    with jax.enable_x64(True):
        arguments = layer_arguments(projected)
        assert arguments[0].dtype == jnp.float64
        mask = jnp.asarray(np.random.default_rng(0).random((WORDS, BATCH, 1)) < 0.6) if masked else None
        size = arguments[-1].shape[-1]
        gradients = tuple(normals(2, *shape, seed=2) for shape in ((WORDS, BATCH, size), (BATCH, CELLS), (BATCH, size)))

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
@pytest.mark.parametrize("projected", [True, False], ids=["projected", "not"])
def test_the_backward_pass_forms_weight_gradients_once(monkeypatch, projected, apart):
    monkeypatch.setattr(lstm, "on_cpu", lambda: apart)
    # Inside its loop a backward pass has two products: with the projection, if there is one, and the hidden kernel.
    arguments = layer_arguments(projected)

    def loss(inputs, weights, cell, hidden):
        result: Any = lstm_layer(CLIPS, inputs, None, weights, cell, hidden)
        return result[0].sum()

    text = str(jax.make_jaxpr(jax.grad(loss, argnums=1))(*arguments))
    # Forward; in the loop; inputs', kernels', bias', projection's.
    products = 3 + 2 + 4 if projected else 2 + 1 + 3
    assert text.count("dot_general") == products * (lstm.DIRECTIONS if apart else 1)
    # Words are read and written in place, which accelerators do not do with these.
    assert "gather" not in text
    assert "scatter" not in text


def test_several_models_trained_as_one_have_the_gradients_of_each():
    """Trials of a sweep are mapped over (`jax.vmap`), where the words' slices turn into others."""
    inputs, weights, cell, hidden = layer_arguments(projected=False)
    mask = jnp.arange(WORDS)[:, None, None] < jnp.array([WORDS, 4, 0])[:, None]
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), weights)

    def loss(weights):
        result: Any = lstm_layer(CLIPS, inputs, mask, weights, cell, hidden)
        return jnp.square(result[0]).sum()

    found, expected = (
        jax.jit(jax.vmap(jax.grad(loss)))(several),
        [jax.grad(loss)(each) for each in (weights, several_at(several, 1))],
    )
    for trial, wanted in enumerate(expected):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), several_at(found, trial), wanted)


def several_at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)
