"""Sweep: `python -m launch.sweep --config=configs/glue.py:task=mrpc --config.init_from=hf:DIR --workdir=runs/mrpc`.

Trains the config file's sweep(add), or a published --grid, leaves a result a trial in <workdir>/trials, and prints the
table by the dev metric (table.md, table.csv and plot.png beside it). The same command goes on where an interrupted one
was; a trial that is done is never run again, and is refused if its rows or its checkpoint are others now. On several
machines: --list prints a command for each trial that is left, for any scheduler, and --collect makes the table of what
there is.
"""

import contextlib
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Callable
from typing import Any

from bert_jax.training.host_memory import keep_freed_memory

keep_freed_memory()  # before jax is imported

from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

from bert_jax.config import choose, parse_flags
from bert_jax.reports.sweep_plot import write_plot
from bert_jax.reports.sweep_table import read_results, summarize, terminal_lines, write_tables
from bert_jax.tasks.families import FAMILIES
from bert_jax.tasks.grids import GRIDS
from bert_jax.tasks.trials import Trial, check_inputs, plan, run_trials
from bert_jax.training import workdir
from bert_jax.training.checkpoint import CheckpointError
from bert_jax.training.metrics import Progress
from bert_jax.training.workdir import WorkdirInUseError

OWN_GRID = "config"

CONFIG = config_flags.DEFINE_config_file("config", None, "What to fine-tune: FILE.py:arg=value,…")
WORKDIR = flags.DEFINE_string("workdir", None, "The sweep's directory; default runs/<config>-<args>-<overrides>-sweep.")
GRID = flags.DEFINE_enum("grid", OWN_GRID, [OWN_GRID, *GRIDS], "config: its own sweep(add); else a published grid.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Of each setting, with --grid=paper, small or seeds.", lower_bound=1)
PER_DEVICE = flags.DEFINE_integer("trials_per_device", 1, "That a device trains at once.", lower_bound=1)
TRIAL = flags.DEFINE_string("trial", "", "Run this trial only, by its 8 hex digits.")
LIST = flags.DEFINE_bool("list", False, "Print a command for each trial that is left, and run none.")
COLLECT = flags.DEFINE_bool("collect", False, "Make the table of the results there are, and run none.")


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; config values are set by --config.key=value")
    if CONFIG.value is None:
        raise app.UsageError("--config is missing; such as --config=configs/glue.py:task=mrpc")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)
    try:
        if flags.FLAGS["seeds"].present and GRID.value == OWN_GRID:
            raise ValueError(f"--seeds is of a --grid of {', '.join(GRIDS)}; the config's sweep(add) has its own")
        choose("config.family", CONFIG.value.get("family", ""), FAMILIES)
        return sweep(plan(CONFIG.value, own_grid() if GRID.value == OWN_GRID else published_grid), directory())
    except (ValueError, FileNotFoundError, CheckpointError, WorkdirInUseError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sweep: interrupted; the same command goes on with the trials that are left", file=sys.stderr)
        return 130


def sweep(trials: list[Trial], path: epath.Path) -> int:
    """Run what is left of the trials, or list it, and make the table."""
    if TRIAL.value:
        choose("--trial", TRIAL.value, [trial.trial_id for trial in trials])
        trials = [trial for trial in trials if trial.trial_id == TRIAL.value]
    results = path / "trials"
    left = [trial for trial in trials if not (results / f"{trial.trial_id}.json").exists()]
    if LIST.value:
        print("\n".join(command(trial, path) for trial in left))
        return 0
    check_inputs(read_done(trials, path), read_files=not COLLECT.value)
    if left and not COLLECT.value:
        results.mkdir(parents=True, exist_ok=True)
        # A sweep locks its directory; single trials, which a scheduler may run there side by side, do not.
        lock = None if TRIAL.value else workdir.take_lock(path)
        with lock or contextlib.nullcontext():
            run_and_write(left, results)
    if not TRIAL.value:
        found = [result | {"overrides": dict(trial.overrides)} for trial, result in read_done(trials, path)]
        if not found:
            print(f"sweep: none of the {len(trials)} trials has a result in {results} yet", file=sys.stderr)
            return 1
        table = summarize(found, [dict(trial.overrides) for trial in trials])
        write_tables(path, table)
        write_plot(path, table)
        print("\n".join(terminal_lines(table)))
    return 0


def read_done(trials: list[Trial], path: epath.Path) -> list[tuple[Trial, dict[str, Any]]]:
    """Return the trials that are done, with their results."""
    # A config or grid of before may have left other trials, and named these by other overrides.
    planned = {trial.trial_id: trial for trial in trials}
    there = read_results(path) if (path / "trials").exists() else []
    return [(planned[result["trial"]], result) for result in there if result["trial"] in planned]


def run_and_write(trials: list[Trial], results: epath.Path) -> None:
    """Run trials and write each one's result as it is known."""
    progress = Progress()
    for trial, result in run_trials(trials, PER_DEVICE.value, progress.say):
        write_result(results / f"{trial.trial_id}.json", result)
        shown = result.get("failed") or f"{result['best_metric']} {result['last'][result['best_metric']]:.4f}"
        progress.say(f"trial {trial.trial_id}: {shown}")


def write_result(path: epath.Path, result: dict[str, Any]) -> None:
    """Write a trial's result by rename; what is there is whole, whoever else writes the same."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.replace(path)


def command(trial: Trial, path: epath.Path) -> str:
    """Return the command that runs one trial."""
    given = [arg for arg in sys.argv[1:] if arg.lstrip("-").partition("=")[0] != "list"]
    there = [] if WORKDIR.value else [f"--workdir={path}"]
    return shlex.join(["python", "-m", "launch.sweep", *given, *there, f"--trial={trial.trial_id}"])


def directory() -> epath.Path:
    """Return the sweep's directory."""
    if WORKDIR.value:
        return epath.Path(WORKDIR.value)
    holder = flags.FLAGS["config"]
    file, _, arg = config_flags.get_config_filename(holder).partition(":")
    path = epath.Path(workdir.default_path(file, arg, config_flags.get_override_values(holder)))
    return path.with_name(f"{path.name}-sweep")


def published_grid(add: Callable[..., None]) -> None:
    """Add the trials of --grid."""
    GRIDS[GRID.value](add, SEEDS.value)


def own_grid() -> Callable[[Callable[..., None]], None]:
    """Return the sweep(add) of the config file.

    Raises:
        ValueError: it has none.
    """
    file = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0]
    spec = importlib.util.spec_from_file_location("sweep_config", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "sweep"):
        raise ValueError(f"{file} has no sweep(add); write one, or choose a --grid of {', '.join(GRIDS)}")
    return module.sweep


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
