"""Evaluation: the objective's metrics over held-out rows, exact on a ragged last batch, and what chance reaches.

Sums and counts are added up over all batches before any mean is taken, and rows that only fill the last batch weigh
nothing. The baselines are of the same places: always predicting the most frequent token, and the perplexity
of the training split's token frequencies.
"""

import contextlib
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from bert_jax.input.placement import place_batch
from bert_jax.training import sharding
from bert_jax.training.metrics import evaluation_row
from bert_jax.training.state import Batch, Metrics, Objective, fresh_carry

TOKEN_COUNTS = "token_counts.npy"
IN_FLIGHT = 4  # batches: the host makes the next ones while the device computes; a run that is to stop waits for them


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """When and on how much to evaluate.

    Attributes:
        every_steps: 0 = only after the last step.
        max_rows: of the validation split, the first so many; 0 = all.
        batch_size: rows of a global batch.
    """

    every_steps: int
    max_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        """Refuse negative numbers."""
        for name in ("every_steps", "max_rows"):
            if getattr(self, name) < 0:
                raise ValueError(f"config.eval.{name} is {getattr(self, name)}; use 0 or more")


@dataclasses.dataclass(frozen=True)
class UnigramBaseline:
    """What token frequencies alone predict.

    Attributes:
        log_probabilities: float32 [vocabulary], of the train split, one added to each count.
        most_frequent: the token id to predict always.
        ids, weights: names of the batch' arrays with what is to be predicted, and how much it counts.
    """

    log_probabilities: Float[np.ndarray, " vocab"]
    most_frequent: int
    ids: str = "masked_lm_ids"
    weights: str = "masked_lm_weights"

    @classmethod
    def load(
        cls, instances: str | os.PathLike[str], ids: str = "masked_lm_ids", weights: str = "masked_lm_weights"
    ) -> "UnigramBaseline":
        """Read `token_counts.npy` of an instance set's directory; see the class for the arrays' names.

        Raises:
            FileNotFoundError: the set has none.
        """
        path = Path(instances) / TOKEN_COUNTS
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist, so there are no baselines; prepare the corpus again")
        counts = np.load(path)
        smoothed = np.log((counts + 1.0) / (counts.sum() + len(counts)))
        return cls(smoothed.astype(np.float32), int(counts.argmax()), ids, weights)

    def metrics(self, batch: Batch) -> Metrics:
        """Return the baselines' loss and accuracy at the places of a batch that are predicted, as (sum, count)."""
        ids, weights = batch[self.ids], batch[self.weights]
        losses = -jnp.take(jnp.asarray(self.log_probabilities), ids)
        hits = (ids == self.most_frequent).astype(jnp.float32)
        count = jnp.sum(weights)
        return {
            "unigram_loss": (jnp.sum(losses * weights), count),
            "most_frequent_token_accuracy": (jnp.sum(hits * weights), count),
        }


EvaluationStep = Callable[[Any, Any, Batch], tuple[Metrics, Any]]


def make_evaluation_step(objective: Objective, mesh: Mesh, baseline: UnigramBaseline | None = None) -> EvaluationStep:
    """Return a compiled `(params, carry, batch) -> (metrics, carry)`, without dropout."""

    def evaluate_batch(params: Any, carry: Any, batch: Batch) -> tuple[Metrics, Any]:
        _, metrics, carry = objective.loss(params, carry, batch, objective.normalizers(batch), None)
        if baseline is not None:
            metrics = metrics | baseline.metrics(batch)
        return metrics, carry

    jitted = jax.jit(evaluate_batch, out_shardings=(sharding.replicated(mesh), sharding.batch_sharding(mesh)))

    def call(params: Any, carry: Any, batch: Batch) -> tuple[Metrics, Any]:
        with sharding.on_mesh(mesh):
            return jitted(params, carry, batch)

    return call


def fetched(dispatched: Iterable[Any]) -> Iterator[Any]:
    """Yield trees of device arrays as numpy arrays, in order, each when `IN_FLIGHT` more are on their way."""
    pending: deque[Any] = deque()
    for tree in dispatched:
        pending.append(tree)
        if len(pending) > IN_FLIGHT:
            yield jax.device_get(pending.popleft())
    yield from map(jax.device_get, pending)


def evaluate(
    step: EvaluationStep,
    params: Any,
    carry: Any,
    batches: Iterable[Batch],
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return the `eval/` metrics over all batches; None when it was broken off.

    Args:
        step: from `make_evaluation_step`.
        params: the model's.
        carry: a fresh one for the evaluation's batch size (`state.fresh_carry`); it passes from batch to batch.
        batches: placed on the mesh; the same number in every process.
        interrupted: asked at every batch; True breaks off.
    """
    sums: dict[str, tuple[float, float]] = {}

    def dispatched(carry: Any) -> Iterator[Metrics]:
        for batch in batches:
            metrics, carry = step(params, carry, batch)
            yield metrics

    for metrics in fetched(dispatched(carry)):
        if interrupted():
            return None
        for name, (total, count) in metrics.items():
            old_total, old_count = sums.get(name, (0.0, 0.0))
            sums[name] = (old_total + float(total), old_count + float(count))
    row = evaluation_row(sums)
    if "eval/unigram_loss" in row:
        row["eval/unigram_perplexity"] = float(np.exp(row.pop("eval/unigram_loss")))
    return row


def make_evaluate(
    objective: Objective,
    baseline: UnigramBaseline,
    batches: Callable[[], Generator[dict[str, np.ndarray], None, None]],
    batch_size: int,
    mesh: Mesh,
) -> Callable[..., dict[str, float] | None]:
    """Return (parameters, whether to break off) → the `eval/` row, baseline included.

    Args:
        objective: of the parameters.
        baseline: of the validation split.
        batches: makes them anew for each evaluation, this process' rows.
        batch_size: their global rows.
        mesh: the devices.
    """
    step = make_evaluation_step(objective, mesh, baseline)

    def run_evaluation(params: Any, interrupted: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        with contextlib.closing(batches()) as host_batches:
            placed = (place_batch(batch, mesh) for batch in host_batches)
            return evaluate(step, params, fresh_carry(objective, batch_size, mesh), placed, interrupted)

    return run_evaluation
