"""A run that was killed or stopped and started again equals one that was not: parameters, optimizer and metrics."""

import contextlib
import functools
import random
import re
import shutil
import signal
import time
from typing import Any

import pytest

from bert_jax.training.checkpoint import committed_steps
from bert_jax.training.preemption import EXIT_CODE
from bert_jax.training.workdir import Workdir
from tests.faults.runs import (
    INTERVALS,
    NUM_STEPS,
    assert_close_run,
    assert_little_is_lost,
    finish,
    finish_as_two_processes,
    free_address,
    kill_and_resume,
    saved,
    start_run,
    stop_and_resume,
    wait_for_checkpoint,
)
from tests.training.runs import FLAGS, make_corpus, rows
from tests.training.tiny import assert_trees_equal

pytestmark = pytest.mark.entry


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    corpus = make_corpus(tmp_path_factory.mktemp("corpus"))
    config: Any = {"data.corpus": corpus, "data.instances": "nsp-32", "model.max_position_embeddings": 32, **INTERVALS}
    return functools.partial(start_run, "pretrain", FLAGS, **config)


def assert_same_run(workdir, expected):
    assert rows(workdir) == rows(expected)
    assert_trees_equal(saved(workdir), saved(expected))


def test_a_run_killed_and_resumed_equals_an_uninterrupted_one_bit_for_bit(start, cache, uninterrupted, tmp_path):
    kill_and_resume(functools.partial(start, cache=cache), tmp_path)
    assert_same_run(tmp_path, uninterrupted)
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_at_random_moments_lose_little_and_do_not_change_the_run(start, cache, tmp_path):
    """Every step is logged, and most of the time is spent saving, so that kills fall into all parts of a save."""
    num_steps, save_every, kills = 900, 5, 20
    config: Any = {"train.num_steps": num_steps, "train.save_every_steps": save_every, "train.log_every_steps": 1}
    begin = functools.partial(start, cache=cache, **config, **{"eval.every_steps": 100})
    code, errors = finish(begin(tmp_path / "whole"), timeout=1200)
    assert code == 0, errors
    workdir, random_moments = tmp_path / "killed", random.Random(0)
    for _ in range(kills):
        before = max(committed_steps(workdir), default=0)
        process = begin(workdir)
        wait_for_checkpoint(process, workdir, after=before)
        time.sleep(random_moments.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        code, errors = finish(process)
        assert code == -signal.SIGKILL, errors  # a run that was faster than its kill tests nothing
        assert assert_little_is_lost(workdir, save_every) > before
    code, errors = finish(begin(workdir), timeout=1200)
    assert code == 0, errors
    assert rows(workdir) == rows(tmp_path / "whole")
    assert_trees_equal(saved(workdir, num_steps), saved(tmp_path / "whole", num_steps))
    assert all(path.name.isdigit() for path in (workdir / "checkpoints").iterdir())  # no remains of kills


@pytest.mark.slow
def test_sigterm_saves_exactly_there_and_exits_with_its_own_code(start, cache, uninterrupted, tmp_path):
    stop_and_resume(functools.partial(start, cache=cache), tmp_path)
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_moves_between_meshes_and_process_counts(start, cache, uninterrupted, tmp_path):
    """One device, then two processes that are told to stop, then four devices of another mesh."""
    process = start(tmp_path, cache=cache)
    wait_for_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == EXIT_CODE
    stopped = max(committed_steps(tmp_path))

    address = free_address()
    flags = [f"--coordinator_address={address}", "--num_processes=2"]
    both = [start(tmp_path, *flags, f"--process_id={number}", cache=cache) for number in range(2)]
    wait_for_checkpoint(both[0], tmp_path, after=stopped)
    both[0].send_signal(signal.SIGTERM)  # one of them, here the one with the coordinator; both must save at one step
    ends = [finish(process) for process in both]
    assert [code for code, _ in ends] == [EXIT_CODE] * 2, ends
    assert stopped < max(committed_steps(tmp_path)) < NUM_STEPS

    mesh: Any = {"mesh.data": 1, "mesh.fsdp": 2, "mesh.tensor": 2}
    code, errors = finish(start(tmp_path, devices=4, cache=None, **mesh))
    assert code == 0, errors
    assert_close_run(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_have_the_losses_of_one(start, uninterrupted, tmp_path):
    first, second = finish_as_two_processes(start, tmp_path)
    assert "step 60/60" in first
    assert "step 60/60" not in second  # process 0 speaks for all
    assert_close_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_another_config_is_refused_with_the_difference(start, cache, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    change: Any = {"optim.weight_decay": 0.5}
    code, errors = finish(start(workdir, cache=cache, **change))
    assert code == 1
    assert "config.optim.weight_decay was 0.01, is 0.5" in errors
    assert "Traceback" not in errors


def test_a_second_run_on_a_directory_is_refused_and_the_first_is_not_disturbed(start, tmp_path):
    with contextlib.closing(Workdir(tmp_path)):
        code, errors = finish(start(tmp_path))
    assert code == 1
    assert re.search(r"is in use by process \d+ on .*; wait for it or end it", errors)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
