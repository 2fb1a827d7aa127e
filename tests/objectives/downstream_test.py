import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.objectives.downstream import DownstreamObjective
from tests.models.tiny import VOCAB_SIZE, random_params, tiny_config

HEADS = ("sentences", "scores", "tokens", "span", "choices")
LENGTHS = np.array([12, 7, 9, 12])
ROWS, LENGTH, OUTPUTS, CHOICES = 4, 12, 3, 2


def make_batch(kind, length=LENGTH):
    """Return rows of LENGTHS, padded to `length`; the last row only fills the batch."""
    rng = np.random.default_rng(0)
    ids = rng.integers(5, VOCAB_SIZE, (ROWS, CHOICES, LENGTH))
    labels = rng.integers(-1, OUTPUTS, (ROWS, LENGTH))
    real = np.arange(length) < LENGTHS[:, None, None]
    mask = np.broadcast_to(real, (ROWS, CHOICES, length))
    ids = np.where(mask, np.pad(ids, ((0, 0), (0, 0), (0, length - LENGTH))), 0)
    segments = np.where(mask & (np.arange(length) > 3), 1, 0)
    arrays = {"input_ids": ids, "input_mask": mask, "segment_ids": segments}
    batch = {name: (a if kind == "choices" else a[:, 0]).astype(np.int32) for name, a in arrays.items()}
    batch["row_weights"] = np.array([1, 1, 1, 0], np.float32)
    if kind == "tokens":
        batch["label_ids"] = np.full((ROWS, length), -1, np.int32)
        batch["label_ids"][:, :LENGTH] = np.where(np.arange(LENGTH) < LENGTHS[:, None], labels, -1)
    elif kind == "span":
        batch |= {
            "start_positions": np.array([1, 2, 0, 0], np.int32),
            "end_positions": np.array([3, 6, 0, 0], np.int32),
        }
    elif kind == "scores":
        batch["label_ids"] = np.array([0.5, -2.0, 3.0, 9.0], np.float32)
    else:
        batch["label_ids"] = np.array([1, 0, 1, 1], np.int32)
    return jax.tree.map(jnp.asarray, batch)


@functools.cache
def make_objective(kind, dropout=0.0):
    config = tiny_config(num_hidden_layers=1, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    outputs = {"scores": 1, "choices": 1}.get(kind, OUTPUTS)
    return DownstreamObjective(config, "sentences" if kind == "scores" else kind, outputs)


@functools.cache
def make_params(kind):
    batch = make_batch(kind)
    if kind == "choices":  # the module sees sequences, not rows
        batch = {name: batch[name].reshape(-1, LENGTH) for name in ("input_ids", "input_mask", "segment_ids")}
    return random_params(make_objective(kind).model, batch)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(objective, params, batch, weights, seed=None):
    normalizers = {"weights": weights}
    loss, metrics, _ = objective.loss(params, {}, batch, normalizers, seed)
    return loss, metrics, objective.outputs_of(params, batch)


def evaluate_alone(objective, params, batch):
    return evaluate(objective, params, batch, objective.normalizers(batch)["weights"])


def numpy_cross_entropy(logits, label):
    """Return -log softmax(logits)[label] of one row."""
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label]


def numpy_loss(kind, batch, outputs):
    """Return the mean over real rows, or labelled tokens, one after the other."""
    losses = []
    for row in range(ROWS):
        if not batch["row_weights"][row]:
            continue
        if kind == "span":
            size = LENGTHS[row]
            losses.append(np.mean([
                numpy_cross_entropy(outputs[f"{end}_logits"][row][:size], batch[f"{end}_positions"][row])
                for end in ("start", "end")
            ]))  # fmt: skip
        elif kind == "tokens":
            labels = batch["label_ids"][row]
            losses += [numpy_cross_entropy(outputs["logits"][row, n], labels[n]) for n in np.flatnonzero(labels >= 0)]
        elif kind == "scores":
            losses.append((float(outputs["logits"][row, 0]) - float(batch["label_ids"][row])) ** 2)
        else:
            losses.append(numpy_cross_entropy(outputs["logits"][row], batch["label_ids"][row]))
    return np.mean(losses)


@pytest.mark.parametrize("kind", HEADS)
def test_the_loss_is_the_mean_over_rows_or_labelled_tokens(kind):
    batch = make_batch(kind)
    loss, metrics, outputs = evaluate_alone(make_objective(kind), make_params(kind), batch)
    np.testing.assert_allclose(loss, numpy_loss(kind, batch, jax.device_get(outputs)), rtol=1e-5)
    total, count = metrics["task_loss"]
    np.testing.assert_allclose(total / count, loss, rtol=1e-6)
    assert ("accuracy" in metrics) == (kind != "scores")


@pytest.mark.parametrize("kind", HEADS)
def test_microbatches_add_up_to_the_batch_and_padding_does_not_matter(kind):
    objective, params, batch = make_objective(kind), make_params(kind), make_batch(kind)
    whole, _, outputs = evaluate_alone(objective, params, batch)
    total = objective.normalizers(batch)["weights"]
    # Parts have the batch's shape, for one compilation: what is not theirs weighs nothing.
    parts = [batch | {"row_weights": jnp.float32(weights)} for weights in ([1, 0, 0, 0], [0, 1, 1, 0])]
    shares = [evaluate(objective, params, part, total)[0] for part in parts]
    np.testing.assert_allclose(sum(shares), whole, rtol=1e-5)
    longer, _, padded = evaluate_alone(objective, params, make_batch(kind, length=20))
    np.testing.assert_allclose(longer, whole, rtol=1e-5)
    for name, values in outputs.items():
        for row, size in enumerate(LENGTHS):
            size = None if kind in ("sentences", "scores", "choices") else size
            np.testing.assert_allclose(padded[name][row][:size], values[row][:size], atol=1e-5)


def test_dropout_is_off_in_evaluation_and_other_with_every_seed():
    batch, params = make_batch("sentences"), make_params("sentences")
    with_dropout = make_objective("sentences", 0.5)
    expected = evaluate_alone(make_objective("sentences"), params, batch)[0]
    np.testing.assert_allclose(evaluate_alone(with_dropout, params, batch)[0], expected, rtol=1e-6)
    seeds = [evaluate(with_dropout, params, batch, jnp.float32(3), jnp.uint32(seed))[0] for seed in (0, 1, 0)]
    assert seeds[0] == seeds[2]
    assert len({float(seeds[0]), float(seeds[1]), float(expected)}) == 3


def test_a_batch_without_labels_has_no_loss():
    batch = make_batch("tokens")
    batch["label_ids"] = jnp.full_like(batch["label_ids"], -1)
    assert evaluate_alone(make_objective("tokens"), make_params("tokens"), batch)[0] == 0
