"""SQuAD: from files to rows, and from logits to answers."""

import json
import time
from typing import Any

import numpy as np
import pytest

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.squad import SquadData, encode_answers, encode_questions, make_task
from bert_jax.tasks.squad_files import read_squad
from bert_jax.tasks.squad_predictions import AnswerSearch, predict, write_predictions
from bert_jax.tasks.squad_scores import normalize_answer
from bert_jax.tasks.squad_windows import PassageEncoder, PassageWindow
from tests.conftest import VOCABULARY

TOKENIZER = WordPiece(VOCABULARY)
PASSAGE = "The Cat, on the mat, sat. A dog came; the cat went."


def question(number, text, *answers, **more):
    return {
        "id": str(number),
        "question": text,
        "answers": [{"text": t, "answer_start": s} for t, s in answers],
        **more,
    }


@pytest.fixture
def write(tmp_path):
    def write(*questions, name="squad.json", passage=PASSAGE):
        content = {
            "version": "1",
            "data": [{"title": "x", "paragraphs": [{"context": passage, "qas": list(questions)}]}],
        }
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)

    return write


def settings(path, **fields):
    values: dict[str, Any] = {"train": path, "dev": path, "max_seq_length": 24, "max_query_length": 8, "doc_stride": 6}
    return SquadData(**(values | fields))


def pointing_outputs(rows):
    """Return logits that say the targets."""
    outputs = {"start_logits": [], "end_logits": []}
    for row, ids in enumerate(rows.input_ids):
        for name, target in (("start_logits", "start_positions"), ("end_logits", "end_positions")):
            logits = np.full(len(ids), -5.0, np.float32)
            logits[rows.targets[target][row]] = 5.0
            outputs[name].append(logits)
    return outputs


def test_rows_are_question_and_window_and_targets_point_to_the_answer(write):
    path = write(question(1, "the cat sat", ("Cat", 4)), question(2, "a cat", ("the cat went", 38)))
    task = make_task(settings(path), TOKENIZER)
    rows = task.train
    assert (task.head, task.best_metric, task.labels) == ("span", "f1", ())
    assert max(rows.lengths) <= 24
    pieces = TOKENIZER.tokens(rows.input_ids[0])
    assert pieces[:6] == ["[CLS]", "the", "cat", "sat", "[SEP]", "the"]
    assert pieces[-1] == "[SEP]"
    assert rows.segment_ids[0].tolist() == [0] * 5 + [1] * (len(pieces) - 5)
    starts, ends = rows.targets["start_positions"], rows.targets["end_positions"]
    answers = {
        tuple(TOKENIZER.tokens(ids[start : end + 1]))
        for ids, start, end in zip(rows.input_ids, starts, ends, strict=True)
    }
    assert answers == {("cat",), ("the", "cat", "w", "##e", "##n", "##t"), ("[CLS]",)}
    assert task.held_out["dev"].score(pointing_outputs(task.held_out["dev"].rows))["f1"] > 0.49


def test_right_logits_score_1(write):
    path = write(question(1, "the", ("Cat, on the mat", 4)), question(2, "a", ("A dog", 26), ("dog", 28)))
    task = make_task(settings(path, max_seq_length=60), TOKENIZER)
    dev = task.held_out["dev"]
    assert len(dev.rows) == 2
    assert dev.score(pointing_outputs(dev.rows)) == {"exact_match": 1.0, "f1": 1.0}
    broken = pointing_outputs(dev.rows)
    broken["end_logits"][0][0] = np.nan
    assert np.isnan(dev.score(broken)["f1"])


def test_version_2_is_seen_in_the_files_and_scored(write):
    path = write(question(1, "the", ("Cat", 4)), question(2, "a", is_impossible=True))
    task = make_task(settings(path, max_seq_length=60), TOKENIZER)
    dev = task.held_out["dev"]
    assert task.name == "squad2"
    assert dev.rows.targets["start_positions"].tolist() == [4, 0]
    scores = dev.score(pointing_outputs(dev.rows))
    assert (scores["f1"], scores["best_f1"], scores["no_answer_f1"], scores["has_answer_f1"]) == (1.0, 1.0, 1.0, 1.0)
    without = make_task(settings(path, max_seq_length=60, version_2=False), TOKENIZER)
    assert len(without.train) == 1
    assert any("1 impossible" in note for note in without.notes)


def test_answers_are_moved_to_the_nearest_place_or_left_out_of_training(write):
    path = write(question(1, "the", ("cat", 30)), question(2, "a", ("bird", 3)), question(3, "a", ("the", 13)))
    file = read_squad(path)
    assert [file.questions[0].answers[0].start, file.moved_answers] == [PASSAGE.rindex("cat"), 2]
    task = make_task(settings(path, max_seq_length=60), TOKENIZER)
    assert (len(task.train), len(task.held_out["dev"].rows)) == (2, 3)
    assert any("train: 1 questions whose answer is not in the passage are left out" in note for note in task.notes)


def test_rows_to_train_on_can_be_limited_and_long_questions_are_cut(write):
    path = write(question(1, "the cat sat on the mat on the mat . , .", ("Cat", 4)))
    task = make_task(settings(path, max_train_rows=1), TOKENIZER)
    assert len(task.train) == 1
    assert task.train.truncated == 1
    assert TOKENIZER.tokens(task.train.input_ids[0]).index("[SEP]") == 9
    assert len(task.held_out["dev"].rows) > 1


def test_questions_without_answers_are_encoded_and_an_empty_passage_answers_nothing(write, tmp_path):
    path = write({"id": 7, "question": "the"}, passage=" ")
    file = read_squad(path, with_answers=False)
    passages = [PassageEncoder(TOKENIZER).encode(text) for text in file.passages]
    encoded = encode_questions(passages, file.questions, TOKENIZER, settings(path))
    assert [TOKENIZER.tokens(row) for row in encoded.rows.input_ids] == [["[CLS]", "the", "[SEP]", "[SEP]"]]
    logits = [np.zeros(4, np.float32)]
    (prediction,) = encoded.predict({"start_logits": logits, "end_logits": logits}, AnswerSearch(version_2=True))
    assert prediction.as_json()["answer"] == ""
    (path,) = [p for p in write_predictions(tmp_path, ["7"], [prediction], True) if p.name == "null_odds.json"]
    assert json.loads(path.read_text()) == {"7": 0.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [\n}', r"squad\.json:2: not JSON"),
        ("[1]", r"squad\.json: got list; an object with 'data'"),
        ('{"data": []}', "has no question"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"data\[0\]\.paragraphs\[0\]: got context None"),
        (
            '{"data": [{"paragraphs": [{"context": "a", "qas": [{"id": "1", "question": "b", "answers": []}]}]}]}',
            r"qas\[0\] \(id 1\) has no answers and is not marked is_impossible",
        ),
    ],
)
def test_a_malformed_file_is_named(tmp_path, content, message):
    path = tmp_path / "squad.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_squad(path)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="leave 11 or more to the passage"):
        SquadData(train="x", dev="x", max_seq_length=64)
    with pytest.raises(ValueError, match=r"config\.data\.doc_stride is 0"):
        SquadData(train="x", dev="x", doc_stride=0)


def brute_force(passage, windows, outputs, search):
    """Return (text, score) of all answers, best first; null last among equals."""
    found = []
    for row, window in enumerate(windows):
        starts, ends = outputs["start_logits"][row], outputs["end_logits"][row]
        for first in range(window.start, window.stop):

            def context(w, place=first):
                inside = w.start <= place < w.stop
                return min(place - w.start, w.stop - 1 - place) + 0.01 * (w.stop - w.start) if inside else -1.0

            if max(windows, key=context) != window:
                continue
            for last in range(first, min(window.stop, first + search.max_answer_length)):
                score = starts[first - window.start + window.offset] + ends[last - window.start + window.offset]
                found.append((passage.cut(first, last), float(score)))
    if search.version_2:
        found.append(("", float(min(s[0] + e[0] for s, e in zip(*outputs.values(), strict=True)))))
    found.sort(key=lambda pair: -pair[1])
    unique = {}
    for text, score in found:
        unique.setdefault(text, score)
    return list(unique.items())


@pytest.mark.parametrize("version_2", [False, True])
def test_the_best_answers_are_those_of_a_search_of_all(version_2):
    generator = np.random.default_rng(0)
    passage = PassageEncoder(TOKENIZER).encode(PASSAGE)
    windows = [PassageWindow(0, 0, 10, 4), PassageWindow(0, 6, 16, 4), PassageWindow(0, 12, len(passage.ids), 4)]
    search = AnswerSearch(n_best=100, max_answer_length=5, version_2=version_2)
    for _ in range(10):
        outputs = {
            name: [generator.normal(size=w.stop - w.start + 5).astype(np.float32).astype(np.float64) for w in windows]
            for name in ("start_logits", "end_logits")
        }
        (prediction,) = predict([passage] * 3, windows, outputs, search)
        ranked = brute_force(passage, windows, outputs, search)
        expected = [pair for rank, pair in enumerate(ranked) if rank < 100 or not pair[0]]
        assert [each.text for each in prediction.candidates] == [text for text, _ in expected]
        scores = np.array([score for _, score in expected])
        probabilities = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose([each.probability for each in prediction.candidates], probabilities, rtol=1e-6)
        if version_2:
            best = next(score for text, score in expected if text)
            assert prediction.null_odds == pytest.approx(dict(expected)[""] - best)
            assert (prediction.answer.text == "") == (prediction.null_odds > 0)
        else:
            assert prediction.answer.text == expected[0][0]
        assert PASSAGE[prediction.best.start : prediction.best.stop] == prediction.best.text


def test_files_are_googles(tmp_path):
    passage = PassageEncoder(TOKENIZER).encode(PASSAGE)
    outputs = {name: [np.eye(8)[3]] for name in ("start_logits", "end_logits")}
    predictions = predict([passage], [PassageWindow(0, 0, 4, 3)], outputs, AnswerSearch(n_best=5))
    paths = write_predictions(tmp_path / "out", ["q"], predictions, version_2=False)
    assert [path.name for path in paths] == ["predictions.json", "nbest_predictions.json"]
    assert json.loads(paths[0].read_text()) == {"q": "The"}
    best = json.loads(paths[1].read_text())["q"]
    assert len(best) > 1
    assert list(best[0]) == ["text", "probability", "start_logit", "end_logit"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "passages", "questions", "impossible", "answers"),
    [
        ("dev-v1.1.json", 2067, 10570, 0, 34726),
        ("dev-v2.0.json", 1204, 11873, 5945, 20302),
        ("squadshifts_new_wiki_v1.0.json", 1581, 7938, 0, 22794),
    ],
)
def test_shared_sets_have_the_official_counts(shared_data, name, passages, questions, impossible, answers):
    file = read_squad(shared_data / "squad" / name)
    assert (len(file.passages), len(file.questions), file.moved_answers) == (passages, questions, 0)
    assert sum(question.is_impossible for question in file.questions) == impossible
    assert sum(len(question.answers) for question in file.questions) == answers


@pytest.mark.shared
@pytest.mark.slow
def test_every_answer_of_a_shared_set_is_recovered_and_a_dev_set_is_prepared_quickly(shared_data):
    squad = shared_data / "squad"
    tokenizer = WordPiece.from_vocab_file(shared_data / "vocab" / "bert-base-uncased-vocab.txt")
    data = SquadData(train=f"{squad}/squadshifts_new_wiki_v1.0.json", dev=f"{squad}/dev-v1.1.json")
    file = read_squad(data.train)
    encoded, missing = encode_answers(file, file.questions, tokenizer, data, skip_missing=True)
    assert missing == 0
    recovered = set()
    targets = encoded.rows.targets
    for window, start, end in zip(encoded.windows, targets["start_positions"], targets["end_positions"], strict=True):
        if start:
            asked = encoded.questions[window.question]
            first, last = (int(position) - window.offset + window.start for position in (start, end))
            text = encoded.passages[asked.passage].cut(first, last)
            if normalize_answer(text) == normalize_answer(asked.answers[0].text):
                recovered.add(window.question)
    assert len(recovered) >= 0.99 * len(encoded.questions)
    begin = time.monotonic()
    task = make_task(data, tokenizer)
    assert time.monotonic() - begin < 60
    assert task.held_out["dev"].score(pointing_outputs(task.held_out["dev"].rows))["f1"] > 0.98
