"""A run that was killed or stopped and started again equals one that was not: parameters, optimizer and metrics."""

import random
import shutil
import signal
import time
from typing import Any

import numpy as np
import pytest

from bert_jax.training.checkpoint import committed_steps
from bert_jax.training.preemption import EXIT_CODE
from tests.faults.runs import NUM_STEPS, finish, free_address, saved, start, wait_for_checkpoint
from tests.training.runs import make_corpus, rows
from tests.training.tiny import assert_trees_equal, largest_difference

pytestmark = pytest.mark.entry


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def uninterrupted(corpus, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    code, errors = finish(start(corpus, workdir, cache=cache))
    assert code == 0, errors
    return workdir


def assert_same_run(workdir, expected):
    assert rows(workdir) == rows(expected)
    assert_trees_equal(saved(workdir), saved(expected))


def test_a_run_killed_and_resumed_equals_an_uninterrupted_one_bit_for_bit(corpus, cache, uninterrupted, tmp_path):
    process = start(corpus, tmp_path, cache=cache)
    wait_for_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    # Had it ended before it was killed, nothing would be tested here.
    assert max(committed_steps(tmp_path)) < NUM_STEPS
    code, errors = finish(start(corpus, tmp_path, cache=cache))
    assert code == 0, errors
    assert "resuming after step" in errors
    assert_same_run(tmp_path, uninterrupted)
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_at_random_moments_do_not_change_the_run(corpus, cache, uninterrupted, tmp_path):
    random_moments = random.Random(0)
    kills = 0
    while True:
        before = max(committed_steps(tmp_path), default=0)
        process = start(corpus, tmp_path, cache=cache)
        if kills < 8:
            wait_for_checkpoint(process, tmp_path, after=before)
            time.sleep(random_moments.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
        code, errors = finish(process)
        if code == 0:
            break
        assert code == -signal.SIGKILL, errors
        kills += 1
    assert kills >= 3
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_sigterm_saves_exactly_there_and_exits_with_its_own_code(corpus, cache, uninterrupted, tmp_path):
    process = start(corpus, tmp_path, cache=cache)
    wait_for_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # a second one does no harm
    code, errors = finish(process, timeout=30)
    assert code == EXIT_CODE, errors
    assert "stopped and saved; the same command resumes the run" in errors
    code, errors = finish(start(corpus, tmp_path, cache=cache))
    assert code == 0, errors
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_moves_between_meshes_and_process_counts(corpus, cache, uninterrupted, tmp_path):
    """One device, then two processes that are told to stop, then four devices of another mesh."""
    process = start(corpus, tmp_path, cache=cache)
    wait_for_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == EXIT_CODE
    stopped = max(committed_steps(tmp_path))

    address = free_address()
    flags = [f"--coordinator_address={address}", "--num_processes=2"]
    both = [start(corpus, tmp_path, *flags, f"--process_id={number}", cache=cache) for number in range(2)]
    wait_for_checkpoint(both[0], tmp_path, after=stopped)
    both[1].send_signal(signal.SIGTERM)  # one of them; both must save at one step
    ends = [finish(process) for process in both]
    assert [code for code, _ in ends] == [EXIT_CODE] * 2, ends
    assert stopped < max(committed_steps(tmp_path)) < NUM_STEPS

    mesh: Any = {"mesh.data": 1, "mesh.fsdp": 2, "mesh.tensor": 2}
    code, errors = finish(start(corpus, tmp_path, devices=4, cache=None, **mesh))
    assert code == 0, errors
    assert_close_run(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_have_the_losses_of_one(corpus, uninterrupted, tmp_path):
    flags = [f"--coordinator_address={free_address()}", "--num_processes=2"]
    both = [start(corpus, tmp_path, *flags, f"--process_id={number}") for number in range(2)]
    ends = [finish(process) for process in both]
    assert [code for code, _ in ends] == [0, 0], ends
    assert "step 60/60" in ends[0][1]
    assert "step 60/60" not in ends[1][1]  # process 0 speaks for all
    assert_close_run(tmp_path, uninterrupted)


def assert_close_run(workdir, expected):
    """The same batches give the same numbers, up to the order of sums over devices."""
    for found, wanted in zip(rows(workdir), rows(expected), strict=True):
        assert found.keys() == wanted.keys()
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-4, atol=1e-6)
        assert found.get("train/tokens") == wanted.get("train/tokens")
    assert largest_difference(saved(workdir)["params"], saved(expected)["params"]) <= 1e-5


@pytest.mark.slow
def test_another_config_is_refused_with_the_difference(corpus, cache, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    change: Any = {"optim.weight_decay": 0.5}
    code, errors = finish(start(corpus, workdir, cache=cache, **change))
    assert code == 1
    assert "config.optim.weight_decay was 0.01, is 0.5" in errors
    assert "Traceback" not in errors
