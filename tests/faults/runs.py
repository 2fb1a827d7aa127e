"""Runs in processes of their own, to be killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bert_jax.training.checkpoint import committed_steps, load_params
from bert_jax.training.preemption import EXIT_CODE
from tests.training.runs import rows
from tests.training.tiny import largest_difference

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 60
# No interval is a multiple of another: checkpoints fall into open windows and between evaluations.
INTERVALS = {
    "train.log_every_steps": 4,
    "train.save_every_steps": 7,
    "eval.every_steps": 10,
    "train.num_steps": NUM_STEPS,
}


# Runs a launcher that writes down, in the file of its first argument, which training records it reads for each batch.
RECORDING = """
import json, runpy, sys
from bert_jax.input.instances import RecordSet

log, read = open(sys.argv.pop(1), "w", buffering=1), RecordSet.read_records

def read_records(self, indices):
    if self.split == "train":
        print(json.dumps(indices.tolist()), file=log)
    return read(self, indices)

RecordSet.read_records = read_records
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def start_run(launcher, config_flags, workdir, *flags, devices=1, cache=None, records=None, **overrides):
    """Start `launch.<launcher>` on `devices` faked devices; its stderr goes to a pipe.

    `cache` is a directory for compiled programs; `records` a file for the records that are read, see RECORDING.
    """
    values = [f"--config.{name}={value}" for name, value in overrides.items()]
    module = ["-c", RECORDING, str(records)] if records else ["-m"]
    command = [sys.executable, *module, f"launch.{launcher}", *config_flags, *values, f"--workdir={workdir}", *flags]
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    if cache:  # the runs of a test compile the same programs
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process, timeout: float = 200):
    """Wait for the end; return the exit code and what was written to stderr."""
    _, errors = process.communicate(timeout=timeout)
    return process.returncode, errors


def wait_for_checkpoint(process, workdir, after=0):
    """Wait until the run has committed a checkpoint after this step."""
    while max(committed_steps(workdir), default=0) <= after:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def assert_little_is_lost(workdir, save_every):
    """Of a run that was killed at most one interval is lost, besides the save under way; return the step that is kept.

    What a kill leaves of a save under way is a directory `<step>.…`. The next save waits for it, so it is the only one.
    """
    kept = max(committed_steps(workdir), default=0)
    under_way = [int(path.name.partition(".")[0]) for path in (workdir / "checkpoints").glob("*.*tmp*")]
    begun = max([kept, *under_way])
    assert max(row["step"] for row in rows(workdir)) - begun <= save_every
    assert begun - kept <= save_every
    return kept


def largest_numbers(workdir, step):
    """Return the largest file of a checkpoint's parameters that holds numbers.

    Those lie in the folders d; without the descriptions beside them (_sharding, say, the largest of a small model) a
    run resumes all the same.
    """
    return max((workdir / "checkpoints" / str(step) / "params").rglob("d/*"), key=lambda path: path.stat().st_size)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def kill_and_resume(start, workdir):
    """Kill a run behind its first checkpoint, and let the same command end it; `start` takes the workdir."""
    process = start(workdir)
    wait_for_checkpoint(process, workdir)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    # Had it ended before it was killed, nothing would be tested here.
    assert max(committed_steps(workdir)) < NUM_STEPS
    code, errors = finish(start(workdir))
    assert code == 0, errors
    assert "resuming after step" in errors


def stop_and_resume(start, workdir):
    """Stop a run by SIGTERM behind its first checkpoint, and let the same command end it; `start` takes the workdir."""
    process = start(workdir)
    wait_for_checkpoint(process, workdir)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # a second one does no harm
    code, errors = finish(process, timeout=30)
    assert code == EXIT_CODE, errors
    assert "stopped and saved; the same command resumes the run" in errors
    code, errors = finish(start(workdir))
    assert code == 0, errors


def finish_as_two_processes(start, workdir):
    """Let two processes do a run, each with a part of every batch; return what each wrote to stderr."""
    flags = [f"--coordinator_address={free_address()}", "--num_processes=2"]
    both = [start(workdir, *flags, f"--process_id={number}") for number in range(2)]
    ends = [finish(process) for process in both]
    assert [code for code, _ in ends] == [0, 0], ends
    return [errors for _, errors in ends]


def free_address():
    """Return an address on which a coordinator can listen."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def saved(workdir, step=NUM_STEPS):
    """Return everything that a checkpoint holds, as numpy arrays."""
    return {item: load_params(f"run:{workdir}@{step}", item=item) for item in ("params", "train_state")}


def assert_close_run(workdir, expected, num_steps=NUM_STEPS):
    """The same batches give the same numbers, up to the order of sums over devices."""
    for found, wanted in zip(rows(workdir), rows(expected), strict=True):
        assert found.keys() == wanted.keys()
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-4, atol=1e-6)
        assert found.get("train/tokens") == wanted.get("train/tokens")
    assert largest_difference(saved(workdir, num_steps)["params"], saved(expected, num_steps)["params"]) <= 1e-5
