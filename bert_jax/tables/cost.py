"""What a plan costs: training FLOPs by the published formulas, and hours on a named device at a stated utilization."""

import dataclasses
from typing import Any

from bert_jax.training.throughput import PEAK_FLOPS, bert_row_flops, peak_flops


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A device, and how much of it is used.

    Attributes:
        device: whose peak counts, of `throughput.PEAK_FLOPS`; with flops_per_second any name.
        num_devices: at once.
        mfu: utilization of the peak.
        flops_per_second: of all devices together, in place of the three above; 0 = by them.
        seconds_per_unit: that a command takes beside its training: starting, reading, compiling, evaluating.
    """

    device: str
    num_devices: int = 1
    mfu: float = 0.4
    flops_per_second: float = 0.0
    seconds_per_unit: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a device whose rate is not known, and what is none of it."""
        for name in ("num_devices", "mfu"):
            if getattr(self, name) <= 0:
                raise ValueError(f"config.estimate.{name} is {getattr(self, name)}; use a number above 0")
        if not self.flops_per_second and peak_flops(self.device) is None:
            raise ValueError(
                f"config.estimate.device is {self.device!r}; give one of {', '.join(PEAK_FLOPS)}, or "
                "config.estimate.flops_per_second"
            )

    @property
    def rate(self) -> float:
        """FLOP/s that are reckoned with."""
        return self.flops_per_second or (peak_flops(self.device) or 0.0) * self.num_devices * self.mfu

    def seconds(self, flops: float) -> float:
        """Return how long a command takes that trains so many FLOPs."""
        return flops / self.rate + self.seconds_per_unit

    def describe(self) -> str:
        """Return what the hours are of."""
        beside = f" and {self.seconds_per_unit:g} s a unit" if self.seconds_per_unit else ""
        if self.flops_per_second:
            return f"{self.device} at {self.flops_per_second / 1e9:,.0f} GFLOP/s{beside}"
        return f"{self.num_devices} × {self.device} at {self.mfu:.0%} MFU{beside}"


def pretraining_flops(model: Any, length: int, predictions: int, rows: float) -> float:
    """Return the FLOPs of training on so many rows; see `bert_row_flops` for the arguments."""
    return bert_row_flops(model, length, predictions).flops * rows


def finetuning_flops(model: Any, tokens: float, rows: float) -> float:
    """Return the FLOPs of training on rows of so many tokens on average, without a head."""
    return bert_row_flops(model, 1, 0).flops * tokens * rows + _attention(model, tokens) * rows


def ner_flops(model: Any, words: float) -> float:
    """Return the FLOPs of fine-tuning on so many words in rows of sentences: about 1.6 pieces a word, 64 a row."""
    pieces = 1.6 * words
    return finetuning_flops(model, 64.0, pieces / 64.0)


def _attention(model: Any, tokens: float) -> float:
    """Return what attention takes beyond that of rows of one token."""
    return 12.0 * model.num_hidden_layers * model.hidden_size * tokens * (tokens - 1)


def bert_parameters(model: Any, next_sentence: bool = True) -> int:
    """Return the parameters of a BERT with its pretraining heads, as published (110,106,428 of BERT-Base).

    Args:
        model: a BertConfig, or anything with its size fields.
        next_sentence: whether pooler and next-sentence head are counted; they are trained by that task alone.
    """
    hidden, inner, vocab = model.hidden_size, model.intermediate_size, model.vocab_size
    embeddings = (vocab + model.max_position_embeddings + model.type_vocab_size + 2) * hidden
    layer = 4 * (hidden**2 + hidden) + 2 * hidden + 2 * hidden * inner + inner + hidden + 2 * hidden
    masked_lm = hidden**2 + hidden + 2 * hidden + vocab
    pair = hidden**2 + hidden + 2 * hidden + 2 if next_sentence else 0
    return embeddings + model.num_hidden_layers * layer + masked_lm + pair


def format_flops(flops: float) -> str:
    """Return 1.2e18 for FLOPs, a dash for none."""
    return f"{flops:.1e}".replace("e+", "e") if flops else "–"


def format_hours(seconds: float) -> str:
    """Return minutes below two hours, else hours."""
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
