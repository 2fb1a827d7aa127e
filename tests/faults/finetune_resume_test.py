"""A fine-tuning run that was killed or split over processes has the scores and parameters of one that was not."""

import functools
import json

import pytest

from tests.faults.runs import NUM_STEPS, finish_as_two_processes, kill_and_resume, saved, start_run
from tests.tasks.tiny_tasks import TEXTS, write_files, write_model
from tests.training.runs import rows
from tests.training.tiny import assert_trees_equal, largest_difference

pytestmark = [pytest.mark.entry, pytest.mark.slow]
CONFIG = {
    "data.batch_size": 8,
    "data.max_seq_length": 32,
    "num_epochs": NUM_STEPS // -(-len(TEXTS) // 8),
    "optim.peak_learning_rate": 1e-3,
    "train.log_every_steps": 4,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    directory = tmp_path_factory.mktemp("task")
    config = {"init_from": write_model(directory / "hf"), **write_files("text_table", directory / "files"), **CONFIG}
    return functools.partial(start_run, "finetune", ["--config=configs/text_table.py"], **config)


def result(workdir):
    """Return what result.json says of the scores."""
    found = json.loads((workdir / "result.json").read_text())
    return {name: found[name] for name in ("last", "best", "steps")}


def test_a_run_killed_and_resumed_equals_an_uninterrupted_one_bit_for_bit(start, cache, uninterrupted, tmp_path):
    kill_and_resume(functools.partial(start, cache=cache), tmp_path)
    assert result(tmp_path) == result(uninterrupted)
    assert rows(tmp_path) == rows(uninterrupted)
    assert_trees_equal(saved(tmp_path), saved(uninterrupted))


@pytest.mark.timeout(600)
def test_two_processes_have_the_result_of_one(start, uninterrupted, tmp_path):
    finish_as_two_processes(start, tmp_path)
    found, expected = result(tmp_path), result(uninterrupted)
    assert found["steps"] == expected["steps"] == NUM_STEPS
    for part in ("last", "best"):
        assert found[part] == pytest.approx(expected[part], abs=1e-6)
    assert largest_difference(saved(tmp_path)["params"], saved(uninterrupted)["params"]) <= 1e-5
