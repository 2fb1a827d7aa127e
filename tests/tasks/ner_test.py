"""Named entities: the first piece of every word is tagged and scored once, as conlleval does."""

import random
from typing import Any

import numpy as np
import pytest

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.conll import read_conll
from bert_jax.tasks.ner import NerData, encode_documents, make_task, predictions, score_tags, split_text
from tests.conftest import VOCABULARY

TOKENIZER = WordPiece(VOCABULARY)
TRAIN = "-DOCSTART- O\n\nthe O\ncats I-X\nsat I-X\n\nmat B-Y\n\n-DOCSTART- O\n\non O\n"


@pytest.fixture
def make_data(tmp_path):
    def make(train=TRAIN, dev=TRAIN, **fields):
        (tmp_path / "train.txt").write_text(train, encoding="utf-8")
        (tmp_path / "dev.txt").write_text(dev, encoding="utf-8")
        paths = {"train": str(tmp_path / "train.txt"), "dev": str(tmp_path / "dev.txt")}
        values: dict[str, Any] = {"max_seq_length": 32} | paths | fields
        return NerData(**values)

    return make


def pieces(row):
    return TOKENIZER.tokens(row)


def as_outputs(task, split, tags):
    """Return logits that say `tags` at labelled tokens, in order, and something else elsewhere."""
    left = iter(tags)
    rows = task.train if split == "train" else task.held_out[split].rows
    logits = []
    for targets in rows.token_targets["label_ids"]:
        row = np.zeros((len(targets), len(task.labels)), np.float32)
        for position, target in enumerate(targets):
            row[position, task.labels.index(next(left)) if target != -1 else -1] = 1.0
        logits.append(row)
    assert not list(left)
    return {"logits": logits}


def test_rows_hold_documents_and_first_pieces_have_labels(make_data):
    task = make_task(make_data(), TOKENIZER)
    assert task.labels == ("O", "B-X", "I-X", "B-Y", "I-Y")
    assert (task.head, task.best_metric, task.outputs) == ("tokens", "f1", 5)
    first, second = task.train.input_ids
    assert pieces(first) == ["[CLS]", "the", "cat", "##s", "sat", "mat", "[SEP]"]
    assert task.train.token_targets["label_ids"][0].tolist() == [-1, 0, 1, -1, 2, 3, -1]
    assert pieces(second) == ["[CLS]", "on", "[SEP]"]
    assert task.facts["train"] == {
        "documents": 2, "sentences": 3, "words": 5, "entities": 2, "rows": 2, "split_sentences": 0,
    }  # fmt: skip
    assert any("2 tags" not in note and "converted to IOB2" in note for note in task.notes)


def test_sentence_mode_has_no_context(make_data):
    task = make_task(make_data(document_context=False), TOKENIZER)
    assert [pieces(row) for row in task.train.input_ids] == [
        ["[CLS]", "the", "cat", "##s", "sat", "[SEP]"],
        ["[CLS]", "mat", "[SEP]"],
        ["[CLS]", "on", "[SEP]"],
    ]


def test_one_sentence_a_row_has_the_document_around_it(make_data):
    task = make_task(make_data(sentences_per_row=1), TOKENIZER)
    assert len(task.train) == 3
    assert task.train.input_ids[0].tolist() == task.train.input_ids[1].tolist()
    assert task.train.token_targets["label_ids"][1].tolist() == [-1, -1, -1, -1, -1, 3, -1]


def test_a_file_without_documents_is_read_by_sentences(make_data):
    task = make_task(make_data(train="a O\n\nb B-X\n"), TOKENIZER)
    assert len(task.train) == 2
    assert any("does not say where documents begin" in note for note in task.notes)


def test_a_checkpoints_order_of_the_same_labels_is_kept(make_data):
    order = ("I-Y", "B-Y", "O", "I-X", "B-X")
    assert make_task(make_data(), TOKENIZER, order).labels == order
    assert make_task(make_data(), TOKENIZER, ("O", "B-X")).labels[0] == "O"
    assert len(make_task(make_data(), TOKENIZER, ("O", "B-X")).labels) == 5


@pytest.mark.parametrize("document_context", [False, True])
def test_right_outputs_score_1_over_words_in_parts_and_without_pieces(make_data, document_context):
    words = ["the"] * 30 + ["\u200b", "abcdefghijklmn"] + ["cat"] * 20
    tags = ["O", "B-X", "I-X"] * 17 + ["B-Y"]
    lines = "".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True))
    data = make_data(dev=f"-DOCSTART-\tO\n\n{lines}\nmat\tO\n", max_seq_length=12, document_context=document_context)
    task = make_task(data, TOKENIZER)
    rows = task.held_out["dev"].rows
    assert max(rows.lengths) <= 12
    assert rows.truncated == 1
    assert task.facts["dev"]["split_sentences"] == 1
    assert "[UNK]" in [piece for row in rows.input_ids for piece in pieces(row)]
    score = task.held_out["dev"].score
    right = as_outputs(task, "dev", [*tags, "O"])
    assert score(right) == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "token_accuracy": 1.0}
    wrong = as_outputs(task, "dev", [*tags[:-1], "O", "O"])
    assert score(wrong)["recall"] == pytest.approx(17 / 18)
    assert score(wrong)["precision"] == 1.0
    assert score(wrong)["token_accuracy"] == pytest.approx(52 / 53)
    right["logits"][0][1, 0] = np.nan
    assert np.isnan(score(right)["f1"])


def test_a_type_unknown_in_training_is_missed_and_said(make_data):
    task = make_task(make_data(dev="a B-X\nb B-NEW\n"), TOKENIZER)
    assert any("NEW" in note and "dev.txt:1" in note for note in task.notes)
    outputs = {"logits": [np.eye(5, dtype=np.float32)[[0, 1, 0, 0]]]}
    assert task.held_out["dev"].score(outputs) == {
        "f1": pytest.approx(2 / 3), "precision": 1.0, "recall": 0.5, "token_accuracy": 0.5,
    }  # fmt: skip


def test_predictions_are_words_tags_and_spans():
    sentences = [["The", "cat", "sat"], ["mat"]]
    rows = encode_documents([sentences], TOKENIZER, 16)
    labels = ("O", "B-X", "I-X")
    outputs = {"logits": [np.log(2) * np.eye(3)[[0, 0, 2, 2, 1, 0]]]}  # so e to its power is 2, 1 and 1
    outputs["logits"][0][3, 2] = np.log(6)
    assert predictions(sentences, rows, outputs, labels) == [
        {
            "words": ["The", "cat", "sat"],
            "tags": ["O", "I-X", "I-X"],
            "probabilities": pytest.approx([0.5, 0.5, 0.75]),
            "entities": [{"type": "X", "start": 1, "stop": 3, "text": "cat sat"}],
        },
        {
            "words": ["mat"],
            "tags": ["B-X"],
            "probabilities": pytest.approx([0.5]),
            "entities": [{"type": "X", "start": 0, "stop": 1, "text": "mat"}],
        },
    ]


def test_words_of_a_plain_text_are_as_in_the_columns():
    text = '"The cat\'s mat," on-line (U.S.)!'
    assert split_text(text, TOKENIZER) == ['"', "The", "cat's", "mat", ",", '"', "on-line", "(", "U.S", ".", ")", "!"]
    assert split_text(" \n", TOKENIZER) == []


def conlleval(gold, predicted):
    """Return (right, found, gold) chunks, by conlleval's startOfChunk and endOfChunk, stated on the two tags."""

    def chunks(sentences):
        found, place = set(), 0
        for tags in sentences:
            start = None
            for index, tag in enumerate([*tags, "O"]):
                before = tags[index - 1] if index else "O"
                if start is not None and (tag[0] in "BO" or tag[2:] != before[2:]):
                    found.add((before[2:], place + start, place + index))
                    start = None
                if tag != "O" and start is None:
                    start = index
            place += len(tags) + 1
        return found

    gold, predicted = chunks(gold), chunks(predicted)
    return len(gold & predicted), len(predicted), len(gold)


def test_scores_are_conllevals():
    generator = random.Random(0)
    tags = ["O", "B-X", "I-X", "B-Y-Z", "I-Y-Z"]
    for _ in range(50):
        lengths = [generator.randrange(1, 9) for _ in range(generator.randrange(1, 12))]
        gold, predicted = ([generator.choices(tags, [3, 1, 1, 1, 1], k=n) for n in lengths] for _ in range(2))
        right, found, real = conlleval(gold, predicted)
        scores = score_tags(gold, predicted)
        assert scores["precision"] == pytest.approx(right / max(found, 1))
        assert scores["recall"] == pytest.approx(right / max(real, 1))
        assert scores["f1"] == pytest.approx(2 * right / max(found + real, 1))
    assert score_tags([["O"]], [["O"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "token_accuracy": 1.0}


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"config\.data\.train is empty"):
        NerData(train="", dev="x")
    with pytest.raises(ValueError, match=r"config\.data\.sentences_per_row is -1"):
        NerData(train="x", dev="x", sentences_per_row=-1)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "sentences", "words", "types", "documents"),
    [
        ("wnut17/wnut17train.conll", 3394, 62730, 6, None),
        ("wnut17/emerging.dev.conll", 1009, 15733, 6, None),
        ("wnut17/emerging.test.annotated", 1287, 23394, 6, None),
        ("GUM/gum-train.conll", 2495, 44111, 11, None),
        ("GUM/gum-test.conll", 1000, 18236, 11, None),
        ("wikigold/wikigold.conll.txt", 1696, 39007, 4, 145),
        ("sec_filings/FIN5.txt", 1164, 41010, 4, 5),
        ("sec_filings/FIN3.txt", 303, 13246, 4, 3),
        ("uner_ewt/en_ewt-ud-dev.iob2", 2001, 25149, 3, 318),
        ("uner_ewt/en_ewt-ud-test.iob2", 2077, 25097, 3, 316),
    ],
)
def test_shared_sets_are_read_whole(shared_data, name, sentences, words, types, documents):
    """The counts are those of the data's README, and 45 words "#" more, which are comments there."""
    file = read_conll(shared_data / "ner" / name)
    assert len(file.sentences) == sentences
    assert sum(len(sentence.words) for sentence in file.sentences) == words
    assert len({tag[2:] for sentence in file.sentences for tag in sentence.tags} - {""}) == types
    assert (len(file.documents) if file.has_boundaries else None) == documents


@pytest.mark.shared
def test_every_word_of_a_shared_set_is_scored_with_its_document(shared_data):
    ner = shared_data / "ner" / "uner_ewt"
    data = NerData(train=f"{ner}/en_ewt-ud-dev.iob2", dev=f"{ner}/en_ewt-ud-test.iob2", max_seq_length=128)
    tokenizer = WordPiece.from_vocab_file(shared_data / "vocab" / "bert-base-cased-vocab.txt")
    task = make_task(data, tokenizer)
    file = read_conll(data.dev)
    scores = task.held_out["dev"].score(
        as_outputs(task, "dev", [tag for sentence in file.sentences for tag in sentence.tags])
    )
    assert set(scores.values()) == {1.0}
