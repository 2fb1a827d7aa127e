"""Pictures of results: points of several series against one another, and bars; ours beside published ones."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from bert_jax.reports.sweep_plot import COLORS, DASHES, GREY, MARKERS, PIXELS_PER_INCH

# Points (1/72 inch) from a result to its label; the first that is free is taken. Far ones have a line to their point.
_NEAR_PLACES = ((6, 4), (6, -10), (-6, 4), (-6, -10), (0, 9), (0, -15))
_FAR_PLACES = (
    (16, 14),
    (16, -20),
    (-16, 14),
    (-16, -20),
    (28, 2),
    (-28, 2),
    (16, 26),
    (-16, 26),
    (16, -32),
    (-16, -32),
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
    """Write the labels, each at the first of some places where nothing is and where no other point is nearer."""
    figure.draw_without_rendering()  # for places in pixels
    legend = axes.get_legend()
    taken = [legend.get_window_extent()] if legend else []
    marks = [_mark(axes, point) for point in points]
    for point, mark in zip(points, marks, strict=True):
        text = axes.annotate(
            point.label, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=7.5, color=GREY
        )
        text.set_in_layout(False)  # which would move the axes to make room for it
        for place in (*_NEAR_PLACES, *_FAR_PLACES, _NEAR_PLACES[0]):  # the first, if all are taken
            text.set(position=place, horizontalalignment="left" if place[0] > 0 else "right" if place[0] else "center")
            box = text.get_window_extent().padded(3)
            inside = figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
            free = inside and not any(box.overlaps(other) for other in (*taken, *marks))
            nearest = np.min([_distances(box, one) for one in marks], axis=0)
            if free and (place in _FAR_PLACES or np.all(_distances(box, mark) <= nearest)):
                break
        taken.append(box)
        if text.get_position() in _FAR_PLACES:
            axes.annotate(
                "", (point.x, point.y), text.get_position(), textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5},
            ).set_in_layout(False)  # fmt: skip


def _mark(axes: Axes, point: Point) -> Bbox:
    """Return the box of a point's mark and of its error bar, in pixels."""
    error = 0.0 if math.isnan(point.error) else point.error
    low, high = (axes.transData.transform((point.x, point.y + side * error)) for side in (-1.0, 1.0))
    return Bbox([low - 3, high + 3])


def _distances(text: Bbox, mark: Bbox) -> tuple[float, float]:
    """Return how far a mark is from a text's box, and the mark's middle from the middle of the line."""
    x, y = (mark.x0 + mark.x1) / 2, (mark.y0 + mark.y1) / 2
    across = max(text.x0 - x, x - text.x1, 0.0)
    return math.hypot(across, max(text.y0 - y, y - text.y1, 0.0)), math.hypot(across, (text.y0 + text.y1) / 2 - y)


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
    figure = Figure(figsize=(7.2, 4.6), dpi=PIXELS_PER_INCH, layout="constrained")
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
