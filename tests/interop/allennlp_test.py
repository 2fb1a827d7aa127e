import json

import h5py
import jax
import numpy as np
import pytest

from bert_jax.interop import allennlp
from bert_jax.models.elmo import Elmo, ElmoConfig
from tests.interop.checkpoint_files_test import LFS_POINTER
from tests.models.elmo_fixture_test import made_up_model
from tests.models.numpy_elmo import load
from tests.models.tiny import random_params

CONFIG = ElmoConfig(
    dim=6, projection_dim=5, n_layers=3, cell_clip=0.0, filters=((1, 3), (2, 4)), character_dim=4, n_highway=1
)


def test_export_and_import_give_the_same_bits(tmp_path):
    params = random_params(Elmo(CONFIG), {"char_ids": np.zeros((1, 2, 50), np.int32)})
    params["character_cnn"]["embedding"] = params["character_cnn"]["embedding"].at[0].set(0.0)
    allennlp.write(tmp_path, CONFIG, params)
    config, again, unread = allennlp.read(tmp_path)
    assert config == CONFIG
    assert not unread
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["options.json", "weights.hdf5"]


@pytest.mark.parametrize("named", [261, 262])
def test_training_and_application_name_different_numbers_of_characters(named, tmp_path):
    options = made_up_model(tmp_path)
    options["char_cnn"]["n_characters"] = named
    (tmp_path / "options.json").write_text(json.dumps(options))
    config, params, _ = allennlp.read(tmp_path)
    assert config.n_characters == 262
    assert not params["character_cnn"]["embedding"][0].any()
    np.testing.assert_array_equal(
        params["character_cnn"]["embedding"][1:], load(tmp_path / "weights.hdf5")["char_embed"]
    )
    assert allennlp.options_of(config)["char_cnn"]["n_characters"] == 262


def test_what_the_model_has_no_place_for_is_named(tmp_path):
    made_up_model(tmp_path)
    with h5py.File(tmp_path / "weights.hdf5", "a") as file:
        file["softmax/W"] = np.zeros((7, 10))
    assert allennlp.read(tmp_path).unread == ("softmax/W",)


def change_options(tmp_path, options):
    options["lstm"]["dim"] = 7


def change_characters(tmp_path, options):
    options["char_cnn"]["n_characters"] = 260


def drop_section(tmp_path, options):
    del options["char_cnn"]


def drop_table(tmp_path, options):
    with h5py.File(tmp_path / "weights.hdf5", "a") as file:
        del file["char_embed"]


def drop_direction(tmp_path, options):
    with h5py.File(tmp_path / "weights.hdf5", "a") as file:
        del file["RNN_1"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_options, r"W_0 is \(20, 24\) and should be \(20, 28\)"),
        (change_characters, "n_characters is 260 and the table has 261 rows"),
        (drop_section, "lacks 'char_cnn'; a character model has"),
        (drop_table, "has no char_embed"),
        (drop_direction, "RNN_1/.* is missing"),
    ],
)
def test_what_does_not_fit_is_refused(damage, message, tmp_path):
    options = made_up_model(tmp_path)
    damage(tmp_path, options)
    (tmp_path / "options.json").write_text(json.dumps(options))
    with pytest.raises(ValueError, match=message):
        allennlp.read(tmp_path)


@pytest.mark.parametrize("name", ["options.json", "weights.hdf5"])
def test_a_damaged_file_is_named_with_what_to_do(name, tmp_path):
    made_up_model(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{name} cannot be read \(.*\); fetch it again"):
        allennlp.read(tmp_path)
    (tmp_path / name).write_bytes(LFS_POINTER)
    with pytest.raises(ValueError, match=f"{name} is a pointer of git-lfs; run `git lfs pull` there"):
        allennlp.read(tmp_path)


def test_a_directory_must_hold_one_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds none that match \*options.json"):
        allennlp.read(tmp_path)
    made_up_model(tmp_path)
    (tmp_path / "old_weights.hdf5").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"old_weights.hdf5, weights.hdf5 that match"):
        allennlp.read(tmp_path)
