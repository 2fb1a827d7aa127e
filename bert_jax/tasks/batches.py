"""Rows of many lengths → batches of few shapes: sorted into buckets, each padded to its longest row only.

The schedule says which bucket step k takes. It depends on the rows' lengths, the batch size and nothing else, so that
the trials of a sweep go through the same shapes together; the seed decides which rows of the bucket the step takes.
Every row comes once an epoch. One batch an epoch, of the longest bucket, may be short of rows.
"""

import dataclasses
import functools
from collections.abc import Generator, Iterator, Sequence

import numpy as np

from bert_jax.input import hashing
from bert_jax.tasks.task import EncodedRows

LENGTH_MULTIPLE = 4  # lengths to pad to are multiples of it: few distinct ones to choose from
_SCHEDULE_SEED = 0  # not the trial's

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Rows that are padded to one length.

    Attributes:
        length: tokens.
        rows: their numbers, int64; shortest first.
        first_batch: number of its first batch, counted over all buckets.
    """

    length: int
    rows: np.ndarray
    first_batch: int


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which rows every step takes.

    Attributes:
        lengths: tokens of every row.
        batch_size: rows a step.
        max_buckets: lengths to pad to, at most.
    """

    lengths: np.ndarray
    batch_size: int
    max_buckets: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every row once."""
        return -(-len(self.lengths) // self.batch_size)

    @functools.cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets, shortest first."""
        # By length, longest last; whole batches are cut from the short end, so only the longest can be short of rows.
        order = np.argsort(self.lengths, kind="stable")
        ends = np.minimum(np.arange(1, self.steps_per_epoch + 1) * self.batch_size, len(order))
        longest = -(-self.lengths[order[ends - 1]] // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        buckets, first = [], 0
        for length in choose_lengths(longest, self.max_buckets):
            stop = int(np.searchsorted(longest, length, side="right"))
            rows = order[first * self.batch_size : stop * self.batch_size]
            buckets.append(Bucket(length, rows, first))
            first = stop
        return tuple(buckets)

    @property
    def tokens_per_epoch(self) -> int:
        """Positions computed in an epoch, padding included."""
        ends = [*(bucket.first_batch for bucket in self.buckets[1:]), self.steps_per_epoch]
        batches = [end - bucket.first_batch for bucket, end in zip(self.buckets, ends, strict=True)]
        return sum(n * self.batch_size * bucket.length for n, bucket in zip(batches, self.buckets, strict=True))

    def step(self, step: int, seed: int) -> tuple[int, np.ndarray]:
        """Return the length and the row numbers of a step, a function of (seed, step); -1 fills a short batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        batch = int(hashing.permute(np.array([place]), np.array([epoch]), self.steps_per_epoch, _SCHEDULE_SEED)[0])
        number = sum(bucket.first_batch <= batch for bucket in self.buckets) - 1
        bucket = self.buckets[number]
        first = (batch - bucket.first_batch) * self.batch_size
        ranks = np.arange(first, min(first + self.batch_size, len(bucket.rows)))
        epochs = np.full(len(ranks), epoch * len(self.buckets) + number)  # every bucket has an order of its own
        rows = bucket.rows[hashing.permute(ranks, epochs, len(bucket.rows), seed)]
        return bucket.length, np.pad(rows, (0, self.batch_size - len(rows)), constant_values=-1)


def choose_lengths(longest: np.ndarray, max_buckets: int) -> list[int]:
    """Return at most `max_buckets` of the batches' lengths to pad to, such that the fewest positions are computed.

    Args:
        longest: of each batch, ascending.
        max_buckets: 1 or more.
    """
    lengths, counts = np.unique(longest, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    # cost[j]: of the batches up to length j in at most k buckets; one bucket from i to j costs its batches × length j.
    cost = [float(before[j + 1] * lengths[j]) for j in range(len(lengths))]
    chosen = [[int(length)] for length in lengths]
    for _ in range(max_buckets - 1):
        options = [
            [(cost[j], chosen[j])]
            + [
                (cost[i] + float((before[j + 1] - before[i + 1]) * lengths[j]), [*chosen[i], int(lengths[j])])
                for i in range(j)
            ]
            for j in range(len(lengths))
        ]
        best = [min(choices, key=lambda option: option[0]) for choices in options]
        cost, chosen = [option[0] for option in best], [option[1] for option in best]
    return chosen[-1]


def train_batches(
    rows: EncodedRows, schedule: Schedule, seed: int, first_step: int, local: slice
) -> Generator[Batch, None, None]:
    """Return the endless batches from a step on.

    Args:
        rows: to train on.
        schedule: of their lengths.
        seed: of the order within buckets.
        first_step: 0 or more; nothing before it is made.
        local: this process' rows of every batch.
    """
    step = first_step
    while True:
        length, numbers = schedule.step(step, seed)
        yield collate(rows, numbers[local], length)
        step += 1


def held_out_batches(
    rows: EncodedRows, batch_size: int, max_buckets: int, local: slice
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Return batches with every row once, and the numbers of the whole batch's rows (-1 fills), shortest rows first."""
    schedule = Schedule(rows.lengths, batch_size, max_buckets)
    for bucket in schedule.buckets:
        for first in range(0, len(bucket.rows), batch_size):
            numbers = bucket.rows[first : first + batch_size]
            numbers = np.pad(numbers, (0, batch_size - len(numbers)), constant_values=-1)
            yield numbers, collate(rows, numbers[local], bucket.length)


def collate(rows: EncodedRows, numbers: np.ndarray, length: int) -> Batch:
    """Return the arrays of some rows, padded with 0 (token labels with -1) to `length`.

    Args:
        rows: to take from.
        numbers: of the rows; -1 gives a row of padding with weight 0.
        length: at least that of the longest row.

    Returns:
        input_ids, input_mask, segment_ids int32 [rows, length], or [rows, choices, length] with choices;
        row_weights float32 [rows]; and the targets by their names.
    """
    real = numbers >= 0
    sequences = (numbers[:, None] * rows.choices + np.arange(rows.choices)).ravel()
    shape = (len(numbers), length) if rows.choices == 1 else (len(numbers), rows.choices, length)
    input_ids = _take(rows.input_ids, sequences)
    input_mask = [np.ones(len(ids), np.int32) for ids in input_ids]
    batch = {
        "input_ids": _pad(input_ids, length, 0).reshape(shape),
        "input_mask": _pad(input_mask, length, 0).reshape(shape),
        "segment_ids": _pad(_take(rows.segment_ids, sequences), length, 0).reshape(shape),
        "row_weights": real.astype(np.float32),
    }
    for name, values in rows.targets.items():
        batch[name] = np.where(real, values[numbers], 0).astype(values.dtype)
    for name, ragged in rows.token_targets.items():
        batch[name] = _pad(_take(ragged, numbers), length, -1)
    return batch


_NOTHING = np.zeros(0, np.int32)


def _take(arrays: Sequence[np.ndarray], numbers: np.ndarray) -> list[np.ndarray]:
    """Return the arrays with these numbers, an empty one for each negative number."""
    return [arrays[number] if number >= 0 else _NOTHING for number in numbers]


def _pad(arrays: Sequence[np.ndarray], length: int, value: int) -> np.ndarray:
    padded = np.full((len(arrays), length), value, np.int32)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded
