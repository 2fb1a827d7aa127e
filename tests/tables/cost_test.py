from typing import Any

import jax
import pytest

from bert_jax.models.bert import VOCAB_SIZES, BertConfig, named_size
from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.tables.cost import Estimate, bert_parameters, finetuning_flops, format_hours, pretraining_flops


@pytest.mark.parametrize(
    ("size", "published"),
    [("3-768-12", 46_315_580), ("12-768-12", 110_106_428), ("24-1024-16", 336_226_108), ("2-128-2", 4_433_468)],
)
def test_parameters_are_the_published_counts(size, published):
    assert bert_parameters(BertConfig(**named_size(size), vocab_size=VOCAB_SIZES["uncased"])) == published


@pytest.mark.parametrize("next_sentence", [True, False])
def test_parameters_are_those_of_the_model(next_sentence):
    config = BertConfig(**named_size("2-16-2"), vocab_size=50)
    params = MaskedLmObjective(config, next_sentence).abstract_params()
    assert bert_parameters(config, next_sentence) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_flops_are_those_of_the_formula():
    base = BertConfig(**named_size("base"), vocab_size=30_522)
    assert pretraining_flops(base, 128, 20, 10.0) == pytest.approx(10 * 69.9e9, rel=1e-3)
    assert finetuning_flops(base, 128.0, 10.0) == pytest.approx(pretraining_flops(base, 128, 0, 10.0))


def test_hours_are_of_the_named_device():
    assert Estimate("TPU v5e", 8, 0.5).seconds(197e12 * 8) == pytest.approx(2.0)
    laptop = Estimate("a laptop", flops_per_second=1e9, seconds_per_unit=5.0)
    assert laptop.seconds(1e10) == pytest.approx(15)
    assert laptop.describe() == "a laptop at 1 GFLOP/s and 5 s a unit"
    assert [format_hours(90.0), format_hours(7200.0)] == ["1.5 min", "2.0 h"]
    with pytest.raises(ValueError, match=r"config.estimate.device is 'TPU v9'; give one of TPU v2"):
        Estimate("TPU v9")
    wrongs: list[dict[str, Any]] = [{"mfu": 0.0}, {"num_devices": 0}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"config\.estimate\..* is 0.*; use a number above 0"):
            Estimate("TPU v5e", **wrong)
