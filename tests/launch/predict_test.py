import dataclasses
import json
import zipfile

import pytest

from bert_jax.inference.predict import Predictor, predict_test, submit
from bert_jax.tasks.multiple_choice import ChoiceExample
from bert_jax.tasks.sentences import SentenceExample
from bert_jax.tasks.squad_files import read_squad
from bert_jax.training.conversion import convert
from tests.launch.programs import run_launcher
from tests.tasks.tiny_tasks import TEXTS, Runs

CLASSES = {
    "glue": "BertForSequenceClassification",
    "text_table": "BertForSequenceClassification",
    "ner": "BertForTokenClassification",
    "squad": "BertForQuestionAnswering",
    "multiple_choice": "BertForMultipleChoice",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


def predict(*arguments, stdin=""):
    """Return status, JSON lines, and what was told."""
    done = run_launcher("predict", *arguments, stdin=stdin)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def predict_some(predictor, squad):
    """Return predictions of a few rows of whatever kind the model is for."""
    if predictor.head == "tokens":
        return predictor.tag([[text.split() for text in TEXTS[:3]]])
    if predictor.head == "choices":
        return predictor.choose([ChoiceExample(text, ("cat", "a mat"), None, "f:1") for text in TEXTS[:3]])
    if predictor.head == "span":
        return [found.as_json() for found in predictor.answer(squad).values()]
    two = len(predictor.text_columns) == 2
    return predictor.classify([SentenceExample(text, "sat" if two else None, None, "1", "f:1") for text in TEXTS[:3]])


# One kind of task by default; each compiles its own training, prediction and comparison.
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name == "glue" else pytest.mark.slow) for name in CLASSES]
)
def test_a_run_predicts_and_so_does_its_conversion(family, runs, tmp_path):
    predictor, squad = runs.predictor(family), read_squad(runs.files("squad") / "squad.json", with_answers=False)
    assert predictor.family == family
    expected = predict_some(predictor, squad)
    convert(f"run:{runs.workdir(family)}", f"hf:{tmp_path / 'hf'}")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == [CLASSES[family]]
    if predictor.labels:
        assert config["id2label"] == {str(number): label for number, label in enumerate(predictor.labels)}
    # What only a run knows is given to it; the model is that of the conversion.
    again = dataclasses.replace(predictor, weights=Predictor.load(f"hf:{tmp_path / 'hf'}").weights)
    assert (again.head, again.labels) == (predictor.head, predictor.labels)
    assert predict_some(again, squad) == expected
    convert(f"hf:{tmp_path / 'hf'}", f"run:{tmp_path / 'run'}")
    assert Predictor.load(f"run:{tmp_path / 'run'}").head == predictor.head


@pytest.mark.entry
@pytest.mark.parametrize(
    ("malformed", "message"),
    [
        ('{"txt": "c"}', "'text' must be a text; got no such column; the row has txt"),
        (
            "caf\udce9",
            "the byte 0xe9 is not UTF-8; convert the text, for example with `iconv -f WINDOWS-1252 -t UTF-8`",
        ),
    ],
)
def test_lines_are_classified_up_to_the_one_that_is_malformed(malformed, message, runs):
    address = f"run:{runs.workdir('text_table')}@best"
    lines = ['\ufeff{"text": "a cat"}', "", '{"text": "b mat"}', malformed, '{"text": "d"}']
    status, found, told = predict(f"--checkpoint={address}", stdin="\n".join(lines))
    assert status == 1
    assert [row["line"] for row in found] == [1, 3]
    assert all(set(row["probabilities"]) == {"feline", "other"} for row in found)
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-6 for row in found)
    assert told == f"predict: standard input:4: {message}\n"


@pytest.mark.slow
@pytest.mark.entry
def test_words_are_tagged_in_text_and_in_columns(runs):
    address, path = f"run:{runs.workdir('ner')}", runs.files("ner") / "words.conll"
    status, found, told = predict(f"--checkpoint={address}", stdin=f"the cat, on a mat.\n{'a' * 40}\n")
    assert status == 0, told
    assert told == f"{address}: 1 words are longer than a row of 32 tokens and were cut\n"
    assert found[0]["words"] == ["the", "cat", ",", "on", "a", "mat", "."]
    assert len(found[0]["tags"]) == 7
    status, found, told = predict(f"--checkpoint={address}", f"--input={path}", "--columns")
    assert status == 0, told
    lines = path.read_text().splitlines()
    for row in found:
        assert [line.split()[0] for line in lines[row["line"] - 1 :][: len(row["words"])]] == row["words"]


@pytest.mark.slow
@pytest.mark.entry
def test_answers_are_written_as_the_official_files(runs, tmp_path):
    address, path = f"run:{runs.workdir('squad')}@best", runs.files("squad") / "squad.json"
    output = f"--output={tmp_path / 'answers'}"
    status, found, told = predict(f"--checkpoint={address}", f"--input={path}", output, "--version_2")
    assert (status, found) == (0, []), told
    answers = json.loads((tmp_path / "answers" / "predictions.json").read_text())
    assert list(answers) == [f"q{number}" for number in range(12)]
    assert all(answer in "the cat sat on the mat." for answer in answers.values())
    assert sorted(path.name for path in (tmp_path / "answers").iterdir()) == [
        "nbest_predictions.json", "null_odds.json", "predictions.json",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.entry
def test_the_official_test_rows_become_a_submission(runs, tmp_path):
    address = f"run:{runs.workdir('glue')}"
    arguments = [f"--checkpoint={address}", "--split=test", f"--submission={tmp_path / 'glue.zip'}"]
    status, _, told = predict(*arguments)
    assert status == 1
    assert "predict: predictions of CoLA, SST-2, " in told
    assert not (tmp_path / "glue.zip").exists()
    status, found, told = predict(*arguments, "--fill_missing")
    assert (status, found) == (0, []), told
    with zipfile.ZipFile(tmp_path / "glue.zip") as archive:
        lines = archive.read("WNLI.tsv").decode().splitlines()
    assert len(lines) == 147
    assert {line.split("\t")[1] for line in lines[1:]} <= {"0", "1"}


def test_a_directory_gets_the_files_there_are(runs, tmp_path):
    found = predict_test(runs.predictor("glue"))
    assert submit(tmp_path / "files", found, fill_missing=False) == [f"wrote {tmp_path / 'files' / 'WNLI'}.tsv"]
    with pytest.raises(ValueError, match="has the labels not_entailment, entailment, mrpc not_equivalent"):
        predict_test(runs.predictor("glue"), "mrpc")
    with pytest.raises(ValueError, match=r"is not a run of configs/glue\.py"):
        predict_test(runs.predictor("text_table"))


@pytest.mark.entry
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint=run:/no/such"], "has no checkpoint; is it the --workdir of a run?"),
        (["--checkpoint=hf:MODEL"], "has no head of a task: fine-tune it with launch.finetune"),
        (["--checkpoint=run:RUN", "--input=/dev/null", "--output=/tmp"], "--output=/tmp is a directory; give a file"),
        (["--checkpoint=run:RUN", "--input=new.csv.gz"], "new.csv.gz: no csv is read here; give a text a line"),
        (["--checkpoint=run:RUN", "--input=new.tsv"], "no tsv is read here; give a text a line (.txt), or JSON lines"),
    ],
)
def test_mistakes_are_one_line(runs, arguments, message):
    known = {"MODEL": str(runs.model), "RUN": str(runs.workdir("text_table"))}
    for name, place in known.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    status, _, told = predict(*arguments)
    assert status == 1
    assert message in told
