"""Pretraining runs in processes of their own, to be killed."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from bert_jax.training.checkpoint import committed_steps, load_params
from tests.training.runs import FLAGS

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 60
# No interval is a multiple of another: checkpoints fall into open windows and between evaluations.
INTERVALS = {
    "train.log_every_steps": 4,
    "train.save_every_steps": 7,
    "eval.every_steps": 10,
    "train.num_steps": NUM_STEPS,
}


def start(corpus, workdir, *flags, devices=1, cache=None, **overrides):
    """Start `launch.pretrain` of BERT on `devices` faked devices; its stderr goes to a pipe."""
    config = {"data.instances": "nsp-32", "model.max_position_embeddings": 32, **overrides}
    return start_config(FLAGS, corpus, workdir, *flags, devices=devices, cache=cache, **config)


def start_config(config_flags, corpus, workdir, *flags, devices=1, cache=None, **overrides):
    """Start `launch.pretrain` with these flags of a config; see `start`."""
    config = {"data.corpus": corpus, **INTERVALS, **overrides}
    values = [f"--config.{name}={value}" for name, value in config.items()]
    command = [sys.executable, "-m", "launch.pretrain", *config_flags, *values, f"--workdir={workdir}", *flags]
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    if cache:  # the runs of a test compile the same programs
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process, timeout=200):
    """Wait for the end; return the exit code and what was written to stderr."""
    _, errors = process.communicate(timeout=timeout)
    return process.returncode, errors


def wait_for_checkpoint(process, workdir, after=0):
    """Wait until the run has committed a checkpoint after this step."""
    while max(committed_steps(workdir), default=0) <= after:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def free_address():
    """Return an address on which a coordinator can listen."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def saved(workdir, step=NUM_STEPS):
    """Return everything that a checkpoint holds, as numpy arrays."""
    return {item: load_params(f"run:{workdir}@{step}", item=item) for item in ("params", "train_state")}
