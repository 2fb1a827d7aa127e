"""A word's contexts as a picture: points on a plane, coloured by the nearest query, texts beside them."""

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bert_jax.reports.sweep_plot import COLORS, GREY, MARKERS, PIXELS_PER_INCH

MAX_LABELS = 24  # half of them on either side
_MAX_CHARACTERS = 44
_LABEL_SIZE = 7.5


def write_senses_plot(path: str | os.PathLike[str], figure: Figure) -> None:
    """Write a PNG."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=PIXELS_PER_INCH)
    place = epath.Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(image.getvalue())


def draw_senses(
    title: str,
    points: np.ndarray,
    shares: np.ndarray,
    groups: np.ndarray,
    texts: Sequence[str],
    queries: Sequence[int],
) -> Figure:
    """Return the figure.

    Args:
        title: of the picture.
        points: [points, 2].
        shares: of the variance, of both axes.
        groups: [points], which of `queries` is the nearest.
        texts: of each point; `MAX_LABELS` of them are shown, the queries' first, then some of every part.
        queries: numbers of points, with a larger mark.
    """
    labelled = choose_labels(points, queries)
    height = max(3.2, 0.8 + 0.17 * len(labelled))  # inches, 0.8 of them above and below
    figure = Figure(figsize=(11.0, height))
    FigureCanvasAgg(figure)  # no pyplot: no window, no global state
    axes = figure.add_axes((0.3, 0.4 / height, 0.4, 1.0 - 0.8 / height))
    for group, query in enumerate(queries):
        look: dict[str, Any] = {"color": COLORS[group % len(COLORS)], "marker": MARKERS[group % len(MARKERS)]}
        members = points[(groups == group) & (np.arange(len(points)) != query)]
        axes.scatter(members[:, 0], members[:, 1], s=22, alpha=0.75, lw=0, **look)
        axes.scatter(points[query, 0], points[query, 1], s=110, ec="black", lw=1.2, zorder=3, **look)
    axes.margins(0.08)
    _label_sides(axes, points, groups, texts, labelled, set(queries))
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(
        f"principal components: {shares[0]:.0%} and {shares[1]:.0%} of the variance", color=GREY, fontsize=9
    )
    axes.tick_params(labelbottom=False, labelleft=False, length=0)
    for spine in axes.spines.values():
        spine.set_color("#BBBBBB")
    return figure


def choose_labels(points: np.ndarray, queries: Sequence[int]) -> list[int]:
    """Return the numbers of the points to label: queries, then each time the one that is farthest from those before."""
    chosen = list(queries)[:MAX_LABELS]
    while len(chosen) < min(MAX_LABELS, len(points)):
        distances = np.linalg.norm(points[:, None] - points[chosen][None], axis=-1).min(axis=1)
        distances[chosen] = -1.0
        chosen.append(int(distances.argmax()))
    return chosen


def _label_sides(
    axes: Axes, points: np.ndarray, groups: np.ndarray, texts: Sequence[str], labelled: Sequence[int], queries: set[int]
) -> None:
    """Write the texts left and right of the plane, in the points' order from below, with lines to their points."""
    by_x = sorted(labelled, key=lambda number: points[number, 0])
    half = len(by_x) // 2
    for numbers, x, alignment, side in ((by_x[:half], -0.05, "right", 1.0), (by_x[half:], 1.05, "left", 0.0)):
        numbers = sorted(numbers, key=lambda number: points[number, 1])
        for place, number in enumerate(numbers):
            color = COLORS[int(groups[number]) % len(COLORS)]
            axes.annotate(
                _shortened(texts[number]),
                xy=(float(points[number, 0]), float(points[number, 1])),
                xytext=(x, (place + 0.5) / len(numbers)),
                textcoords="axes fraction",
                ha=alignment,
                va="center",
                color=color,
                fontsize=_LABEL_SIZE,
                fontweight="bold" if number in queries else "normal",
                arrowprops={
                    "arrowstyle": "-",
                    "color": color,
                    "lw": 0.5,
                    "alpha": 0.45,
                    "shrinkA": 2,
                    "shrinkB": 3,
                    "relpos": (side, 0.5),
                },
                annotation_clip=False,
            )


def _shortened(text: str) -> str:
    """Drop words on both sides of the [word] until the text fits."""
    begin, end = text.find("["), text.find("]") + 1
    left, right = text[:begin].split(" "), text[end:].split(" ")
    cut_left = cut_right = False
    while sum(len(part) + 1 for part in (*left, *right)) + end - begin > _MAX_CHARACTERS and (left or right):
        if sum(map(len, left)) >= sum(map(len, right)):
            cut_left = bool(left.pop(0).strip("…")) or cut_left
        else:
            cut_right = bool(right.pop().strip("…")) or cut_right
    shown = " ".join(left) + text[begin:end] + " ".join(right)
    return ("… " * cut_left + shown + " …" * cut_right).replace("$", r"\$")
