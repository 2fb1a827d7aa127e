"""Processes that compute together, without a model: what one does when another ends."""

import signal
import subprocess
import sys
import time

import jax
import pytest

from bert_jax.training import processes
from bert_jax.training.checkpoint import committed_steps
from tests.faults.runs import ROOT, free_address

WORKER = """
import sys, time
import jax
from jax.experimental import multihost_utils
from bert_jax.training import processes

address, number, fault = sys.argv[1:]
processes.join(address, 2, int(number), heartbeat_timeout_seconds=30)
with processes.sharing_fate():
    for step in range(100_000):
        multihost_utils.process_allgather(jax.numpy.float32(step))
        if step == 3:
            print("computing", flush=True)
        if step == 20 and number == "1" and fault == "error":
            raise ValueError("row 17 is damaged; copy it again")
        if step == 20 and number == "1" and fault == "bug":
            [][0]
"""


SAVER = """
import contextlib, sys
import jax, numpy
from bert_jax.training import checkpoint, processes
from tests.faults.disks import full_disk
from tests.training.checkpoint_test import make_state, meta

address, number, directory = sys.argv[1:]
processes.join(address, 2, int(number), heartbeat_timeout_seconds=30)
checkpoint.SAVE_TIMEOUT_SECONDS = 10
whole = jax.NamedSharding(jax.make_mesh((2,), ("data",)), jax.P())
place = lambda leaf: jax.make_array_from_callback(leaf.shape, whole, lambda index: numpy.asarray(leaf)[index])
state = jax.tree.map(place, make_state(1))
with processes.sharing_fate():
    checkpoints = checkpoint.Checkpoints(directory, 1)
    checkpoints.save(1, state, meta())
    checkpoints.wait()
    with full_disk() if number == "0" else contextlib.nullcontext():
        checkpoints.save(2, state, meta())
        checkpoints.wait()
"""


@pytest.fixture
def start_two():
    started = []

    def start(argument, script=WORKER):
        address = free_address()
        for number in range(2):
            command = [sys.executable, "-c", script, address, str(number), argument]
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe))
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ends(both, timeout):
    found = [process.communicate(timeout=timeout)[1] for process in both]
    return [process.returncode for process in both], found


@pytest.mark.entry
@pytest.mark.slow
@pytest.mark.parametrize(("killed", "said"), [(1, "process 0 of 2 cannot go on: "), (0, "")])
def test_the_other_process_ends_and_says_so_when_one_is_killed(start_two, killed, said):
    both = start_two("none")
    for process in both:
        assert "computing\n" in process.stdout  # reads until it comes, behind what Gloo says
    both[killed].send_signal(signal.SIGKILL)
    started = time.monotonic()
    codes, errors = ends(both, timeout=120)
    other = 1 - killed
    assert codes[killed] == -signal.SIGKILL
    assert codes[other] not in (0, 75)
    assert time.monotonic() - started < 120
    # Process 0 has the coordinator: without it JAX may be first to end the others, in its words.
    assert said in errors[other]
    assert "another process has ended" in errors[other] or "another task died" in errors[other]


@pytest.mark.entry
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"), [("error", "process 1 of 2: row 17 is damaged; copy it again"), ("bug", "IndexError")]
)
def test_a_process_with_an_error_says_it_in_one_line_and_ends_all(start_two, fault, said):
    codes, errors = ends(start_two(fault), timeout=120)
    assert codes[1] == 1
    assert said in errors[1]
    assert ("Traceback" in errors[1]) == (fault == "bug")
    assert codes[0] not in (0, 75)
    assert "process 0 of 2 cannot go on" in errors[0]


@pytest.mark.entry
@pytest.mark.slow
def test_a_save_that_fails_in_one_process_ends_all_and_is_not_resumed_from(start_two, tmp_path):
    codes, errors = ends(start_two(str(tmp_path), SAVER), timeout=200)
    assert codes == [1, 1], errors
    assert f"process 0 of 2: a checkpoint was not written to {tmp_path}/checkpoints ([Errno 27] " in errors[0]
    assert "process 1 of 2" in errors[1]
    assert committed_steps(tmp_path) == [1]


def test_a_process_alone_raises_as_ever():
    with pytest.raises(ValueError, match="as it is"), processes.sharing_fate():
        raise ValueError("as it is")
    assert processes.end(3) == 3


def test_a_heartbeat_of_no_time_is_refused():
    with pytest.raises(ValueError, match="--heartbeat_timeout_seconds is 0; use 1 or more"):
        processes.join("localhost:1", 2, 0, heartbeat_timeout_seconds=0)
    assert not jax.distributed.is_initialized()
