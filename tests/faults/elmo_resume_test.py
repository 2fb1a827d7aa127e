"""An ELMo's run that was killed, moved to other devices or split over processes equals one that was not."""

import signal
from typing import Any

import numpy as np
import pytest

from bert_jax.training.checkpoint import committed_steps
from tests.faults.runs import NUM_STEPS, finish, free_address, saved, start_config, wait_for_checkpoint
from tests.training.elmo_runs import FLAGS
from tests.training.runs import rows
from tests.training.tiny import assert_trees_equal, largest_difference
from tests.word_streams import make_stream_corpus

pytestmark = [pytest.mark.entry, pytest.mark.slow]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_stream_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def uninterrupted(corpus, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    code, errors = finish(start_config(FLAGS, corpus, workdir, cache=cache))
    assert code == 0, errors
    return workdir


def assert_close_run(workdir, expected):
    for found, wanted in zip(rows(workdir), rows(expected), strict=True):
        assert found.keys() == wanted.keys()
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-3, atol=1e-5)
    for item in ("params", "train_state"):
        assert largest_difference(saved(workdir)[item], saved(expected)[item]) <= 1e-3


def test_a_run_killed_and_resumed_equals_an_uninterrupted_one_bit_for_bit(corpus, cache, uninterrupted, tmp_path):
    process = start_config(FLAGS, corpus, tmp_path, cache=cache)
    wait_for_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert max(committed_steps(tmp_path)) < NUM_STEPS
    code, errors = finish(start_config(FLAGS, corpus, tmp_path, cache=cache))
    assert code == 0, errors
    assert "resuming after step" in errors
    assert rows(tmp_path) == rows(uninterrupted)
    assert_trees_equal(saved(tmp_path), saved(uninterrupted))


@pytest.mark.timeout(600)
def test_eight_devices_have_the_numbers_of_one(corpus, uninterrupted, tmp_path):
    code, errors = finish(start_config(FLAGS, corpus, tmp_path / "rows", devices=8))
    assert code == 0, errors
    assert_close_run(tmp_path / "rows", uninterrupted)
    mesh: Any = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
    code, errors = finish(start_config(FLAGS, corpus, tmp_path / "all", devices=8, **mesh))
    assert code == 0, errors
    assert_close_run(tmp_path / "all", uninterrupted)


@pytest.mark.timeout(600)
def test_two_processes_have_the_numbers_of_one(corpus, uninterrupted, tmp_path):
    flags = [f"--coordinator_address={free_address()}", "--num_processes=2"]
    both = [start_config(FLAGS, corpus, tmp_path, *flags, f"--process_id={number}") for number in range(2)]
    ends = [finish(process) for process in both]
    assert [code for code, _ in ends] == [0, 0], ends
    assert_close_run(tmp_path, uninterrupted)
