import dataclasses
from typing import Any

import pytest

from bert_jax.models.bert import BertConfig
from bert_jax.training.evaluation import EvalConfig
from bert_jax.training.pretraining import PretrainConfig, build_config, evaluate_checkpoint, make_job
from bert_jax.training.reference_curve import ReferenceCurve
from configs import bert
from tests.training.runs import tiny_config


@pytest.fixture
def config(tiny_instances):
    return tiny_config(tiny_instances)


def test_the_vocabulary_size_is_the_corpus_tokenizers(config):
    assert build_config(config).model.vocab_size == 64


def test_a_fitting_config_makes_a_job(config):
    job = make_job(build_config(config))
    assert job.batch_size == 8
    batches = job.batches(3)
    assert next(batches)["input_ids"].shape == (8, 32)
    batches.close()


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        ({"data.corpus": "nowhere"}, FileNotFoundError, r"'nowhere' is not a prepared corpus; run .*launch\.prepare"),
        ({"data.instances": "nsp-64"}, FileNotFoundError, "it has nsp-32"),
        ({"model.vocab_size": 30_522}, ValueError, "has 64 word pieces; use 0"),
        ({"model.max_position_embeddings": 16}, ValueError, "rows of 32 tokens.*max_position_embeddings is 16"),
        ({"masking.masked_fraction": 0.9}, ValueError, "29 predictions a row, more than max_predictions_per_row 20"),
        ({"masking.unit": "next"}, ValueError, "config.model.causal is false: .* set config.model.causal=true"),
        ({"masking.unit": "next", "model.causal": True}, ValueError, "the next of 32 tokens are 31 predictions a row"),
        ({"data.batch_size": 7, "train.microbatches": 2}, ValueError, "use a multiple of 2"),
        ({"mesh.tensor": 3}, ValueError, "does not fit"),
        ({"optim.warmup_steps": 20}, ValueError, "warmup_steps is 20 of .* would only rise"),
        ({"optim.name": "sgd"}, ValueError, "accepted: adamw_bert"),
        ({"model.hidden": 3}, ValueError, "hidden is unknown; accepted: hidden_size"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(config, overrides, error, text):
    with config.unlocked():
        config.update_from_flattened_dict(overrides)
        if "model.hidden" in overrides:
            config.model["hidden"] = 3
    with pytest.raises(error, match=text):
        make_job(build_config(config))


def test_a_corpus_without_pairs_needs_an_objective_without_next_sentences(make_instances):
    corpus = make_instances("none-32", pairs="none")
    config = tiny_config(corpus, instances="none-32")
    with pytest.raises(ValueError, match="has no sentence pairs"):
        make_job(build_config(config))
    config.objective.next_sentence = False
    make_job(build_config(config))


def test_evaluating_what_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        evaluate_checkpoint(f"run:{tmp_path}", "", EvalConfig(0, 0, 8))


@pytest.mark.parametrize(
    "arg",
    [
        "", "size=demo", "size=large,phase=2", "recipe=fast", "optimizer=lamb", "preset=one_gpu,size=large",
        "preset=one_gpu,optimizer=lamb",
        "preset=laptop,size=mini,vocab=uncased", "preset=smoke,size=3-768-12",
    ],
)  # fmt: skip
def test_every_published_config_has_values_that_the_dataclasses_take(arg, tiny_instances):
    config: Any = bert.get_config(arg)
    config.data.corpus = str(tiny_instances)
    config.model.vocab_size = 0
    built = build_config(config)
    assert built.optim.warmup_steps < built.train.num_steps
    assert built.family == "bert"


@pytest.mark.parametrize(("arg", "rows"), [("size=base", 8.4e6), ("size=large", 2.75e6), ("size=base,phase=2", 2e6)])
def test_one_gpu_is_25_minutes_at_the_assumed_rates(arg, rows):
    config: Any = bert.get_config(f"{arg},preset=one_gpu")
    assert config.train.num_steps * config.data.batch_size == pytest.approx(rows, rel=0.1)


def test_every_setting_stands_in_the_config_file_so_that_a_flag_can_change_it():
    config = bert.get_config().to_dict()
    sections = {field.name: field.type for field in dataclasses.fields(PretrainConfig)} | {"model": BertConfig}
    for name, section in sections.items():
        if dataclasses.is_dataclass(section):
            assert config[name].keys() == {field.name for field in dataclasses.fields(section)}, name


def test_the_config_says_what_it_does_not_accept():
    with pytest.raises(ValueError, match="accepted: paper, fast"):
        bert.get_config("recipe=faster")
    with pytest.raises(ValueError, match="recipe=small is tuned for adamw"):
        bert.get_config("size=demo,optimizer=lamb")
    with pytest.raises(ValueError, match="accepted: 1, 2"):
        bert.get_config("phase=3")


def test_the_demo_has_a_reference_curve_of_its_length():
    config: Any = bert.get_config("size=demo")
    curve = ReferenceCurve.load(config.train.reference_curve)
    # Rows of 64 that are not all full, 32 a step, as far as the demo goes.
    assert curve.expected(0.9 * config.train.num_steps * 32 * 64) is not None
    assert curve.expected(1.0 * config.train.num_steps * 32 * 64) is None
    shorter: Any = bert.get_config("size=demo,preset=laptop")
    assert not shorter.train.reference_curve


def test_narrow_models_begin_with_the_spread_of_base_and_a_rate_by_their_width():
    sizes = ("demo", "2-768-12", "4-128-4", "base")
    configs: Any = [bert.get_config(f"size={size},recipe=small,preset=laptop") for size in sizes]
    demo, wide, deep, base = configs
    assert demo.model.hidden_size == deep.model.hidden_size == 128
    assert wide.model.initializer_range == pytest.approx(0.02)
    assert demo.optim.peak_learning_rate == pytest.approx(6 * wide.optim.peak_learning_rate)
    # Deeper than two layers.
    assert deep.model.initializer_range == base.model.initializer_range == 0.02
    assert deep.optim.peak_learning_rate == pytest.approx(0.4 * demo.optim.peak_learning_rate)
    assert deep.optim.peak_learning_rate == pytest.approx(6 * base.optim.peak_learning_rate)
    # Narrower than 128: the rate goes with the spread; the deeper ones keep both.
    narrow, both = (bert.get_config(f"size={size},recipe=small,preset=laptop") for size in ("1-32-2", "4-64-4"))
    assert narrow.optim.peak_learning_rate == pytest.approx(2 * demo.optim.peak_learning_rate)
    assert narrow.model.initializer_range == pytest.approx(2 * demo.model.initializer_range)
    assert both.optim.peak_learning_rate == pytest.approx(deep.optim.peak_learning_rate)
    assert both.model.initializer_range == deep.model.initializer_range
    assert demo.to_dict() == bert.get_config("size=demo,preset=laptop").to_dict()
    for config in (wide, deep, base):
        assert config.model.attention_init == "mimetic"
        assert config.model.position_initializer_range == 4 * config.model.initializer_range
    for config in (demo, bert.get_config("size=base")):
        assert (config.model.attention_init, config.model.position_initializer_range) == ("normal", 0.0)


def test_the_sweep_has_the_six_sizes_of_table_6():
    runs = []
    bert.sweep(lambda **overrides: runs.append(overrides))
    assert [run["model.num_hidden_layers"] for run in runs] == [3, 6, 6, 12, 12, 24]
