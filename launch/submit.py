r"""Launch on Cloud TPU with one command; `--dry_run` shows what would be submitted, and submits nothing.

    # pretraining on a spot slice that comes back after a preemption: SkyPilot, or with --route=gke a JobSet
    python -m launch.submit --route=skypilot --topology=v5e-16 --corpus=gs://my-bucket/wiki_books \
      --workdir=gs://my-bucket/runs/base-1 --dry_run -- --config=configs/bert.py:size=base,phase=1
    # a sweep, each trial a job of its own
    python -m launch.submit --route=sweep --topology=v5e-1 --data=gs://my-bucket/inputs \
      --workdir=gs://my-bucket/runs/mrpc --dry_run -- --config=configs/glue.py:task=mrpc,recipe=fast \
      --config.init_from=run:inputs/base-2 --config.data.directory=inputs/glue_data

What stands behind `--` goes to launch.pretrain or launch.sweep. The files that are filled in are in launch/cloud/;
docs/tpu.md has the way from an empty project. Needs `sky` or `kubectl`, and neither a TPU nor libtpu.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from absl import app, flags
from ml_collections import config_flags

from bert_jax.config import choose, parse_flags
from bert_jax.tpu import cloud
from bert_jax.tpu.topologies import Topology, parse_topology

ROUTES = ("skypilot", "gke", "sweep")
SKY = ["sky", "jobs", "launch", "--yes", "--detach-run"]
_ROUTE = flags.DEFINE_string("route", "skypilot", "skypilot, gke, or sweep (SkyPilot, a job for each trial).")
_TOPOLOGY = flags.DEFINE_string("topology", "v5e-8", "An accelerator type (v5e-256) or a shape in chips (v5e:16x16).")
_NUM_SLICES = flags.DEFINE_integer("num_slices", 1, "gke: slices of that topology.")
_CORPUS = flags.DEFINE_string("corpus", "", "gs:// address of a corpus that launch.prepare made.")
_DATA = flags.DEFINE_string("data", "", "sweep: gs:// address of checkpoint and tables, ./inputs on the host.")
_WORKDIR = flags.DEFINE_string("workdir", "", "gs:// address of the run's directory, or of a sweep's results.")
_NAME = flags.DEFINE_string("name", "", "Of the job; default: the last part of --workdir.")
_IMAGE = flags.DEFINE_string("image", "", "gke: the container's image, built from launch/cloud/Dockerfile.")
_SPOT = flags.DEFINE_bool("spot", True, "Take machines that may be preempted, at a lower price.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the files and the commands, and submit nothing.")
flags.DEFINE_alias("dry-run", "dry_run")

TEMPLATES = Path(__file__).resolve().parent / "cloud"
FILLED = Path("build") / "cloud"


def main(argv: list[str]) -> int:
    """Run the command line."""
    try:
        topology = parse_topology(_TOPOLOGY.value, _NUM_SLICES.value)
        name = re.sub(r"[^a-z0-9-]+", "-", (_NAME.value or _WORKDIR.value.rstrip("/").split("/")[-1]).lower())
        cloud.check_name(name)
        route = choose("--route", _ROUTE.value, ROUTES)
        if route == "sweep":
            return _submit_sweep(topology, name, argv[1:])
        job = cloud.CloudJob(name, _CORPUS.value, _WORKDIR.value, tuple(argv[1:]), _IMAGE.value, _SPOT.value)
        _check_config(argv[1:])
        if route == "gke":
            return submit(name, cloud.fill_jobset(_template("jobset"), topology, job), ["kubectl", "apply", "-f"])
        return submit(name, cloud.fill_skypilot(_template("pretrain"), topology, job), SKY)
    except (ValueError, FileNotFoundError) as error:
        print(f"submit: {error}", file=sys.stderr)
        return 1


def submit(name: str, filled: dict[str, Any], command: list[str]) -> int:
    """Write a filled-in file below build/ and run the command on it; a dry run prints both instead."""
    text, path = yaml.safe_dump(filled, sort_keys=False, width=1000), FILLED / f"{name}.yaml"
    command = [*command, str(path)]
    if _DRY_RUN.value:
        print(f"# {path}\n{text}\n# would run: {shlex.join(command)}")
        return 0
    if not shutil.which(command[0]):
        raise ValueError(f"{command[0]} is not on the PATH; docs/tpu.md says how to install it (--dry_run needs none)")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return subprocess.run(command, check=False).returncode


def _check_config(arguments: list[str]) -> None:
    """Leave with launch.pretrain's own message for a mistaken config, before machines are paid for."""
    # Its other flags are not known here; what does not begin with - may be a value of --config.key.
    command = ["pretrain", *(each for each in arguments if each.startswith("--config") or not each.startswith("-"))]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=command)
    parse_flags(command, values)


def _submit_sweep(topology: Topology, name: str, arguments: list[str]) -> int:
    for flag, address in (("data", _DATA.value), ("workdir", _WORKDIR.value)):
        cloud.check_address(flag, address)
    directory = f"runs/{name}"
    listing = [sys.executable, "-m", "launch.sweep", *arguments, f"--workdir={directory}", "--list"]
    done = subprocess.run(listing, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"launch.sweep refused: {done.stderr.strip() or done.stdout.strip()}")
    template = _template("sweep")
    for number, line in enumerate(filter(None, done.stdout.splitlines())):
        envs = {"DATA": _DATA.value, "RESULTS": _WORKDIR.value, "SWEEP": directory, "COMMAND": line}
        trial = f"{name}-{number}"
        code = submit(trial, cloud.fill_trial(template, topology, trial, _SPOT.value, envs), SKY)
        if code:
            return code
    return 0


def _template(name: str) -> dict[str, Any]:
    return yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8"))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
