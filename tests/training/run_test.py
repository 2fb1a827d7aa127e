"""Whole runs in this process that are asked to stop: with what follows they equal one that was not."""

import pytest

from bert_jax.training import checkpoint
from bert_jax.training.checkpoint import committed_steps, read_meta
from bert_jax.training.preemption import EXIT_CODE, Preemption
from tests.training.runs import pretrain, rows
from tests.training.tiny import assert_trees_equal

RUN = {"train.num_steps": 12, "train.log_every_steps": 5, "train.save_every_steps": 8, "eval.every_steps": 4}


@pytest.fixture
def stop(monkeypatch):
    """`stop(n)` lets the next run be asked to stop at the n-th time that it looks."""

    def stop(at):
        checks = iter(range(1, 1_000))
        monkeypatch.setattr(Preemption, "requested", lambda self: next(checks) >= at)

    return stop


def saved(workdir, item):
    return checkpoint.load_params(f"run:{workdir}@12", item=item)


@pytest.mark.slow
def test_a_run_on_packed_rows_that_stops_before_in_and_after_evaluations_is_the_same_run(
    make_instances, tmp_path, stop
):
    corpus = make_instances("packed", sequence_length=64, max_sequences_per_row=4)
    config = RUN | {"instances": "packed", "model.max_position_embeddings": 64}
    assert pretrain(corpus, tmp_path / "whole", **config) == 0
    stops = 0
    while True:
        stop(at=7)  # of 13 steps' and 3 × 2 batches' checks
        code = pretrain(corpus, tmp_path / "stopped", **config)
        if code == 0:
            break
        assert code == EXIT_CODE
        stops += 1
    assert stops >= 2
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    for item in ("params", "train_state"):
        assert_trees_equal(saved(tmp_path / "stopped", item), saved(tmp_path / "whole", item))
    for step in (8, 12):
        assert read_meta(tmp_path / "stopped", step)["evaluation"] == read_meta(tmp_path / "whole", step)["evaluation"]


@pytest.mark.slow
def test_a_run_stopped_at_its_last_step_is_complete_after_its_evaluation(tiny_instances, tmp_path, stop, capsys):
    config = {"train.num_steps": 2, "optim.warmup_steps": 0}
    stop(at=3)
    assert pretrain(tiny_instances, tmp_path, **config) == EXIT_CODE
    assert read_meta(tmp_path, 2)["evaluation_pending"]
    stop(at=100)
    assert pretrain(tiny_instances, tmp_path, **config) == 0
    assert rows(tmp_path)[-1]["eval/loss"] == read_meta(tmp_path, 2)["evaluation"]["eval/loss"]
    capsys.readouterr()
    assert pretrain(tiny_instances, tmp_path, **config) == 0
    assert "the run is complete" in capsys.readouterr().err


def test_a_run_stopped_before_its_first_step_does_not_say_that_it_saved(tiny_instances, tmp_path, stop, capsys):
    stop(at=1)
    assert pretrain(tiny_instances, tmp_path) == EXIT_CODE
    assert "stopped before the first step, with nothing to save" in capsys.readouterr().err
    assert committed_steps(tmp_path) == []


def test_a_corpus_without_validation_rows_is_trained_on_without_evaluation(make_instances, tmp_path, capsys):
    corpus = make_instances("google-32", static_predictions=5, num_validation_rows=0)
    config = {"instances": "google-32", "train.num_steps": 1, "optim.warmup_steps": 0}
    assert pretrain(corpus, tmp_path / "run", **config) == 0
    assert "no evaluation:" in capsys.readouterr().err
    assert committed_steps(tmp_path / "run") == [1]
    assert [row["step"] for row in rows(tmp_path / "run")] == [1]
