import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.corpus.characters import CharacterIds
from bert_jax.input.streams import RowGroups
from bert_jax.models.character_cnn import CharacterCnn, CharacterCnnConfig
from bert_jax.models.elmo import Elmo
from bert_jax.models.recurrent import zero_state
from bert_jax.objectives import bidirectional_lm
from bert_jax.objectives.bidirectional_lm import BidirectionalLmConfig, BidirectionalLmObjective
from bert_jax.training.step import join_rows, split_rows
from tests.word_streams import make_stream_corpus, tiny_elmo, tiny_stream

VOCAB, ROWS = 40, 6
OBJECTIVE = BidirectionalLmObjective(tiny_elmo(), BidirectionalLmConfig(VOCAB, num_negatives=0))
SEED = jnp.uint32(7)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_stream_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def batches(corpus):
    return jax.tree.map(jnp.asarray, tiny_stream(corpus, ROWS, 2))


@pytest.fixture(scope="module")
def params():
    fresh = jax.jit(OBJECTIVE.init)(0)
    leaves, tree = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))  # no bias is 0
    noise = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.map(jnp.add, fresh, tree.unflatten(noise))


@jax.jit
def evaluated(params, carry, batch):
    return OBJECTIVE.loss(params, carry, batch, OBJECTIVE.normalizers(batch), None)


def change(objective, **fields):
    return dataclasses.replace(objective, config=dataclasses.replace(objective.config, **fields))


def test_two_batches_are_one_text_read_plainly(batches, params):
    """No table, no carry, no columns: every place's characters, both batches side by side, a plain softmax."""
    carry = OBJECTIVE.init_carry(ROWS)
    losses = []
    for batch in batches:
        share, metrics, carry = evaluated(params, carry, batch)
        losses.append([float(metrics[name][0]) for name in ("forward_loss", "backward_loss")])
        np.testing.assert_allclose(share, sum(losses[-1]) / (2 * ROWS * 5), rtol=1e-5)
        assert {float(count) for _, count in metrics.values()} == {ROWS * 5}

    def both(name):
        return np.concatenate([batch[name] for batch in batches], axis=1)

    spelled = [
        np.concatenate([batch["char_ids"][0][batch[name]] for batch in batches], axis=1)
        for name in ("word_index", "word_index_reverse")
    ]
    elmo, weights = Elmo(OBJECTIVE.model_config), {"params": params["elmo"]}
    encode: Any = jax.jit(lambda ids: elmo.apply(weights, ids, method="encode"))
    tokens = jnp.stack([encode(ids) for ids in spelled])
    state = zero_state(OBJECTIVE.model_config, ROWS)
    result: Any = jax.jit(lambda tokens: elmo.apply(weights, tokens, state, method="read"))(tokens)
    outputs, state = result
    for direction, name in enumerate(("target_ids", "target_ids_reverse")):
        logits = outputs[-1, direction] @ params["softmax"]["embedding"].T + params["softmax"]["bias"]
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), both(name)[..., None], axis=-1)[..., 0]
        expected = [nll[:, :5].sum(), nll[:, 5:].sum()]
        np.testing.assert_allclose([loss[direction] for loss in losses], expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), carry, state)


def test_training_over_the_whole_vocabulary_has_the_loss_of_evaluation(batches, params):
    carry = OBJECTIVE.init_carry(ROWS)
    normalizers = OBJECTIVE.normalizers(batches[0])
    trained = jax.jit(OBJECTIVE.loss)(params, carry, batches[0], normalizers, SEED)
    found = evaluated(params, carry, batches[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), trained, found)


def gradients(objective, params, batch):
    normalizers = objective.normalizers(batch)
    share = lambda params: objective.loss(params, objective.init_carry(ROWS), batch, normalizers, SEED)[0]  # noqa: E731
    return jax.jit(jax.value_and_grad(share))(params)


@pytest.mark.parametrize("fraction", [0.02, 0.3])
def test_words_beyond_the_first_pass_change_nothing(batches, params, fraction):
    used = 1 + max(batches[0][name].max() for name in ("word_index", "word_index_reverse"))
    rows = batches[0]["char_ids"].shape[1]
    assert fraction * rows < used, "the first pass does not hold them all"
    whole = gradients(change(OBJECTIVE, distinct_fraction=1.0), params, batches[0])
    parts = gradients(change(OBJECTIVE, distinct_fraction=fraction), params, batches[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, parts)


def test_a_first_pass_that_holds_all_words_is_as_good_as_one_of_all_places(batches, params):
    whole = gradients(change(OBJECTIVE, distinct_fraction=1.0), params, batches[0])
    parts = gradients(change(OBJECTIVE, distinct_fraction=0.9), params, batches[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, parts)


@pytest.mark.parametrize("groups", [RowGroups(1, 3), RowGroups(3, 2)])
def test_shares_of_microbatches_add_up(corpus, batches, params, groups):
    [batch] = jax.tree.map(jnp.asarray, tiny_stream(corpus, ROWS, 1, groups))
    carry = OBJECTIVE.init_carry(ROWS)
    carry = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.arange(ROWS)[:, None, None, None], carry)
    normalizers = OBJECTIVE.normalizers(batch)
    share, metrics, after = evaluated(params, carry, batches[0])
    parts, states = split_rows((batch, carry), groups.microbatches)
    loss = jax.jit(OBJECTIVE.loss)
    found = [
        loss(params, part[1], part[0], normalizers, None)
        for part in (jax.tree.map(lambda x, i=i: x[i], (parts, states)) for i in range(groups.microbatches))
    ]
    np.testing.assert_allclose(sum(each[0] for each in found), share, rtol=1e-5)
    for name, pair in metrics.items():
        np.testing.assert_allclose(sum(np.array(each[1][name]) for each in found), np.array(pair), rtol=1e-5)
    joined = join_rows(jax.tree.map(lambda *leaves: jnp.stack(leaves), *(each[2] for each in found)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), joined, after)


def test_rows_without_words_weigh_nothing(batches, params):
    carry = OBJECTIVE.init_carry(ROWS)
    emptied = dict(batches[0])
    for name in ("word_index", "word_index_reverse", "target_ids", "target_ids_reverse", "target_weights"):
        emptied[name] = emptied[name].at[-1].set(0)
    _, metrics, _ = evaluated(params, carry, batches[0])
    _, fewer, _ = evaluated(params, carry, emptied)
    assert float(fewer["forward_loss"][1]) == float(metrics["forward_loss"][1]) - 5
    nothing = emptied | {"target_weights": jnp.zeros((ROWS, 5), jnp.float32)}
    assert float(evaluated(params, carry, nothing)[0]) == 0.0


def test_negatives_are_drawn_anew_for_each_step_and_direction_and_not_in_evaluation(batches, params):
    sampled = change(OBJECTIVE, num_negatives=10)
    carry, normalizers = sampled.init_carry(ROWS), sampled.normalizers(batches[0])
    loss = jax.jit(lambda seed: sampled.loss(params, carry, batches[0], normalizers, seed)[0])
    assert float(loss(SEED)) == float(loss(SEED))
    assert float(loss(SEED)) != float(loss(SEED + 1))
    mirrored = batches[0] | {"word_index_reverse": batches[0]["word_index"]}
    mirrored |= {"target_ids_reverse": batches[0]["target_ids"]}
    same = jax.tree.map(lambda leaf: jnp.stack([leaf[:, 0]] * 2, axis=1), params["elmo"]["lstms"])
    twins = params | {"elmo": params["elmo"] | {"lstms": same}}
    _, metrics, _ = jax.jit(sampled.loss)(twins, carry, mirrored, normalizers, SEED)
    assert float(metrics["forward_loss"][0]) != float(metrics["backward_loss"][0])
    found = jax.jit(sampled.loss)(params, carry, batches[0], normalizers, None)[0]
    np.testing.assert_allclose(found, evaluated(params, carry, batches[0])[0], rtol=1e-5)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="num_negatives is 40 for a vocabulary of 40 words"):
        BidirectionalLmConfig(40, 40)
    with pytest.raises(ValueError, match="distinct_fraction is 0"):
        BidirectionalLmConfig(40, 0, 0.0)
    with pytest.raises(ValueError, match="vocab_size is 2"):
        BidirectionalLmConfig(2, 0)


@pytest.mark.parametrize("longest", [15, 40], ids=["short but for a few", "many too long"])
def test_words_without_the_places_behind_their_end_are_the_same(longest):
    config = CharacterCnnConfig(character_dim=3, filters=((1, 4), (5, 6)), n_highway=0)
    cnn = CharacterCnn(config, features=4)
    rng = np.random.default_rng(0)
    words = ["x" * int(rng.integers(1, longest)) + str(rng.integers(10**3)) for _ in range(28)]
    char_ids = jnp.asarray(CharacterIds().encode_words(["", "<S>", *words, "y" * 60, "z" * 47]))[None]
    params = cnn.init(jax.random.key(1), char_ids)
    seen = []

    def encode(params: Any, char_ids: Any) -> Any:
        seen.append(char_ids.shape[1:])
        return cnn.apply(params, char_ids)

    def loss(params, encode):
        vectors = encode(params, char_ids)
        return (vectors * jnp.linspace(0, 1, vectors.size).reshape(vectors.shape)).sum(), vectors

    shorter = functools.partial(bidirectional_lm._encode_by_length, encode, 5)
    found = jax.value_and_grad(loss, has_aux=True)(params, shorter)
    assert (29, 24) in seen  # most words, and of these the first places
    expected = jax.value_and_grad(loss, has_aux=True)(params, cnn.apply)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
