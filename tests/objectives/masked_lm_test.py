import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.objectives.masked_lm import MaskedLmObjective
from tests.models.tiny import pack, random_params, tiny_batch, tiny_config
from tests.tpu.plain_operations import use_plain_operations

OBJECTIVE = MaskedLmObjective(tiny_config())
LENGTHS = (12, 7, 9, 5, 12, 3, 8, 11)  # 1, 2, 3, 4, 1, 2, 3, 4 masked tokens


@pytest.fixture(scope="module")
def params():
    return random_params(OBJECTIVE.model, tiny_batch())


@jax.jit
def loss_and_gradient(params, microbatch, normalizers, seed=None):
    def loss(params):
        share, metrics, carry = OBJECTIVE.loss(params, {}, microbatch, normalizers, seed)
        assert carry == {}
        return share, metrics

    return jax.value_and_grad(loss, has_aux=True)(params)


def whole(params, batch, seed=None):
    (loss, metrics), gradient = loss_and_gradient(params, batch, OBJECTIVE.normalizers(batch), seed)
    return loss, metrics, gradient


def assert_trees_close(found, expected, **tolerances):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerances), found, expected)


@pytest.fixture(scope="module")
def unpacked(params):
    return whole(params, tiny_batch(LENGTHS))


def test_loss_and_gradients_are_those_of_plain_operations(monkeypatch, params, unpacked):
    use_plain_operations(monkeypatch)
    batch = tiny_batch(LENGTHS)

    def loss(params):  # not `loss_and_gradient`, which is compiled already
        return OBJECTIVE.loss(params, {}, batch, OBJECTIVE.normalizers(batch), None)[:2]

    (plain, _), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(unpacked[0], plain, rtol=1e-6)
    assert_trees_close(unpacked[2], gradient, rtol=1e-3, atol=2e-6)


def test_loss_matches_numpy_on_the_models_logits(params, unpacked):
    batch = tiny_batch(LENGTHS)
    logits = jax.jit(OBJECTIVE.model.apply)(
        {"params": params},
        *(batch[name] for name in ("input_ids", "input_mask", "segment_ids", "position_ids", "sequence_ids")),
        batch["sequence_starts"],
        batch["masked_lm_positions"],
    )

    def sums(logits, labels, weights):
        logits = np.asarray(logits, np.float64).reshape(-1, logits.shape[-1])
        labels, weights = np.asarray(labels).ravel(), np.asarray(weights, np.float64).ravel()
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return -(weights * logs[range(len(labels)), labels]).sum(), (weights * (logits.argmax(-1) == labels)).sum()

    masked_lm = sums(logits.masked_lm_logits, batch["masked_lm_ids"], batch["masked_lm_weights"])
    next_sentence = sums(logits.next_sentence_logits, batch["next_sentence_labels"], batch["next_sentence_weights"])
    loss, metrics, _ = unpacked
    np.testing.assert_allclose(loss, masked_lm[0] / (20 + 1e-5) + next_sentence[0] / 8, rtol=1e-5)
    assert set(metrics) == {
        "masked_lm_loss", "masked_lm_accuracy", "next_sentence_loss", "next_sentence_accuracy"
    }  # fmt: skip
    for task, count, (total, hits) in (("masked_lm", 20, masked_lm), ("next_sentence", 8, next_sentence)):
        np.testing.assert_allclose(metrics[f"{task}_loss"], (total, count), rtol=1e-5)
        np.testing.assert_allclose(metrics[f"{task}_accuracy"], (hits, count), rtol=1e-6)


def test_the_second_tasks_loss_is_weighted(params, unpacked):
    batch = tiny_batch(LENGTHS)
    objective = dataclasses.replace(OBJECTIVE, next_sentence_weight=0.25)
    loss, metrics, _ = objective.loss(params, {}, batch, objective.normalizers(batch), None)
    second = float(np.divide(*metrics["next_sentence_loss"]))
    np.testing.assert_allclose(loss, unpacked[0] - 0.75 * second, rtol=1e-6)
    np.testing.assert_allclose(second, np.divide(*unpacked[1]["next_sentence_loss"]), rtol=1e-6)


def test_shares_of_microbatches_add_up_with_uneven_mask_counts(params, unpacked):
    batch = tiny_batch(LENGTHS)
    normalizers = OBJECTIVE.normalizers(batch)
    shares = [
        loss_and_gradient(params, jax.tree.map(lambda values, k=k: values[2 * k : 2 * k + 2], batch), normalizers)
        for k in range(4)
    ]
    counts = [metrics["masked_lm_loss"][1] for (_, metrics), _ in shares]
    assert len({float(count) for count in counts}) > 1
    (loss, metrics), gradient = jax.tree.map(lambda *parts: sum(parts), *shares)
    assert_trees_close((loss, metrics), unpacked[:2], rtol=1e-6)
    assert_trees_close(gradient, unpacked[2], rtol=1e-5, atol=1e-6)


def test_packed_rows_give_the_loss_and_gradient_of_the_same_sequences_unpacked(params, unpacked):
    packed = pack(tiny_batch(LENGTHS), rows=3)
    assert packed["sequence_starts"].shape == (3, 3)  # the last row's last sequence is absent
    loss, metrics, gradient = whole(params, packed)
    assert_trees_close((loss, metrics), unpacked[:2], rtol=1e-6)
    assert_trees_close(gradient, unpacked[2], rtol=1e-5, atol=1e-5)


def test_rows_without_weight_count_nothing(params, unpacked):
    batch = tiny_batch(LENGTHS)
    silent = tiny_batch((12, 12), seed=1)
    for name in ("masked_lm_weights", "next_sentence_weights"):
        silent[name] = jnp.zeros_like(silent[name])
    both = jax.tree.map(lambda *rows: jnp.concatenate(rows), batch, silent)
    loss, metrics, gradient = whole(params, both)
    assert_trees_close((loss, metrics), unpacked[:2], rtol=1e-6)
    assert_trees_close(gradient, unpacked[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_padding_give_no_nan(params, packed):
    batch = tiny_batch((0, 0, 0))
    loss, metrics, gradient = whole(params, pack(batch, rows=1) if packed else batch, jnp.uint32(0))
    assert loss == 0
    assert all(float(value) == 0 for value in jax.tree.leaves(metrics))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_dropout_needs_a_seed(params, unpacked):
    batch = tiny_batch(LENGTHS)
    first, again, other = (float(whole(params, batch, jnp.uint32(seed))[0]) for seed in (1, 1, 2))
    assert first == again
    assert len({first, other, float(unpacked[0])}) == 3


def test_initial_loss_is_that_of_guessing():
    objective = MaskedLmObjective(tiny_config(initializer_range=0.02))
    params = jax.jit(objective.init, static_argnums=0)(0)
    loss, *_ = whole(params, tiny_batch(LENGTHS))
    np.testing.assert_allclose(loss, np.log(61) + np.log(2), rtol=0.05)


def test_init_is_abstract_params_without_their_boxes():
    params = jax.eval_shape(OBJECTIVE.init, 0)
    boxed = OBJECTIVE.abstract_params()
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(
        lambda box: box.value.shape, boxed, is_leaf=lambda leaf: hasattr(leaf, "names")
    )
    assert boxed["embeddings"]["word_embeddings"].names == ("vocab", "embed")
