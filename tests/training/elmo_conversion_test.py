import json

import h5py
import jax
import numpy as np
import pytest

from bert_jax.interop import allennlp
from bert_jax.interop.weights import Beside
from bert_jax.models.elmo import Elmo
from bert_jax.training import addresses, checkpoint
from bert_jax.training.conversion import convert
from bert_jax.training.sharding import unbox
from tests.training.elmo_runs import pretrain
from tests.training.tiny import assert_trees_equal
from tests.word_streams import make_stream_corpus, tiny_elmo


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A directory as bilm-tf writes one, with a softmax besides."""
    directory = tmp_path_factory.mktemp("released")
    config = tiny_elmo()
    shapes = unbox(jax.eval_shape(Elmo(config).init, jax.random.key(0), np.zeros((1, 1, 50), np.int32)))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    params["character_cnn"]["embedding"][0] = 0.0
    allennlp.write(directory, config, params)
    with h5py.File(directory / "weights.hdf5", "a") as file:
        file.create_dataset("softmax/W", data=np.zeros((7, 5), np.float32))
    return directory


def test_released_files_become_a_run_and_the_same_files_again(released, tmp_path):
    done = convert(f"elmo:{released}", f"run:{tmp_path}/run")
    assert "left out: softmax/W" in done.lines()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["converted_from"] == f"elmo:{released}"
    convert(f"run:{tmp_path}/run", f"elmo:{tmp_path}/back")
    assert_trees_equal(allennlp.read(tmp_path / "back").params, allennlp.read(released).params)
    assert (tmp_path / "back" / "options.json").read_text() == (released / "options.json").read_text()


def test_a_training_begins_with_released_weights(released, tmp_path, capsys):
    corpus = make_stream_corpus(tmp_path / "corpus")
    fresh = {"init_from": f"elmo:{released}", "train.num_steps": 1, "optim.peak_learning_rate": 0.0}
    assert pretrain(corpus, tmp_path / "run", **fresh) == 0
    assert "new, not in the checkpoint: softmax/bias, softmax/embedding" in capsys.readouterr().err
    params = checkpoint.load_params(f"run:{tmp_path}/run")
    assert_trees_equal(params["elmo"], allennlp.read(released).params)
    # What was trained goes to the files of others, and its vocabulary with it.
    convert(f"run:{tmp_path}/run", f"elmo:{tmp_path}/mine")
    assert_trees_equal(allennlp.read(tmp_path / "mine").params, params["elmo"])
    assert (tmp_path / "mine" / "vocab.txt").read_text().split()[:3] == ["<S>", "</S>", "<UNK>"]


def test_models_are_not_mixed_up(released, tmp_path):
    with pytest.raises(ValueError, match="is an ELMo; a BERT is read here"):
        addresses.load(f"elmo:{released}")
    with pytest.raises(ValueError, match="an ELMo is written to elmo:DIR or run:DIR"):
        convert(f"elmo:{released}", f"hf:{tmp_path}/hf")
    with pytest.raises(ValueError, match="are for BERT"):
        convert(f"elmo:{released}", f"run:{tmp_path}/run", Beside(do_lower_case=True))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        convert(f"elmo:{released}", f"run:{tmp_path}/there")
