import json

import pytest

from bert_jax.training.checkpoint import committed_steps
from bert_jax.training.metrics import NonFiniteError
from tests.training.runs import pretrain, rows

pytestmark = pytest.mark.entry


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def test_a_run_leaves_what_the_contract_says(tiny_instances, tmp_path):
    workdir = tmp_path / "run"
    assert pretrain(tiny_instances, workdir) == 0
    names = {path.name for path in workdir.iterdir()}
    assert names >= {"config.json", "run.json", "metrics.jsonl", "tokenizer", "checkpoints"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert committed_steps(workdir) == [10, 20]

    facts = json.loads((workdir / "run.json").read_text())
    assert facts["parameters"]["embedding"] == (64 + 32 + 2) * 16 + 2 * 16
    assert facts["parameters"]["total"] > facts["parameters"]["embedding"]
    assert facts["mesh"] == {"data": 1, "fsdp": 1, "tensor": 1}
    assert facts["flops_per_token"] > 0
    assert "L·" in facts["flops_formula"]

    steps = [(row["step"], "eval/loss" in row) for row in rows(workdir)]
    assert steps == [(5, False), (10, False), (10, True), (15, False), (20, False), (20, True)]
    last = rows(workdir)[-1]
    assert {"eval/mlm_perplexity", "eval/mlm_accuracy", "eval/nsp_accuracy", "eval/unigram_perplexity"} < set(last)

    before = rows(workdir)
    assert pretrain(tiny_instances, workdir) == 0  # complete: nothing is done
    assert rows(workdir) == before


def test_a_non_finite_loss_stops_the_run_and_keeps_what_was_saved(tiny_instances, tmp_path):
    workdir = tmp_path / "run"
    overrides = {"optim.peak_learning_rate": 1e30, "optim.warmup_steps": 11, "optim.clip_norm": 0.0}
    with pytest.raises(NonFiniteError, match=r"(step|state after step) \d+"):
        pretrain(tiny_instances, workdir, **overrides)
    assert committed_steps(workdir) == []
