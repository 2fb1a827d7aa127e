from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.corpus.characters import CharacterIds
from bert_jax.models.character_cnn import CharacterCnn, CharacterCnnConfig
from tests.models.tiny import random_params

CONFIG = CharacterCnnConfig(character_dim=4, filters=((1, 3), (3, 5)), n_highway=1)
WORDS = ["the", "café", "a" * 60, ""]  # "" is all zeros


def encode(char_ids, config=CONFIG, features=6, params=None, **options):
    model = CharacterCnn(config, features, **options)
    params = random_params(model, {"char_ids": char_ids}) if params is None else params
    result: Any = jax.jit(model.apply)({"params": params}, jnp.asarray(char_ids))
    return result


def test_leading_axes_are_the_words():
    char_ids = CharacterIds().encode_words(WORDS)
    vectors = encode(char_ids)
    assert vectors.shape == (4, 6)
    np.testing.assert_allclose(encode(char_ids.reshape(2, 2, 50)), vectors.reshape(2, 2, 6), atol=1e-6)


def test_padding_that_all_words_share_may_be_cut():
    char_ids = CharacterIds().encode_words(["the", "of"])
    widest = 3
    np.testing.assert_allclose(encode(char_ids[:, : 5 + widest]), encode(char_ids), atol=1e-6)
    assert np.abs(np.asarray(encode(char_ids[:, :5]) - encode(char_ids))).max() > 1e-3


def test_the_masks_row_is_zero_and_learns_nothing():
    char_ids = CharacterIds().encode_words(WORDS)
    model = CharacterCnn(CONFIG, 6)
    params = random_params(model, {"char_ids": char_ids})
    table = params["embedding"]
    changed = {**params, "embedding": table.at[0].set(9.0)}
    np.testing.assert_array_equal(encode(char_ids, params=params), encode(char_ids, params=changed))
    gradient = jax.jit(jax.grad(lambda params: encode(char_ids, params=params).sum()))(params)["embedding"]
    assert not np.asarray(gradient[0]).any()
    assert np.asarray(gradient[1 + ord("t")]).any()


def test_no_projection_where_the_filters_are_as_many_as_the_features():
    shapes: Any = jax.eval_shape(CharacterCnn(CONFIG, 8).init, jax.random.key(0), jnp.zeros((1, 50), jnp.int32))
    assert "projection" not in shapes["params"]


def test_bfloat16_is_near_float32():
    char_ids = CharacterIds().encode_words(WORDS)
    vectors = encode(char_ids, dtype="bfloat16")
    assert vectors.dtype == jnp.bfloat16
    np.testing.assert_allclose(vectors.astype("float32"), encode(char_ids), atol=0.1)


def test_initial_values_are_bilm_tfs():
    config = CharacterCnnConfig(filters=((1, 64), (2, 192)), n_highway=1)
    params: Any = jax.jit(CharacterCnn(config, 128).init)(jax.random.key(0), jnp.zeros((1, 50), jnp.int32))["params"]
    leaves = jax.tree.map(np.asarray, jax.tree.map(lambda leaf: getattr(leaf, "value", leaf), params, is_leaf=_is_box))
    assert np.abs(leaves["embedding"]).max() == pytest.approx(1.0, abs=0.01)
    assert np.abs(leaves["filter_1_kernel"]).max() == pytest.approx(0.05, abs=0.001)
    assert not leaves["filter_1_bias"].any()
    assert (leaves["highway_0"]["carry"]["bias"] == -2.0).all()
    assert not leaves["highway_0"]["transform"]["bias"].any()
    for part in (leaves["highway_0"]["carry"], leaves["highway_0"]["transform"], leaves["projection"]):
        assert part["kernel"].std() == pytest.approx(1 / 16, rel=0.02)  # 256 filters


def _is_box(leaf):
    return hasattr(leaf, "names")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"filters": ()}, r"filters is \(\); it takes pairs"),
        ({"filters": ((51, 4),)}, "widths of 1 to 50"),
        ({"activation": "gelu"}, "activation is 'gelu'; accepted: "),
        ({"n_highway": -1}, "n_highway is -1"),
        ({"character_dim": 0}, "character_dim is 0"),
    ],
)
def test_impossible_configs_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        CharacterCnnConfig(**overrides)
