from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models.tagger import Tagger, TaggerConfig

MASK = jnp.asarray([[1, 1, 1], [1, 1, 0]])


def vectors(kept):
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, kept, 3, 5)), jnp.float32)


def test_one_layer_needs_no_mixture_and_several_learn_one():
    model = Tagger(TaggerConfig(cells=4, layers=1), 3)
    single: Any = model.init(jax.random.key(0), vectors(1), MASK)["params"]
    several: Any = model.init(jax.random.key(0), vectors(2), MASK)["params"]
    assert "mixture" not in single
    assert several["mixture"]["weights"].shape == (2,)
    assert several["classifier"]["kernel"].shape == (8, 3)


def test_a_mixture_of_equal_layers_is_the_layer():
    model = Tagger(TaggerConfig(cells=4, layers=1), 3)
    one, two = vectors(1), jnp.concatenate([vectors(1)] * 2, axis=1)
    params = model.init(jax.random.key(0), two, MASK)["params"]
    alone = {name: values for name, values in params.items() if name != "mixture"}
    mixed: Any = model.apply({"params": params}, two, MASK)
    single: Any = model.apply({"params": alone}, one, MASK)
    np.testing.assert_allclose(mixed, single, rtol=1e-5)


def test_dropout_is_a_function_of_its_seed_and_off_without():
    model = Tagger(TaggerConfig(cells=4, layers=1, dropout=0.5), 3)
    params = model.init(jax.random.key(0), vectors(1), MASK)["params"]
    logits = [
        np.asarray(model.apply({"params": params}, vectors(1), MASK, seed))
        for seed in (None, jnp.uint32(1), jnp.uint32(1), jnp.uint32(2))
    ]
    np.testing.assert_array_equal(logits[1], logits[2])
    assert np.abs(logits[1] - logits[3]).max() > 0
    assert np.abs(logits[0] - logits[1]).max() > 0


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"config\.model\.cells is 0"):
        TaggerConfig(cells=0)
