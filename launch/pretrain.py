"""Pretrain BERT or ELMo: `python -m launch.pretrain --config=configs/bert.py:size=base,phase=1 --workdir=runs/base-1`.

The same command resumes an interrupted run. Exit codes: 0 done, 75 asked to stop and saved, 1 an error.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bert_jax.training.host_memory import keep_freed_memory

keep_freed_memory()  # before jax is imported

from absl import app, flags, logging
from ml_collections import config_flags

from bert_jax.config import choose, parse_flags
from bert_jax.training import elmo_pretraining, pretraining, processes, workdir
from bert_jax.training.checkpoint import CheckpointError
from bert_jax.training.metrics import NonFiniteError
from bert_jax.training.run import Job, RunOptions, run
from bert_jax.training.workdir import WorkdirInUseError

# Without a default file, against which overrides of another file's keys would be checked.
CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: FILE.py:arg=value,…")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory; default runs/<config>-<args>-<overrides>.")
PROFILE_STEPS = flags.DEFINE_string("profile_steps", "", "FIRST:LAST: trace these steps into <workdir>/profile.")
PEAK_FLOPS = flags.DEFINE_float("peak_flops_per_device", 0.0, "FLOP/s to take MFU against; 0 = the device table's.")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, for several processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes in all, with --coordinator_address.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process' number from 0, with --coordinator_address.")
HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
    "heartbeat_timeout_seconds",
    processes.HEARTBEAT_TIMEOUT_SECONDS,
    "Without a sign of life, after which one of several processes counts as lost and the others end.",
)
FALL_BACK = flags.DEFINE_bool(
    "fall_back", False, "If the newest checkpoint is damaged, set it aside and resume from the newest that is not."
)
MULTIHOST = flags.DEFINE_bool("multihost", False, "Several hosts that JAX finds by itself: TPU pod slices, SLURM.")

# By config.family: config → job.
JOBS = {
    "bert": lambda config: pretraining.make_job(pretraining.build_config(config)),
    "elmo": lambda config: elmo_pretraining.make_job(elmo_pretraining.build_config(config)),
}


def main(argv: list[str]) -> int:
    """Run the command line."""
    return train(argv, JOBS, "configs/bert.py:size=base,phase=1")


def train(argv: list[str], jobs: Mapping[str, Callable[[Any], Job]], example: str) -> int:
    """Train what --config says, in --workdir; the whole of `launch.pretrain` and of `launch.finetune`.

    Args:
        argv: what is left of the command line.
        jobs: by config.family, from the config to its job.
        example: a config, for messages.
    """
    launcher = Path(argv[0]).stem
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; config values are set by --config.key=value")
    if CONFIG.value is None:
        raise app.UsageError(f"--config is missing; such as --config={example}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # orbax tells each of its steps
    try:
        if COORDINATOR.value or MULTIHOST.value:
            processes.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, HEARTBEAT_TIMEOUT.value)
        holder = flags.FLAGS["config"]
        path = WORKDIR.value or workdir.default_path(
            config_flags.get_config_filename(holder).partition(":")[0],
            config_flags.get_config_filename(holder).partition(":")[2],
            config_flags.get_override_values(holder),
        )
        family = choose("config.family", CONFIG.value.get("family", ""), jobs)
        options = RunOptions(PROFILE_STEPS.value, PEAK_FLOPS.value, FALL_BACK.value)
        return run(jobs[family](CONFIG.value), path, options)
    except (ValueError, OSError, WorkdirInUseError, NonFiniteError, CheckpointError) as error:
        print(f"{launcher}: {error}", file=sys.stderr)
        return processes.end(1)
    except KeyboardInterrupt:  # before the first step, or the second one: the first is heeded between two steps
        print(f"{launcher}: interrupted; the same command goes on from what was saved last", file=sys.stderr)
        return 130


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
