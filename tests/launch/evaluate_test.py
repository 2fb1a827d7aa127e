import json

import pytest

from bert_jax.corpus.ngrams import kneser_ney_perplexity
from bert_jax.corpus.word_vocabulary import WordVocabulary
from bert_jax.input.instances import open_windows
from bert_jax.input.streams import forward_targets
from bert_jax.training.evaluation import EvalConfig
from bert_jax.training.pretraining import evaluate_checkpoint
from tests.conftest import write_instances
from tests.launch.programs import run_launcher
from tests.training import elmo_runs
from tests.training.runs import pretrain, rows
from tests.word_streams import NAME

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
    ngrams = run_launcher("evaluate", f"--checkpoint=run:{workdir}", "--ngrams=2")
    assert ngrams.returncode == 1
    assert "--ngrams is 2, but run:" in ngrams.stderr
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= {"corpus": "", "instances": ""}  # as launch.convert leaves it
    (workdir / "config.json").write_text(json.dumps(config))
    converted = run_launcher("evaluate", f"--checkpoint=run:{workdir}")
    assert converted.returncode == 1
    assert "was converted and has no corpus here; give --corpus and --instances" in converted.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_elmo_stands_beside_ngrams_of_its_corpus(tmp_path):
    corpus = elmo_runs.make_corpus(tmp_path / "corpus")
    assert elmo_runs.pretrain(corpus, tmp_path / "run", **{"train.num_steps": 2, "optim.warmup_steps": 0}) == 0
    arguments = (f"--checkpoint=run:{tmp_path / 'run'}", "--batch_size=8", "--max_rows=20", "--ngram_rows=50")
    done = run_launcher("evaluate", *arguments, "--ngrams=1,3")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    vocabulary = WordVocabulary.load(corpus / "instances" / NAME / "tokenizer")
    train = forward_targets(open_windows(corpus, NAME, "train"), vocabulary, 50)
    held_out = forward_targets(open_windows(corpus, NAME, "validation"), vocabulary, 20)
    for order in (1, 3):
        expected = kneser_ney_perplexity(train, held_out, order, vocabulary.vocab_size)
        assert found[f"eval/{order}gram_perplexity"] == pytest.approx(expected)
    assert found["windows"] == 20
    wrong = run_launcher("evaluate", *arguments, "--ngrams=1,0")
    assert wrong.returncode == 1
    assert "--ngrams is 1,0; it takes numbers of 1 or more" in wrong.stderr
