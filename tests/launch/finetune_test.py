import dataclasses
import json
import os
import re
import signal

import jax
import numpy as np
import pytest
from etils import epath

from bert_jax.tasks import finetuning
from bert_jax.training.checkpoint import load_params, resolve
from bert_jax.training.mesh import MeshConfig, make_mesh
from bert_jax.training.metrics import FILE, read_rows
from bert_jax.training.preemption import EXIT_CODE
from bert_jax.training.run import run
from tests.launch.programs import run_launcher
from tests.tasks.tiny_tasks import TEXTS, finetune, make_finetuning, write_files, write_model
from tests.training.runs import rows
from tests.training.tiny import assert_trees_equal

EPOCHS = {"num_epochs": 5, "optim.peak_learning_rate": 1e-2, "train.log_every_steps": 2}
STEPS = 5 * -(-len(TEXTS) // 8)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """The tiny model's address, and a table's files."""
    directory = tmp_path_factory.mktemp("task")
    return write_model(directory / "hf"), write_files("text_table", directory / "files")


@pytest.fixture(scope="module")
def finished(task, tmp_path_factory):
    """A run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("finished")
    assert finetune(workdir, "text_table", *task, **EPOCHS) == 0
    return workdir


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def evaluations(workdir):
    return [row for row in read_rows(epath.Path(workdir) / FILE) if "eval/accuracy" in row]


def test_the_best_checkpoint_is_that_of_the_highest_dev_metric(finished):
    scores = {row["step"]: row["eval/accuracy"] for row in evaluations(finished)}
    assert len(scores) == 5
    best = max(scores, key=lambda step: scores[step])
    assert resolve(f"run:{finished}@best").step == best
    found = result(finished)
    assert found["best"]["step"] == best
    assert found["best"]["accuracy"] == scores[best]
    assert found["last"]["accuracy"] == scores[STEPS]
    assert scores[best] > 0.9  # one word decides
    assert (found["steps"], found["labels"]) == (STEPS, ["feline", "other"])


def test_a_stopped_run_ends_as_one_that_was_not(task, finished, tmp_path):
    job = make_finetuning("text_table", *task, **EPOCHS)

    def stopping(first):
        for number, batch in enumerate(job.batches(first)):
            if number == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    assert run(dataclasses.replace(job, batches=stopping), tmp_path) == EXIT_CODE
    assert not (tmp_path / "result.json").exists()
    assert 0 < resolve(f"run:{tmp_path}").step < STEPS
    assert run(job, tmp_path) == 0
    assert rows(tmp_path) == rows(finished)
    assert_trees_equal(load_params(f"run:{tmp_path}"), load_params(f"run:{finished}"))
    for part in ("last", "best", "steps", "train_rows"):
        assert result(tmp_path)[part] == result(finished)[part]


def test_patience_ends_a_run_that_gets_no_better(task, tmp_path, capsys):
    overrides = {"optim.peak_learning_rate": 0.0, "optim.weight_decay": 0.0, "eval.patience_evaluations": 2}
    assert finetune(tmp_path, "text_table", *task, **EPOCHS | overrides) == 0
    steps = [row["step"] for row in evaluations(tmp_path)]
    assert steps == [STEPS // 5, 2 * STEPS // 5, 3 * STEPS // 5]  # the first is best, two are not better
    assert result(tmp_path)["steps"] == steps[-1]
    assert resolve(f"run:{tmp_path}@best").step == steps[0]
    assert finetune(tmp_path, "text_table", *task, **EPOCHS | overrides) == 0  # complete
    assert [row["step"] for row in evaluations(tmp_path)] == steps
    told = capsys.readouterr().err
    early = "ended early by 2 evaluations without a better one"
    assert f"done: {steps[-1]} steps, {early}, checkpoint" in told
    assert f"the run is complete: {steps[-1]} of {STEPS} steps are done, {early}\n" in told


@pytest.mark.multidevice
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", ["ner", "multiple_choice"])
def test_four_devices_have_the_losses_and_scores_of_one(family, task, tmp_path, monkeypatch):
    files, found = write_files(family, tmp_path / "files"), []
    for mesh in (MeshConfig(1, 1, 1), MeshConfig(2, 1, 2)):
        made = make_mesh(mesh, jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor])
        monkeypatch.setattr(finetuning, "make_mesh", lambda _, made=made: made)
        workdir = tmp_path / f"tensor-{mesh.tensor}"
        job = make_finetuning(family, task[0], files, **{"train.log_every_steps": 1})
        assert run(job, workdir) == 0
        row = {name: value for row in read_rows(epath.Path(workdir) / FILE) for name, value in row.items()}
        found.append({name: value for name, value in row.items() if name.startswith(("train/", "eval/"))})
    assert found[1] == pytest.approx(found[0], abs=1e-5)


def test_the_head_starts_elsewhere_with_another_seed(task, tmp_path):
    nothing = {"optim.peak_learning_rate": 0.0}
    kernels = []
    for seed in (0, 1):
        assert finetune(tmp_path / str(seed), "text_table", *task, seed=seed, **nothing) == 0
        params = load_params(f"run:{tmp_path / str(seed)}")
        kernels.append(np.asarray(params["heads"]["classifier"]["kernel"]))
    assert (kernels[0] != kernels[1]).all()


@pytest.mark.entry
def test_the_command_leaves_a_result(task, tmp_path):
    init_from, files = task
    values = {"init_from": init_from, "num_epochs": 1, "data.batch_size": 8, "data.max_seq_length": 32, **files}
    command = [
        "--config=configs/text_table.py:recipe=fast",
        f"--workdir={tmp_path / 'run'}",
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]
    done = run_launcher("finetune", *command)
    assert done.returncode == 0, done.stderr
    assert "text_table: 36 rows to train on, padded to buckets (" in done.stderr
    assert result(tmp_path / "run")["config"]["data"]["train"] == files["data.train"]


@pytest.mark.entry
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/bert.py"], "config.family is 'bert'; accepted: glue, text_table, ner, squad, multiple_c"),
        (["--config=configs/squad.py"], "finetune: config.init_from is empty"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path):
    done = run_launcher("finetune", *arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_lists_the_flags():
    shown = run_launcher("finetune", "--help").stdout
    assert "--config: " in shown
    assert "--workdir: " in shown
