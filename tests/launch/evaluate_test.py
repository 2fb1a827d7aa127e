import json

import pytest

from bert_jax.training.evaluation import EvalConfig
from bert_jax.training.pretraining import evaluate_checkpoint
from tests.conftest import write_instances
from tests.launch.programs import run_launcher
from tests.training.runs import pretrain, rows

pytestmark = pytest.mark.entry


@pytest.fixture
def workdir(tiny_instances, tmp_path):
    overrides = {
        "train.num_steps": 2,
        "optim.warmup_steps": 0,
        "model.max_position_embeddings": 64,
        "model.attention_probs_dropout_prob": 0.0,
        "model.dtype": "bfloat16",
        "masking.max_predictions_per_row": 5,
    }
    assert pretrain(tiny_instances, tmp_path / "run", **overrides) == 0
    config = tmp_path / "run" / "config.json"  # as if it had been trained on a GPU
    config.write_text(config.read_text().replace('"attention": "xla"', '"attention": "cudnn"'))
    return tmp_path / "run"


def test_a_checkpoint_has_the_metrics_that_its_run_logged(workdir, tiny_instances):
    found = evaluate_checkpoint(f"run:{workdir}", "", EvalConfig(0, 64, batch_size=8))
    logged = {name: value for name, value in rows(workdir)[-1].items() if name.startswith("eval/")}
    assert logged.items() < found.items()
    assert (found["step"], found["instances"], found["rows"]) == (2, "nsp-32", 13)
    write_instances(tiny_instances, "nsp-64", sequence_length=64, num_validation_rows=3)
    longer = evaluate_checkpoint(f"run:{workdir}", "", EvalConfig(0, 64, batch_size=8), "nsp-64")
    assert longer["rows"] == 3  # rows with more masks than the run's had room for
    vocabulary = tiny_instances / "tokenizer" / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("the\n", "teh\n"))
    with pytest.raises(ValueError, match="another vocabulary"):
        evaluate_checkpoint(f"run:{workdir}", str(tiny_instances), EvalConfig(0, 0, batch_size=8))


@pytest.mark.slow
def test_the_launcher_prints_one_json_object(workdir):
    done = run_launcher("evaluate", f"--checkpoint=run:{workdir}@best", "--max_rows=5")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 5
    wrong = run_launcher("evaluate", "--checkpoint=hf:x")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("evaluate: 'hf:x' is not the address of a run")
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= {"corpus": "", "instances": ""}  # as launch.convert leaves it
    (workdir / "config.json").write_text(json.dumps(config))
    converted = run_launcher("evaluate", f"--checkpoint=run:{workdir}")
    assert converted.returncode == 1
    assert "was converted and has no corpus here; give --corpus and --instances" in converted.stderr
