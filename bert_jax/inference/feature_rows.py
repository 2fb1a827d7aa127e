"""A line's words as rows of tokens for a model, and the way back from a row's tokens to the words' vectors."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

# While a model is traced: products of float32 are float32 on every device. By themselves TPUs multiply in bfloat16 and
# GPUs in TF32, and features of one model would differ in the third digit from machine to machine.
FULL_PRECISION = functools.partial(jax.default_matmul_precision, "float32")
POOLINGS = ("first", "mean", "last")  # of a word's pieces
_LENGTH_STEP = 8
_STEPS_PER_OCTAVE = 2
_FULL_BATCH_LENGTH = 512  # tokens up to which a batch has all its rows; longer ones have fewer


@dataclasses.dataclass(frozen=True)
class Row:
    """Tokens that a model reads at once, and which of them make each vector.

    Attributes:
        tokens: with the marks of begin and end: ids of pieces, int32, or ELMo's words.
        starts: int64 [vectors], each vector's first token.
        stops: int64 [vectors], behind its last; of the vectors next to each other the tokens are too.
        segments: int32 [tokens], of BERT's pieces.
    """

    tokens: Any
    starts: np.ndarray
    stops: np.ndarray
    segments: Any = None

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.tokens)


@dataclasses.dataclass(frozen=True)
class EncodedLine:
    """A line, ready for a model.

    Attributes:
        index: its number from 0: its key in files.
        words: what has a vector each.
        rows: whose vectors, one row's after the other's, are the words'.
    """

    index: int
    words: Sequence[str]
    rows: Sequence[Row]


class Notes:
    """What was done to lines that do not fit, counted."""

    def __init__(self) -> None:
        """Start with none."""
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, what: str, index: int, count: int = 1) -> None:
        """Count something of the line with this index from 0."""
        if count:
            before, first = self._counts.get(what, (0, index + 1))
            self._counts[what] = (before + count, first)

    def lines(self) -> list[str]:
        """Return them for people."""
        return [f"{count:,} × {what}, first in line {first}" for what, (count, first) in self._counts.items()]


def padded_length(length: int, limit: int | None = None) -> int:
    """Return how many places a row gets: a function of its own length alone, so that its vectors are one too.

    8, 16, 24, 32, 48, 64, 96, 128 …: twelve shapes up to 512 tokens, since each takes seconds to compile.

    Args:
        length: tokens.
        limit: of the model.
    """
    step = max(_LENGTH_STEP, (1 << (length - 1).bit_length()) // (2 * _STEPS_PER_OCTAVE))
    padded = -(-length // step) * step
    return padded if limit is None else min(padded, limit)


def rows_per_batch(length: int, batch_size: int) -> int:
    """Return how many rows of `length` places a batch has, which again depends on nothing else."""
    return max(1, min(batch_size, batch_size * _FULL_BATCH_LENGTH // length))


def pool(hidden: np.ndarray, row: Row, pooling: str) -> np.ndarray:
    """Return the row's vectors.

    Args:
        hidden: [kept, tokens, width], of the row's tokens and padding.
        row: with the vectors' tokens.
        pooling: one of `POOLINGS`.

    Returns:
        [kept, vectors, width].
    """
    sizes = row.stops - row.starts
    if pooling == "first" or not len(sizes) or sizes.max() == 1:
        return hidden[:, row.starts]
    if pooling == "last":
        return hidden[:, row.stops - 1]
    sums = np.add.reduceat(hidden[:, : row.stops[-1]], row.starts, axis=1)
    return sums / sizes[:, None].astype(hidden.dtype)
