"""A model over held-out rows: outputs in the rows' order, whatever buckets they were computed in; metrics."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.input.placement import local_rows, place_batch
from bert_jax.objectives.downstream import DownstreamObjective
from bert_jax.tasks.batches import held_out_batches
from bert_jax.tasks.task import EncodedRows, HeldOut, Outputs
from bert_jax.training import sharding
from bert_jax.training.evaluation import fetched
from bert_jax.training.metrics import evaluation_row
from bert_jax.training.state import Batch, Metrics

INPUTS = frozenset({"input_ids", "input_mask", "segment_ids", "row_weights"})  # what rows have without answers


HeldOutStep = Callable[[Any, Batch], tuple[dict[str, jax.Array], Metrics]]


def make_held_out_step(objective: DownstreamObjective) -> HeldOutStep:
    """Return (parameters, batch) → (the head's outputs, metrics), to be jitted; no metrics for rows without answers."""

    def step(params: Any, batch: Batch) -> tuple[dict[str, jax.Array], Metrics]:
        if INPUTS.issuperset(batch):
            return objective.outputs_of(params, batch), {}
        # The forward pass is written twice and compiled once: XLA sees that both are the same.
        _, metrics, _ = objective.loss(params, {}, batch, objective.normalizers(batch), None)
        return objective.outputs_of(params, batch), metrics

    return step


class Collector:
    """Puts the outputs of batches back into the rows' order, and adds up the metrics."""

    def __init__(self, head: str, rows: EncodedRows) -> None:
        """Expect every row of `rows` once."""
        self._per_token = head in ("tokens", "span")
        self._lengths = [len(ids) for ids in rows.input_ids] if self._per_token else []
        self._rows: dict[str, list[Any]] = {}
        self._sums: dict[str, tuple[float, float]] = {}
        self._num_rows = len(rows)

    def add(self, numbers: np.ndarray, outputs: Mapping[str, np.ndarray], metrics: Mapping[str, Any]) -> None:
        """Take the outputs of the rows with these numbers (-1 fills a batch), and their (sum, count) metrics."""
        for name, values in outputs.items():
            store = self._rows.setdefault(name, [None] * self._num_rows)
            for number, value in zip(numbers, values, strict=True):
                if number >= 0:
                    store[number] = value[: self._lengths[number]] if self._per_token else value
        for name, (total, count) in metrics.items():
            before = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (before[0] + float(total), before[1] + float(count))

    def outputs(self) -> Outputs:
        """Return all rows' outputs, padding cut off."""
        if self._per_token:
            return self._rows
        return {name: np.stack(values) for name, values in self._rows.items()}

    def row(self, part: HeldOut, prefix: str) -> dict[str, float]:
        """Return the metrics of a split whose every row was added, under `prefix`, such as "eval/"."""
        scores = part.score(self.outputs()) | {"loss": evaluation_row(self._sums)["eval/task_loss"]}
        return {f"{prefix}{name}": value for name, value in scores.items()}


def prefixes(held_out: Mapping[str, HeldOut]) -> dict[str, str]:
    """Return what the metrics of each split begin with: `eval/` of the first, `eval/mismatched/` of another."""
    return {split: f"eval/{split}/" if number else "eval/" for number, split in enumerate(held_out)}


@dataclasses.dataclass(frozen=True)
class HeldOutRunner:
    """Runs a model over rows of any lengths.

    Attributes:
        objective: with the model.
        batch_size: rows at a time.
        max_buckets: lengths that rows are padded to, at most.
        mesh: the devices.
    """

    objective: DownstreamObjective
    batch_size: int
    max_buckets: int
    mesh: Mesh

    @functools.cached_property
    def _step(self) -> HeldOutStep:
        return jax.jit(make_held_out_step(self.objective), out_shardings=sharding.replicated(self.mesh))

    def run(self, params: Any, rows: EncodedRows, interrupted: Callable[[], bool] = lambda: False) -> Collector | None:
        """Return what the model says to all rows; None if it was broken off."""
        collector = Collector(self.objective.head, rows)
        for numbers, (outputs, metrics) in fetched(self._dispatched(params, rows)):
            if interrupted():
                return None
            collector.add(numbers, outputs, metrics)
        return collector

    def _dispatched(self, params: Any, rows: EncodedRows) -> Iterator[Any]:
        """Yield each batch' row numbers, and what the step returns of it."""
        local = local_rows(self.batch_size, self.mesh)
        for numbers, batch in held_out_batches(rows, self.batch_size, self.max_buckets, local):
            with sharding.on_mesh(self.mesh):
                found = self._step(params, place_batch(batch, self.mesh))
            yield numbers, found


def make_evaluate(runner: HeldOutRunner, held_out: Mapping[str, HeldOut]) -> Callable[..., dict[str, float] | None]:
    """Return (parameters, whether to break off) → the `eval/` row of all splits, None if it was broken off."""

    def run_evaluation(params: Any, interrupted: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        row: dict[str, float] = {}
        for split, prefix in prefixes(held_out).items():
            collector = runner.run(params, held_out[split].rows, interrupted)
            if collector is None:
                return None
            row |= collector.row(held_out[split], prefix)
        return row

    return run_evaluation
