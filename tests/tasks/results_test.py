import contextlib
import json
import math

import pytest

from bert_jax.tasks.finetuning import prepare
from bert_jax.tasks.results import write_result
from bert_jax.training.workdir import Workdir
from tests.tasks.tiny_tasks import make_config, write_files, write_model


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("task")
    config = make_config("text_table", write_model(directory / "hf"), write_files("text_table", directory / "files"))
    return prepare(config)


def write_metrics(directory, scores):
    rows = [{"step": step, "eval/accuracy": score, "eval/loss": score} for step, score in enumerate(scores, 1)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_metric_that_is_not_a_number_is_null(prepared, tmp_path):
    write_metrics(tmp_path, [math.nan, 0.5, math.inf, math.nan])
    with contextlib.closing(Workdir(tmp_path)) as workdir:
        write_result(workdir, prepared.config, prepared.task)
    text = (tmp_path / "result.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    result = json.loads(text)
    assert result["last"] == {"accuracy": None, "loss": None}
    assert result["best"] == {"step": 2, "accuracy": 0.5, "loss": 0.5}


def test_one_process_writes_the_result(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("bert_jax.training.workdir.jax.process_index", lambda: 1)
    write_result(Workdir(tmp_path / "not_seen_here"), prepared.config, prepared.task)
    assert not (tmp_path / "not_seen_here").exists()
