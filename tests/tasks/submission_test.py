import zipfile

import pytest

from bert_jax.tasks.submission import SUBMISSION, format_predictions, write_submission

# Lines with the header, from the published sample submission.
LINES = {
    "CoLA": 1064, "SST-2": 1822, "MRPC": 1726, "STS-B": 1380, "QQP": 390_966, "MNLI-m": 9797, "MNLI-mm": 9848,
    "QNLI": 5464, "RTE": 3001, "WNLI": 147, "AX": 1105,
}  # fmt: skip


def test_a_filled_submission_has_the_official_files_and_line_counts(tmp_path):
    path = tmp_path / "submission.zip"
    filled = write_submission(path, {"WNLI": ["entailment"] * 146}, fill_missing=True)
    assert filled == [name for name in LINES if name != "WNLI"]
    with zipfile.ZipFile(path) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert {name: text.count("\n") for name, text in texts.items()} == {f"{name}.tsv": n for name, n in LINES.items()}
    assert {text.split("\n")[0] for text in texts.values()} == {"index\tprediction"}
    assert {name: texts[f"{name}.tsv"].splitlines()[-1].split("\t")[1] for name in LINES} == {
        "CoLA": "0", "SST-2": "0", "MRPC": "0", "STS-B": "0.000", "QQP": "0", "MNLI-m": "contradiction",
        "MNLI-mm": "contradiction", "QNLI": "entailment", "RTE": "entailment", "WNLI": "1", "AX": "contradiction",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["submission.zip"]


def test_missing_tasks_are_named_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"predictions of CoLA, SST-2, MRPC, .* are missing"):
        write_submission(tmp_path / "a.zip", {"WNLI": ["entailment"] * 146})
    assert not list(tmp_path.iterdir())


def test_scores_are_clipped_and_rounded():
    scores = [-0.2, 5.3, 2.34567] + [1.0] * 1376
    assert format_predictions("STS-B", scores).splitlines()[1:5] == ["0\t0.000", "1\t5.000", "2\t2.346", "3\t1.000"]
    with pytest.raises(ValueError, match="STS-B, prediction 0 is nan; accepted: a number"):
        format_predictions("STS-B", [float("nan")] * 1379)


def test_wrong_predictions_are_refused(tmp_path):
    with pytest.raises(ValueError, match="RTE: 2 predictions; the test set has 3000 rows"):
        format_predictions("RTE", ["entailment"] * 2)
    with pytest.raises(ValueError, match=r"WNLI, prediction 145 is 'yes'; accepted: not_entailment, entailment"):
        format_predictions("WNLI", ["entailment"] * 145 + ["yes"])
    with pytest.raises(ValueError, match="did you mean 'MNLI-m'"):
        write_submission(tmp_path / "a.zip", {"MNLI": []}, fill_missing=True)


def test_every_task_of_glue_is_in_it():
    assert list(SUBMISSION) == [
        "CoLA",
        "SST-2",
        "MRPC",
        "STS-B",
        "QQP",
        "MNLI-m",
        "MNLI-mm",
        "QNLI",
        "RTE",
        "WNLI",
        "AX",
    ]
