import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from bert_jax.training.metrics import (
    FILE,
    MetricsFile,
    MetricWindow,
    Progress,
    Reporter,
    evaluation_row,
    format_seconds,
    read_rows,
)
from bert_jax.training.throughput import RowFlops, Throughput


def step_metrics(loss, count=1.0, nonfinite=0.0, real_tokens=10.0):
    pairs = {"masked_lm_loss": (loss, count), "nonfinite": (nonfinite, 1.0), "real_tokens": (real_tokens, 1.0)}
    return {name: (jnp.float32(total), jnp.float32(n)) for name, (total, n) in pairs.items()}


def test_means_are_of_sums_over_counts_not_of_means():
    window = MetricWindow()
    window.add(1, step_metrics(8.0, count=4.0))
    window.add(2, step_metrics(1.0, count=1.0))
    window.fold()
    assert window.means() == {"mlm_loss": 9.0 / 5.0}
    assert window.totals["real_tokens"] == 20.0


def test_a_metric_without_counts_is_left_out():
    window = MetricWindow()
    window.add(1, step_metrics(0.0, count=0.0))
    window.fold()
    assert window.means() == {}


def test_what_is_being_saved_does_not_change_with_later_steps():
    window = MetricWindow()
    window.add(1, step_metrics(np.float32(1.0)))
    window.fold()
    plain = window.to_plain()
    before = json.dumps(plain)
    window.add(2, step_metrics(np.float32(2.0)))
    window.fold()
    window.clear()
    assert json.dumps(plain) == before


def test_a_window_saved_open_and_restored_gives_the_same_means_bit_for_bit():
    values = np.random.default_rng(0).normal(size=9).astype(np.float32)
    whole, first = MetricWindow(), MetricWindow()
    for step, value in enumerate(values):
        whole.add(step, step_metrics(value))
    for step, value in enumerate(values[:4]):
        first.add(step, step_metrics(value))
    whole.fold()
    first.fold()
    second = MetricWindow(json.loads(json.dumps(first.to_plain())))
    for step, value in enumerate(values[4:]):
        second.add(step, step_metrics(value))
    second.fold()
    assert second.means() == whole.means()
    assert (second.steps, second.totals) == (whole.steps, whole.totals)


def test_fold_names_the_first_bad_step():
    window = MetricWindow()
    for step, bad in ((5, 0.0), (6, 1.0), (7, 1.0)):
        window.add(step, step_metrics(1.0, nonfinite=bad))
    assert window.fold() == 6
    assert window.fold() is None


def test_perplexity_is_taken_after_the_mean():
    row = evaluation_row({"masked_lm_loss": (6.0, 3.0), "next_sentence_loss": (1.0, 2.0), "empty": (0.0, 0.0)})
    assert row == {
        "eval/mlm_loss": 2.0,
        "eval/nsp_loss": 0.5,
        "eval/loss": 2.5,
        "eval/mlm_perplexity": math.exp(2.0),
    }


def test_only_losses_of_tasks_make_a_loss():
    assert evaluation_row({"perplexity": (6.0, 3.0)}) == {"eval/perplexity": 2.0}


def test_a_line_that_would_wrap_is_cut(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 24)))
    Progress().show("step 1,000/2,000  loss 3.000")
    assert capsys.readouterr().err == "\rstep 1,000/2,000  l"


def test_rows_go_to_a_bucket_which_cannot_append(bucket):
    workdir = epath.Path("gs://b/run")
    for restored, rows in ((0, [{"step": 1}, {"step": 2}]), (1, [{"step": 2}])):
        file = MetricsFile(workdir, restored, evaluate_again=False)
        for row in rows:
            file.write(row)
        assert read_rows(workdir / FILE) == [{"step": 1}, {"step": 2}]
    assert list(bucket) == ["b/run/metrics.jsonl"]


def test_rows_beyond_the_restored_step_are_cut_and_a_half_line_too(tmp_path):
    rows = [{"step": 5, "train/loss": 1.0}, {"step": 10, "train/loss": 2.0}, {"step": 10, "eval/loss": 2.0}]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 15, "train/loss": 3.0}])
    (tmp_path / FILE).write_text(text + '{"step": 20, "tra')
    MetricsFile(epath.Path(tmp_path), 10, evaluate_again=False).write({"step": 12, "train/loss": 4.0})
    assert read_rows(epath.Path(tmp_path / FILE)) == [*rows, {"step": 12, "train/loss": 4.0}]
    MetricsFile(epath.Path(tmp_path), 10, evaluate_again=True)
    assert read_rows(epath.Path(tmp_path / FILE)) == rows[:2]


@pytest.fixture
def reporter(tmp_path):
    reporter = Reporter(epath.Path(tmp_path), 100, Throughput(RowFlops(1e9, 10), 2, None), None)
    yield reporter
    reporter.close()


def test_a_writer_that_fails_is_told_once_and_does_not_stop_the_run(reporter, tmp_path, capsys):
    window = MetricWindow()
    window.add(1, step_metrics(1.0))
    window.fold()
    window.seconds = 1.0
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()  # opening it for writing fails now
    for step in (1, 2):
        reporter.train(step, window)
    lines = capsys.readouterr().err.splitlines()
    assert sum("metrics.jsonl was not written; the next row tries again: IsADir" in line for line in lines) == 1
    assert sum(line.startswith("step ") for line in lines) == 2
    (tmp_path / FILE).rmdir()
    for step in (3, 4):
        reporter.train(step, window)
    assert [row["step"] for row in read_rows(epath.Path(tmp_path / FILE))] == [1, 2, 3, 4]


def test_a_row_has_the_step_first_and_the_names_of_the_contract(reporter, tmp_path, capsys):
    window = MetricWindow()
    window.add(7, step_metrics(6.0, count=2.0) | {"loss": (jnp.float32(3.5), jnp.float32(1.0))})
    window.fold()
    window.seconds = 2.0
    reporter.train(7, window)
    [row] = read_rows(epath.Path(tmp_path / FILE))
    assert next(iter(row)) == "step"
    assert (row["train/loss"], row["train/mlm_loss"], row["train/tokens"]) == (3.5, 3.0, 10.0)
    assert row["perf/tokens_per_second"] == 10.0
    assert row["perf/mfu"] is None
    assert "step 7/100  loss 3.500  ETA 3:06  10 tokens/s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.0, "0:05"), (245.4, "4:05"), (3723.0, "1:02:03"), (183_845.0, "2d 03:04:05")]
)
def test_durations_are_written_short(seconds, text):
    assert format_seconds(seconds) == text
