"""Metrics from (sum, count) pairs on the device to rows: metrics.jsonl, TensorBoard, and one line on the terminal.

Means are taken on the host, in float64, after everything was added up, so unequal weights cannot bias them.
"""

import json
import math
import shutil
import sys
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from bert_jax.corpus.remote import is_object_store
from bert_jax.training.reference_curve import ReferenceCurve
from bert_jax.training.state import Metrics
from bert_jax.training.tensorboard import TensorBoard
from bert_jax.training.throughput import Throughput

# The objectives' names are the papers'; what is logged has the shorter ones that users look for.
LOGGED_NAMES = {
    "masked_lm_loss": "mlm_loss",
    "masked_lm_accuracy": "mlm_accuracy",
    "next_sentence_loss": "nsp_loss",
    "next_sentence_accuracy": "nsp_accuracy",
}
FILE = "metrics.jsonl"
_TENSORBOARD = "TensorBoard"


class NonFiniteError(FloatingPointError):
    """A loss or gradient was infinite or not a number, and the run is configured to stop then."""


class MetricWindow:
    """The sums since the last logged row, and the totals since step 0.

    Metrics of a step stay on the device until `fold`, which fetches all of them at once. What `to_plain` returns goes
    into a checkpoint, so that a resumed run logs the same row as an uninterrupted one.
    """

    def __init__(self, plain: dict[str, Any] | None = None) -> None:
        """Start empty, or from what `to_plain` returned."""
        plain = plain or {}
        self.steps: int = plain.get("steps", 0)
        self.seconds: float = plain.get("seconds", 0.0)  # that the steps took, without evaluations and saves
        self._sums: dict[str, list[float]] = {name: list(pair) for name, pair in plain.get("sums", {}).items()}
        self.totals: dict[str, float] = dict(plain.get("totals", {"real_tokens": 0.0, "nonfinite": 0.0}))
        self._pending: list[tuple[int, Metrics]] = []

    def add(self, step: int, metrics: Metrics) -> None:
        """Take the metrics of the update after which `step` updates were done; does not wait for them."""
        self._pending.append((step, metrics))

    def fold(self) -> int | None:
        """Wait for the pending metrics and add them up.

        Returns:
            The first update whose loss or gradient was not finite, counted from 1; None when there is none.
        """
        first_bad = None
        steps = [step for step, _ in self._pending]
        for step, fetched in zip(steps, jax.device_get([metrics for _, metrics in self._pending]), strict=True):
            for name in sorted(fetched):
                total, count = (float(value) for value in fetched[name])
                pair = self._sums.setdefault(name, [0.0, 0.0])
                pair[0] += total
                pair[1] += count
                if name in self.totals:
                    self.totals[name] += total
                if name == "nonfinite" and total and first_bad is None:
                    first_bad = step
        self.steps += len(steps)
        self._pending.clear()
        return first_bad

    def sum_of(self, name: str) -> float:
        """Return the sum of a folded metric over the window."""
        return self._sums.get(name, [0.0, 0.0])[0]

    def means(self) -> dict[str, float]:
        """Return sum / count of the objective's and the optimizer's metrics; those without counts are left out."""
        return {
            LOGGED_NAMES.get(name, name): total / count
            for name, (total, count) in sorted(self._sums.items())
            if count and name not in self.totals
        }

    def clear(self) -> None:
        """Begin the next window; totals stay."""
        self.steps, self.seconds = 0, 0.0
        self._sums.clear()

    def to_plain(self) -> dict[str, Any]:
        """Return a copy of everything that was folded, for JSON; floats come back bit for bit."""
        assert not self._pending, "fold before saving"
        # A copy, because checkpoints are written in the background while the next steps are added up.
        sums = {name: list(pair) for name, pair in self._sums.items()}
        return {"steps": self.steps, "seconds": self.seconds, "sums": sums, "totals": dict(self.totals)}


def evaluation_row(sums: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Return `eval/` metrics of (sum, count) pairs over an evaluation; perplexity is taken after the mean.

    `eval/loss` is the sum of the tasks' mean losses, for objectives of such tasks, and the mean of two directions'. A
    task without labels has no entry.
    """
    means = {LOGGED_NAMES.get(name, name): total / count for name, (total, count) in sorted(sums.items()) if count}
    row = {f"eval/{name}": mean for name, mean in means.items()}
    if losses := [mean for name, mean in means.items() if name in ("mlm_loss", "nsp_loss", "loss")]:
        row["eval/loss"] = sum(losses)
    directions = [means[name] for name in ("forward_loss", "backward_loss") if name in means]
    if directions:
        row["eval/loss"] = sum(directions) / len(directions)
        for name in ("forward_loss", "backward_loss", "loss"):
            perplexity = name.replace("loss", "perplexity")
            row[f"eval/{perplexity}"] = math.exp(min(row[f"eval/{name}"], 700.0))
    if "mlm_loss" in means:
        row["eval/mlm_perplexity"] = math.exp(min(means["mlm_loss"], 700.0))  # exp(710) is infinite
    return row


class MetricsFile:
    """metrics.jsonl: one JSON object a logged step, `step` first."""

    def __init__(self, workdir: epath.Path, restored_step: int, evaluate_again: bool) -> None:
        """Open the file and cut what lies beyond the restored step, a half-written last line included.

        Args:
            workdir: the run's directory.
            restored_step: 0 for a fresh run.
            evaluate_again: the evaluation of the restored step is to be repeated, so its row goes too.
        """
        self._path = workdir / FILE
        self._rows = [
            row
            for row in read_rows(self._path)
            if row["step"] < restored_step or (row["step"] == restored_step and not (evaluate_again and is_eval(row)))
        ]
        self._in_bucket = is_object_store(workdir)
        self._write_all()
        self._appends = not self._in_bucket

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, and before it those that could not be written."""
        self._rows.append(row)
        appends, self._appends = self._appends, False  # a write that fails may leave half a line
        if appends:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        else:
            self._write_all()
        self._appends = not self._in_bucket

    def _write_all(self) -> None:
        written = self._path if self._in_bucket else self._path.with_name(f"{FILE}.tmp")  # a bucket's are whole or not
        written.write_text("".join(json.dumps(row) + "\n" for row in self._rows))
        if written != self._path:
            written.replace(self._path)


def read_rows(path: epath.Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl; none when there is no file, and without a half-written last line."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def is_eval(row: dict[str, Any]) -> bool:
    """Return whether a row of metrics.jsonl is of an evaluation."""
    return any(name.startswith("eval/") for name in row)


class Reporter:
    """Writes rows wherever they go. A writer that fails is told once and never stops the run.

    TensorBoard is given up then; metrics.jsonl gets its rows as soon as it can be written again.
    """

    def __init__(
        self,
        workdir: epath.Path,
        total_steps: int,
        throughput: Throughput,
        reference: ReferenceCurve | None,
        restored_step: int = 0,
        evaluate_again: bool = False,
    ) -> None:
        """Open the writers in process 0; others write nothing. Rows beyond the start are cut (`MetricsFile`)."""
        self._total_steps, self._throughput, self._reference = total_steps, throughput, reference
        self._progress = Progress()
        self._file: MetricsFile | None = None
        self._tensorboard: TensorBoard | None = None
        self._failed = set[str]()
        if jax.process_index() == 0:
            self._file = MetricsFile(workdir, restored_step, evaluate_again)
            self._open_tensorboard(workdir, restored_step)

    def train(self, step: int, window: MetricWindow) -> None:
        """Write the row of a window."""
        means = window.means()
        rates = self._throughput.rates(window.steps, window.seconds, window.sum_of("real_tokens"))
        totals = {"train/tokens": window.totals["real_tokens"], "train/skipped_steps": window.totals["nonfinite"]}
        row = {"step": step, **{f"train/{name}": mean for name, mean in means.items()}, **totals, **rates}
        self._write(row)
        self._progress.show(self._line(step, means, rates, totals["train/tokens"], window.seconds / window.steps))

    def evaluation(self, step: int, row: dict[str, float], seconds: float) -> None:
        """Write the row of an evaluation."""
        self._write({"step": step, **row, "perf/evaluation_seconds": seconds})
        values = "  ".join(
            f"{name.removeprefix('eval/')} {value:{'.1%' if name.endswith('accuracy') else '.4g'}}"
            for name, value in row.items()
        )
        self.say(f"evaluation after step {step:,}: {values}")

    def say(self, text: str) -> None:
        """Write a line for the user."""
        self._progress.say(text)

    def close(self) -> None:
        """Flush the writers."""
        self._progress.end()
        if self._tensorboard is not None:
            self._guard(_TENSORBOARD, self._tensorboard.close)

    def _line(
        self, step: int, means: dict[str, float], rates: dict[str, float | None], tokens: float, seconds_per_step: float
    ) -> str:
        # In the order of interest: a narrow terminal shows the beginning.
        parts = [f"step {step:,}/{self._total_steps:,}"]
        if "loss" in means:
            parts.append(f"loss {means['loss']:.3f}")
        if "mlm_accuracy" in means:
            parts.append(f"MLM accuracy {means['mlm_accuracy']:.1%}")
        parts.append(f"ETA {format_seconds((self._total_steps - step) * seconds_per_step)}")
        parts.append(f"{rates['perf/tokens_per_second']:,.0f} tokens/s")
        if rates["perf/mfu"] is not None:
            parts.append(f"MFU {rates['perf/mfu']:.1%}")
        if self._reference and "loss" in means:
            parts.append(self._reference.compare(tokens, means["loss"]))
        return "  ".join(filter(None, parts))

    def _write(self, row: dict[str, Any]) -> None:
        if self._file is not None:
            self._guard(FILE, lambda file=self._file: file.write(row))
        if self._tensorboard is not None:
            self._guard(_TENSORBOARD, lambda board=self._tensorboard: board.write(row))

    def _guard(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # a full disk or a broken event file must not end a week's training
            if name == _TENSORBOARD:
                self._tensorboard = None
            if name not in self._failed:
                end = "is not written any more" if name == _TENSORBOARD else "was not written; the next row tries again"
                self.say(f"warning: {name} {end}: {type(error).__name__}: {error}")
            self._failed.add(name)

    def _open_tensorboard(self, workdir: epath.Path, restored_step: int) -> None:
        def open_writer() -> None:
            self._tensorboard = TensorBoard(workdir, restored_step)

        self._guard(_TENSORBOARD, open_writer)


class Progress:
    """One line that is rewritten on a terminal; a line each time elsewhere. Process 0 only."""

    def __init__(self) -> None:
        """Look where stderr goes."""
        self._silent = jax.process_index() != 0
        self._rewrites = sys.stderr.isatty()
        self._open = 0  # characters of the line that stands on the terminal

    def show(self, line: str) -> None:
        """Show where the run stands."""
        if self._silent:
            return
        if self._rewrites:
            line = line[: shutil.get_terminal_size().columns - 1]  # a line that wraps cannot be rewritten
            sys.stderr.write("\r" + line.ljust(self._open))
            self._open = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        if self._silent:
            return
        self.end()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line that stands."""
        if self._open and not self._silent:
            sys.stderr.write("\n")
            self._open = 0


def format_seconds(seconds: float) -> str:
    """Return 4:05, 1:02:03 or 2d 03:04:05."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
