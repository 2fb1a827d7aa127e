"""Batches of word streams: batch k is a function of (seed, k) alone, and lanes flow from batch to batch.

    N windows, B lanes, S = ⌊N / B⌋ batches an epoch: lane b at step k reads window b·S + (k mod S) + r, modulo N, where
    r is drawn for each epoch. So the state that lane b is left with belongs to what lane b reads next, in both
    directions, except where an epoch ends.

A batch names each word once. Rows are in groups (`RowGroups`), and `char_ids` has a table of distinct words for each
group, in the order of their first place in it; `word_index` says which of them stands where. So the character encoder,
which is most of a small model's work, runs once a word and not once a place.
"""

import dataclasses
import sys
import threading
from collections.abc import Generator
from typing import Any

import numpy as np

from bert_jax.corpus.characters import CharacterIds
from bert_jax.corpus.word_vocabulary import BEGIN_ID, END_ID, WordVocabulary
from bert_jax.input import hashing
from bert_jax.input.instances import WindowSet
from bert_jax.input.loader import Batch, DataConfig, check_rows, prefetched

_DIRECTIONS = 2
_WINDOWS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class RowGroups:
    """Which rows of a batch share a table of words: those that one shard of devices computes in one microbatch.

    The rows of part p are contiguous; row i of a part is in microbatch i mod `microbatches`, as `training.step` deals
    them. Group p · microbatches + m is the m-th of part p, so that tables are dealt as rows are.

    Attributes:
        parts: shards of the global batch.
        microbatches: parts that each of them is computed in.
    """

    parts: int = 1
    microbatches: int = 1


@dataclasses.dataclass(frozen=True)
class _BatchSource:
    """This host's part of batch first_batch + k as element k: what grain prefetches."""

    windows: WindowSet
    vocabulary: WordVocabulary
    batch_size: int
    seed: int
    rows: slice
    groups: RowGroups
    shuffled: bool
    num_windows: int  # of one epoch
    first_batch: int
    num_batches: int
    _local: threading.local = dataclasses.field(default_factory=threading.local)

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: Any) -> Batch:
        step = self.first_batch + int(index)
        lanes = np.arange(self.rows.start, self.rows.stop)
        if not self.shuffled:
            windows = lanes * self.num_batches + step
            return self._batch(np.where(windows < self.num_windows, windows, -1))
        steps = self.num_windows // self.batch_size
        epoch, place = divmod(step, steps)
        start = int(hashing.fold(self.seed, epoch)[0] % np.uint64(self.num_windows))
        return self._batch((start + lanes * steps + place) % self.num_windows)

    def _batch(self, windows: np.ndarray) -> Batch:
        """Return the rows of these windows; -1 is a row without words."""
        real = windows >= 0
        length = self.windows.manifest.words_per_window
        words = self.windows.read(np.maximum(windows, 0))
        shape = (len(windows), _DIRECTIONS, length + 1)
        targets = self.vocabulary.ids(words).reshape(shape)[:, :, 1:] * real[:, None, None]
        # What is read next in a direction is also what is predicted, save at the border of two sentences.
        forward, backward = targets[:, 0], targets[:, 1]
        forward = np.where((forward == BEGIN_ID) & real[:, None], END_ID, forward)
        backward = np.where(backward == END_ID, BEGIN_ID, backward)
        encoder = self._encoder()
        numbers = encoder.numbers(words).reshape(shape)[:, :, :-1] * real[:, None, None]
        places, tables = self._name_once(numbers, encoder)
        return {
            "char_ids": tables,
            "word_index": places[:, 0],
            "word_index_reverse": places[:, 1],
            "target_ids": forward,
            "target_ids_reverse": backward,
            "target_weights": np.repeat(real.astype(np.float32)[:, None], length, axis=1),
        }

    def _encoder(self) -> CharacterIds:
        if not hasattr(self._local, "encoder"):  # a thread's own: it has a cache
            self._local.encoder = CharacterIds(self.vocabulary.settings.max_characters_per_token)
        return self._local.encoder

    def _name_once(self, numbers: np.ndarray, encoder: CharacterIds) -> tuple[np.ndarray, np.ndarray]:
        """Return each word's place in its group's table, and the tables [groups, words, characters].

        A table has room for as many words as its rows have places, and a first row that is no word.
        """
        parts = len(numbers) * self.groups.parts // self.batch_size
        # [parts, rows a microbatch, microbatches, …] → a group's rows together.
        dealt = numbers.reshape(parts, -1, self.groups.microbatches, *numbers.shape[1:]).swapaxes(1, 2)
        num_groups = parts * self.groups.microbatches
        grouped = dealt.reshape(num_groups, -1)
        tables = np.zeros((num_groups, 1 + grouped.shape[1], encoder.max_characters), np.int32)
        places = np.empty(grouped.shape, np.int32)
        for group, flat in enumerate(grouped):
            found, first, inverse = np.unique(np.append(0, flat), return_index=True, return_inverse=True)
            order = np.argsort(first)  # not by number, which depends on what the thread has read before
            rank = np.empty(len(order), np.int32)
            rank[order] = np.arange(len(order), dtype=np.int32)
            places[group] = rank[inverse[1:]]
            tables[group, : len(found)] = encoder.rows(found[order])
        return places.reshape(dealt.shape).swapaxes(1, 2).reshape(numbers.shape), tables


def forward_targets(windows: WindowSet, vocabulary: WordVocabulary, max_windows: int | None = None) -> np.ndarray:
    """Return what the forward direction predicts, in the order of the text, int32: for baselines (`corpus.ngrams`).

    Args:
        windows: a split.
        vocabulary: of the set.
        max_windows: only the first so many; None = all.
    """
    num_windows = len(windows) if max_windows is None else min(max_windows, len(windows))
    parts = [np.zeros(0, np.int32)]
    for begin in range(0, num_windows, _WINDOWS_AT_ONCE):
        words = windows.read(np.arange(begin, min(begin + _WINDOWS_AT_ONCE, num_windows)))
        ids = vocabulary.ids(words).reshape(-1, _DIRECTIONS, windows.manifest.words_per_window + 1)[:, 0, 1:]
        parts.append(np.where(ids == BEGIN_ID, END_ID, ids).ravel())
    return np.concatenate(parts)


def train_stream(
    windows: WindowSet,
    vocabulary: WordVocabulary,
    data_config: DataConfig,
    seed: int,
    first_step: int,
    rows: slice,
    groups: RowGroups | None = None,
) -> Generator[Batch, None, None]:
    """Return the endless batches from `first_step` on; nothing before it is read.

    Args:
        windows: the train split, of `batch_size` windows or more.
        vocabulary: of the set.
        data_config: batch_size is the number of lanes.
        seed: of the epochs' starts.
        first_step: 0 or more.
        rows: this process' part of the global batch (`placement.local_rows`), whole parts of `groups`.
        groups: which rows share a table; None: all.

    Returns:
        A generator; `close` ends its threads. Of R = len(rows) rows of L words in G groups: char_ids int32
        [G, 1 + 2·L·R/G, characters], 0 behind a group's last word and in its first row, which is no word; word_index,
        word_index_reverse int32 [R, L], into the group's table, in the order in which each direction reads; target_ids,
        target_ids_reverse int32 [R, L]; target_weights float32 [R, L], 0 in rows without words.

    Raises:
        ValueError: fewer windows than lanes, or rows that are no part of a batch.
    """
    check_rows(rows, data_config.batch_size)
    if first_step < 0:
        raise ValueError(f"first_step is {first_step}; it must be 0 or more")
    if len(windows) < data_config.batch_size:
        raise ValueError(
            f"{windows.directory} has {len(windows)} windows in its {windows.split} split, fewer than the "
            f"{data_config.batch_size} lanes of data.batch_size; use {len(windows)} lanes or fewer, or more text"
        )
    source = _BatchSource(
        windows=windows,
        vocabulary=vocabulary,
        batch_size=data_config.batch_size,
        seed=seed,
        rows=rows,
        groups=groups or RowGroups(),
        shuffled=True,
        num_windows=len(windows),
        first_batch=first_step,
        num_batches=sys.maxsize,
    )
    return prefetched(source, data_config.num_threads, data_config.prefetch_batches)


def evaluation_stream(
    windows: WindowSet,
    vocabulary: WordVocabulary,
    batch_size: int,
    rows: slice,
    groups: RowGroups | None = None,
    max_windows: int | None = None,
) -> Generator[Batch, None, None]:
    """Return batches with every window once: lane b reads the b-th of `batch_size` equal parts, from its beginning.

    The last lanes' ends are rows without words, of weight 0. Every process gets as many batches.

    Args:
        windows: usually the validation split.
        vocabulary: of the set.
        batch_size: lanes.
        rows: this process' part of the global batch.
        groups: which rows share a table; None: all.
        max_windows: only the first so many; None = all.
    """
    check_rows(rows, batch_size)
    if max_windows is not None and max_windows < 1:
        raise ValueError(f"max_windows is {max_windows}; it must be 1 or more, or None for all windows")
    num_windows = len(windows) if max_windows is None else min(max_windows, len(windows))
    source = _BatchSource(
        windows=windows,
        vocabulary=vocabulary,
        batch_size=batch_size,
        seed=0,
        rows=rows,
        groups=groups or RowGroups(),
        shuffled=False,
        num_windows=num_windows,
        first_batch=0,
        num_batches=-(-num_windows // batch_size),
    )
    return prefetched(source, num_threads=1, prefetch_batches=2)
