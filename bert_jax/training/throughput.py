"""Floating-point operations of a training step, peak rates of devices, and the utilization (MFU) that follows.

MFU is model FLOPs, not hardware FLOPs: recomputation does not count. It is given twice: `mfu` over all positions,
padding included, and `mfu_real` over real tokens only. Positions whose last output nothing reads count like the
others, though `models/transformer.py` leaves them out: the formula is the published one, and comparable.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# 3 × the matrix products of a forward pass; bidirectional attention; MLM logits at predicted positions only.
BERT_FORMULA = "6·L·(4h²+2·h·ff)·s + 12·L·h·s² + 6·m·(h²+h·V) a row"
# Likewise, each direction and layer an LSTM of d cells; f filters of width w over c places and e-wide characters, once
# a word; K words in the softmax of each direction.
ELMO_FORMULA = "6·(Σ(c-w+1)·w·e·f + H·2F² + F·p + 2·(L·(8·p·d + d·p) + K·p)) a word"

# bfloat16 FLOP/s of one JAX device. v2 and v3 show two devices a chip, TPU7x as well. Sources: Google Cloud's TPU
# pages (v3 to 7x), MLPerf system descriptions (H200), vendors' data sheets.
PEAK_FLOPS: dict[str, float] = {
    "TPU v2": 23e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "TPU v7x": 1153.5e12,
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
}


@dataclasses.dataclass(frozen=True)
class RowFlops:
    """FLOPs of one row in a training step (forward and backward).

    Attributes:
        flops: by the formula.
        tokens: of the row, padding included.
        formula: for people.
    """

    flops: float
    tokens: int
    formula: str = ""

    @property
    def per_token(self) -> float:
        """Return FLOPs per position of the row."""
        return self.flops / self.tokens


def bert_row_flops(model: Any, sequence_length: int, predictions: int) -> RowFlops:
    """Return the training FLOPs of a BERT row by `BERT_FORMULA`.

    Args:
        model: a BertConfig, or anything with its size fields.
        sequence_length: positions a row, padding included.
        predictions: masked positions a row at which logits are computed.
    """
    layers, hidden, inner = model.num_hidden_layers, model.hidden_size, model.intermediate_size
    encoder = 6 * layers * (4 * hidden**2 + 2 * hidden * inner) * sequence_length
    attention = 12 * layers * hidden * sequence_length**2
    head = 6 * predictions * (hidden**2 + hidden * model.vocab_size)
    return RowFlops(float(encoder + attention + head), sequence_length, BERT_FORMULA)


def elmo_row_flops(model: Any, words: int, softmax_words: int) -> RowFlops:
    """Return the training FLOPs of a window of words by `ELMO_FORMULA`.

    Args:
        model: an ElmoConfig, or anything with its size fields.
        words: of a window.
        softmax_words: that a direction's softmax is computed over: the negatives and the right one, or the vocabulary.
    """
    places, size, outputs = model.max_characters_per_token, model.character_dim, model.projection_dim
    filters = sum(count for _, count in model.filters)
    characters = sum((places - width + 1) * width * size * count for width, count in model.filters)
    characters += model.n_highway * 2 * filters**2
    characters += filters * outputs if filters != outputs else 0
    direction = model.n_layers * (8 * outputs * model.dim + model.dim * outputs) + softmax_words * outputs
    return RowFlops(float(6 * words * (characters + 2 * direction)), words, ELMO_FORMULA)


def peak_flops(device_kind: str, declared: float = 0.0) -> float | None:
    """Return the peak bfloat16 FLOP/s of one device.

    Args:
        device_kind: `jax.Device.device_kind`, such as "TPU v5 lite" or "NVIDIA H200".
        declared: a measured or declared rate that goes before the table; 0 = none.

    Returns:
        None for a device that is not in the table (a CPU), whose MFU is then not known.
    """
    if declared:
        return declared
    matches = [kind for kind in PEAK_FLOPS if kind in device_kind]
    return PEAK_FLOPS[max(matches, key=len)] if matches else None


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Turns steps and seconds into rates.

    Attributes:
        row: FLOPs and tokens of a row.
        batch_size: rows a step, over all devices.
        peak: FLOP/s of all devices together; None = unknown.
    """

    row: RowFlops
    batch_size: int
    peak: float | None

    def rates(self, steps: int, seconds: float, real_tokens: float) -> dict[str, float | None]:
        """Return the `perf/` metrics of some steps; `real_tokens` are those that are not padding."""
        rows = steps * self.batch_size
        flops_per_second = rows * self.row.flops / seconds
        mfu = flops_per_second / self.peak if self.peak else None
        return {
            "perf/seconds_per_step": seconds / steps,
            "perf/sequences_per_second": rows / seconds,
            "perf/tokens_per_second": rows * self.row.tokens / seconds,
            "perf/real_tokens_per_second": real_tokens / seconds,
            "perf/tflops_per_second": flops_per_second / 1e12,
            "perf/mfu": mfu,
            "perf/mfu_real": mfu * real_tokens / (rows * self.row.tokens) if mfu is not None else None,
        }


def count_real_tokens(batch: dict[str, jax.Array]) -> Float[Array, ""]:
    """Return how many tokens of a batch are not padding; all of the first array for a batch without a mask."""
    for name in ("input_mask", "target_weights"):
        if name in batch:
            return jnp.sum(batch[name], dtype=jnp.float32)
    first = next(iter(batch.values()))
    return jnp.float32(first.shape[0] * first.shape[1])
