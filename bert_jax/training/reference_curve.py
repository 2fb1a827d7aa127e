"""A recorded run's loss, to hold a running one against, which answers whether that one is on track.

A curve is a JSON file: `{"name", "config", "runs", "points": [[real tokens, loss, spread], …]}`. Loss is the training
loss, the mean over a logged window; spread is the standard deviation over the recorded runs, or, for a single run, of
its windows around a line; in either case over some neighbouring windows. `python -m launch.record_curve` makes one
of finished runs.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

OFF_TRACK_SPREADS = 4.0  # further away than this many spreads …
OFF_TRACK_ROWS = 3  # … in so many logged rows, one after the other, is worth a warning
NEIGHBOURS = 5  # windows on each side that a spread is taken over
LEAST_SPREAD = 0.01  # nats; a spread of two or three runs can be 0 by chance


class ReferenceCurve:
    """A curve that was read, and how long the run has been off it."""

    def __init__(self, name: str, points: Sequence[Sequence[float]]) -> None:
        """Take points (real tokens, loss, spread) with rising tokens."""
        self.name = name
        self._tokens, self._losses, self._spreads = (np.array(column) for column in zip(*points, strict=True))
        self._rows_off = 0

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ReferenceCurve":
        """Read a curve.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file without points.
        """
        if not epath.Path(path).exists():
            raise FileNotFoundError(
                f'config.train.reference_curve {path} does not exist; use "" for none, or make it with '
                f"`python -m launch.record_curve --run=DIR --output={path}`"
            )
        try:
            content = json.loads(epath.Path(path).read_text(encoding="utf-8"))
        except ValueError:
            content = None
        if not isinstance(content, dict) or not content.get("points"):
            raise ValueError(f"{path} is no reference curve; make one with `python -m launch.record_curve`")
        return cls(content["name"], content["points"])

    def expected(self, tokens: float) -> tuple[float, float] | None:
        """Return loss and spread after so many real tokens; None outside the recorded range."""
        if not self._tokens[0] <= tokens <= self._tokens[-1]:
            return None
        return (
            float(np.interp(tokens, self._tokens, self._losses)),
            float(np.interp(tokens, self._tokens, self._spreads)),
        )

    def compare(self, tokens: float, loss: float) -> str:
        """Return "reference 5.05 ± 0.04 at 1.2M tokens", with a warning once the run has left the curve."""
        found = self.expected(tokens)
        if found is None:
            return ""
        reference, spread = found
        off = abs(loss - reference) > OFF_TRACK_SPREADS * max(spread, LEAST_SPREAD)
        self._rows_off = self._rows_off + 1 if off else 0
        text = f"reference {reference:.3f} ± {spread:.3f} at {format_tokens(tokens)} tokens"
        if self._rows_off >= OFF_TRACK_ROWS:
            text += f"; OFF TRACK by {loss - reference:+.2f}"
        return text


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """A finished run's training rows: real tokens and loss of each."""

    workdir: str
    tokens: tuple[float, ...]
    losses: tuple[float, ...]


def recorded_run(workdir: str, rows: Sequence[dict[str, Any]]) -> RecordedRun:
    """Return the training rows among those of a run's metrics.jsonl.

    Raises:
        ValueError: there are none.
    """
    points = [(row["train/tokens"], row["train/loss"]) for row in rows if "train/loss" in row]
    if not points:
        raise ValueError(f"{workdir} has no training rows in a metrics.jsonl; give the --workdir of a finished run")
    tokens, losses = zip(*points, strict=True)
    return RecordedRun(workdir, tokens, losses)


def record(name: str, config: str, runs: Sequence[RecordedRun]) -> dict[str, Any]:
    """Return the content of a curve file for runs of one config; the first run's rows give the tokens."""
    first, *others = runs
    last = min(run.tokens[-1] for run in runs)
    tokens = [count for count in first.tokens if count <= last]
    # [runs, windows]
    losses = np.array([first.losses[: len(tokens)], *(np.interp(tokens, run.tokens, run.losses) for run in others)])
    points = []
    for index, count in enumerate(tokens):
        near = losses[:, max(0, index - NEIGHBOURS) : index + NEIGHBOURS + 1]
        # Two or three runs may meet by chance: what counts is how far they are apart around here.
        spread = math.sqrt(float(np.mean(np.var(near, axis=0, ddof=1)))) if others else _residual_spread(near[0])
        points.append([round(count, 1), round(float(np.mean(losses[:, index])), 4), round(spread, 4)])
    return {"name": name, "config": config, "runs": len(runs), "points": points}


def format_tokens(tokens: float) -> str:
    """Return 950, 12.3k, 1.2M or 3.3B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if tokens >= size:
            return f"{tokens / size:.1f}{unit}"
    return f"{tokens:.0f}"


def _residual_spread(losses: Any) -> float:
    """Return the standard deviation around a straight line, so that falling is not counted as noise."""
    if len(losses) < 3:
        return 0.0
    places = np.arange(len(losses))
    residuals = np.asarray(losses) - np.polyval(np.polyfit(places, losses, 1), places)
    return math.sqrt(float(np.sum(residuals**2)) / (len(losses) - 2))
