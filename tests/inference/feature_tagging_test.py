import numpy as np
import pytest

from bert_jax.inference.feature_tagging import TaggerTrainer
from configs import tagger
from tests.tasks.tiny_tasks import write_files, write_model


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tagging")
    files = write_files("ner", directory / "ner")
    config = tagger.get_config("preset=smoke")
    values = {
        "features.checkpoint": write_model(directory / "hf"),
        "features.layers": "0,1",
        "num_epochs": 16,
        "data.batch_size": 8,
        "data.max_buckets": 1,
        "data.max_train_sentences": 0,
        "optim.peak_learning_rate": 2e-2,
        "model.dropout": 0.0,
    }
    config.update_from_flattened_dict(files | values)
    return TaggerTrainer(config, lambda line: None)


def test_a_tagger_learns_its_training_file(trainer):
    result = trainer.run(0)
    assert result["last"]["f1"] == 1.0  # every cat is a pet
    assert result["best_metric"] == "f1"
    assert result["overrides"] == {"seed": 0}
    assert np.isclose(sum(result["layer_weights"]), 1.0)


def test_a_batch_has_each_sentence_padded_and_nothing_where_there_is_none(trainer):
    train = trainer.splits["train"]
    batch = train.batch(np.array([1, -1]), 8)
    words = int(train.lengths[1])
    assert batch["vectors"].shape == (2, 2, 8, 16)
    assert batch["lengths"].tolist() == [words, 0]
    np.testing.assert_array_equal(batch["vectors"][0, :, :words], train.vectors[1])
    assert (batch["label_ids"][1] == -1).all()
