import numpy as np
import pytest

from bert_jax.inference.feature_rows import Notes
from bert_jax.inference.word_vectors import FeatureSource, WordVectors
from bert_jax.tasks.conll import read_conll
from tests.tasks.tiny_tasks import tiny_weights, write_files, write_model


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "hf")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ner")
    return read_conll(write_files("ner", directory)["data.train"])


def vectors(address, file, **source):
    return WordVectors.load(FeatureSource(address, **source)).of(file, Notes())


def test_every_sentence_has_a_vector_a_word_of_each_layer(address, file):
    found = vectors(address, file, layers="0,-1")
    assert [array.shape for array in found] == [(2, len(s.words), 16) for s in file.sentences]
    side_by_side = vectors(address, file, layers="0,-1", combine="concat")
    np.testing.assert_allclose(side_by_side[3][0], np.concatenate(list(found[3]), axis=-1), rtol=1e-6)


def test_the_document_is_context_unless_it_is_not_wanted(address, file):
    with_it, without = vectors(address, file), vectors(address, file, document_context=False)
    assert [array.shape for array in with_it] == [array.shape for array in without]
    assert not np.allclose(with_it[1], without[1], atol=1e-3)


def test_static_vectors_are_the_same_wherever_a_word_stands(address, file):
    found = vectors(address, file, layers="word_embeddings")
    cats = [array[0, s.words.index("cat")] for array, s in zip(found, file.sentences, strict=True) if "cat" in s.words]
    assert len(cats) > 2
    np.testing.assert_allclose(cats, np.broadcast_to(cats[0], np.shape(cats)), atol=1e-6)
    weights = tiny_weights()
    piece = weights.tokenizer.encode_many(["cat"])[0][0]
    row = weights.params["embeddings/word_embeddings"][piece]
    norm = {name: weights.params[f"embeddings/layer_norm/{name}"] for name in ("scale", "bias")}
    expected = (row - row.mean()) / row.std() * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(cats[0], expected, atol=1e-4)


def test_wrong_sources_are_refused(address):
    with pytest.raises(ValueError, match=r"config\.features\.checkpoint is empty"):
        FeatureSource("")
    with pytest.raises(ValueError, match="the model has no layer 7"):
        WordVectors.load(FeatureSource(address, layers="7"))
