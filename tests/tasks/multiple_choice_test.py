"""Multiple choice: several layouts become pairs of context and ending."""

import json
from typing import Any

import numpy as np
import pytest

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.multiple_choice import (
    ChoiceData,
    encode_choices,
    make_task,
    parse_choices,
    predictions,
    read_choices,
)
from bert_jax.tasks.tables import parse_json_lines
from tests.conftest import VOCABULARY

TOKENIZER = WordPiece(VOCABULARY)
SWAG = (
    ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n"
    '0,x,1,The mat. A cat,The mat.,A cat,gold,"sat, on it",sat,on,the,0\n'
)
CODAH = 'o\tThe mat. "A cat\tsat "on it\tsat\ton\tthe\t3\n'
TEXTS = ("The mat.", ("A cat sat, on it", "A cat sat", "A cat on", "A cat the"))


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def settings(path, dev=None, **fields):
    values: dict[str, Any] = {"train": path, "dev": dev or path, "max_seq_length": 32}
    return ChoiceData(**(values | fields))


def test_swag_is_read_by_its_header(write):
    path = write("train.csv", SWAG)
    (example,) = read_choices(path)
    assert (example.context, example.endings, example.label, example.where) == (*TEXTS, 0, f"{path}:2")
    other_order = "label,ending0,ending1,ending2,ending3,sent1,sent2\n" + '0,"sat, on it",sat,on,the,The mat.,A cat\n'
    (other,) = read_choices(write("dev.csv", other_order))
    assert (other.context, other.endings, other.label) == (*TEXTS, 0)
    (unlabelled,) = read_choices(write("test.csv", other_order.replace("label,", "").replace("\n0,", "\n")), False)
    assert (unlabelled.endings, unlabelled.label) == (TEXTS[1], None)


def test_codah_has_no_header_and_no_quoting(write):
    (example,) = read_choices(write("train.tsv", CODAH))
    assert (example.context, example.label) == ('The mat. "A cat', 3)
    assert example.endings == ('sat "on it', "sat", "on", "the")


@pytest.mark.parametrize(
    ("text", "trained", "endings"),
    [
        (CODAH, 4, 4),
        (CODAH, 0, 4),
        (CODAH, 5, 5),  # the last ending is a number
        (CODAH + "o\tx\ta\tb\tc\td\t4\n", 0, 5),
        (CODAH.replace("\t3\n", "\n"), 4, 4),
        (CODAH.replace("\t3\n", "\n"), 0, 4),
    ],
)
def test_a_label_that_is_not_asked_for_is_no_ending(write, text, trained, endings):
    examples = read_choices(write("test.tsv", text), with_labels=False, trained=trained)
    assert {(len(example.endings), example.label) for example in examples} == {(endings, None)}


@pytest.mark.parametrize(
    ("row", "context", "endings"),
    [
        ({"context": "a", "choices": ["b", "c"], "label": 1}, "a", ("b", "c")),
        ({"context": "a", "question": "q", "endings": ["b", "c"], "label": "1"}, "a", ("q b", "q c")),
        ({"question": "q", "choices": ["b", "c"], "label": 1}, "q", ("b", "c")),
        ({"sent1": "a", "sent2": "q", "ending0": "b", "ending1": "c", "label": 1}, "a", ("q b", "q c")),
    ],
)
def test_json_lines_have_a_context_and_choices(write, row, context, endings):
    (example,) = read_choices(write("train.jsonl", json.dumps(row) + "\n"))
    assert (example.context, example.endings, example.label) == (context, endings, 1)


def test_rows_are_pairs_and_are_scored(write):
    path = write("train.csv", SWAG + SWAG.splitlines()[1].replace(",0", ",2") + "\n")
    task = make_task(settings(path), TOKENIZER)
    rows = task.train
    assert (task.head, task.labels, task.outputs, task.best_metric) == ("choices", (), 1, "accuracy")
    assert (len(rows), rows.choices, len(rows.input_ids)) == (2, 4, 8)
    assert TOKENIZER.tokens(rows.input_ids[1]) == ["[CLS]", "the", "mat", ".", "[SEP]", "a", "cat", "sat", "[SEP]"]
    assert rows.segment_ids[1].tolist() == [0] * 5 + [1] * 4
    assert rows.targets["label_ids"].tolist() == [0, 2]
    outputs = {"logits": np.eye(4)[[0, 1]]}
    assert task.held_out["dev"].score(outputs) == {"accuracy": 0.5}
    cut = make_task(settings(path, max_seq_length=8, max_train_rows=1), TOKENIZER)
    assert (len(cut.train), cut.train.truncated) == (1, 4)
    assert any("4 pairs" in note for note in cut.notes)


def test_new_rows_are_predicted_without_labels():
    lines = [json.dumps({"context": "the", "choices": ["cat", "mat"]})]
    examples = parse_choices(parse_json_lines(lines, "stdin"), with_labels=False)  # pyright: ignore[reportArgumentType]
    assert "label_ids" not in encode_choices(examples, TOKENIZER, 16).targets
    (prediction,) = predictions(examples, {"logits": np.log([[0.25, 0.75]])})
    assert (prediction["label"], prediction["ending"]) == (1, "mat")
    assert prediction["probabilities"] == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", SWAG.replace(",0\n", ",4\n"), r"a\.csv:2: the label is '4'; .* 0 to 3"),
        ("a.csv", SWAG.replace("label", "answer"), r"a\.csv:2: no label among video-id"),
        ("a.csv", "sent1,label\na,0\n", r"a\.csv:2: 0 choices; 2 or more"),
        ("a.jsonl", '{"context": "a", "choices": "b", "label": 0}\n', r"a\.jsonl:1: the row has context, choices"),
        ("a.jsonl", '{"context": 1, "choices": ["b", "c"], "label": 0}\n', r"a\.jsonl:1: the row has context, choices"),
        ("a.tsv", CODAH + "o\tx\ty\t0\n", r"a\.tsv:2: 4 columns instead of 7"),
        ("a.txt", "x", "suffix is '.txt'; accepted: .csv, .tsv"),
    ],
)
def test_a_malformed_row_is_named(write, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_choices(write(name, text))


def test_all_rows_have_as_many_choices(write):
    path = write("a.jsonl", '{"context": "a", "choices": ["b", "c"], "label": 0}\n')
    dev = write("b.csv", SWAG)
    with pytest.raises(ValueError, match=r"b\.csv:2: 4 choices, where .*a\.jsonl:1 has 2"):
        make_task(settings(path, dev), TOKENIZER)
    with pytest.raises(ValueError, match=r"config\.data\.dev is empty"):
        ChoiceData(train="x", dev="")


@pytest.mark.shared
def test_shared_sets_are_read_whole(shared_data):
    codah = shared_data / "codah"
    counts = {"full_data": 2776, "cv_split/fold_0/train": 1665, "cv_split/fold_0/dev": 556, "cv_split/fold_0/test": 555}
    assert {name: len(read_choices(codah / f"{name}.tsv")) for name in counts} == counts
    swag = read_choices(shared_data / "swag" / "swag_sample.csv")
    assert (len(swag), swag[0].context, swag[0].label) == (11, "Students lower their eyes nervously.", 2)
    assert swag[0].endings[0] == "She pats her shoulder, then saunters toward someone."
    tokenizer = WordPiece.from_vocab_file(shared_data / "vocab" / "bert-base-uncased-vocab.txt")
    data = ChoiceData(train=f"{codah}/cv_split/fold_0/train.tsv", dev=f"{codah}/cv_split/fold_0/dev.tsv")
    task = make_task(data, tokenizer)
    assert task.held_out["dev"].score({"logits": np.eye(4)[task.held_out["dev"].rows.targets["label_ids"]]}) == {
        "accuracy": 1.0
    }
