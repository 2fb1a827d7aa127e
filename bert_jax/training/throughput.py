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
FORMULA = "6·L·(4h²+2·h·ff)·s + 12·L·h·s² + 6·m·(h²+h·V) a row"

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
    """FLOPs of one row in a training step (forward and backward), and the tokens of that row, padding included."""

    flops: float
    tokens: int

    @property
    def per_token(self) -> float:
        """Return FLOPs per position of the row."""
        return self.flops / self.tokens


def bert_row_flops(model: Any, sequence_length: int, predictions: int) -> RowFlops:
    """Return the training FLOPs of a BERT row by `FORMULA`.

    Args:
        model: a BertConfig, or anything with its size fields.
        sequence_length: positions a row, padding included.
        predictions: masked positions a row at which logits are computed.
    """
    layers, hidden, inner = model.num_hidden_layers, model.hidden_size, model.intermediate_size
    encoder = 6 * layers * (4 * hidden**2 + 2 * hidden * inner) * sequence_length
    attention = 12 * layers * hidden * sequence_length**2
    head = 6 * predictions * (hidden**2 + hidden * model.vocab_size)
    return RowFlops(float(encoder + attention + head), sequence_length)


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
    if "input_mask" in batch:
        return jnp.sum(batch["input_mask"], dtype=jnp.float32)
    first = next(iter(batch.values()))
    return jnp.float32(first.shape[0] * first.shape[1])
