"""A sweep as a picture: metric against learning rate, a line for each other setting, every trial a dot.

Colours are those of Okabe and Ito, told apart by the colour-blind; markers and dashes say the same again.
"""

import io
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from bert_jax.reports.sweep_table import LEARNING_RATE, Setting, Sweep, format_value

PLOT = "plot.png"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
GREY = "#444444"
LEGEND_ROWS = 18  # of one column
SPREAD = 0.6  # of the distance between two rates, over which the lines' points lie side by side
PIXELS_PER_INCH = 150

Line = tuple[Mapping[str, Any], list[tuple[float, Setting]]]


def write_plot(directory: str | os.PathLike[str], sweep: Sweep) -> None:
    """Write plot.png."""
    image = io.BytesIO()
    draw(sweep).savefig(image, format="png", dpi=PIXELS_PER_INCH)
    (epath.Path(directory) / PLOT).write_bytes(image.getvalue())


def draw(sweep: Sweep) -> Figure:
    """Return the figure: dots are trials, lines their means, bars reach from min to max, crosses are failed trials.

    Raises:
        ValueError: the trials have no learning rate.
    """
    lines = _lines(sweep)
    rates = sorted({rate for _, points in lines for rate, _ in points})
    if not rates:
        raise ValueError("no trial has a peak_learning_rate above 0, in its overrides or its result; nothing to plot")
    varied = [name for name in sweep.columns if len({_text(values.get(name)) for values, _ in lines}) > 1]
    columns = -(-len(lines) // LEGEND_ROWS)
    figure = Figure(figsize=(6.0 + 2.0 * columns, 4.4), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: no window, no global state
    axes = figure.add_subplot()
    legend, failed = [], []
    for at, ((values, points), look) in enumerate(zip(lines, _looks(lines, varied), strict=True)):
        placed = [(_place(rate, at, len(lines), rates), setting) for rate, setting in points]
        legend.append(_draw_line(axes, placed, look, _describe(sweep, values, varied) or "mean"))
        failed += [(x, look["color"], len(setting.failed)) for x, setting in placed if setting.failed]
        for x, setting in placed:
            if setting is sweep.marked:
                ring = {"ls": "", "marker": "o", "mfc": "none", "mec": GREY, "mew": 1.2}
                axes.plot(x, setting.mean, ms=15, **ring)
                legend.append(Line2D([], [], ms=10, label="highest mean", **ring))
    if failed:
        _draw_failed(axes, failed, has_scores=sweep.best is not None)
        legend.append(Line2D([], [], ls="", marker="x", ms=6, mew=1.8, color=GREY, label="failed"))
    _label(axes, rates, f"dev {sweep.metric}", _title(sweep, lines, varied))
    legend.sort(key=lambda entry: entry.get_label() in ("highest mean", "failed"))
    axes.legend(
        handles=legend, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, frameon=False, ncols=columns,
        fontsize=9, handlelength=3,
    )  # fmt: skip
    return figure


def _lines(sweep: Sweep) -> list[Line]:
    """Return what varies beside the learning rate, with its settings by rising rate; settings not run are left out."""
    found: dict[str, Line] = {}
    for setting in sorted(sweep.settings, key=lambda setting: setting.order):
        values = {name: value for name, value in setting.values.items() if name != LEARNING_RATE}
        rates = {trial.learning_rate for trial in setting.trials}
        for rate in rates - {None, 0.0}:
            found.setdefault(_text(values), (values, []))[1].append((float(rate or 0), setting))
    for _, points in found.values():
        points.sort(key=lambda point: point[0])
    return list(found.values())


def _looks(lines: Sequence[Line], varied: Sequence[str]) -> list[dict[str, Any]]:
    """Return a colour for each value of the first thing that varies, and marker and dashes for those of the rest."""
    first = [_text([values.get(name) for name in varied[:1]]) for values, _ in lines]
    rest = [_text([values.get(name) for name in varied[1:]]) for values, _ in lines]
    colors, styles = ({key: at for at, key in enumerate(dict.fromkeys(keys))} for keys in (first, rest))
    looks = []
    for color, style in ((colors[a], styles[b]) for a, b in zip(first, rest, strict=True)):
        marker = style if len(styles) > 1 else color
        dashes = style + color // len(COLORS)
        looks.append(
            {
                "color": COLORS[color % len(COLORS)],
                "marker": MARKERS[marker % len(MARKERS)],
                "ls": DASHES[dashes % len(DASHES)],
            }
        )
    return looks


def _place(rate: float, line: int, lines: int, rates: Sequence[float]) -> float:
    """Return where a line's point stands: at its rate, moved a little so that the lines' points lie side by side."""
    gaps = [math.log(high / low) for low, high in itertools.pairwise(rates)]
    slot = SPREAD * min(gaps, default=math.log(2)) / max(lines, 5)
    return rate * math.exp((line - (lines - 1) / 2) * slot)


def _draw_line(axes: Axes, points: Sequence[tuple[float, Setting]], look: Mapping[str, Any], label: str) -> Line2D:
    """Draw the trials that did not fail, and return the line's entry in the legend."""
    scored = [(x, setting) for x, setting in points if setting.scores]
    color = look["color"]
    for x, setting in scored:
        axes.plot([x, x], [min(setting.scores), max(setting.scores)], lw=1, alpha=0.4, color=color)
        axes.plot([x] * len(setting.scores), setting.scores, ls="", marker="o", ms=3.2, mew=0, alpha=0.75, color=color)
    style = {"lw": 1.5, "ms": 6.5, "mec": "white", "mew": 0.8, **look}
    axes.plot([x for x, _ in scored], [setting.mean for _, setting in scored], zorder=3, **style)
    return Line2D([], [], label=label, **style)


def _draw_failed(axes: Axes, failed: Sequence[tuple[float, str, int]], has_scores: bool) -> None:
    """Draw failed trials as crosses on a floor below all scores, with their number where they are several."""
    low, high = axes.get_ylim() if has_scores else (0.0, 1.0)
    bottom = low - 0.12 * (high - low)
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high] if has_scores else [])
    axes.set_ylim(bottom, high)
    axes.axhspan(bottom, low, color="#f0f0f0", lw=0, zorder=0)
    for x, color, count in failed:
        axes.plot(x, (bottom + low) / 2, ls="", marker="x", ms=6, mew=1.8, color=color)
        if count > 1:
            axes.annotate(f"{count}", (x, (bottom + low) / 2), (5, 2), textcoords="offset points", fontsize=8)


def _label(axes: Axes, rates: Sequence[float], metric: str, title: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(rates)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(rates), [format_value(rate) for rate in rates])
    edge = max(1.3, (rates[-1] / rates[0]) ** 0.08)
    axes.set_xlim(rates[0] / edge, rates[-1] * edge)
    axes.set_xlabel("peak learning rate")
    axes.set_ylabel(metric)
    axes.set_title(title, fontsize=10.5, loc="left")
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _title(sweep: Sweep, lines: Sequence[Line], varied: Sequence[str]) -> str:
    alike = [name for name in sweep.columns if name not in varied]
    common = _describe(sweep, lines[0][0], alike)
    dots = "dots: trials, lines: means" if any(len(setting.scores) > 1 for setting in sweep.settings) else ""
    return " · ".join(filter(None, (sweep.task, common, dots)))


def _describe(sweep: Sweep, values: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{sweep.columns[name]} {format_value(values[name])}" for name in names if name in values)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
