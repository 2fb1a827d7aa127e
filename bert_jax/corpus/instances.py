"""What an instance set holds (`InstanceConfig`), and how sequences become rows of one length.

A sequence is one or two spans of the corpus' flat token array; nothing is copied until all sequences and their places
are known, then all rows are gathered at once.

    A = un ##able, B = yes, length 8, one sequence a row:   [CLS] un ##able [SEP] yes [SEP] [PAD] [PAD]
"""

import dataclasses
import re

import numpy as np

from bert_jax.config import choose
from bert_jax.corpus.records import MAX_SEQUENCES_PER_ROW, NO_LABEL, RecordFormat, Rows
from bert_jax.corpus.vocabulary import TokenizedDocuments

SHORT_SEQUENCE_PROBABILITY = 0.1  # create_pretraining_data.py: --short_seq_prob
_BLOCK_ROWS = 1024  # rows gathered at once: their arrays stay in the processor's cache


@dataclasses.dataclass(frozen=True)
class InstanceConfig:
    """One instance set of a corpus.

    Attributes:
        name: its directory below `instances/`, such as `nsp-128`.
        pairs: "nsp" (B follows A, or is of another document), "sop" (B follows A, or the two are swapped) or "none"
            (full sentences of one document, RoBERTa's DOC-SENTENCES).
        sequence_length: tokens a row with [CLS] and [SEP], 5 or more.
        short_sequence_probability: share of documents cut to a uniformly random shorter length; None is 0.1 for
            pairs, as Google has it, and 0 for "none".
        packed: several sequences a row, where they fit.
        max_sequences_per_row: the most sequences in a packed row, 2 to 63; not used otherwise.
        duplicates: how often the corpus is gone through, with other pairs each time (Google's dupe_factor).
        mode: "", or "google": create_pretraining_data.py's instances bit for bit, with their static masks.
        max_predictions_per_sequence: the most masked tokens a row; mode "google" only, as are the next two.
        masked_fraction: share of a row's tokens, [CLS] and [SEP] counted, that is masked.
        whole_word: mask whole words.
    """

    name: str
    pairs: str = "nsp"
    sequence_length: int = 128
    short_sequence_probability: float | None = None
    packed: bool = False
    max_sequences_per_row: int = 8
    duplicates: int = 1
    mode: str = ""
    max_predictions_per_sequence: int = 20
    masked_fraction: float = 0.15
    whole_word: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        choose("pairs", self.pairs, ("nsp", "sop", "none"))
        choose("mode", self.mode, ("", "google"))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"the instance set's name is {self.name!r}; use letters, digits, '.', '-' and '_'")
        if not 5 <= self.sequence_length <= 65_535:  # the shortest random target is 2 tokens, beside 3 special ones
            raise ValueError(f"{self.name}: sequence_length is {self.sequence_length}; it takes 5 to 65535")
        if not 0 <= self.short_probability <= 1:
            raise ValueError(
                f"{self.name}: short_sequence_probability is {self.short_sequence_probability}; it takes 0 to 1"
            )
        if not 2 <= self.max_sequences_per_row <= MAX_SEQUENCES_PER_ROW:
            raise ValueError(
                f"{self.name}: max_sequences_per_row is {self.max_sequences_per_row}; a packed row takes "
                f"2 to {MAX_SEQUENCES_PER_ROW}"
            )
        if self.duplicates < 1:
            raise ValueError(f"{self.name}: duplicates is {self.duplicates}; the corpus is gone through 1 time or more")
        if self.mode == "google" and (self.pairs != "nsp" or self.packed):
            raise ValueError(
                f"{self.name}: mode 'google' is create_pretraining_data.py's own instances: it takes pairs='nsp' and "
                f"packed=False, got pairs={self.pairs!r} and packed={self.packed}"
            )
        if not 1 <= self.max_predictions_per_sequence <= 65_535 or not 0 < self.masked_fraction < 1:
            raise ValueError(
                f"{self.name}: max_predictions_per_sequence is {self.max_predictions_per_sequence} and masked_fraction "
                f"{self.masked_fraction}; they take 1 to 65535, and between 0 and 1"
            )

    @property
    def short_probability(self) -> float:
        """`short_sequence_probability` with its default filled in."""
        if self.short_sequence_probability is not None:
            return self.short_sequence_probability
        return 0.0 if self.pairs == "none" else SHORT_SEQUENCE_PROBABILITY

    @property
    def max_tokens(self) -> int:
        """Corpus tokens a sequence takes at most, beside [CLS] and one or two [SEP]."""
        return self.sequence_length - (2 if self.pairs == "none" else 3)

    def record_format(self, vocab_size: int) -> RecordFormat:
        """Return the sizes of this set's records."""
        return RecordFormat(
            sequence_length=self.sequence_length,
            vocab_size=vocab_size,
            max_sequences_per_row=self.max_sequences_per_row if self.packed else 1,
            max_predictions_per_sequence=self.max_predictions_per_sequence if self.mode == "google" else 0,
        )


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Sequences as spans of a flat token array; every array is int64 [sequences].

    Attributes:
        a_begin, a_end: the first span; never empty.
        b_begin, b_end: the second one; empty (begin = end) for a sequence of one span.
        labels: IS_NEXT, IS_RANDOM or NO_LABEL.
    """

    a_begin: np.ndarray
    a_end: np.ndarray
    b_begin: np.ndarray
    b_end: np.ndarray
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence with its [CLS] and [SEP]s, int64 [sequences]."""
        has_b = self.b_end > self.b_begin
        return self.a_end - self.a_begin + self.b_end - self.b_begin + 2 + has_b

    def take(self, chosen: np.ndarray) -> "Sequences":
        """Return the chosen sequences."""
        return Sequences(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Places:
    """Where each sequence goes; the first three arrays are int64 [sequences].

    Attributes:
        row: the sequence's row, every row has one or more.
        column: where its [CLS] stands.
        number: 0 for the row's first sequence, 1 for the next, ….
        num_rows: rows in all.
    """

    row: np.ndarray
    column: np.ndarray
    number: np.ndarray
    num_rows: int


def permutation(size: int, seed: int) -> np.ndarray:
    """Return a random order of `range(size)`, int64, from raw Philox bits (a stream that numpy promises)."""
    return np.argsort(np.random.Philox(key=seed).random_raw(size), kind="stable")


def lay_out(
    documents: TokenizedDocuments,
    sequences: Sequences,
    places: Places,
    config: InstanceConfig,
    special_ids: dict[str, int],
) -> Rows:
    """Return the rows that hold the sequences at their places.

    A `##` piece behind a special token (its word's start was cut off, or is in another row) starts a word here: it
    has nothing to be joined to. Padding is `special_ids["pad"]` in input_ids and 0 elsewhere.
    """
    shape = (places.num_rows, config.sequence_length)
    slots = config.record_format(1).max_sequences_per_row
    rows = Rows(
        input_ids=np.empty(shape, np.int32),
        segment_ids=np.empty(shape, np.int32),
        word_starts=np.empty(shape, bool),
        sequence_ids=np.empty(shape, np.int32),
        sequence_starts=np.zeros((places.num_rows, slots), np.int32),
        next_sentence_labels=np.full((places.num_rows, slots), NO_LABEL, np.int32),
    )
    rows.sequence_starts[places.row, places.number] = places.column
    rows.next_sentence_labels[places.row, places.number] = sequences.labels
    specials = [special_ids["cls"] << 1 | 1, special_ids["sep"] << 1 | 1]
    padding = np.full(config.sequence_length, special_ids["pad"] << 1, np.int32)
    tokens = np.concatenate([documents.input_ids << 1 | documents.word_starts, np.array(specials, np.int32), padding])
    order = np.argsort(places.row * config.sequence_length + places.column)
    row_of = places.row[order]
    for begin in range(0, places.num_rows, _BLOCK_ROWS):
        end = min(begin + _BLOCK_ROWS, places.num_rows)
        chosen = order[slice(*np.searchsorted(row_of, (begin, end)))]
        first = (places.row[chosen] - begin) * config.sequence_length + places.column[chosen]
        numbers = places.number[chosen] + 1
        _fill_rows(rows, slice(begin, end), tokens, sequences.take(chosen), first, numbers)
    return rows


def _fill_rows(
    rows: Rows, block: slice, tokens: np.ndarray, sequences: Sequences, first: np.ndarray, numbers: np.ndarray
) -> None:
    """Fill a block of rows, whose sequences come in order, each from index `first` of the rows laid end to end.

    The rows are a chain of spans: [CLS], A, [SEP], B, [SEP], padding, [CLS], …. Every span is copied from `tokens`
    (twice the id, plus one where a word starts), which ends in [CLS], [SEP] and a row of padding.
    """
    shape = rows.input_ids[block].shape
    a_length, b_length = sequences.a_end - sequences.a_begin, sequences.b_end - sequences.b_begin
    paired = (b_length > 0).astype(np.int64)
    one = np.ones_like(first)
    gaps = np.append(first[1:], shape[0] * shape[1]) - first - sequences.lengths
    lengths = np.stack([one, a_length, one, b_length, paired, gaps], 1).ravel()
    pad = len(tokens) - shape[1]
    cls, sep = one * (pad - 2), one * (pad - 1)
    sources = np.stack([cls, sequences.a_begin, sep, sequences.b_begin, sep, one * pad], 1).ravel()
    index = np.repeat(sources - np.cumsum(lengths) + lengths, lengths)
    index += np.arange(len(index))
    chain = tokens[index]
    # What follows a special token starts a word.
    chain[first + 1] |= 1
    chain[(first + a_length + 2)[b_length > 0]] |= 1
    rows.input_ids[block] = (chain >> 1).reshape(shape)
    rows.word_starts[block] = (chain & 1).astype(bool).reshape(shape)
    a_part, b_part = 2 + a_length, b_length + paired
    of_sequence = np.stack([a_part, b_part, gaps], 1).ravel()
    segments = np.tile(np.array([0, 1, 0], np.int32), len(first))
    number = np.stack([numbers, numbers, 0 * numbers], 1).ravel().astype(np.int32)
    rows.segment_ids[block] = np.repeat(segments, of_sequence).reshape(shape)
    rows.sequence_ids[block] = np.repeat(number, of_sequence).reshape(shape)
