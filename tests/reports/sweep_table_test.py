import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from bert_jax.reports.sweep_table import (
    format_value,
    markdown,
    read_results,
    short_names,
    summarize,
    terminal_lines,
    write_tables,
)

SCORES = {5e-5: (0.91, 0.88, 0.902), 3e-5: (0.89, 0.90, 0.93)}
DEGENERATE = "degenerate: the same prediction for every row"


@pytest.fixture
def results(trial):
    """Two rates of three seeds; of batch size 16 one trial of two failed, with a score above all others."""
    found = [trial(f"a{seed}", 32, rate, seed, f1) for rate in SCORES for seed, f1 in enumerate(SCORES[rate])]
    for result in found:
        result["trial"] += format_value(result["overrides"]["optim.peak_learning_rate"])
    return [*found, trial("b0", 16, 5e-5, 0, 0.99, failed=DEGENERATE), trial("b1", 16, 5e-5, 1, 0.85)]


def read_csv(directory):
    with open(directory / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_results_come_by_setting_and_seed_however_their_files_are_named(trial, sweep_directory):
    wanted = [(16, 5e-5, 1), (32, 3e-5, 0), (32, 5e-5, 2), (32, 5e-5, 10), (128, 3e-5, 0)]
    written = [trial(f"{9 - at}", *values, 0.9) for at, values in enumerate(wanted)]
    directory = sweep_directory(written[::-1])
    (directory / "trials" / "x.json.tmp").write_text("{")
    got = [result["overrides"] for result in read_results(directory)]
    assert got == [result["overrides"] for result in written]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"trial": "7", "overr', "is not a whole JSON object"),
        ("", "is not a whole JSON object"),
        ("[]", "has no trial, overrides, best_metric, last"),
        ('{"trial": "7", "overrides": {}, "last": {}}', "has no best_metric"),
    ],
)
def test_a_file_that_is_no_whole_result_is_named(tmp_path, text, problem):
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "7.json").write_text(text)
    with pytest.raises(ValueError, match=rf"trials/7\.json .*{problem}.*delete the file"):
        read_results(tmp_path)


def test_a_directory_of_no_sweep_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the directory of a sweep"):
        read_results(tmp_path)


def test_a_row_holds_what_numpy_makes_of_the_last_scores(results, sweep_directory):
    directory = sweep_directory(results)
    write_tables(directory, summarize(read_results(directory)))
    rows = read_csv(directory)
    assert [(row["batch_size"], row["peak_learning_rate"]) for row in rows] == [
        ("32", "3e-05"), ("32", "5e-05"), ("16", "5e-05"),
    ]  # fmt: skip
    for row, scores in zip(rows, (SCORES[3e-5], SCORES[5e-5]), strict=False):
        got = [float(row[name]) for name in ("best", "median", "mean", "std", "mean accuracy")]
        wanted = [max(scores), np.median(scores), np.mean(scores), np.std(scores, ddof=1), np.mean(scores) - 0.05]
        np.testing.assert_allclose(got, wanted, rtol=1e-14)
    assert [row["chosen"] for row in rows] == ["1", "0", "0"]


def test_a_failed_trial_is_counted_and_listed_but_scores_nowhere(results, tmp_path):
    sweep = summarize(results)
    write_tables(tmp_path, sweep)
    last = read_csv(tmp_path)[-1]
    assert (last["trials"], last["failed"], last["best"], last["mean"], last["std"], last["failed_trials"]) == (
        "2", "1", "0.85", "0.85", "", "b0",
    )  # fmt: skip
    assert sweep.best is not None
    assert sweep.best.id == "a23e-5"
    lines = terminal_lines(sweep)
    assert "0.8500 ± –" in lines[4]
    assert lines[4].split()[2:5] == ["2", "1", "!"]
    assert f"  b0 (batch_size 16, peak_learning_rate 5e-5, seed 0): {DEGENERATE}" in lines
    assert "1 of 8 trials failed (!), and are in no best, median and mean:" in lines


@pytest.mark.parametrize("last", [None, {"f1": None}, {"f1": float("nan")}, {}])
def test_a_trial_without_a_finite_score_is_a_failed_one(trial, last):
    sweep = summarize([trial("a", 32, 5e-5, 0, 0.9, last=last), trial("b", 32, 5e-5, 1, 0.8)])
    assert [failed.id for failed in sweep.settings[0].failed] == ["a"]
    assert sweep.settings[0].scores == [0.8]


def test_a_sweep_of_failures_chooses_nothing(trial):
    sweep = summarize([trial("a", 32, 5e-5, 0, 0.9, failed=DEGENERATE)])
    assert (sweep.chosen, sweep.best) == (None, None)
    assert "No setting is chosen: every trial failed." in terminal_lines(sweep)
    assert "→" not in markdown(sweep)


def test_the_chosen_row_and_the_best_trial_are_marked(results):
    lines = terminal_lines(summarize(results))
    assert [line[0] for line in lines[:5]] == [" ", "-", "*", " ", " "]
    notes = "\n".join(lines[5:])
    assert "| → | **32** | **3e-5** |" in markdown(summarize(results))
    assert "* chosen on dev, by the highest mean f1: batch_size 32, peak_learning_rate 3e-5." in notes
    assert "Best single trial: a23e-5 (batch_size 32, peak_learning_rate 3e-5, seed 2), f1 0.9300." in notes


def test_planned_trials_that_are_missing_show(results):
    planned = [result["overrides"] for result in results[1:]]
    planned.append({"optim.peak_learning_rate": 3e-5, "data.batch_size": 16, "seed": 0})
    planned.append({"seed": 2, "optim.peak_learning_rate": 5e-5, "data.batch_size": 16})
    sweep = summarize(results, planned)
    lines = terminal_lines(sweep)
    assert lines[5].split() == ["16", "3e-5", "0", "of", "1", "–", *["not", "run"] * 5]
    assert lines[4].split()[2:5] == ["2", "of", "3"]
    assert "2 of 10 trials are not run yet; what is chosen may change." in lines
    assert "1 of the trials here are not in the plan (an earlier one's?); they are counted." in lines


def test_a_mean_over_fewer_trials_than_planned_is_pointed_out(trial):
    results = [trial("a", 32, 5e-5, 0, 0.9), trial("b", 32, 5e-5, 1, 0.6, failed=DEGENERATE)]
    assert "Beware: the highest mean is of 1 of 2 trials." in terminal_lines(summarize(results))


def test_the_columns_of_the_terminal_stand_below_each_other(results):
    header, ruler, *rows = terminal_lines(summarize(results))[:5]
    ends = [at for at in range(len(ruler)) if ruler[at] == "-" and ruler[at + 1 : at + 2] != "-"]
    assert [len(row) for row in (header, *rows)] == [len(ruler)] * 4
    assert all(row[end + 1 : end + 3].strip() == "" for row in (header, *rows) for end in ends)


def test_markdown_has_as_many_cells_in_every_row(trial):
    overrides = {"init_from": "run:a|b", "seed": 0}
    text = markdown(summarize([trial("a", 1, 1e-5, 0, 0.9, overrides=overrides)]))
    table = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert "|  | run:a\\|b | 1 |" in text


def test_percentages_have_two_digits_in_their_whole_column(trial):
    scores = [("a", 5e-5, 88.1234), ("b", 3e-5, 0.5)]
    lines = terminal_lines(summarize([trial(name, 32, rate, 0, score) for name, rate, score in scores]))
    assert ["88.12" in lines[2], "0.50 ± –" in lines[3]] == [True, True]


def test_overrides_have_short_names_where_these_are_their_own():
    assert short_names(["optim.peak_learning_rate", "model.size", "data.size", "num_epochs"]) == {
        "num_epochs": "num_epochs",
        "optim.peak_learning_rate": "peak_learning_rate",
        "data.size": "data.size",
        "model.size": "model.size",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(5e-5, "5e-5"), (1e-4, "1e-4"), (1.25e-5, "1.25e-5"), (0.1, "0.1"), (32, "32"), ("x", "x"), (None, "null")],
)
def test_values_are_short_and_exact(value, text):
    assert format_value(value) == text
    if isinstance(value, float):
        assert json.loads(text) == value


def test_seeds_alone_are_one_setting(trial):
    sweep = summarize([trial(f"{seed}", 0, 2e-5, 0, 0.9, overrides={"seed": seed}) for seed in range(3)])
    assert [len(setting.trials) for setting in sweep.settings] == [3]
    assert sweep.describe(sweep.settings[0].values) == "the config as it stands"
    assert "*" not in "".join(terminal_lines(sweep))  # no choice


def test_trials_of_two_metrics_and_no_trials_are_refused(trial):
    with pytest.raises(ValueError, match="metrics f1, pearson"):
        summarize([trial("a", 32, 5e-5, 0, 0.9), trial("b", 32, 5e-5, 1, 0.9, best_metric="pearson")])
    with pytest.raises(ValueError, match="no trial has ended"):
        summarize([], [{"seed": 0}])


def test_reports_import_neither_jax_nor_pyplot():
    code = "import sys, bert_jax.reports.sweep_plot; print({'jax', 'matplotlib.pyplot'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
