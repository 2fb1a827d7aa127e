import csv
import json
import shlex
import signal
import time
from pathlib import Path

import pytest

from bert_jax.training.workdir import take_lock
from tests.faults.runs import finish, start_run
from tests.launch.programs import run_launcher
from tests.tasks.tiny_tasks import write_files, write_model

GRID = """
from configs import text_table


def get_config(arg=""):
    return text_table.get_config(arg)


def sweep(add):
    for seed in (0, 1):
        add(**{"optim.peak_learning_rate": 1e-3, "seed": seed})
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sweep")
    files = write_files("text_table", directory / "files")
    (directory / "grid.py").write_text(GRID)
    values = files | {
        "init_from": write_model(directory / "hf"), "num_epochs": 1, "data.batch_size": 8, "data.max_seq_length": 32,
        "data.max_buckets": 1, "eval.batch_size": 8, "optim.peak_learning_rate": 1e-3,
    }  # fmt: skip
    return [
        f"--config={directory / 'grid.py'}:recipe=fast",
        *(f"--config.{name}={value}" for name, value in values.items()),
        "--workdir",
        str(directory / "runs"),
    ]


@pytest.mark.slow
def test_a_sweep_is_listed_run_by_trial_finished_and_not_run_again(flags):
    listed = run_launcher("sweep", *flags, "--list")
    assert listed.returncode == 0, listed.stderr
    commands = listed.stdout.splitlines()
    assert len(commands) == 2
    first = commands[0].rpartition("--trial=")[2]
    alone = run_launcher(*shlex.split(commands[0].removeprefix("python -m launch.")))
    assert alone.returncode == 0, alone.stderr
    whole = run_launcher("sweep", *flags)
    assert whole.returncode == 0, whole.stderr
    assert first not in "".join(line for line in whole.stderr.splitlines() if line.startswith("trial "))
    assert "accuracy" in whole.stdout
    again = run_launcher("sweep", *flags)
    assert again.stdout == whole.stdout
    assert "trials" not in again.stderr
    workdir = Path(flags[-1])
    results = [json.loads(path.read_text()) for path in (workdir / "trials").iterdir()]
    assert sorted(result["overrides"]["seed"] for result in results) == [0, 1]
    assert {"table.md", "table.csv", "plot.png"} <= {path.name for path in workdir.iterdir()}
    # Another grid in the same directory has these trials by other overrides.
    seeds = run_launcher("sweep", *flags, "--grid=seeds", "--seeds=2")
    assert "trials" not in seeds.stderr
    assert "not run" not in seeds.stdout
    assert "not in the plan" not in seeds.stdout
    [table] = (workdir.parent / "files").iterdir()
    rows = table.read_text()
    table.write_text(rows + "the other cat,feline\n")
    changed = run_launcher("sweep", *flags)
    table.write_text(rows)
    assert changed.returncode == 1
    assert "are of other rows or parameters than hf:" in changed.stderr


@pytest.mark.slow
def test_a_sweep_that_was_killed_is_collected_and_goes_on_with_the_trials_that_are_left(flags, tmp_path):
    seeds, (*config, _, _) = 4, flags
    more = ["--grid=seeds", f"--seeds={seeds}", "--config.num_epochs=20"]
    process = start_run("sweep", config, tmp_path, *more)
    while not list(tmp_path.glob("trials/*.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    code, errors = finish(process)
    assert code == -signal.SIGKILL, errors  # a sweep that was faster than its kill tests nothing

    def results():
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.glob("trials/*.json")}

    kept = results()
    assert 0 < len(kept) < seeds
    collected = run_launcher("sweep", *config, f"--workdir={tmp_path}", *more, "--collect")
    assert collected.returncode == 0, collected.stderr
    assert f"{seeds - len(kept)} of {seeds} trials are not run yet" in collected.stdout
    assert results() == kept
    whole = run_launcher("sweep", *config, f"--workdir={tmp_path}", *more)
    assert whole.returncode == 0, whole.stderr
    assert "not run" not in whole.stdout
    assert len(results()) == seeds
    assert kept.items() <= results().items()
    with open(tmp_path / "table.csv", newline="") as file:
        assert [(row["planned"], row["trials"]) for row in csv.DictReader(file)] == [(str(seeds), str(seeds))]


def test_a_sweep_without_results_says_so(flags, tmp_path):
    done = run_launcher("sweep", *flags[:-1], str(tmp_path), "--collect")
    assert done.returncode == 1
    assert "none of the 2 trials has a result" in done.stderr


def test_a_directory_has_one_sweep_at_a_time(flags, tmp_path):
    lock = take_lock(tmp_path)
    assert lock is not None
    with lock:
        done = run_launcher("sweep", *flags[:-1], str(tmp_path))
    assert done.returncode == 1
    assert f"sweep: {tmp_path} is in use by process" in done.stderr


def test_seeds_without_a_grid_are_refused(flags):
    done = run_launcher("sweep", *flags, "--seeds=5")
    assert done.returncode == 1
    assert "sweep: --seeds is of a --grid of paper, small, seeds" in done.stderr
