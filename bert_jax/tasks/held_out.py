"""A model over held-out rows: outputs in the rows' order, whatever buckets they were computed in; metrics."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.input.placement import local_rows, place_batch
from bert_jax.objectives.downstream import DownstreamObjective
from bert_jax.tasks.batches import held_out_batches
from bert_jax.tasks.task import EncodedRows, HeldOut, Outputs
from bert_jax.training import sharding
from bert_jax.training.metrics import evaluation_row
from bert_jax.training.state import Batch, Metrics

INPUTS = frozenset({"input_ids", "input_mask", "segment_ids", "row_weights"})  # what rows have without answers


class Collector:
    """Puts the outputs of batches back into the rows' order."""

    def __init__(self, head: str, rows: EncodedRows) -> None:
        """Expect every row of `rows` once."""
        self._per_token = head in ("tokens", "span")
        self._lengths = [len(ids) for ids in rows.input_ids] if self._per_token else []
        self._rows: dict[str, list[Any]] = {}
        self._num_rows = len(rows)

    def add(self, numbers: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
        """Take the outputs of the rows with these numbers; -1 fills a batch."""
        for name, values in outputs.items():
            store = self._rows.setdefault(name, [None] * self._num_rows)
            for number, value in zip(numbers, values, strict=True):
                if number >= 0:
                    store[number] = value[: self._lengths[number]] if self._per_token else value

    def outputs(self) -> Outputs:
        """Return all rows' outputs, padding cut off."""
        if self._per_token:
            return self._rows
        return {name: np.stack(values) for name, values in self._rows.items()}


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
    def _step(self) -> Callable[[Any, Batch], tuple[dict[str, jax.Array], Metrics]]:
        def step(params: Any, batch: Batch) -> tuple[dict[str, jax.Array], Metrics]:
            if INPUTS.issuperset(batch):  # rows without answers
                return self.objective.outputs_of(params, batch), {}
            _, metrics, _ = self.objective.loss(params, {}, batch, self.objective.normalizers(batch), None)
            return self.objective.outputs_of(params, batch), metrics

        return jax.jit(step, out_shardings=sharding.replicated(self.mesh))

    def run(
        self, params: Any, rows: EncodedRows, interrupted: Callable[[], bool] = lambda: False
    ) -> tuple[Outputs, dict[str, float]] | None:
        """Return the head's outputs of all rows, in their order, and the mean metrics; None if it was broken off."""
        collector, sums = Collector(self.objective.head, rows), dict[str, tuple[float, float]]()
        local = local_rows(self.batch_size, self.mesh)
        for numbers, batch in held_out_batches(rows, self.batch_size, self.max_buckets, local):
            if interrupted():
                return None
            with sharding.on_mesh(self.mesh):
                outputs, metrics = jax.device_get(self._step(params, place_batch(batch, self.mesh)))
            collector.add(numbers, outputs)
            for name, (total, count) in metrics.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + float(total), before[1] + float(count))
        return collector.outputs(), evaluation_row(sums)


def make_evaluate(runner: HeldOutRunner, held_out: Mapping[str, HeldOut]) -> Callable[..., dict[str, float] | None]:
    """Return (parameters, whether to break off) → the `eval/` row of all splits, None if it was broken off.

    The first split's metrics are `eval/accuracy`, another's `eval/mismatched/accuracy`.
    """

    def run_evaluation(params: Any, interrupted: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        row: dict[str, float] = {}
        for number, (split, part) in enumerate(held_out.items()):
            found = runner.run(params, part.rows, interrupted)
            if found is None:
                return None
            outputs, means = found
            prefix = f"eval/{split}/" if number else "eval/"
            row |= {f"{prefix}{name}": value for name, value in part.score(outputs).items()}
            row[f"{prefix}loss"] = means["eval/task_loss"]
        return row

    return run_evaluation
