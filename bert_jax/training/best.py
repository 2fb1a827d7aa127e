"""Which checkpoint of a run is the best one, by what its meta says."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class BestBy:
    """By which metric of the evaluations a run's best checkpoint is chosen; every checkpoint's meta says it."""

    metric: str = "eval/loss"
    higher_is_better: bool = False


def rank(meta: dict[str, Any]) -> float:
    """Return the metric that a checkpoint is chosen by, so that lower is better; infinite without an evaluation."""
    best_by = BestBy(**meta.get("best_by", {}))
    value = (meta.get("evaluation") or {}).get(best_by.metric, math.inf)
    return -value if best_by.higher_is_better else value


def best_step(ranks: dict[int, float]) -> int | None:
    """Return the step with the lowest rank, the earliest of equals; None when no rank is finite."""
    finite = {step: value for step, value in ranks.items() if math.isfinite(value)}
    return min(finite, key=lambda step: (finite[step], step), default=None)
