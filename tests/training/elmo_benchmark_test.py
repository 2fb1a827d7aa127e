from typing import Any

import numpy as np
import pytest

from bert_jax.models.recurrent import RecurrentConfig
from bert_jax.training.elmo_benchmark import measure_elmo_step, measure_lstm_stacks, zipf_batch
from configs.elmo import get_config


def test_a_made_up_batch_reads_one_text_in_both_directions():
    batch = zipf_batch(3, 5, vocab_size=10**6, max_characters=16)
    # Forward reads words 0 to 4 of 7, backward 6 to 2: the words that both read.
    np.testing.assert_array_equal(batch["word_index"][:, 2:], batch["word_index_reverse"][:, :1:-1])
    np.testing.assert_array_equal(batch["target_ids"], batch["target_ids_reverse"][:, ::-1])
    used = np.unique([batch["word_index"], batch["word_index_reverse"]])
    np.testing.assert_array_equal(used, np.arange(1, len(used) + 1))
    tables = batch["char_ids"][0]
    assert tables[used].all()
    assert not tables[len(used) + 1 :].any()
    assert len(np.unique(tables[used], axis=0)) == len(used)
    assert zipf_batch(3, 5, vocab_size=4, max_characters=16)["target_ids"].max() < 4


def test_made_up_words_repeat_as_often_as_those_of_a_text():
    # Of Wikipedia and books 37 % of the places of 64 lanes, standard deviation 3 %: configs/elmo.py.
    batch = zipf_batch(64, 20, vocab_size=100, max_characters=16)
    distinct = max(batch["word_index"].max(), batch["word_index_reverse"].max())
    assert 0.31 < distinct / (2 * 64 * 20) < 0.43


def tiny_config():
    config: Any = get_config("size=small,preset=smoke")
    config.model.update({"dim": 6, "projection_dim": 5, "max_characters_per_token": 16, "filters": ((1, 4), (2, 4))})
    config.objective.update({"vocab_size": 20, "num_negatives": 0})
    return config


def test_the_steps_figure_says_what_it_depends_on():
    figure = measure_elmo_step(tiny_config(), batch_size=3, unroll_steps=4, warmup_steps=0, timed_steps=2)
    assert figure["tokens_per_second"] == pytest.approx(3 * 4 / figure["seconds_per_step"])
    assert figure["min_seconds_per_step"] <= figure["seconds_per_step"] < figure["first_step_seconds"]
    assert figure["softmax"] == "full"
    assert {"dim", "projection_dim", "dropout", "dtype", "vocab_size", "optimizer", "words", "jax"} <= figure.keys()


def test_parts_of_a_batch_are_refused():
    config = tiny_config()
    config.train.microbatches = 3
    with pytest.raises(ValueError, match="microbatches=3"):
        measure_elmo_step(config, batch_size=3, unroll_steps=4, warmup_steps=0, timed_steps=1)


def test_the_stacks_figure_says_what_it_depends_on():
    config = RecurrentConfig(dim=6, projection_dim=5, dropout=0.0)
    figure = measure_lstm_stacks(config, batch_size=3, unroll_steps=4, warmup_steps=0, timed_steps=2)
    assert figure["tokens_per_second"] == pytest.approx(3 * 4 / figure["seconds_per_step"])
    assert figure["seconds_per_step"] < figure["first_step_seconds"]
    assert {"dim", "projection_dim", "n_layers", "dtype", "batch_size", "unroll_steps", "jax"} <= figure.keys()
    assert "dropout" not in figure
