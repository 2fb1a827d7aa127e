import itertools

import matplotlib
import numpy as np
import pytest

from bert_jax.reports.sweep_plot import draw, write_plot
from bert_jax.reports.sweep_table import summarize

RATES, BATCH_SIZES = (2e-5, 3e-5, 5e-5), (16, 32)


@pytest.fixture
def results(trial):
    """A grid of three rates, two batch sizes and two seeds; all trials of one of its settings failed."""
    grid = itertools.product(BATCH_SIZES, RATES, range(2))
    results = [trial(f"{at}", *values, 0.8 + 0.01 * at) for at, values in enumerate(grid)]
    for result in results[4:6]:
        result |= {"failed": "the loss of step 3 is not finite", "last": None}
    return results


def labels(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def drawn(figure, marker, size=None):
    """Return the points of a marker, without those of lines that connect nothing."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() == marker]
    return np.concatenate([line.get_xydata() for line in lines if size is None or line.get_markersize() == size])


def test_each_setting_beside_the_rate_is_a_line_of_means(results):
    figure = draw(summarize(results))
    assert labels(figure) == ["batch_size 16", "batch_size 32", "highest mean", "failed"]
    means = drawn(figure, "s")
    np.testing.assert_allclose(means[:, 1], [0.865, 0.885, 0.905])
    np.testing.assert_allclose(means[:, 0], RATES, rtol=0.1)  # beside the other line's
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2e-5", "3e-5", "5e-5"]


def test_every_trial_is_a_dot_or_a_cross_below_all_scores(results):
    figure = draw(summarize(results))
    dots = drawn(figure, "o", 3.2)
    scores = [result["last"]["f1"] for result in results if "failed" not in result]
    np.testing.assert_allclose(sorted(dots[:, 1]), sorted(scores))
    crosses = drawn(figure, "x")
    assert len(crosses) == 1
    assert [text.get_text() for text in figure.axes[0].texts] == ["2"]  # trials behind that cross
    bottom = figure.axes[0].get_ylim()[0]
    assert bottom < crosses[0, 1] < min(scores)
    assert min(figure.axes[0].get_yticks()) > crosses[0, 1]


def test_the_chosen_setting_is_ringed(results):
    sweep = summarize(results)
    assert sweep.chosen is not None
    np.testing.assert_allclose(drawn(draw(sweep), "o", 15), [[5e-5, sweep.chosen.mean]], rtol=0.1)


def test_lines_look_different_from_each_other(trial):
    grid = itertools.product((8, 16, 32), RATES, (2, 3, 4))
    results = []
    for at, (batch_size, rate, num_epochs) in enumerate(grid):
        result = trial(f"{at}", batch_size, rate, 0, 0.9)
        result["overrides"]["num_epochs"] = num_epochs
        results.append(result)
    legend = draw(summarize(results)).axes[0].get_legend()
    assert legend is not None
    looks = {(line.get_color(), line.get_marker()) for line in legend.get_lines() if line.get_label() != "highest mean"}
    assert len(looks) == 9
    assert len({color for color, _ in looks}) == 3


def test_what_all_lines_share_is_in_the_title_alone(results):
    figure = draw(summarize(results[6:]))
    assert figure.axes[0].get_title(loc="left").startswith("mrpc · batch_size 32")
    assert labels(figure) == ["mean", "highest mean"]


@pytest.mark.parametrize("kept", [slice(0, 1), slice(0, 2), slice(4, 6), slice(0, None, 6), slice(None)])
def test_any_sweep_is_a_picture(results, kept, tmp_path):
    write_plot(tmp_path, summarize(results[kept]))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_rate_in_the_overrides_the_results_is_taken(trial):
    results = [trial(f"{seed}", 0, 2e-5, 0, 0.9, overrides={"seed": seed}) for seed in range(3)]
    assert [text.get_text() for text in draw(summarize(results)).axes[0].get_xticklabels()] == ["2e-5"]
    for result in results:
        del result["peak_learning_rate"]
    with pytest.raises(ValueError, match="no trial has a peak_learning_rate"):
        draw(summarize(results))


def test_drawing_changes_nothing_for_other_plots(results, tmp_path):
    before = dict(matplotlib.rcParams)
    write_plot(tmp_path, summarize(results))
    assert dict(matplotlib.rcParams) == before
