"""Pictures of results: points of several series against one another, and bars; ours beside published ones."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from bert_jax.reports.sweep_plot import COLORS, DASHES, GREY, MARKERS

# Points (1/72 inch) from a result to its label; the first that is free is taken.
_LABEL_PLACES = (
    (6, 4),
    (6, -10),
    (-6, 4),
    (-6, -10),
    (0, 9),
    (0, -15),
    (6, 14),
    (6, -20),
    (-6, 14),
    (-6, -20),
    (0, 20),
)


@dataclasses.dataclass(frozen=True)
class Point:
    """A result.

    Attributes:
        x, y: its place.
        label: beside it.
        error: standard deviation of y; nan = not known.
    """

    x: float
    y: float
    label: str = ""
    error: float = math.nan


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: in the legend.
        points: those with a value.
        joined: whether a line goes through them in the order of x.
    """

    name: str
    points: tuple[Point, ...]
    joined: bool = True


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis: its name, and whether it is logarithmic."""

    name: str
    log: bool = False


def scatter(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Figure:
    """Return the figure of some series; those without points are left out of it."""
    figure, axes = _blank(title)
    labelled: list[Point] = []
    for number, one in enumerate(series):
        points = sorted((point for point in one.points if _drawable(point, x, y)), key=lambda point: point.x)
        if not points:
            continue
        axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            yerr=_errors(points),
            color=COLORS[number % len(COLORS)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle=DASHES[number % len(DASHES)] if one.joined else "",
            capsize=3,
            label=one.name,
        )
        labelled += [point for point in points if point.label]
    axes.set(xlabel=x.name, ylabel=y.name)
    axes.margins(0.12)
    if x.log:
        axes.set_xscale("log")
        _thin_ticks(axes.xaxis, *axes.get_xlim())
    if y.log:
        axes.set_yscale("log")
        _thin_ticks(axes.yaxis, *axes.get_ylim())
    _finish(axes)
    _label(figure, axes, labelled)
    return figure


def _thin_ticks(axis: Any, low: float, high: float) -> None:
    """Within a decade or so, put few round numbers on a logarithmic axis: its own ticks would run into one another."""
    if high < 20 * low:
        axis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def _label(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Write the labels, each at the first of some places beside its point where no mark or other text is."""
    figure.draw_without_rendering()  # for places in pixels
    legend = axes.get_legend()
    taken = [legend.get_window_extent()] if legend else []
    taken += [Bbox([place - 3, place + 3]) for place in (axes.transData.transform((p.x, p.y)) for p in points)]
    for point in points:
        text = axes.annotate(
            point.label, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=7.5, color=GREY
        )
        text.set_in_layout(False)  # which would move the axes to make room for it
        for place in (*_LABEL_PLACES, _LABEL_PLACES[0]):  # beside its point, if all are taken
            text.set(position=place, horizontalalignment="left" if place[0] > 0 else "right" if place[0] else "center")
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def bars(title: str, y: Axis, ours: Series, published: Series) -> Figure:
    """Return the figure of horizontal bars, one a point of `ours` by its label, with the published values as marks."""
    figure, axes = _blank(title)
    names = [point.label for point in ours.points]
    places = range(len(names))
    axes.barh(
        places,
        [point.y for point in ours.points],
        xerr=_errors(ours.points),
        color=COLORS[0],
        capsize=3,
        label=ours.name,
    )
    marked = {point.label: point.y for point in published.points if not math.isnan(point.y)}
    at = [(marked[name], place) for place, name in enumerate(names) if name in marked]
    if at:
        axes.plot([v for v, _ in at], [p for _, p in at], ls="", marker="D", color=COLORS[1], label=published.name)
    for place, point in zip(places, ours.points, strict=True):
        end = (point.y + (0.0 if math.isnan(point.error) else point.error), place)
        axes.annotate(f"{point.y:.1f}", end, (5, -3), textcoords="offset points", fontsize=8)
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.set_xlabel(y.name)
    _finish(axes)
    return figure


def _blank(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: no window, no global state
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    return figure, axes


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9)


def _errors(points: Sequence[Point]) -> list[float] | None:
    """Return the lengths of error bars, None where no point has one."""
    if all(math.isnan(point.error) for point in points):
        return None
    return [0.0 if math.isnan(point.error) else point.error for point in points]


def _drawable(point: Point, x: Axis, y: Axis) -> bool:
    for value, axis in ((point.x, x), (point.y, y)):
        if not math.isfinite(value) or (axis.log and value <= 0):
            return False
    return True
