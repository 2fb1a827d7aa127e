import json
import subprocess
import sys

import pytest

from bert_jax.training.evaluation import EvalConfig
from bert_jax.training.pretraining import evaluate_checkpoint
from tests.faults.runs import ROOT
from tests.training.runs import pretrain, rows

pytestmark = pytest.mark.entry


@pytest.fixture
def workdir(tiny_instances, tmp_path):
    assert pretrain(tiny_instances, tmp_path / "run", **{"train.num_steps": 2}) == 0
    return tmp_path / "run"


def test_a_checkpoint_has_the_metrics_that_its_run_logged(workdir, tiny_instances):
    found = evaluate_checkpoint(f"run:{workdir}", "", EvalConfig(0, 64, batch_size=8))
    logged = {name: value for name, value in rows(workdir)[-1].items() if name.startswith("eval/")}
    assert logged.items() < found.items()
    assert (found["step"], found["instances"], found["rows"]) == (2, "nsp-32", 13)
    vocabulary = tiny_instances / "tokenizer" / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("the\n", "teh\n"))
    with pytest.raises(ValueError, match="another vocabulary"):
        evaluate_checkpoint(f"run:{workdir}", str(tiny_instances), EvalConfig(0, 0, batch_size=8))


@pytest.mark.slow
def test_the_launcher_prints_one_json_object(workdir):
    command = [sys.executable, "-m", "launch.evaluate", f"--checkpoint=run:{workdir}@best", "--max_rows=5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=True)
    assert json.loads(done.stdout)["rows"] == 5
    wrong = subprocess.run([*command[:3], "--checkpoint=hf:x"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: 'hf:x' is not the address of a run")
