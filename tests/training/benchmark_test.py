from typing import Any

import numpy as np
import pytest

from bert_jax.training.benchmark import measure_train_step, random_batch
from configs.bert import get_config


def test_random_batches_mask_distinct_real_tokens():
    batch = random_batch(4, 16, 3, vocab_size=50)
    positions = batch["masked_lm_positions"]
    assert (np.diff(positions, axis=1) > 0).all()
    np.testing.assert_array_equal(np.take_along_axis(batch["input_ids"], positions, 1), batch["masked_lm_ids"])
    np.testing.assert_array_equal(batch["position_ids"][0], np.arange(16))
    assert batch["input_mask"].all()


def test_packed_rows_hold_two_sequences_and_places_for_more():
    batch = random_batch(2, 16, 3, vocab_size=50, packed=True)
    assert batch["sequence_starts"].shape == (2, 8)
    np.testing.assert_array_equal(batch["sequence_starts"][0, :3], [0, 8, 0])
    np.testing.assert_array_equal(batch["sequence_ids"][0], [1] * 8 + [2] * 8)
    np.testing.assert_array_equal(batch["position_ids"][0], [*range(8), *range(8)])
    np.testing.assert_array_equal(batch["next_sentence_weights"].sum(1), [2, 2])


@pytest.mark.parametrize("name", ["mine", "nsp-128-sorted"])
def test_a_set_whose_name_does_not_say_its_shape_is_refused(name):
    config: Any = get_config("size=tiny")
    config.data.instances = name
    with pytest.raises(ValueError, match="nsp-512-packed"):
        measure_train_step(config, batch_size=2, warmup_steps=0, timed_steps=1)


def test_the_figure_says_what_it_depends_on():
    config: Any = get_config("size=tiny")
    config.model.update({"hidden_size": 16, "intermediate_size": 32, "vocab_size": 60})
    config.masking.max_predictions_per_row = 4
    config.data.instances = "nsp-128-packed"
    figure = measure_train_step(config, batch_size=2, warmup_steps=0, timed_steps=2, peak_flops_per_device=1e12)
    assert figure["tokens_per_second"] == pytest.approx(2 * 128 / figure["seconds_per_step"])
    assert figure["mfu"] == pytest.approx(figure["tflops_per_second"])
    assert figure["packed"]
    for name in (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "dtype",
        "vocab_size",
        "clip_norm",
        "optimizer",
    ):
        assert name in figure


def test_a_batch_that_microbatches_do_not_divide_is_refused():
    config: Any = get_config("size=tiny")
    config.train.microbatches = 3
    with pytest.raises(ValueError, match="multiple of 3"):
        measure_train_step(config, batch_size=4, warmup_steps=0, timed_steps=1)
