import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.inference.predict import Predictor, chunks, predict_test
from bert_jax.interop import huggingface, name_map
from bert_jax.objectives.downstream import DownstreamObjective
from bert_jax.tasks import glue
from bert_jax.tasks.sentences import SentenceExample
from bert_jax.tasks.squad_files import Question, SquadFile
from bert_jax.tasks.task import EncodedRows
from tests.tasks.tiny_tasks import CONFIG, tiny_weights


def test_a_score_and_unnamed_classes():
    example = [SentenceExample("a cat", None, None, "1", "f:1")]
    found = Predictor("x", tiny_weights(classifier=1)).classify(example)
    assert list(found[0]) == ["score"]
    found = Predictor("x", tiny_weights(classifier=3)).classify(example)
    assert list(found[0]["probabilities"]) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    best = max(found[0]["probabilities"], key=lambda label: found[0]["probabilities"][label])
    assert found[0]["label"] == best


def test_rows_do_not_depend_on_those_beside_them():
    examples = [SentenceExample(text, None, None, "1", "f:1") for text in ("a", "the cat sat on the mat. " * 3)]
    predictor = Predictor("x", tiny_weights(classifier=3), batch_size=2)
    together, alone = predictor.classify(examples), predictor.classify(examples[:1])
    np.testing.assert_allclose(
        [*together[0]["probabilities"].values()], [*alone[0]["probabilities"].values()], atol=1e-6
    )


@pytest.mark.parametrize("cells", [4, 8])  # what 8 give is as wide as what the encoder gives
def test_a_bilstm_below_the_classifier_is_applied(cells):
    objective = DownstreamObjective(CONFIG, "sentences", 3, bilstm_cells=cells)
    params = objective.init(0)
    flat = name_map.flatten(jax.tree.map(np.asarray, params))
    weights = dataclasses.replace(tiny_weights(), params=flat, head="sentences")
    ids = np.array([2, 7, 9, 8, 3], np.int32)
    found = Predictor("x", weights).outputs(EncodedRows([ids], [np.zeros_like(ids)]))["logits"]
    wanted: Any = objective.model.apply(
        {"params": params}, *jnp.array([ids, np.ones_like(ids), np.zeros_like(ids)])[:, None]
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_was_cut_is_counted():
    predictor = Predictor("x", tiny_weights(classifier=3), data={"max_seq_length": 8})
    examples = [SentenceExample(text, None, None, "1", "f:1") for text in ("a", "the cat sat on the mat.", "a " * 9)]
    predictor.classify(examples[:1])
    assert not predictor.note
    predictor.classify(examples)
    predictor.classify(examples[1:2])
    assert predictor.note == "3 rows are longer than 8 tokens and were cut"
    data = {"train": "-", "dev": "-", "max_seq_length": 32, "max_query_length": 4}
    predictor = Predictor("x", tiny_weights(span=2), data=data)
    predictor.answer(SquadFile(Path("f"), ("the cat sat",), (Question("q", "a cat on a mat", 0),)))
    assert predictor.note == "1 rows have a question that is too long and was cut"


def test_a_pretrained_model_is_refused(tmp_path):
    huggingface.write(tiny_weights(), tmp_path / "hf")
    with pytest.raises(ValueError, match="has no head of a task: fine-tune it"):
        Predictor.load(f"hf:{tmp_path / 'hf'}")
    with pytest.raises(ValueError, match="batch_size is 0; it takes 1 or more"):
        Predictor("x", tiny_weights(classifier=2), batch_size=0)


def test_another_task_of_tfds_is_read_under_its_own_name(monkeypatch):
    read = []
    monkeypatch.setattr(glue, "read_test", lambda data: read.append((data.task, data.directory)) or {})
    weights = dataclasses.replace(tiny_weights(classifier=3), labels=glue.ENTAILED_OR_NOT)
    predictor = Predictor("x", weights, "glue", {"task": "mnli", "directory": "tfds:glue/mnli"})
    for task in ("", "ax"):
        predict_test(predictor, task)
    predict_test(predictor, "ax", "glue_data")
    assert read == [("mnli", "tfds:glue/mnli"), ("ax", "tfds:glue/ax"), ("ax", "glue_data")]


def test_words_are_tagged_with_the_context_that_was_scored(monkeypatch):
    rows = []
    predictor = Predictor("x", tiny_weights(classifier=3), data={"sentences_per_row": 1, "max_seq_length": 32})
    outputs = Predictor.outputs
    monkeypatch.setattr(Predictor, "outputs", lambda self, each: rows.append(len(each)) or outputs(self, each))
    weights = dataclasses.replace(predictor.weights, head="tokens", labels=("O", "B-X", "I-X"))
    dataclasses.replace(predictor, weights=weights).tag([[("a", "cat"), ("the", "mat")]])
    assert rows == [2]


@pytest.mark.parametrize("trained_on", ["", "squad", "squad2"])
def test_there_may_be_no_answer_where_the_training_or_the_user_says_so(trained_on):
    file = SquadFile(Path("f"), ("the cat sat",), (Question("q", "a cat", 0),))
    data = {"train": "-", "dev": "-", "max_seq_length": 48, "max_query_length": 16}
    facts = {"task": trained_on} if trained_on else {}
    predictor = Predictor("x", tiny_weights(span=2), data=data, facts=facts)
    found = {choice: predictor.answer(file, choice)["q"] for choice in (None, False, True)}
    no_answer = {choice: any(not each.text for each in found[choice].candidates) for choice in found}
    assert no_answer == {None: trained_on == "squad2", False: False, True: True}


def test_what_precedes_an_error_comes_first():
    def items():
        yield from range(3)
        raise ValueError("line 4")

    found = chunks(items(), 2)
    assert [next(found), next(found)] == [[0, 1], [2]]
    with pytest.raises(ValueError, match="line 4"):
        next(found)
    assert list(chunks(range(4), 2)) == [[0, 1], [2, 3]]
