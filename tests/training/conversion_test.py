import dataclasses
import json

import jax
import numpy as np
import pytest

from bert_jax.config import build
from bert_jax.corpus.vocabulary import WordPiece, WordPieceSettings
from bert_jax.inference.fill_mask import MaskFiller, Query
from bert_jax.interop import comparison, huggingface, name_map
from bert_jax.interop.weights import Beside, Weights
from bert_jax.models.bert import BertConfig
from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.training import addresses, checkpoint
from bert_jax.training.conversion import convert, write_run
from bert_jax.training.pretraining import PretrainConfig
from tests.conftest import VOCABULARY
from tests.interop import google_test
from tests.training.runs import SIZES, pretrain

CONFIG = build(BertConfig, {**SIZES, "vocab_size": len(VOCABULARY), "max_position_embeddings": 32})


@pytest.fixture(scope="module")
def weights():
    """A tiny model with the vocabulary of the fixture `tiny_instances`."""
    shapes = jax.eval_shape(MaskedLmObjective(CONFIG).init, 0)
    rng = np.random.default_rng(0)
    params = {
        name: rng.normal(0, 0.1, leaf.shape).astype(np.float32) for name, leaf in name_map.flatten(shapes).items()
    }
    return Weights(CONFIG, params, WordPiece(VOCABULARY, WordPieceSettings(max_input_chars_per_word=100)))


@pytest.fixture
def directory(weights, tmp_path):
    huggingface.write(weights, tmp_path / "hf")
    return tmp_path / "hf"


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(actual[name], values, err_msg=name)


def test_our_model_has_the_parameters_of_the_table(weights):
    _, report = name_map.to_theirs(weights.params, "huggingface", CONFIG)
    assert report.extra == ()
    assert {match.ours for match in report.matches} == weights.params.keys()


def test_numbers_that_are_not_finite_are_refused_before_anything_is_written(weights, tmp_path):
    name = "embeddings/word_embeddings"
    bad = dataclasses.replace(weights, params=weights.params | {name: np.full_like(weights.params[name], np.nan)})
    huggingface.write(bad, tmp_path / "hf")
    for target in ("run", "hf"):
        with pytest.raises(ValueError, match=f"not finite in {name}; take another checkpoint"):
            convert(f"hf:{tmp_path / 'hf'}", f"{target}:{tmp_path / 'new'}")
    assert not (tmp_path / "new").exists()


def test_there_and_back_is_the_same_model(weights, directory, tmp_path):
    done = convert(f"hf:{directory}", f"run:{tmp_path / 'run'}")
    assert any("layers/attention/query/kernel" in line and "{0..1}" in line for line in done.lines())
    again, _ = addresses.load(f"run:{tmp_path / 'run'}@0")
    assert again.config == weights.config
    assert_equal(again.params, weights.params)
    assert again.tokenizer.settings == weights.tokenizer.settings
    convert(f"run:{tmp_path / 'run'}", f"hf:{tmp_path / 'back'}")
    for name in ("model.safetensors", "config.json", "vocab.txt", "tokenizer_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (directory / name).read_bytes(), name


def test_a_converted_run_is_a_run_for_the_tools_and_cannot_be_resumed(directory, tmp_path, tiny_instances):
    address = f"run:{tmp_path / 'run'}"
    convert(f"hf:{directory}", address)
    assert build(PretrainConfig, checkpoint.load_config(address)).model == CONFIG
    assert json.loads((tmp_path / "run" / "run.json").read_text())["converted_from"] == f"hf:{directory}"
    answer = next(iter(MaskFiller.load(address, top_k=1, batch_size=1).answers([Query("the [MASK]", "sat")])))
    assert answer.is_next is not None
    with pytest.raises(ValueError, match="has parameters only, no optimizer state, and cannot be resumed"):
        pretrain(tiny_instances, tmp_path / "run")


@pytest.mark.parametrize("scheme", ["hf", "run"])
def test_pretraining_goes_on_from_a_converted_checkpoint(scheme, weights, directory, tmp_path, tiny_instances):
    address = f"hf:{directory}"
    if scheme == "run":
        address = f"run:{tmp_path / 'converted'}"
        write_run(weights, tmp_path / "converted", {})
    # At rate 0 the parameters that it ends with are those that it began with.
    overrides = {"optim.peak_learning_rate": 0.0, "optim.warmup_steps": 0, "train.num_steps": 1}
    assert pretrain(tiny_instances, tmp_path / "run", init_from=address, **overrides) == 0
    assert_equal(addresses.load(f"run:{tmp_path / 'run'}")[0].params, weights.params)


def test_pretraining_with_another_vocabulary_is_refused(weights, tmp_path, tiny_instances):
    other = dataclasses.replace(weights, tokenizer=WordPiece(VOCABULARY[:-2] + VOCABULARY[-1:] + VOCABULARY[-2:-1]))
    huggingface.write(other, tmp_path / "other")
    with pytest.raises(ValueError, match="was trained with another vocabulary than that of"):
        pretrain(tiny_instances, tmp_path / "run", init_from=f"hf:{tmp_path / 'other'}")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("hf:DIR", "hf:", "is not an address; use run:DIR"),
        ("DIR", "run:x", "is not an address; use run:DIR"),
        ("torch:DIR", "run:x", "is 'torch'; accepted: run, hf, google"),
        ("hf:DIR", "google:x", "run:DIR, hf:DIR and elmo:DIR are written"),
        ("hf:DIR", "run:DIR", "is not empty; give another directory"),
        ("hf:DIR", "hf:DIR", "holds a model already"),
        ("hf:DIR/none", "run:x", "OWNER/NAME@REVISION on the Hub"),
    ],
)
def test_what_cannot_be_converted_is_said(directory, source, target, message):
    source, target = (text.replace("DIR", str(directory)) for text in (source, target))
    with pytest.raises((ValueError, OSError), match=message):
        convert(source, target)


def test_googles_checkpoint_becomes_hugging_faces(tmp_path):
    prefix = google_test.GOLDEN / "bert_model.ckpt"
    (tmp_path / "sizes.json").write_text(json.dumps(google_test.google_variables.SIZES))
    (tmp_path / "pieces.txt").write_text("\n".join(google_test.PIECES) + "\n")
    beside = Beside(tmp_path / "pieces.txt", tmp_path / "sizes.json")
    done = convert(f"google:{prefix}", f"hf:{tmp_path / 'hf'}", beside)
    text = "\n".join(done.lines())
    assert "bert/encoder/layer_{0..1}/attention/self/query/kernel 4×4" in text
    assert "bert.encoder.layer.{0..1}.attention.self.query.weight 4×4, [out, in]" in text
    theirs, ours = addresses.load(f"google:{prefix}", beside)[0], addresses.load(f"hf:{tmp_path / 'hf'}")[0]
    assert ours.config == theirs.config
    assert_equal(ours.params, theirs.params)


def test_a_run_has_its_own_vocabulary(tmp_path, weights):
    write_run(weights, tmp_path / "run", {})
    with pytest.raises(ValueError, match="has its own config and vocabulary"):
        addresses.load(f"run:{tmp_path / 'run'}", Beside(do_lower_case=True))
    with pytest.raises(ValueError, match="so --from or --to must be hf:"):
        convert(f"run:{tmp_path / 'run'}", f"run:{tmp_path / 'other'}", check=True)


def test_nothing_is_written_when_there_is_nothing_to_compare_with(tmp_path, weights, monkeypatch):
    write_run(weights, tmp_path / "run", {})
    lacking = tmp_path / "python"
    lacking.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2\nexit 1\n")
    lacking.chmod(0o755)
    monkeypatch.setenv(comparison.PYTHON_VARIABLE, str(lacking))
    with pytest.raises(
        ValueError, match=r"cannot import torch and transformers: ModuleNotFoundError.*'torch'; let the"
    ):
        convert(f"run:{tmp_path / 'run'}", f"hf:{tmp_path / 'hf'}", check=True)
    assert not (tmp_path / "hf").exists()
