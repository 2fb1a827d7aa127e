"""A model and batches small enough to compile in a second, for the tests of models and objectives."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from bert_jax.models.bert import BertConfig

VOCAB_SIZE = 61
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}


def random_params(model, batch, seed=0):
    """Return parameters drawn by numpy: an initialisation would compile for seconds, and have zero biases."""
    rng = np.random.default_rng(seed)
    shapes = meta.unbox(jax.eval_shape(model.init, jax.random.key(0), *model_inputs(model, batch))["params"])
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), shapes)


def model_inputs(model, batch):
    """Return the batch's fields that a model's `__call__` takes, in their order."""
    return [batch[name] for name in inspect.signature(model.__call__).parameters if name in batch]


def tiny_config(**overrides: Any):
    return BertConfig(**{**SIZES, **overrides})


def tiny_batch(lengths=(12, 7, 9), num_tokens=12, num_predictions=4, seed=0):
    """Return a batch of one sequence a row, of the given real lengths, with 1 to `num_predictions` masks a row."""
    rng = np.random.default_rng(seed)
    rows = len(lengths)
    positions = np.arange(num_tokens)
    real = positions < np.asarray(lengths)[:, None]
    batch: dict[str, Any] = {
        "input_ids": np.where(real, rng.integers(5, VOCAB_SIZE, real.shape), 0),
        "input_mask": real,
        "segment_ids": np.where(real, positions > 3, 0),
        "position_ids": np.where(real, positions, 0),
        "sequence_ids": real,
        "sequence_starts": np.zeros((rows, 1)),
        "masked_lm_positions": np.zeros((rows, num_predictions)),
        "masked_lm_ids": np.zeros((rows, num_predictions)),
        "next_sentence_labels": rng.integers(0, 2, (rows, 1)),
    }
    batch = {name: values.astype(np.int32) for name, values in batch.items()}
    batch["masked_lm_weights"] = np.zeros((rows, num_predictions), np.float32)
    batch["next_sentence_weights"] = np.asarray(lengths, np.float32)[:, None].clip(0, 1)
    for row, length in enumerate(lengths):
        count = min(1 + row % num_predictions, max(length - 1, 0))
        batch["masked_lm_positions"][row, :count] = 1 + rng.permutation(max(length - 1, 0))[:count]
        batch["masked_lm_ids"][row, :count] = rng.integers(5, VOCAB_SIZE, count)
        batch["masked_lm_weights"][row, :count] = 1.0
    return to_device(batch)


def to_device(batch):
    return jax.tree.map(jnp.asarray, batch)


def pack(batch, rows):
    """Put the sequences of an unpacked batch, in order, side by side into `rows` rows; the inverse of unpacking."""
    batch = jax.tree.map(np.asarray, batch)
    num_sequences, num_tokens = batch["input_ids"].shape
    per_row = -(-num_sequences // rows)
    predictions = batch["masked_lm_ids"].shape[1]
    packed: dict[str, Any] = {name: np.zeros((rows, per_row * num_tokens), np.int32) for name in TOKEN_FIELDS}
    packed |= {name: np.zeros((rows, per_row * predictions), np.int32) for name in PREDICTION_FIELDS}
    packed["masked_lm_weights"] = np.zeros((rows, per_row * predictions), np.float32)
    packed |= {name: np.zeros((rows, per_row), np.int32) for name in ("sequence_starts", "next_sentence_labels")}
    packed["next_sentence_weights"] = np.zeros((rows, per_row), np.float32)
    ends = [0] * rows
    for number in range(num_sequences):
        row, slot = divmod(number, per_row)
        length, start = int(batch["input_mask"][number].sum()), ends[row]
        for name in TOKEN_FIELDS:
            packed[name][row, start : start + length] = batch[name][number, :length]
        packed["sequence_ids"][row, start : start + length] = slot + 1
        packed["sequence_starts"][row, slot] = start
        place = slice(slot * predictions, (slot + 1) * predictions)
        for name in (*PREDICTION_FIELDS, "masked_lm_weights"):
            packed[name][row, place] = batch[name][number]
        packed["masked_lm_positions"][row, place] += start * (batch["masked_lm_weights"][number] > 0)
        for name in ("next_sentence_labels", "next_sentence_weights"):
            packed[name][row, slot] = batch[name][number, 0]
        ends[row] += length
    return to_device(packed)


TOKEN_FIELDS = ("input_ids", "input_mask", "segment_ids", "position_ids", "sequence_ids")
PREDICTION_FIELDS = ("masked_lm_positions", "masked_lm_ids")
