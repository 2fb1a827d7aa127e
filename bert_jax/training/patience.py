"""Early stopping: how many evaluations may pass without a better one."""

import dataclasses
import math
from typing import Any

from bert_jax.training.best import BestBy, rank


@dataclasses.dataclass
class Patience:
    """Counts evaluations since the best one; a checkpoint keeps the count.

    Attributes:
        evaluations: that may pass without a better one; 0 = any number.
        best_by: the metric that decides.
        stored: the count of the checkpoint that the run resumed from.
    """

    evaluations: int = 0
    best_by: BestBy = dataclasses.field(default_factory=BestBy)
    stored: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Go on counting."""
        self._best = math.inf if self.stored is None or self.stored["best"] is None else self.stored["best"]
        self._passed = 0 if self.stored is None else self.stored["passed"]

    def add(self, row: dict[str, float]) -> None:
        """Count an evaluation."""
        value = rank({"evaluation": row, "best_by": dataclasses.asdict(self.best_by)})
        if value < self._best:
            self._best, self._passed = value, 0
        else:  # one that is not a number, too
            self._passed += 1

    @property
    def exhausted(self) -> bool:
        """Whether training longer is given up."""
        return 0 < self.evaluations <= self._passed

    def to_plain(self) -> dict[str, Any]:
        """Return what a checkpoint's meta keeps."""
        return {"best": None if math.isinf(self._best) else self._best, "passed": self._passed}
