from typing import Any

import jax
import numpy as np
import pytest

from bert_jax.tasks.batches import collate
from bert_jax.tasks.task import EncodedRows
from bert_jax.tpu.step_shape import step_shape
from bert_jax.training.benchmark import random_batch
from bert_jax.training.elmo_benchmark import zipf_batch
from configs import bert, elmo, glue, multiple_choice, ner, squad


def forms(batch):
    return {name: (array.shape, array.dtype) for name, array in batch.items()}


def test_bert_pretraining_is_read_without_a_corpus():
    config: Any = bert.get_config("size=large,phase=2,recipe=fast")
    shape = step_shape(config)
    assert (shape.sequence_length, shape.packed, shape.batch_size) == (512, True, 256)
    assert (shape.model.vocab_size, shape.model.padded_vocab_size) == (30522, 30592)
    assert shape.row_flops.flops == pytest.approx(1019.8e9, rel=0.01)  # of a row of BERT-Large by the formula
    predictions = config.masking.max_predictions_per_row
    assert forms(shape.batch(8)) == forms(random_batch(256, 512, predictions, 30522, packed=True))
    assert config.model.vocab_size == 0  # the config stays as it was


def test_elmo_pretraining_has_a_table_of_words_for_each_device_and_microbatch():
    config: Any = elmo.get_config("size=small")
    config.data.batch_size = 12
    shape = step_shape(config)
    assert shape.sequence_length == 20
    assert forms(shape.batch(1)) == forms(zipf_batch(12, 20, 1000, 50))  # as input.streams makes it
    config.train.microbatches = 2
    assert step_shape(config).batch(3)["char_ids"].shape == (6, 1 + 2 * 2 * 20, 50)
    assert set(shape.remat_policies) == {"none"}


def test_fine_tuning_takes_the_longest_rows_of_a_task():
    shape = step_shape(glue.get_config("task=mrpc"))
    one = [np.zeros(128, np.int32)]
    rows = EncodedRows(one, one, {"label_ids": np.zeros(1, np.int32)})
    assert forms(shape.batch(1)) == forms(collate(rows, np.zeros(32, np.int64), 128))
    assert (shape.model.hidden_size, shape.model.num_hidden_layers) == (768, 12)


@pytest.mark.parametrize(
    ("config", "classifier"),
    [
        (glue.get_config("task=mnli"), 3),
        (glue.get_config("task=stsb"), 1),
        (squad.get_config(""), 2),
        (ner.get_config(""), 9),
        (multiple_choice.get_config(""), 1),
        (bert.get_config("size=tiny"), None),
        (elmo.get_config("size=small"), None),
    ],
)
def test_every_family_has_a_loss(config, classifier):
    config.data.batch_size = 4
    shape = step_shape(config)
    objective, batch = shape.objective, shape.batch(2)

    def loss(params, batch):
        return objective.loss(params, objective.init_carry(4), batch, objective.normalizers(batch), None)[0]

    params = jax.eval_shape(lambda: objective.init(0))
    assert jax.eval_shape(loss, params, batch).shape == ()
    if classifier:
        head = next(iter(params["heads"].values()))
        assert head["bias"].shape == (classifier,)


def test_unknown_families_are_refused():
    config: Any = bert.get_config("size=tiny")
    config.family = "xlnet"
    with pytest.raises(ValueError, match="accepted: bert, elmo, glue"):
        step_shape(config)
