"""Vectors of words in their context, of ELMo and BERT alike: lines in, one array a line out, in the order of the input.

A line's vectors depend on the line alone: no state flows between lines, and the shape in which a row is computed
follows from its own length. The same sentence has the same vectors wherever it stands.
Source: allenai/bilm-tf and AllenNLP carry the LSTM's state from one batch to the next, so there a sentence's vectors
depend on all that was asked before, which users took for chance. `stateful` does as they do.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from bert_jax.config import choose
from bert_jax.inference.bert_features import UNITS, BertFeatures
from bert_jax.inference.elmo_features import ElmoFeatures
from bert_jax.inference.feature_rows import POOLINGS, EncodedLine, Notes, pool, rows_per_batch
from bert_jax.inference.layer_choice import LayerChoice
from bert_jax.models.recurrent import zero_state
from bert_jax.training import addresses, elmo_addresses

DTYPES = ("float32", "float16")
# What waits for a line before it that is not computed yet: at most so many bytes of vectors, and so many lines.
_MAX_WAITING_BYTES = 1 << 28
_MAX_WAITING_LINES = 1 << 13

Encoder = BertFeatures | ElmoFeatures


class Features(NamedTuple):
    """A line's vectors.

    Attributes:
        index: the line's number from 0.
        words: what has a vector.
        vectors: [kept, words, width], or [words, width] of combined layers.
    """

    index: int
    words: Sequence[str]
    vectors: np.ndarray


def load(address: str, max_seq_length: int = 0, unit: str = "word") -> Encoder:
    """Load the model of an address.

    Args:
        address: `run:DIR[@step|@best]`, `hf:DIR`, `google:PREFIX`, `elmo:DIR` (see `training/addresses.py`).
        max_seq_length: of a BERT, see `BertFeatures`.
        unit: what has a vector: "word", or a BERT's "piece".

    Raises:
        ValueError: not an address, or a setting that the model does not have.
        FileNotFoundError: no such checkpoint.
    """
    choose("unit", unit, UNITS)
    if not elmo_addresses.is_elmo(address):
        return BertFeatures(addresses.load(address)[0], max_seq_length, unit)
    if unit != "word" or max_seq_length:
        raise ValueError(f"{address} is an ELMo, which reads whole words and lines of any length; unit is word there")
    return ElmoFeatures.load(address)


@dataclasses.dataclass(frozen=True)
class FeatureExtractor:
    """A model, and what is wanted of it.

    Attributes:
        encoder: the model.
        choice: its layers.
        pooling: which of a word's pieces are its vector: "first", "mean" or "last"; of ELMo's words all the same.
        dtype: of the vectors, "float32" or "float16".
        batch_size: rows a forward pass (fewer, where rows are longer than 512 tokens); with `stateful` it decides which
            line goes on from which.
        stateful: ELMo's LSTM states flow from each batch to the next, and row b of a batch goes on where row b of the
            batch before it ended. Line i is row i mod batch_size, so with 1 every line continues the line before it
            (as bilm-tf's dump_bilm_embeddings does), with 64 the line 64 before it (AllenNLP's default).
    """

    encoder: Encoder
    choice: LayerChoice
    pooling: str = "mean"
    dtype: str = "float32"
    batch_size: int = 32
    stateful: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        choose("pooling", self.pooling, POOLINGS)
        choose("dtype", self.dtype, DTYPES)
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it takes 1 or more")
        if self.stateful and not isinstance(self.encoder, ElmoFeatures):
            raise ValueError("stateful is for ELMo: a BERT has no state that could flow from line to line")

    @property
    def shape(self) -> tuple[int, int]:
        """Vectors of a word, and their width."""
        return self.choice.num_kept, self.choice.width(self.encoder.size)

    def encode(self, index: int, text: str, pretokenized: bool, notes: Notes) -> EncodedLine:
        """Return a line's words and rows.

        Args:
            index: its number from 0.
            text: a text, or words with whitespace between them.
            pretokenized: which of the two.
            notes: where to count what does not fit.
        """
        words = text.split() if pretokenized else self.encoder.split(text)
        notes.add("an empty line, an entry without words", index, not words)
        return self.encoder.encode(index, words, notes)

    def extract(self, lines: Iterable[EncodedLine]) -> Iterator[Features]:
        """Yield the vectors of every line, in their order; lines are read as they are needed."""
        if self.stateful:
            yield from self._extract_stateful(lines)
            return
        queue = _Queue(self)
        for line in lines:
            queue.add(line)
            yield from queue.finished()
        queue.compute_all()
        yield from queue.finished()

    def features(self, line: EncodedLine, parts: Sequence[np.ndarray]) -> Features:
        """Return a line's vectors, of those of its rows."""
        kept, width = self.shape
        vectors = np.concatenate(parts, axis=1) if parts else np.zeros((kept, 0, width), self.dtype)
        return Features(line.index, line.words, vectors if self.choice.combine == "none" else vectors[0])

    def pooled(self, hidden: np.ndarray, line: EncodedLine, number: int) -> np.ndarray:
        """Return the vectors of a line's row, of what was computed for the row."""
        return pool(hidden, line.rows[number], self.pooling).astype(self.dtype)

    def _extract_stateful(self, lines: Iterable[EncodedLine]) -> Iterator[Features]:
        encoder = self.encoder
        assert isinstance(encoder, ElmoFeatures)
        state, remaining = zero_state(encoder.config, self.batch_size), iter(lines)
        while batch := list(itertools.islice(remaining, self.batch_size)):
            for line in batch:
                if len(line.rows) > 1:
                    raise ValueError(
                        f"line {line.index + 1} has {len(line.words):,} words, more than ELMo reads at once; stateful "
                        "reading has no windows: break the line into several"
                    )
            rows = [line.rows[0] for line in batch]
            length = encoder.padded_length(max(row.length for row in rows))
            hidden, state = encoder.hidden_and_state(rows, length, self.choice, state)
            values = jax.device_get(hidden)
            for number, line in enumerate(batch):
                yield self.features(line, [self.pooled(values[:, number], line, 0)])


class _Waiting:
    """A line, and what is known of its rows' vectors."""

    def __init__(self, line: EncodedLine) -> None:
        self.line = line
        self.parts: list[np.ndarray | None] = [None] * len(line.rows)

    def missing(self) -> int | None:
        """Return the number of a row without vectors; None if all have some."""
        return next((number for number, part in enumerate(self.parts) if part is None), None)


class _Queue:
    """Lines on their way: rows of equal padded length wait until they fill a batch, lines for those before them."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._lines: collections.deque[_Waiting] = collections.deque()
        self._bytes = 0
        self._buckets: dict[int, list[tuple[_Waiting, int]]] = {}
        self._in_flight: Callable[[], None] | None = None  # the device computes it while the host does something else

    def add(self, line: EncodedLine) -> None:
        """Take a line, and compute the batches that it fills."""
        waiting = _Waiting(line)
        self._lines.append(waiting)
        self._bytes += self._size(line)
        for number, row in enumerate(line.rows):
            length = self._extractor.encoder.padded_length(row.length)
            bucket = self._buckets.setdefault(length, [])
            bucket.append((waiting, number))
            if len(bucket) == rows_per_batch(length, self._extractor.batch_size):
                self._compute(length)

    def finished(self) -> Iterator[Features]:
        """Yield the lines that are done, with all before them; make room where too much waits."""
        while self._lines:
            number = self._lines[0].missing()
            if number is not None:
                if self._bytes <= _MAX_WAITING_BYTES and len(self._lines) <= _MAX_WAITING_LINES:
                    return
                self._compute_now(self._lines[0], number)
                continue
            waiting = self._lines.popleft()
            self._bytes -= self._size(waiting.line)
            yield self._extractor.features(waiting.line, [part for part in waiting.parts if part is not None])

    def compute_all(self) -> None:
        """Compute the batches that are short of rows."""
        for length in sorted(self._buckets):
            self._compute(length)
        self._land()

    def _compute_now(self, waiting: _Waiting, number: int) -> None:
        length = self._extractor.encoder.padded_length(waiting.line.rows[number].length)
        if (waiting, number) in self._buckets.get(length, ()):
            self._compute(length)
        self._land()

    def _compute(self, length: int) -> None:
        bucket = self._buckets.pop(length)
        extractor = self._extractor
        rows = [waiting.line.rows[number] for waiting, number in bucket]
        num_rows = rows_per_batch(length, extractor.batch_size)
        hidden = extractor.encoder.hidden(rows, num_rows, length, extractor.choice)

        def land() -> None:
            values = jax.device_get(hidden)
            for place, (waiting, number) in enumerate(bucket):
                waiting.parts[number] = extractor.pooled(values[:, place], waiting.line, number)

        self._land()
        self._in_flight = land

    def _land(self) -> None:
        if self._in_flight is not None:
            self._in_flight()
            self._in_flight = None

    def _size(self, line: EncodedLine) -> int:
        kept, width = self._extractor.shape
        return len(line.words) * kept * width * np.dtype(self._extractor.dtype).itemsize
