"""Global batches: batch k is a function of (seed, k) alone.

    batch k, row i  ->  place k·B + i of the endless order  ->  epoch and rank in it  ->  a record, by a permutation
    of the epoch  ->  its row, masked by (seed, record, epoch)

So a run resumes at any step without reading what came before, on any number of hosts, and threads only prefetch.
Epochs are chained end to end: a batch may hold the last rows of one and the first of the next, and every record comes
exactly once an epoch.
"""

import dataclasses
import sys
import time
from collections.abc import Generator
from typing import Any

import grain
import numpy as np

from bert_jax.corpus.records import NO_LABEL, Rows
from bert_jax.input import hashing
from bert_jax.input.instances import InstanceSet, open_instances
from bert_jax.input.masking import MaskingConfig, mask_rows

__all__ = [
    "Batch",
    "DataConfig",
    "InstanceSet",
    "evaluation_batches",
    "measure_rows_per_second",
    "open_instances",
    "train_batches",
]

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where training rows come from.

    Attributes:
        corpus: directory that `launch.prepare` made.
        instances: name of an instance set in it, such as "nsp-128".
        batch_size: rows of a global batch, over all hosts and microbatches.
        num_threads: that prefetch, in each process; 0 makes each batch when it is asked for.
        prefetch_batches: made ahead; at least num_threads.
    """

    corpus: str
    instances: str
    batch_size: int
    num_threads: int = 2
    prefetch_batches: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot be loaded."""
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size is {self.batch_size}; it must be 1 or more")
        if self.num_threads < 0:
            raise ValueError(f"data.num_threads is {self.num_threads}; it must be 0 or more")
        if self.num_threads and self.prefetch_batches < self.num_threads:
            raise ValueError(
                f"data.prefetch_batches is {self.prefetch_batches}, so of the {self.num_threads} threads of "
                f"data.num_threads some would idle; use prefetch_batches of {self.num_threads} or more"
            )


@dataclasses.dataclass(frozen=True)
class _BatchSource:
    """This host's part of batch first_batch + k as element k: what grain prefetches."""

    instances: InstanceSet
    batch_size: int
    masking: MaskingConfig
    seed: int
    rows: slice
    shuffled: bool
    num_rows: int  # of one epoch
    first_batch: int
    num_batches: int

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: Any) -> Batch:
        first = (self.first_batch + int(index)) * self.batch_size
        places = np.arange(first + self.rows.start, first + self.rows.stop)
        if self.shuffled:
            epochs, ranks = np.divmod(places, self.num_rows)
            return self._batch(hashing.permute(ranks, epochs, self.num_rows, self.seed), epochs)
        batch = self._batch(np.minimum(places, self.num_rows - 1), np.zeros_like(places))
        for array in batch.values():
            array[places >= self.num_rows] = 0  # rows that fill up the last batch; zero weights and masks
        return batch

    def _batch(self, indices: np.ndarray, epochs: np.ndarray) -> Batch:
        rows, manifest = self.instances.read(indices), self.instances.manifest
        masked = mask_rows(
            rows,
            indices,
            epochs,
            self.masking,
            self.seed,
            manifest.special_ids,
            manifest.record_format.vocab_size,
        )
        labelled = rows.next_sentence_labels != NO_LABEL
        return {
            **masked,
            "input_mask": (rows.sequence_ids > 0).astype(np.int32),
            "segment_ids": rows.segment_ids,
            "position_ids": _position_ids(rows),
            "sequence_ids": rows.sequence_ids,
            "sequence_starts": rows.sequence_starts,
            "next_sentence_labels": np.where(labelled, rows.next_sentence_labels, 0).astype(np.int32),
            "next_sentence_weights": labelled.astype(np.float32),
        }


def train_batches(
    instances: InstanceSet,
    data_config: DataConfig,
    masking_config: MaskingConfig,
    seed: int,
    first_step: int,
    rows: slice,
) -> Generator[Batch, None, None]:
    """Return the endless batches from `first_step` on; nothing before it is read.

    Args:
        instances: the train split.
        data_config: its batch_size may exceed the rows of an epoch; batches then hold several epochs.
        masking_config: how to mask; ignored where the set has stored masks.
        seed: of the order and of the masks.
        first_step: 0 or more.
        rows: this process' part of the global batch (`placement.local_rows`), such as slice(0, batch_size).

    Returns:
        A generator; `close` ends its threads. Arrays are int32, or float32 for weights, with len(rows) rows:
        input_ids, input_mask, segment_ids, position_ids, sequence_ids [B, L]; sequence_starts, next_sentence_labels,
        next_sentence_weights [B, S]; masked_lm_positions, masked_lm_ids, masked_lm_weights [B, P].
    """
    check_rows(rows, data_config.batch_size)
    if first_step < 0:
        raise ValueError(f"first_step is {first_step}; it must be 0 or more")
    source = _BatchSource(
        instances=instances,
        batch_size=data_config.batch_size,
        masking=masking_config,
        seed=seed,
        rows=rows,
        shuffled=True,
        num_rows=len(instances),
        first_batch=first_step,
        num_batches=sys.maxsize,
    )
    return prefetched(source, data_config.num_threads, data_config.prefetch_batches)


def evaluation_batches(
    instances: InstanceSet,
    batch_size: int,
    masking_config: MaskingConfig,
    seed: int,
    rows: slice,
    max_rows: int | None = None,
) -> Generator[Batch, None, None]:
    """Return batches with every row once, in stored order, always with the masks of epoch 0.

    The last batch is filled up with rows of zeros: no real token, all weights 0. Every process gets as many batches.

    Args:
        instances: usually the validation split.
        batch_size: rows of a global batch.
        masking_config: how to mask; ignored where the set has stored masks.
        seed: of the masks.
        rows: this process' part of the global batch.
        max_rows: only the first so many; None = all.
    """
    check_rows(rows, batch_size)
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows is {max_rows}; it must be 1 or more, or None for all rows")
    num_rows = len(instances) if max_rows is None else min(max_rows, len(instances))
    source = _BatchSource(
        instances=instances,
        batch_size=batch_size,
        masking=masking_config,
        seed=seed,
        rows=rows,
        shuffled=False,
        num_rows=num_rows,
        first_batch=0,
        num_batches=-(-num_rows // batch_size),
    )
    return prefetched(source, num_threads=1, prefetch_batches=2)


def measure_rows_per_second(
    instances: InstanceSet, data_config: DataConfig, masking_config: MaskingConfig, seed: int, num_batches: int
) -> dict[str, Any]:
    """Time `num_batches` masked global batches, behind those made ahead; returns what was measured."""
    batches = train_batches(instances, data_config, masking_config, seed, 0, slice(0, data_config.batch_size))
    for _ in range(1 + data_config.prefetch_batches):
        next(batches)
    started, started_cpu = time.perf_counter(), time.process_time()
    for _ in range(num_batches):
        next(batches)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    batches.close()
    num_rows = num_batches * data_config.batch_size
    return {
        "rows_per_second": num_rows / seconds,
        "rows_per_cpu_second": num_rows / cpu_seconds,
        "rows": num_rows,
        "seconds": seconds,
        "sequence_length": instances.manifest.record_format.sequence_length,
        "batch_size": data_config.batch_size,
        "num_threads": data_config.num_threads,
        "prefetch_batches": data_config.prefetch_batches,
        "masking_unit": masking_config.unit,
        "masking": instances.manifest.masking,
    }


def prefetched(source: Any, num_threads: int, prefetch_batches: int) -> Generator[Batch, None, None]:
    """Return the elements of a random-access source in order, made ahead by threads; `close` ends these."""
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch_batches if num_threads else 0)
    iterator = iter(grain.MapDataset.source(source).to_iter_dataset(options))

    def batches() -> Generator[Batch, None, None]:
        try:
            yield from iterator
        finally:
            iterator.close()

    return batches()


def check_rows(rows: slice, batch_size: int) -> None:
    """Refuse rows that are no part of a global batch."""
    if rows.step not in (None, 1) or not 0 <= (rows.start or 0) < (rows.stop or 0) <= batch_size:
        raise ValueError(f"rows is {rows}; it must be a part of slice(0, {batch_size}), the global batch")


def _position_ids(rows: Rows) -> np.ndarray:
    """Return int32 [rows, length]: positions count from 0 in each packed sequence; 0 in padding."""
    positions = np.arange(rows.input_ids.shape[1], dtype=np.int32)
    if rows.sequence_starts.shape[1] == 1:
        return np.where(rows.sequence_ids > 0, positions - rows.sequence_starts, 0)
    starts = np.take_along_axis(rows.sequence_starts, np.maximum(rows.sequence_ids - 1, 0), axis=1)
    return np.where(rows.sequence_ids > 0, positions - starts, 0)
