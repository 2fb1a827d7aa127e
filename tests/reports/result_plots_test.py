import math
from typing import Any

import numpy as np

from bert_jax.reports.result_plots import Axis, Point, Series, bars, scatter


def test_points_are_drawn_with_their_labels_and_what_cannot_be_is_left_out():
    ours = Series("ours", (Point(2.0, 5.0, "b"), Point(1.0, 6.0, "a", 0.5), Point(0.0, 4.0, "c"), Point(3.0, math.nan)))
    figure = scatter("t", Axis("x", log=True), Axis("y"), [ours, Series("none", ())])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["a", "b"]  # 0 has no place on a logarithmic axis
    assert axes.get_xscale() == "log"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ours"]


def test_labels_of_near_points_do_not_overlap():
    points = tuple(Point(100.0 + number / 10, 50.0, f"point {number}") for number in range(4))
    figure = scatter("t", Axis("x", log=True), Axis("y"), [Series("ours", points, joined=False)])
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
    assert axes.lines[0].get_linestyle() == "None"


def test_every_label_is_nearest_to_its_own_point_or_has_a_line_to_it():
    points = tuple(
        Point(x, y, f"{x}-{y}") for x, y in ((4.6, 99.0), (4.9, 94.0), (4.9, 88.0), (5.4, 81.0), (60.0, 3.0))
    )
    figure = scatter("t", Axis("x", log=True), Axis("y", log=True), [Series("ours", points)])
    axes: Any = figure.axes[0]
    marks = [axes.transData.transform((point.x, point.y)) for point in points]
    lines = [text for text in axes.texts if not text.get_text()]
    for point, mark in zip(points, marks, strict=True):
        (text,) = (text for text in axes.texts if text.get_text() == point.label)
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        distances = [np.hypot(max(box.x0 - x, x - box.x1, 0), (box.y0 + box.y1) / 2 - y) for x, y in marks]
        own = np.hypot(max(box.x0 - mark[0], mark[0] - box.x1, 0), (box.y0 + box.y1) / 2 - mark[1])
        assert own == min(distances) or any(line.xy == (point.x, point.y) for line in lines)


def test_a_logarithmic_axis_of_less_than_a_decade_has_few_round_ticks():
    points = (Point(115.0, 1.0), Point(187.0, 2.0))
    figure = scatter("t", Axis("x", log=True), Axis("y"), [Series("ours", points)])
    figure.draw_without_rendering()
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels(which="both")]
    assert {"120", "140"} <= set(ticks)
    assert len(ticks) <= 8


def test_bars_have_the_published_value_beside_where_there_is_one():
    ours = Series("ours", (Point(0.0, 30.0, "last", 1.0), Point(0.0, 20.0, "static")))
    figure = bars("t", Axis("F1"), ours, Series("paper", (Point(0.0, 94.9, "last"), Point(0.0, math.nan, "static"))))
    axes: Any = figure.axes[0]
    assert [patch.get_width() for patch in axes.patches] == [30.0, 20.0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["last", "static"]
    marks = [line for line in axes.lines if line.get_marker() == "D"]
    assert list(marks[0].get_xdata()) == [94.9]
