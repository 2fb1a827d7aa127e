import gzip
import json
from typing import Any

import numpy as np
import pytest

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.tables import Row
from bert_jax.tasks.text_table import TextTableData, find_columns, make_task
from tests.conftest import VOCABULARY

CSV = 'text,label\n"the cat, sat",spam\n"a ""mat"", on\nthe mat",ham\nthe,spam\n'


@pytest.fixture
def tokenizer():
    return WordPiece(VOCABULARY)


@pytest.fixture
def table(tmp_path):
    """A function that writes a table to train on and to score, and returns its config."""

    def write(text, name="table.csv", **rest):
        path = tmp_path / name
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        section: dict[str, Any] = {"train": str(path), "dev": str(path)} | rest
        return TextTableData(**section)

    return write


def test_a_csv_with_quotes_becomes_classes_sorted_by_name(table, tokenizer):
    task = make_task(table("\ufeff" + CSV.replace("\n", "\r\n")), tokenizer)
    assert task.labels == ("ham", "spam")
    assert task.train.targets["label_ids"].tolist() == [1, 0, 1]
    words = " ".join(tokenizer.tokens(task.train.input_ids[1]))
    assert words == "[CLS] a [UNK] mat [UNK] , on the mat [SEP]"
    scores = task.held_out["dev"].score({"logits": np.eye(2)[[1, 1, 1]]})
    assert scores == pytest.approx({"accuracy": 2 / 3, "macro_f1": 0.4, "constant_prediction": 1})
    assert task.facts["text_columns"] == ("text",)
    assert make_task(table(CSV), tokenizer, ("spam", "ham")).labels == ("spam", "ham")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_tsv_and_json_lines_hold_pairs_and_scores(table, tokenizer, suffix):
    rows = [{"sentence1": 'a "b', "sentence2": "c", "score": 0.5}, {"sentence1": "d", "sentence2": "e", "score": 3}]
    lines = "\n".join(map(json.dumps, rows))
    tsv = "\n".join("\t".join(map(str, cells)) for cells in (rows[0], *(row.values() for row in rows)))
    tasks = [
        make_task(table(text, f"{name}{suffix}", score=True), tokenizer)
        for text, name in ((lines, "a.jsonl"), (tsv, "a.tsv"))
    ]
    for task in tasks:
        assert (task.labels, task.best_metric) == ((), "pearson")
        assert task.train.targets["label_ids"].tolist() == [0.5, 3]
        assert [ids.tolist() for ids in task.train.segment_ids] == [[0] * 5 + [1] * 2, [0] * 3 + [1] * 2]


def test_a_part_is_held_out_by_the_texts_alone(table, tokenizer, tmp_path):
    rows = [f"text {number // 2},{'ab'[number % 2]}" for number in range(400)]  # every text twice
    forth = make_task(table("text,label\n" + "\n".join(rows), dev=""), tokenizer)
    back = make_task(table("text,label\n" + "\n".join(rows[::-1]), dev="", max_seq_length=64), tokenizer)
    held_out = forth.held_out["dev"].rows
    assert 20 < len(held_out) < 60
    assert len(held_out) + len(forth.train) == 400
    as_set = {tuple(ids) for ids in held_out.input_ids}
    assert as_set == {tuple(ids) for ids in back.held_out["dev"].rows.input_ids}
    assert len(held_out) % 2 == 0
    assert f"{len(held_out)} of 400 rows are held out" in forth.notes[1]


def test_a_class_of_held_out_rows_alone_is_one(table, tokenizer):
    rows = "".join(f"text {number},{number:02}\n" for number in range(40))
    task = make_task(table("text,label\n" + rows, dev=""), tokenizer)
    assert task.labels == tuple(f"{number:02}" for number in range(40))
    assert task.held_out["dev"].rows


def test_blank_lines_are_no_rows(table, tokenizer):
    task = make_task(table("text\tlabel\na\tx\n\nb\ty\n\n", "a.tsv"), tokenizer)
    assert len(task.train) == 2


@pytest.mark.parametrize(
    ("header", "texts", "label"),
    [
        ("v1,v2", ("v2",), "v1"),
        ("id,Review,Sentiment", ("Review",), "Sentiment"),
        ("sentence_A,sentence_B,score", ("sentence_A", "sentence_B"), "score"),
        ("index,question,sentence,label", ("question", "sentence"), "label"),
    ],
)
def test_columns_are_found_by_usual_names(header, texts, label):
    row = Row(dict.fromkeys(header.split(","), ""), "a.csv:2")
    assert find_columns(TextTableData(train="a.csv"), row) == (texts, label)


def test_columns_can_be_named(table, tokenizer):
    data = table("one,two,text,label\na,b,c,x\nd,e,f,y\n", text_column="two", second_column="one", label_column="text")
    task = make_task(data, tokenizer)
    assert (task.facts["text_columns"], task.labels) == (("two", "one"), ("c", "f"))


def test_trailing_nameless_columns_may_be_empty(table, tokenizer):
    task = make_task(table("v1,v2,,\nham,a,,\nspam,b,,\n"), tokenizer)
    assert len(task.train) == 2


def test_long_and_empty_texts_are_counted(table, tokenizer):
    task = make_task(table(f"text,label\n{'the ' * 50},a\n,b\n", max_seq_length=8), tokenizer)
    assert "text_table: 1 of 2 train rows are too long and were cut" in task.notes
    assert "table: 2 rows have an empty text" in task.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "text,review,label\na,b,c\n",
            r"which column is the text\? \(text or review\); the file has text, review, label",
        ),
        ("text,foo\na,b\n", r"which column is the label\? \(none with a usual name\).*config.data.label_column"),
        ("text,label\na,b,c\n", "table.csv:2: 3 cells instead of 2"),
        ("text,label\na\n", "table.csv:2: 1 cells instead of 2"),
        ("text,label\na,\n", "table.csv:2: the label, 'label', is empty"),
        ('text,label\na,b\n"c,d\ne,f\n', "table.csv:3: a quote opens here and is not closed"),
        (b"text,label\na,b\ncaf\xe9,c\n", "table.csv:3: the byte 0xe9 is not UTF-8; .*iconv"),
        ("text,label\na,b\nc,b\n", "all rows have the label 'b'"),
        ("text,label\n", "has a header and no row"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(table, tokenizer, text, message):
    with pytest.raises(ValueError, match=message):
        make_task(table(text), tokenizer)


def test_an_unknown_label_of_the_held_out_file_is_named(table, tokenizer, tmp_path):
    (tmp_path / "dev.csv").write_text("text,label\na,eggs\n")
    with pytest.raises(ValueError, match=r"dev.csv:2: the label is 'eggs'; accepted: ham, spam"):
        make_task(table(CSV, dev=str(tmp_path / "dev.csv")), tokenizer)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"text": "a", "label": "b"}', "{oops"], "a.jsonl:2: not JSON"),
        (['{"text": "a", "label": "b"}', '{"label": "b"}'], "a.jsonl:2: 'text' must be a text; got no such column"),
        (['{"text": "a", "label": "b"}', '{"text": 3, "label": "b"}'], "a.jsonl:2: 'text' must be a text; got 3"),
        (['{"text": "a", "label": null}'], "a.jsonl:1: the label, 'label', is empty"),
        (["[1]"], "a.jsonl:1: list instead of an object"),
    ],
)
def test_what_is_wrong_with_json_lines_is_said(table, tokenizer, lines, message):
    with pytest.raises(ValueError, match=message):
        make_task(table("\n".join(lines), "a.jsonl"), tokenizer)


def test_a_wrong_config_is_refused(table, tokenizer):
    with pytest.raises(ValueError, match=r"the name must end with .csv, .tsv, .jsonl"):
        make_task(table(CSV, "table.xlsx"), tokenizer)
    with pytest.raises(ValueError, match=r"config.data.text_column is 'txt'; accepted: text, label"):
        make_task(table(CSV, text_column="txt"), tokenizer)
    with pytest.raises(ValueError, match="between 0 and 1"):
        TextTableData(train="a.csv", dev_fraction=0.0)
    with pytest.raises(FileNotFoundError, match=r"no.csv does not exist"):
        make_task(TextTableData(train="no.csv"), tokenizer)


@pytest.mark.shared
def test_a_real_table_with_a_header_is_read_by_its_columns(shared_data):
    tokenizer = WordPiece.from_vocab_file(shared_data / "vocab" / "bert-base-uncased-vocab.txt")
    path = str(shared_data / "glue" / "RTE" / "train.tsv")
    task = make_task(TextTableData(train=path), tokenizer)
    assert task.labels == ("entailment", "not_entailment")
    assert len(task.train) + len(task.held_out["dev"].rows) == 2490
