import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.corpus.characters import CharacterIds
from bert_jax.models.elmo import Elmo, ElmoConfig, ScalarMix, named_size, reverse_rows
from bert_jax.models.recurrent import zero_state
from tests.models.tiny import random_params

CONFIG = ElmoConfig(dim=6, projection_dim=5, filters=((1, 3), (2, 4)), character_dim=4, n_highway=1)
# The released models' sizes: 93.6, 28.0 and 13.6 million; here with the mask's row of 16.
PARAMETERS = {"original": 93_600_864, "medium": 28_027_744, "small": 13_593_312}
SENTENCES = [["the", "cat", "sat", "down"], ["it", "sat"]]


@pytest.mark.parametrize("name", PARAMETERS)
def test_named_sizes(name):
    model = Elmo(ElmoConfig(**named_size(name)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1, 50), jnp.int32))["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == PARAMETERS[name]


def test_every_parameter_of_the_stacks_has_a_logical_name_for_each_axis():
    shapes: Any = jax.eval_shape(Elmo(CONFIG).init, jax.random.key(0), jnp.zeros((1, 1, 50), jnp.int32))["params"]
    for leaf in jax.tree.leaves(shapes, is_leaf=lambda leaf: hasattr(leaf, "names")):
        if hasattr(leaf, "names"):
            assert len(leaf.names) == len(leaf.value.shape)
            assert set(leaf.names) <= {"embed", "mlp", "layers", None}
    assert shapes["lstms"]["input_kernel"].names == ("layers", None, "embed", None, "mlp")


compiled = jax.jit(Elmo(CONFIG).apply)


def represent(sentences, num_words=None, state=None):
    char_ids = CharacterIds().encode_sentences(sentences, num_words)
    params = random_params(Elmo(CONFIG), {"char_ids": char_ids})
    state = zero_state(CONFIG, len(sentences)) if state is None else state
    return compiled({"params": params}, jnp.asarray(char_ids), state)


def test_a_sentence_means_the_same_in_every_batch():
    together, alone = represent(SENTENCES, num_words=9), represent(SENTENCES[1:])
    assert together.hidden.shape == (3, 2, 9, 10)
    np.testing.assert_allclose(together.hidden[:, 1:, :4], alone.hidden, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1:], b, atol=1e-6), together.state, alone.state)


def test_padding_is_zero():
    hidden = np.asarray(represent(SENTENCES, num_words=9).hidden)
    assert not hidden[:, 0, 6:].any()
    assert not hidden[:, 1, 4:].any()
    assert np.abs(hidden[:, 1, 3]).max() > 0


def test_each_direction_sees_its_side_alone():
    first, second = represent([["a", "b", "c"]]).hidden, represent([["a", "x", "c"]]).hidden
    changed = np.abs(np.asarray(first - second)).reshape(3, 5, 2, 5).max(axis=-1) > 0
    np.testing.assert_array_equal(changed[0], [[False] * 2, [False] * 2, [True] * 2, [False] * 2, [False] * 2])
    for layer in (1, 2):
        np.testing.assert_array_equal(changed[layer, :, 0], [False, False, True, True, True])
        np.testing.assert_array_equal(changed[layer, :, 1], [True, True, True, False, False])


def test_state_flows_from_sentence_to_sentence_only_when_given():
    first = represent([["a", "b"]])
    fresh, carried = represent([["c", "d"]]), represent([["c", "d"]], state=first.state)
    assert np.abs(np.asarray(fresh.hidden - carried.hidden))[1:].max() > 1e-3
    np.testing.assert_array_equal(fresh.hidden[0], carried.hidden[0])


def test_reverse_rows():
    rows = jnp.arange(8.0).reshape(2, 4, 1)
    reversed_rows = reverse_rows(rows, jnp.array([3, 0]))
    np.testing.assert_array_equal(reversed_rows[:, :, 0], [[2, 1, 0, 3], [4, 5, 6, 7]])


def test_a_scalar_mix_starts_as_the_mean():
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4, 5)), jnp.float32)
    first: Any = ScalarMix().init_with_output(jax.random.key(0), hidden)
    mixed, variables = first
    np.testing.assert_allclose(mixed, hidden.mean(axis=0), atol=1e-6)
    weights = {"params": {"weights": jnp.array([0.0, 50.0, 0.0]), "scale": jnp.float32(2.0)}}
    assert jax.tree.structure(variables) == jax.tree.structure(weights)
    chosen: Any = ScalarMix().apply(weights, hidden)
    np.testing.assert_allclose(chosen, 2 * hidden[1], atol=1e-5)


def test_a_scalar_mix_normalises_over_real_words():
    rng = np.random.default_rng(0)
    hidden, mask = rng.normal(3, 5, size=(2, 2, 4, 5)), np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
    real = hidden[:, mask]
    normalised = hidden - real.mean(axis=(1, 2)).reshape(2, 1, 1, 1)
    normalised /= real.std(axis=(1, 2)).reshape(2, 1, 1, 1)
    mix = ScalarMix(layer_norm=True)
    found: Any = mix.init_with_output(jax.random.key(0), jnp.asarray(hidden, jnp.float32), jnp.asarray(mask))[0]
    np.testing.assert_allclose(found[mask], normalised.mean(axis=0)[mask], atol=1e-5)


def test_impossible_configs_are_refused():
    with pytest.raises(ValueError, match="n_layers is 0"):
        ElmoConfig(**named_size("small"), n_layers=0)
    with pytest.raises(ValueError, match=r"filters is \(\)"):
        ElmoConfig(**named_size("small"), filters=())
    with pytest.raises(ValueError, match="did you mean 'small'"):
        named_size("smaller")
