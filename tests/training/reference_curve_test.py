import math

import pytest

from bert_jax.training.reference_curve import ReferenceCurve, format_tokens, record, recorded_run


def test_loss_and_spread_are_interpolated_between_the_points():
    curve = ReferenceCurve("c", [(100.0, 6.0, 0.2), (200.0, 4.0, 0.4)])
    assert curve.expected(150.0) == pytest.approx((5.0, 0.3))
    assert curve.expected(99.0) is None
    assert curve.compare(150.0, 5.1) == "reference 5.000 ± 0.300 at 150 tokens"
    assert curve.compare(900.0, 5.1) == ""


def test_only_a_run_that_stays_off_the_curve_is_warned_of():
    curve = ReferenceCurve("c", [(0.0, 5.0, 0.1), (1000.0, 5.0, 0.1)])
    losses = [6.0, 6.0, 5.0, 6.0, 6.0, 6.0]
    warned = ["OFF TRACK by +1.00" in curve.compare(100.0 * i, loss) for i, loss in enumerate(losses)]
    assert warned == [False, False, False, False, False, True]


def run_of(tokens, losses):
    points = enumerate(zip(tokens, losses, strict=True))
    rows = [{"step": step, "train/tokens": count, "train/loss": loss} for step, (count, loss) in points]
    return recorded_run("run", [*rows, {"step": len(rows), "eval/loss": 1.0}])


def test_a_curve_of_several_runs_has_their_mean_and_deviation_at_equal_tokens():
    losses = [6.0, 5.0, 4.0]
    curve = record("name", "config", [run_of([100.0, 200.0, 300.0], losses), run_of([50.0, 150.0, 250.0], losses)])
    assert [point[0] for point in curve["points"]] == [100, 200]  # as far as both runs went
    assert curve["points"][0] == [100, 5.75, pytest.approx(0.3536, abs=1e-4)]
    assert curve["runs"] == 2


def test_runs_that_meet_by_chance_keep_the_spread_around():
    tokens = [100.0 * i for i in range(5)]
    curve = record("", "", [run_of(tokens, [6.0, 5.0, 4.0, 3.0, 2.0]), run_of(tokens, [6.2, 5.2, 4.0, 3.2, 2.2])])
    assert curve["points"][2] == [200, 4.0, pytest.approx(math.sqrt(0.02 * 4 / 5), abs=1e-4)]


def test_a_single_run_has_the_spread_of_its_windows_and_not_of_its_fall():
    tokens = [100.0 * i for i in range(12)]
    runs = run_of(tokens, [10 - 0.5 * i for i in range(12)]), run_of(tokens, [5 + 0.2 * (-1) ** i for i in range(12)])
    falling, noisy = (record("", "", [run]) for run in runs)
    assert falling["points"][6][2] == 0.0
    assert noisy["points"][6][2] == pytest.approx(0.2, rel=0.15)


def test_what_is_missing_is_said_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"launch\.record_curve"):
        ReferenceCurve.load(tmp_path / "none.json")
    with pytest.raises(ValueError, match="finished run"):
        recorded_run("run", [{"step": 1, "eval/loss": 1.0}])


@pytest.mark.parametrize(("tokens", "text"), [(950.0, "950"), (12_300.0, "12.3k"), (1.2e6, "1.2M"), (3.3e9, "3.3B")])
def test_tokens_are_written_short(tokens, text):
    assert format_tokens(tokens) == text
