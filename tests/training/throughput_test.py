import jax.numpy as jnp
import pytest

from bert_jax.models.bert import BertConfig, named_size
from bert_jax.training.throughput import RowFlops, Throughput, bert_row_flops, count_real_tokens, peak_flops


@pytest.mark.parametrize(
    ("size", "length", "predictions", "gigaflops"),
    [("base", 128, 20, 69.9), ("base", 512, 76, 300.9), ("large", 128, 20, 240.6), ("large", 512, 76, 1019.8)],
)
def test_flops_a_row_are_those_of_the_published_formula(size, length, predictions, gigaflops):
    # The figures were worked out by hand from the formula, with the uncased vocabulary.
    row = bert_row_flops(BertConfig(**named_size(size), vocab_size=30_522), length, predictions)
    assert round(row.flops / 1e9, 1) == gigaflops


@pytest.mark.parametrize(
    ("kind", "peak"),
    [("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("TPU v6 lite", 918e12), ("NVIDIA H200", 989e12), ("cpu", None)],
)
def test_the_peak_is_found_by_the_device_kind(kind, peak):
    assert peak_flops(kind) == peak
    assert peak_flops(kind, declared=1e12) == 1e12


def test_mfu_counts_padding_and_real_mfu_does_not():
    rates = Throughput(RowFlops(1e9, tokens=100), batch_size=10, peak=1e11).rates(
        steps=4, seconds=2.0, real_tokens=1000.0
    )
    assert rates["perf/tokens_per_second"] == 2000
    assert rates["perf/real_tokens_per_second"] == 500
    assert rates["perf/mfu"] == pytest.approx(0.2)
    assert rates["perf/mfu_real"] == pytest.approx(0.05)


def test_without_a_known_peak_there_is_no_mfu():
    rates = Throughput(RowFlops(1e9, 100), 10, None).rates(1, 1.0, 1000.0)
    assert rates["perf/mfu"] is None
    assert rates["perf/mfu_real"] is None


def test_tokens_are_counted_by_the_mask_where_there_is_one():
    assert count_real_tokens({"input_mask": jnp.array([[1, 1, 0], [1, 0, 0]])}) == 3
    assert count_real_tokens({"words": jnp.zeros((4, 5))}) == 20
