import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from bert_jax.config import build
from bert_jax.corpus.streams import read_in_order
from bert_jax.corpus.word_vocabulary import WordVocabulary
from bert_jax.models.elmo import ElmoConfig
from bert_jax.training import elmo_pretraining
from bert_jax.training.checkpoint import load_params
from bert_jax.training.elmo_pretraining import ElmoPretrainConfig, build_config, evaluate_checkpoint, make_job
from bert_jax.training.evaluation import EvalConfig
from bert_jax.training.mesh import MeshConfig, make_mesh
from bert_jax.training.throughput import elmo_row_flops
from configs import elmo
from tests.training.elmo_runs import pretrain, tiny_config
from tests.training.runs import rows
from tests.training.tiny import assert_trees_equal, largest_difference
from tests.word_streams import make_stream_corpus, sentences_of


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_stream_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def workdir(corpus, tmp_path_factory):
    """The directory of a run of 20 steps that has ended."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    assert pretrain(corpus, workdir) == 0
    return workdir


def saved(workdir, step=20):
    return {item: load_params(f"run:{workdir}@{step}", item=item) for item in ("params", "train_state")}


def test_a_run_has_its_vocabulary_its_formula_and_perplexities(corpus, workdir):
    words = WordVocabulary.load(workdir / "tokenizer").words
    assert words == WordVocabulary.load(corpus / "instances" / "stream-5" / "tokenizer").words
    facts = json.loads((workdir / "run.json").read_text())
    assert "·2F²" in facts["flops_formula"]
    assert facts["tokens_per_row"] == 5
    row = rows(workdir)[-1]
    mean = (row["eval/forward_loss"] + row["eval/backward_loss"]) / 2
    assert row["eval/loss"] == pytest.approx(mean)
    assert row["eval/perplexity"] == pytest.approx(math.exp(mean))
    assert row["eval/backward_perplexity"] == pytest.approx(math.exp(row["eval/backward_loss"]))
    assert rows(workdir)[-2]["train/tokens"] == 20 * 8 * 5


@pytest.mark.multidevice
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2)], ids=["data", "data, fsdp and tensor"])
def test_eight_devices_have_the_losses_and_parameters_of_one(corpus, mesh, tmp_path, monkeypatch):
    for name, sizes in (("one", (1, 1, 1)), ("eight", mesh)):
        made = make_mesh(MeshConfig(*sizes), jax.devices()[: math.prod(sizes)])
        monkeypatch.setattr(elmo_pretraining, "make_mesh", lambda _, made=made: made)
        assert pretrain(corpus, tmp_path / name, **{"train.log_every_steps": 1}) == 0
    one, eight = (rows(tmp_path / name) for name in ("one", "eight"))
    for key in ("train/loss", "eval/loss"):
        found, expected = ([row[key] for row in each if key in row] for each in (eight, one))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert largest_difference(saved(tmp_path / "eight"), saved(tmp_path / "one")) <= 1e-5


def test_a_run_in_two_parts_is_the_whole_run_bit_for_bit(corpus, workdir, tmp_path):
    assert pretrain(corpus, tmp_path, **{"train.num_steps": 10}) == 0
    assert pretrain(corpus, tmp_path) == 0
    assert_trees_equal(saved(tmp_path), saved(workdir))
    assert rows(tmp_path)[-2:] == rows(workdir)[-2:]


def test_the_state_that_is_saved_is_that_of_the_words_before(workdir):
    states = [saved(workdir, step)["train_state"]["carry"] for step in (10, 20)]
    assert states[0]["cell"].shape == (8, 2, 2, 6)
    assert float(abs(states[0]["cell"]).max()) > 0.01
    assert largest_difference(states[0], states[1]) > 0.01


@pytest.mark.slow
def test_microbatches_change_nothing(corpus, tmp_path):
    plain = {"model.dropout": 0.0, "objective.num_negatives": 0, "train.num_steps": 10}
    for microbatches in (1, 4):
        assert pretrain(corpus, tmp_path / str(microbatches), **plain, **{"train.microbatches": microbatches}) == 0
    assert largest_difference(saved(tmp_path / "1", 10), saved(tmp_path / "4", 10)) < 1e-5


def test_a_checkpoint_is_evaluated_as_the_run_did(corpus, workdir):
    config = EvalConfig(every_steps=0, max_rows=64, batch_size=8)
    found = evaluate_checkpoint(f"run:{workdir}", "", config)
    logged = rows(workdir)[-1]
    assert found["windows"] == 36
    for name in ("eval/perplexity", "eval/forward_loss", "eval/unigram_perplexity"):
        np.testing.assert_allclose(found[name], logged[name], rtol=1e-6)


def test_the_unigram_baseline_is_of_the_words_that_are_predicted(corpus, workdir):
    directory = corpus / "instances" / "stream-5"
    counts = np.load(directory / "token_counts.npy")
    forward, _, _ = read_in_order(sentences_of("validation"), "basic")
    ids = WordVocabulary.load(directory / "tokenizer").ids([*forward, "<S>"])[1 : 36 * 5 + 1]
    ids = np.where(ids == 0, 1, ids)
    expected = np.exp(-np.log((counts[ids] + 1) / (counts + 1).sum()).mean())
    np.testing.assert_allclose(rows(workdir)[-1]["eval/unigram_perplexity"], expected, rtol=1e-5)


def test_what_does_not_fit_is_refused_at_the_door(corpus):
    for change, message in (
        ({"objective.vocab_size": 12}, "has 40 words"),
        ({"data.batch_size": 1000}, "fewer than the 1000 lanes"),
        ({"model.max_characters_per_token": 30}, "spells words with 50 characters"),
        ({"optim.warmup_steps": 20}, "would only rise"),
    ):
        with pytest.raises(ValueError, match=message):
            make_job(build_config(tiny_config(corpus, **change)))
    with pytest.raises(FileNotFoundError, match="no instance set 'stream-7'"):
        build_config(tiny_config(corpus, **{"data.instances": "stream-7"}))


def test_flops_are_those_of_the_released_model_counted_by_hand():
    """About 0.66 GFLOP a word in training: 18.9 M products a layer and direction, 26.7 M a word, 4.2 M a softmax."""
    model = ElmoConfig(dim=4096, projection_dim=512)
    products = elmo_row_flops(model, 20, 8192 + 1).per_token / 6
    lstm, highways, softmax = 4 * (8 * 512 * 4096 + 4096 * 512), 2 * 2 * 2048**2, 2 * 8193 * 512
    filters = sum((51 - width) * width * 16 * count for width, count in model.filters)
    assert products == lstm + highways + softmax + filters + 2048 * 512


@pytest.mark.parametrize(
    "arg", ["", *(f"size=small,recipe={r},preset={p}" for r in elmo.RECIPES for p in elmo.PRESETS)]
)
def test_every_named_config_builds_with_all_settings_visible(arg):
    values = elmo.get_config(arg).to_dict()
    sections = {field.name: field.type for field in dataclasses.fields(ElmoPretrainConfig)} | {"model": ElmoConfig}
    for name, section in sections.items():
        if dataclasses.is_dataclass(section):
            assert values[name].keys() == {field.name for field in dataclasses.fields(section)}, name
    values["objective"]["vocab_size"] = 20_000
    config = build(ElmoPretrainConfig, values)
    assert config.optim.warmup_steps < config.train.num_steps
