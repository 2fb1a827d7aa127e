import json
import shutil
import subprocess
import sys

import pytest

from bert_jax.training.checkpoint import committed_steps
from bert_jax.training.metrics import NonFiniteError
from tests.conftest import write_instances, write_tokenizer
from tests.faults.runs import ROOT, finish, start_run
from tests.training.runs import FLAGS, make_corpus, pretrain, rows

pytestmark = pytest.mark.entry


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def workdir(corpus, tmp_path_factory):
    """The directory of a run of 20 steps that has ended."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    assert pretrain(corpus, workdir) == 0
    return workdir


def test_a_run_leaves_what_the_contract_says(workdir):
    names = {path.name for path in workdir.iterdir()}
    assert names >= {"config.json", "run.json", "metrics.jsonl", "tokenizer", "checkpoints"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert committed_steps(workdir) == [10, 20]
    assert json.loads((workdir / "config.json").read_text())["model"]["vocab_size"] == 64


def test_run_json_says_sizes_flops_and_mesh(workdir):
    facts = json.loads((workdir / "run.json").read_text())
    assert facts["parameters"]["embedding"] == (64 + 32 + 2) * 16 + 2 * 16
    assert facts["parameters"]["total"] > facts["parameters"]["embedding"]
    assert facts["mesh"] == {"data": 1, "fsdp": 1, "tensor": 1}
    assert facts["flops_per_token"] > 0
    assert "L·" in facts["flops_formula"]


def test_rows_are_logged_and_evaluated_at_their_intervals(workdir):
    steps = [(row["step"], "eval/loss" in row) for row in rows(workdir)]
    assert steps == [(5, False), (10, False), (10, True), (15, False), (20, False), (20, True)]
    last = set(rows(workdir)[-1])
    assert last > {"eval/mlm_perplexity", "eval/mlm_accuracy", "eval/nsp_accuracy", "eval/unigram_perplexity"}


def test_a_complete_run_is_left_alone(corpus, workdir, capsys):
    before = rows(workdir)
    assert pretrain(corpus, workdir) == 0
    assert "the run is complete: 20 of 20 steps are done" in capsys.readouterr().err
    assert rows(workdir) == before


def test_a_complete_run_can_be_made_longer(corpus, workdir, tmp_path, capsys):
    longer = tmp_path / "longer"
    shutil.copytree(workdir, longer)
    overrides = {"train.num_steps": 22}
    assert pretrain(corpus, longer, **overrides) == 0
    assert "config.train.num_steps was 20, is now 22" in capsys.readouterr().err
    assert rows(longer)[-1]["step"] == 22
    assert rows(longer)[: len(rows(workdir))] == rows(workdir)


def contents(directory):
    """Return the bytes of every file below a directory; who held its lock does not count."""
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != "lock"]
    return {path.relative_to(directory): path.read_bytes() for path in paths}


@pytest.mark.parametrize(("seed", "overrides"), [(1, {}), (0, {"optim.weight_decay": 0.5})])
def test_a_refused_start_leaves_the_run_as_it_was(workdir, tmp_path, seed, overrides):
    other = tmp_path / "corpus"
    write_tokenizer(other)
    settings = other / "tokenizer" / "settings.json"
    settings.write_text(settings.read_text() + "\n")  # a copy of it would be seen
    write_instances(other, "nsp-32", seed=seed)
    before = contents(workdir)
    with pytest.raises(ValueError, match="another --workdir"):
        pretrain(other, workdir, **{"train.num_steps": 30}, **overrides)
    assert contents(workdir) == before


def test_phase_2_begins_with_the_parameters_of_phase_1(corpus, workdir, tmp_path, capsys):
    overrides = {"init_from": f"run:{workdir}@10", "train.num_steps": 1, "optim.warmup_steps": 0}
    assert pretrain(corpus, tmp_path / "phase-2", **overrides) == 0
    assert f"starting from the parameters of run:{workdir}@10" in capsys.readouterr().err
    assert committed_steps(tmp_path / "phase-2") == [1]


def test_a_non_finite_loss_stops_the_run_and_keeps_what_was_saved(corpus, tmp_path):
    overrides = {"optim.peak_learning_rate": 1e30, "optim.warmup_steps": 11, "optim.clip_norm": 0.0}
    with pytest.raises(NonFiniteError, match=r"(step|state after step) \d+"):
        pretrain(corpus, tmp_path / "run", **overrides)
    assert committed_steps(tmp_path / "run") == []


def test_a_mistyped_config_key_is_one_line_with_the_right_one():
    command = [sys.executable, "-m", "launch.pretrain", "--config=configs/bert.py", "--config.train.num_step=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("pretrain: config.train has no key 'num_step'; accepted: keep_checkpoints, ")
    assert line.endswith(" (did you mean 'num_steps'?)")


def test_a_workdir_that_cannot_be_written_is_one_line(corpus):
    config = {"data.corpus": corpus, "data.instances": "nsp-32", "model.max_position_embeddings": 32}
    code, errors = finish(start_run("pretrain", FLAGS, "/dev/null/run", **config))
    assert code == 1
    assert errors.splitlines()[-1] == "pretrain: [Errno 20] Not a directory: '/dev/null/run'"
    assert "Traceback" not in errors
