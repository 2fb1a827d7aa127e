import struct

import numpy as np
from matplotlib.text import Annotation, Text

from bert_jax.reports.senses_plot import MAX_LABELS, choose_labels, draw_senses, write_senses_plot


def draw(count, queries=(0, 1)):
    rng = np.random.default_rng(0)
    texts = [f"{'word ' * 9}{number} [stick] costs $5 and $6 {'word ' * 9}" for number in range(count)]
    return draw_senses(
        "stick", rng.normal(size=(count, 2)), np.array([0.5, 0.25]), np.arange(count) % 2, texts, queries
    )


def labels(figure):
    return [child for child in figure.axes[0].get_children() if isinstance(child, Annotation)]


def test_the_picture_is_a_png(tmp_path):
    write_senses_plot(tmp_path / "deep" / "a.png", draw(40))
    data = (tmp_path / "deep" / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > height > 300


def test_texts_stand_beside_the_plane_and_not_on_each_other():
    figure = draw(40)
    figure.canvas.draw()
    found = labels(figure)
    assert len(found) == MAX_LABELS
    plane, whole = figure.axes[0].get_window_extent(), figure.bbox
    boxes = [Text.get_window_extent(each) for each in found]  # without the lines to the points
    for number, box in enumerate(boxes):
        assert box.x1 <= plane.x0 or box.x0 >= plane.x1
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_texts_are_cut_between_words_around_the_word():
    shown = [each.get_text() for each in labels(draw(5))]
    assert all("[stick]" in text and text.startswith("… word ") and text.endswith(" …") for text in shown)
    assert all(r"\$5" in text for text in shown)  # no mathematics


def test_queries_are_labelled_first_then_what_is_far_from_them():
    points = np.concatenate([np.zeros((50, 2)), [[9.0, 9.0], [5.0, 0.0]]])
    assert choose_labels(points, [3, 4])[:4] == [3, 4, 50, 51]
    assert len(choose_labels(points[:5], [0])) == 5


def test_a_picture_of_two_points():
    draw(2).canvas.draw()
