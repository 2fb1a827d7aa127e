"""A sweep's trials → one row a setting: best, median, mean ± std over its seeds; terminal, Markdown, CSV.

A trial scores its last epoch. Failed (degenerate) trials are counted and listed, and are in no best, median or mean.

Source: Devlin et al. 2018, section 4.1 and appendix A.3: the setting is chosen on dev, over a grid, with several seeds
where a large model fails on a small task.
"""

import csv
import dataclasses
import functools
import io
import json
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

TRIALS = "trials"
MARKDOWN, CSV = "table.md", "table.csv"
LEARNING_RATE = "optim.peak_learning_rate"
NOTHING = "–"
_KEYS = ("trial", "overrides", "best_metric", "last")
# What a split may have beside its scores, and every degenerate trial has.
_NO_SCORE = "constant_prediction"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        id: the name of its file.
        values: its setting: the overrides without the seed, by dotted names.
        seed: None where the sweep does not set it.
        learning_rate: the peak; None where neither overrides nor result have it.
        metrics: of its last evaluation, the finite ones.
        failed: why, "" if it did not.
    """

    id: str
    values: Mapping[str, Any]
    seed: int | None
    learning_rate: float | None
    metrics: Mapping[str, float]
    failed: str


@dataclasses.dataclass(frozen=True)
class Setting:
    """Trials that differ in their seed alone.

    Attributes:
        values: overrides by dotted names.
        trials: that have ended.
        planned: how many there will be.
        metric: that all is chosen by.
    """

    values: Mapping[str, Any]
    trials: tuple[Trial, ...]
    planned: int
    metric: str

    @property
    def order(self) -> tuple[Any, ...]:
        """A sorting key: by the values, numbers as numbers."""
        return _order(self.values)

    @functools.cached_property
    def scores(self) -> list[float]:
        """The metric of the trials that did not fail."""
        return self.scores_of(self.metric)

    @property
    def failed(self) -> list[Trial]:
        """The trials that failed."""
        return [trial for trial in self.trials if trial.failed]

    @property
    def mean(self) -> float:
        """Over seeds; nan without a score."""
        return statistics.fmean(self.scores) if self.scores else math.nan

    @property
    def std(self) -> float:
        """The sample's (n - 1); nan below two scores."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else math.nan

    def scores_of(self, metric: str) -> list[float]:
        """Return a metric of the trials that did not fail."""
        return [trial.metrics[metric] for trial in self.trials if not trial.failed and metric in trial.metrics]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The settings of a sweep, by falling mean; then those without a score, those not run last.

    Attributes:
        task: its name, or several.
        metric: that chooses.
        others: the other metrics.
        columns: dotted name of an override → its short name.
        settings: that were run or are planned.
        unplanned: ended trials beyond the plan.
    """

    task: str
    metric: str
    others: tuple[str, ...]
    columns: Mapping[str, str]
    settings: tuple[Setting, ...]
    unplanned: int

    @property
    def chosen(self) -> Setting | None:
        """The setting with the highest mean; of equal ones the first."""
        return self.settings[0] if self.settings[0].scores else None

    @property
    def marked(self) -> Setting | None:
        """The chosen setting where there was a choice."""
        return self.chosen if len(self.settings) > 1 else None

    @property
    def best(self) -> Trial | None:
        """The single trial with the highest score."""
        scored = [trial for setting in self.settings for trial in setting.trials if not trial.failed]
        return max(scored, key=lambda trial: trial.metrics[self.metric], default=None)

    def describe(self, values: Mapping[str, Any]) -> str:
        """Return a setting in words."""
        named = [f"{short} {format_value(values[name])}" for name, short in self.columns.items() if name in values]
        return ", ".join(named) or "the config as it stands"


def read_results(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return what the trials of a sweep came to, ordered by setting and seed.

    Args:
        directory: of the sweep; the results are `trials/*.json` in it.

    Raises:
        FileNotFoundError: it has no `trials`.
        ValueError: a file is no whole result.
    """
    folder = epath.Path(directory) / TRIALS
    if not folder.is_dir():
        raise FileNotFoundError(f"{directory} has no {TRIALS}/; give the directory of a sweep (launch.sweep makes it)")
    results = []
    for path in folder.glob("*.json"):
        redo = "delete the file and run the sweep again, which repeats this trial alone"
        try:
            result = json.loads(path.read_bytes())
        except ValueError as error:  # not JSON, or not UTF-8
            raise ValueError(f"{path} is not a whole JSON object ({error}); {redo}") from error
        missing = [key for key in _KEYS if not isinstance(result, dict) or key not in result]
        if missing:
            raise ValueError(f"{path} is no trial's result: it has no {', '.join(missing)}; {redo}")
        results.append(result)
    return sorted(results, key=lambda result: (*_order(result["overrides"]), str(result["trial"])))


def summarize(results: Sequence[Mapping[str, Any]], planned: Iterable[Mapping[str, Any]] = ()) -> Sweep:
    """Return the settings of a sweep with their trials.

    Args:
        results: of `read_results`.
        planned: the overrides of every trial that there will be; without them, what has ended is the plan.

    Raises:
        ValueError: nothing has ended, or the trials do not have one metric.
    """
    metrics = sorted({result["best_metric"] for result in results})
    if len(metrics) != 1:
        got = f"trials of different tasks, with the metrics {', '.join(metrics)}" if metrics else "no trial has ended"
        raise ValueError(f"{got}; a table needs trials of one metric")
    metric = metrics[0]
    trials: dict[str, list[Trial]] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    runs: dict[str, set[str]] = {}  # by setting: the overrides, seed included, that are planned or have ended
    plan = {json.dumps(overrides, sort_keys=True): overrides for overrides in planned}
    for overrides in (*plan.values(), *(result["overrides"] for result in results)):
        key, values = _setting(overrides)
        settings.setdefault(key, values)
        runs.setdefault(key, set()).add(json.dumps(overrides, sort_keys=True))
    for result in results:
        key, values = _setting(result["overrides"])
        trials.setdefault(key, []).append(_trial(result, values, metric))
    rows = []
    for key, values in settings.items():
        ended = tuple(trials.get(key, ()))
        rows.append(Setting(values, ended, max(len(runs[key]), len(ended)), metric))
    rows.sort(key=lambda row: (not row.scores, not row.trials, -row.mean if row.scores else 0, row.order))
    scored = [trial for row in rows for trial in row.trials if not trial.failed]
    found = dict.fromkeys(name for trial in scored for name in trial.metrics)
    return Sweep(
        task=", ".join(sorted({str(result.get("task", "")) for result in results})),
        metric=metric,
        others=tuple(name for name in found if name != metric and name.split("/")[-1] != _NO_SCORE),
        columns=short_names(name for row in rows for name in row.values),
        settings=tuple(rows),
        unplanned=sum(json.dumps(result["overrides"], sort_keys=True) not in plan for result in results) if plan else 0,
    )


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return dotted names, sorted by their last part, with that part; or as they are where two have it in common."""
    ordered = sorted(set(names), key=lambda name: (name.split(".")[-1], name))
    last = [name.split(".")[-1] for name in ordered]
    return {name: short if last.count(short) == 1 else name for name, short in zip(ordered, last, strict=True)}


def format_value(value: Any) -> str:
    """Return an override's value in short, without loss: 5e-5, 32, adamw."""
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        return np.format_float_scientific(value, trim="-", exp_digits=1)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def terminal_lines(sweep: Sweep) -> list[str]:
    """Return the table and its notes as plain text."""
    header, rows = _cells(sweep)
    names = len(sweep.columns) + 1
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, ["-" * width for width in widths], *rows):
        padded = zip(row, widths, strict=True)
        cells = [cell.rjust(width) if at >= names else cell.ljust(width) for at, (cell, width) in enumerate(padded)]
        lines.append("  ".join(cells).rstrip())
    return [*lines, "", *notes(sweep)]


def markdown(sweep: Sweep) -> str:
    """Return the table and its notes as Markdown."""
    header, rows = _cells(sweep)
    names = len(sweep.columns) + 1
    if sweep.marked is not None:
        rows[0] = [f"**{cell}**" for cell in rows[0]]
        rows[0][0] = "→"
    ruler = [":--"] * names + ["--:"] * (len(header) - names)
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, ruler, *rows)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in escaped)
    listed = "\n".join(f"  - {note.strip()}" if note.startswith(" ") else f"- {note}" for note in notes(sweep, "→"))
    title = f"{sweep.task}: dev {sweep.metric} of {len(sweep.settings)} setting{'s' * (len(sweep.settings) > 1)}"
    return f"# {title}\n\n{table}\n\n{listed}\n"


def csv_text(sweep: Sweep) -> str:
    """Return the table as CSV: a row a setting, numbers in full precision, empty where there is none."""
    names = ("planned", "trials", "failed", "best", "median", "mean", "std")
    others = [f"mean {name}" for name in sweep.others]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*sweep.columns.values(), *names, *others, "chosen", "failed_trials"])
    for row in sweep.settings:
        values = ["" if name not in row.values else _plain(row.values[name]) for name in sweep.columns]
        counts = [row.planned, len(row.trials), len(row.failed)]
        numbers = [_apply(max, row.scores), _apply(statistics.median, row.scores), row.mean, row.std]
        numbers += [_apply(statistics.fmean, row.scores_of(name)) for name in sweep.others]
        cells = ["" if math.isnan(number) else repr(float(number)) for number in numbers]
        writer.writerow([*values, *counts, *cells, int(row is sweep.chosen), " ".join(t.id for t in row.failed)])
    return text.getvalue()


def write_tables(directory: str | os.PathLike[str], sweep: Sweep) -> None:
    """Write table.md and table.csv."""
    folder = epath.Path(directory)
    (folder / MARKDOWN).write_bytes(markdown(sweep).encode())
    (folder / CSV).write_bytes(csv_text(sweep).encode())


def notes(sweep: Sweep, mark: str = "*") -> list[str]:
    """Return what is chosen, what failed, what is missing, as lines; `mark` is the chosen row's."""
    lines = []
    every = [trial for setting in sweep.settings for trial in setting.trials]
    failed = [trial for trial in every if trial.failed]
    if sweep.chosen is not None and sweep.best is not None:
        chosen, best = sweep.chosen, sweep.best
        if sweep.marked:
            lines.append(
                f"{mark} chosen on dev, by the highest mean {sweep.metric}: {sweep.describe(chosen.values)}. "
                "Its dev score flatters it; a test set tells."
            )
        if len(chosen.scores) < chosen.planned:
            lines.append(f"Beware: the highest mean is of {len(chosen.scores)} of {chosen.planned} trials.")
        score = format_score(best.metrics[sweep.metric])
        lines.append(f"Best single trial: {best.id} ({_with_seed(sweep, best)}), {sweep.metric} {score}.")
    else:
        lines.append("No setting is chosen: every trial failed.")
    lines.append(f"Scores are dev {sweep.metric} after the last epoch; ± the sample's standard deviation.")
    if failed:
        lines.append(f"{len(failed)} of {len(every)} trials failed (!), and are in no best, median and mean:")
        lines += [f"  {trial.id} ({_with_seed(sweep, trial)}): {trial.failed}" for trial in failed]
    to_come = sum(setting.planned - len(setting.trials) for setting in sweep.settings)
    if to_come:
        planned = sum(setting.planned for setting in sweep.settings)
        lines.append(f"{to_come} of {planned} trials are not run yet; what is chosen may change.")
    if sweep.unplanned:
        lines.append(f"{sweep.unplanned} of the trials here are not in the plan (an earlier one's?); they are counted.")
    return lines


def format_score(score: float, largest: float | None = None) -> str:
    """Return a score with four digits after the point, a percentage with two; `largest` decides for its column."""
    if math.isnan(score):
        return NOTHING
    return f"{score:.4f}" if abs(score if largest is None else largest) <= 1 else f"{score:.2f}"


def _cells(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table for people; the first column marks the chosen row."""
    header = ["", *sweep.columns.values(), "trials", "failed", "best", "median", f"mean {sweep.metric}", *sweep.others]
    scales = {
        name: max((abs(score) for row in sweep.settings for score in row.scores_of(name)), default=0.0)
        for name in (sweep.metric, *sweep.others)
    }
    rows = []
    for row in sweep.settings:
        show = functools.partial(format_score, largest=scales[sweep.metric])
        counted = str(len(row.trials)) if len(row.trials) == row.planned else f"{len(row.trials)} of {row.planned}"
        line = ["*" if row is sweep.marked else ""]
        line += [format_value(row.values[name]) if name in row.values else NOTHING for name in sweep.columns]
        line += [counted, f"{len(row.failed)} !" if row.failed else "0" if row.trials else NOTHING]
        if not row.trials:
            line += ["not run"] * (3 + len(sweep.others))
        else:
            line += [show(_apply(max, row.scores)), show(_apply(statistics.median, row.scores))]
            line.append(f"{show(row.mean)} ± {show(row.std)}" if row.scores else NOTHING)
            line += [format_score(_apply(statistics.fmean, row.scores_of(name)), scales[name]) for name in sweep.others]
        rows.append(line)
    return header, rows


def _apply(function: Callable[[list[float]], float], scores: list[float]) -> float:
    return function(scores) if scores else math.nan


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _with_seed(sweep: Sweep, trial: Trial) -> str:
    return sweep.describe(trial.values) + ("" if trial.seed is None else f", seed {trial.seed}")


def _trial(result: Mapping[str, Any], values: Mapping[str, Any], metric: str) -> Trial:
    last = result["last"] or {}
    metrics = {name: float(value) for name, value in last.items() if value is not None and math.isfinite(value)}
    failed = result.get("failed") or ("" if metric in metrics else f"its {metric} is {last.get(metric)}")
    rate = values.get(LEARNING_RATE, result.get("peak_learning_rate"))
    return Trial(str(result["trial"]), values, result["overrides"].get("seed"), rate, metrics, failed)


def _setting(overrides: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the overrides without the seed, and a text that is equal where they are."""
    values = {name: value for name, value in overrides.items() if name != "seed"}
    return json.dumps(values, sort_keys=True), values


def _order(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a sorting key: by the values in the order of the columns, the seed last; numbers as numbers."""
    key = []
    for name in sorted(values, key=lambda name: (name == "seed", name.split(".")[-1], name)):
        value = values[name]
        is_number = isinstance(value, int | float)
        key.append((name, not is_number, value if is_number else 0, "" if is_number else json.dumps(value)))
    return tuple(key)
