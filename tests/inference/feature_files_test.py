import json

import h5py
import numpy as np
import pytest

from bert_jax.inference.feature_files import FeatureFile
from bert_jax.inference.features import Features


def line(index, words, seed=0, shape=(3,)):
    vectors = np.random.default_rng(seed).normal(size=(*shape, len(words), 4)).astype(np.float32)
    return Features(index, words, vectors)


LINES = [line(0, ["a", "naïve", "cat"], 0), line(1, []), line(2, ["b"], 1), line(3, ["a", "naïve", "cat"], 0)]
KEYS = {"a naïve cat": "3", "": "1", "b": "2"}


def write(path, lines, names=()):
    with FeatureFile(path, names) as file:
        for each in lines:
            file.add(each)
    assert not [*path.parent.glob("*.unfinished")]


def test_hdf5_has_the_layout_of_bilm_tf_and_allennlp(tmp_path):
    path = tmp_path / "deep" / "vectors.hdf5"
    write(path, LINES)
    with h5py.File(path, "r") as file:
        assert {*file} == {"0", "1", "2", "3", "sentence_to_index"}
        for each in LINES:
            found = np.asarray(file[str(each.index)])
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, each.vectors)
        # As AllenNLP's readers do.
        assert json.loads(file["sentence_to_index"][0]) == KEYS  # pyright: ignore[reportIndexIssue, reportArgumentType]


def test_npz_has_the_same_entries_and_the_same_bytes_each_time(tmp_path):
    for name in ("one.npz", "two.npz"):
        write(tmp_path / name, LINES)
    found = np.load(tmp_path / "one.npz")
    assert {*found} == {"0", "1", "2", "3", "sentence_to_index"}
    for each in LINES:
        np.testing.assert_array_equal(found[str(each.index)], each.vectors)
    assert json.loads(found["sentence_to_index"].item()) == KEYS
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_json_lines_are_googles(tmp_path):
    vectors = np.array([[[0.1234565, -1.0]], [[2.0, 1e-7]]], np.float32)
    write(tmp_path / "a.jsonl", [Features(5, ["[CLS]"], vectors), Features(6, ["é"], vectors)], names=(-1, -2))
    golden = (
        '{"linex_index": 5, "features": [{"token": "[CLS]", "layers": [{"index": -1, "values": [0.123457, -1.0]}, '
        '{"index": -2, "values": [2.0, 0.0]}]}]}\n'
    )
    first, second = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    assert first == golden
    assert '"token": "\\u00e9"' in second


@pytest.mark.parametrize("ending", ["hdf5", "npz", "jsonl"])
def test_an_error_leaves_what_was_there(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    path.write_text("before")

    def failing():
        yield LINES[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(path, failing(), (0, 1, 2))
    assert path.read_text() == "before"
    assert [*tmp_path.iterdir()] == [path]


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends with '.h5'; .hdf5, .npz and .jsonl are written"):
        FeatureFile(tmp_path / "a.h5")
