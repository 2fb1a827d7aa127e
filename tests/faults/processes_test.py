"""Four processes of one run, of which some are killed: the others end and say so, and any number of them goes on."""

import functools
import itertools
import json
import shutil
import signal
import time
from typing import Any

import pytest

from bert_jax.training.checkpoint import committed_steps
from bert_jax.training.preemption import EXIT_CODE
from tests.faults.runs import (
    INTERVALS,
    assert_close_run,
    assert_little_is_lost,
    finish,
    flip_a_bit,
    free_address,
    largest_numbers,
    start_run,
    wait_for_checkpoint,
)
from tests.training.runs import FLAGS, make_corpus

pytestmark = [pytest.mark.entry, pytest.mark.slow, pytest.mark.timeout(3600)]

NUM_STEPS = 120
HEARTBEAT_SECONDS = 30  # of a busy machine, whose processes may not come to beat for a while
ENDS_WITHIN_SECONDS = 120  # the heartbeat's, and what a busy machine needs to end a process
# What a process says that lost another: its own line, or that of JAX where process 0, with the coordinator, went first.
LOST = ("another process has ended", "another task died")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    corpus = make_corpus(tmp_path_factory.mktemp("corpus"))
    config: Any = {"data.corpus": corpus, "data.instances": "nsp-32", "model.max_position_embeddings": 32, **INTERVALS}
    config |= {"train.num_steps": NUM_STEPS, "data.num_threads": 0}  # records are read in the order of the batches
    return functools.partial(start_run, "pretrain", FLAGS, **config)


@pytest.fixture(scope="module")
def whole(start, cache, tmp_path_factory):
    """The directory of a run of one process, and which records it read for each batch."""
    directory = tmp_path_factory.mktemp("whole")
    code, errors = finish(start(directory / "run", cache=cache, records=directory / "records"), timeout=1200)
    assert code == 0, errors
    return directory / "run", read_batches(directory / "records")


def read_batches(path):
    """Return the records of each batch that a process read, in their order; without a half-written last line."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


@pytest.fixture
def start_all(start, cache, tmp_path):
    """`start_all(count, *flags)` starts so many processes of one run; none of them outlives the test."""
    started = []

    def start_all(count, *flags):
        flags = [*flags, f"--coordinator_address={free_address()}", f"--num_processes={count}"]
        flags += [f"--heartbeat_timeout_seconds={HEARTBEAT_SECONDS}"]
        for number in range(count):
            records = tmp_path / f"records-{number}"
            started.append(start(tmp_path / "run", *flags, f"--process_id={number}", cache=cache, records=records))
        return started[-count:]

    yield start_all
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def assert_all_end(processes, killed):
    processes[killed].send_signal(signal.SIGKILL)
    deadline = time.monotonic() + ENDS_WITHIN_SECONDS
    for process in processes:
        code, errors = finish(process, timeout=max(1.0, deadline - time.monotonic()))
        if process is processes[killed]:
            assert code == -signal.SIGKILL, errors
        else:
            assert code not in (0, EXIT_CODE), errors
            assert any(line in errors for line in LOST), errors


def assert_each_read_its_part(workdir, count, first, batches):
    """Together the processes read what one reads, from the step on that was restored, and no record twice."""
    parts = [read_batches(workdir / f"records-{number}") for number in range(count)]
    assert min(map(len, parts)) > 0
    for step, together in enumerate(zip(*parts, strict=False), start=first):
        assert {len(part) for part in together} == {len(batches[step]) // count}
        assert list(itertools.chain(*together)) == batches[step]


def test_four_processes_lose_one_and_go_on_as_two_lose_the_first_and_go_on_as_four(
    start, start_all, cache, whole, tmp_path
):
    expected, batches = whole
    workdir, restored = tmp_path / "run", 0
    for count, killed in ((4, 3), (2, 0)):
        processes = start_all(count)
        wait_for_checkpoint(processes[0], workdir, after=restored)
        assert_all_end(processes, killed)
        assert_each_read_its_part(tmp_path, count, restored, batches)
        restored = assert_little_is_lost(workdir, INTERVALS["train.save_every_steps"])
        assert not list((workdir / "checkpoints").glob(f"{restored}.*"))

    processes = start_all(4)
    wait_for_checkpoint(processes[0], workdir, after=restored)
    processes[2].send_signal(signal.SIGTERM)
    ends = [finish(process, timeout=600) for process in processes]
    assert [code for code, _ in ends] == [EXIT_CODE] * 4, ends
    assert "stopped and saved" in ends[0][1]
    assert_each_read_its_part(tmp_path, 4, restored, batches)
    assert restored < max(committed_steps(workdir)) < NUM_STEPS

    code, errors = finish(start(workdir, cache=cache), timeout=1200)
    assert code == 0, errors
    assert_close_run(workdir, expected, NUM_STEPS)


def test_four_processes_have_the_losses_of_one_and_the_first_speaks_for_all(start_all, whole, tmp_path):
    expected, batches = whole
    ends = [finish(process, timeout=1200) for process in start_all(4)]
    assert [code for code, _ in ends] == [0] * 4, ends
    assert [f"step {NUM_STEPS}/{NUM_STEPS}" in errors for _, errors in ends] == [True, False, False, False]
    assert_each_read_its_part(tmp_path, 4, 0, batches)
    assert_close_run(tmp_path / "run", expected, NUM_STEPS)
    assert len(list((tmp_path / "run").glob("events.out.*"))) == 1


def test_two_processes_set_a_damaged_checkpoint_aside_and_the_same_command_goes_on(start_all, whole, tmp_path):
    expected, batches = whole
    workdir = tmp_path / "run"
    shutil.copytree(expected, workdir)
    *_, before, damaged, last = committed_steps(workdir)
    shutil.rmtree(workdir / "checkpoints" / str(last))  # as of a run that was killed before its last save
    flip_a_bit(largest_numbers(workdir, damaged))
    ends = [finish(process, timeout=600) for process in start_all(2, "--fall_back")]
    assert all(code not in (0, EXIT_CODE) for code, _ in ends), ends
    assert any("it was set aside: run the same command again" in errors for _, errors in ends), ends
    assert committed_steps(workdir)[-1] == before

    ends = [finish(process, timeout=1200) for process in start_all(2, "--fall_back")]
    assert [code for code, _ in ends] == [0, 0], ends
    assert f"resuming after step {before}" in ends[0][1]
    assert_each_read_its_part(tmp_path, 2, before, batches)
    assert_close_run(workdir, expected, NUM_STEPS)
