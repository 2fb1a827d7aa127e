"""ELMo against the originals' outputs (shared data) and against an independent numpy version (always)."""

import functools
import json
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
import pytest

from bert_jax.corpus.characters import CharacterIds
from bert_jax.interop import allennlp
from bert_jax.models.elmo import Elmo, ElmoOutput
from bert_jax.models.recurrent import zero_state
from tests.models.numpy_elmo import NumpyElmo, load

FIXTURES = Path(__file__).parents[2].parent / "shared" / "data" / "elmo_fixture"
SENTENCES = {"allennlp": "sentences.json", "bilm_tf": "lm_embeddings_sentences.json"}
WORDS = ["The", "café's", "naïve", "東京", "<S>", "x", "a-word-of-more-than-forty-eight-bytes-which-is-cut-in-ELMo"]

shared = pytest.mark.skipif(not FIXTURES.exists(), reason="needs the shared data")


@functools.cache
def compiled(config):
    return jax.jit(Elmo(config).apply)


def represent(directory, batches, carried=True):
    """Return the numpy layers of every batch of sentences, without the marks, state carried between batches."""
    config, params, _ = allennlp.read(directory)
    encoder, num_words = CharacterIds(), 2 + max(len(words) for batch in batches for words in batch)
    state, found = zero_state(config, len(batches[0])), []
    for batch in batches:
        output: Any = compiled(config)({"params": params}, encoder.encode_sentences(batch, num_words), state)
        assert isinstance(output, ElmoOutput)
        state = output.state if carried else state
        found.append([np.asarray(output.hidden)[:, row, 1 : len(words) + 1] for row, words in enumerate(batch)])
    return found


@pytest.fixture(scope="module", params=SENTENCES)
def fixture(request):
    """A fixture's directory, its batches of three sentences, and what we make of them."""
    directory = FIXTURES / request.param
    lists = json.loads((directory / SENTENCES[request.param]).read_text(encoding="utf-8"))
    batches = [[sentence.split() for sentence in batch] for batch in zip(*lists, strict=True)]
    return directory, batches, represent(directory, batches)


@shared
@pytest.mark.shared
def test_the_top_layer_is_the_originals(fixture):
    directory, batches, found = fixture
    for number in range(3):
        with h5py.File(directory / f"lm_embeddings_{number}.hdf5", "r") as file:
            for index in range(len(batches)):
                forward, backward = np.asarray(file[str(index)])
                expected = np.concatenate([forward, backward], axis=-1)
                np.testing.assert_allclose(found[index][number][-1], expected, atol=1e-5)


@shared
@pytest.mark.shared
def test_all_layers_are_the_numpy_versions(fixture):
    directory, batches, found = fixture
    options = json.loads((directory / "options.json").read_text(encoding="utf-8"))
    weights = load(directory / "lm_weights.hdf5")
    for row in range(3):
        oracle = NumpyElmo(options, weights)
        for index, batch in enumerate(batches):
            np.testing.assert_allclose(found[index][row], oracle.sentence(batch[row]), atol=1e-5)


@shared
@pytest.mark.shared
def test_without_carried_state_only_the_first_batch_is_the_originals(fixture):
    directory, batches, found = fixture
    fresh = represent(directory, batches, carried=False)
    np.testing.assert_array_equal(fresh[0][0], found[0][0])
    assert np.abs(fresh[1][0][-1] - found[1][0][-1]).max() > 0.01


@shared
@pytest.mark.shared
def test_token_vectors_are_allennlps():
    directory = FIXTURES / "allennlp"
    config, params, _ = allennlp.read(directory)
    words = (directory / "vocab_test.txt").read_text(encoding="utf-8").split("\n")
    with h5py.File(directory / "elmo_token_embeddings.hdf5", "r") as file:
        expected = np.asarray(file["embedding"])
    ids = CharacterIds().encode_words(words[: len(expected)])
    found: Any = jax.jit(lambda ids: Elmo(config).apply({"params": params}, ids, method="encode"))(ids)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@shared
@pytest.mark.shared
@pytest.mark.parametrize("name", SENTENCES)
def test_export_gives_the_originals_datasets_bit_for_bit(name, tmp_path):
    config, params, _ = allennlp.read(FIXTURES / name)
    allennlp.write(tmp_path, config, params)
    written, original = load(tmp_path / "weights.hdf5"), load(FIXTURES / name / "lm_weights.hdf5")
    assert written.keys() == original.keys()
    for dataset, values in original.items():
        np.testing.assert_array_equal(written[dataset], values)


def made_up_model(directory, *, skip=True, activation="relu", features=10, n_highway=2, clip=0.5):
    """Write options.json and weights.hdf5 of a small random model, dataset by dataset."""
    rng = np.random.default_rng(0)
    filters, dim, size = [[1, 3], [3, 7]], 6, features
    options = {
        "lstm": {
            "dim": dim, "projection_dim": size, "n_layers": 2, "cell_clip": clip, "proj_clip": clip,
            "use_skip_connections": skip,
        },
        "char_cnn": {
            "embedding": {"dim": 4}, "filters": filters, "n_highway": n_highway, "n_characters": 261,
            "max_characters_per_token": 50, "activation": activation,
        },
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"char_embed": (261, 4)}
    for index, (width, count) in enumerate(filters):
        shapes |= {f"CNN/W_cnn_{index}": (1, width, 4, count), f"CNN/b_cnn_{index}": (count,)}
    for index in range(n_highway):
        for part in ("carry", "transform"):
            shapes |= {f"CNN_high_{index}/W_{part}": (10, 10), f"CNN_high_{index}/b_{part}": (10,)}
    if size != 10:
        shapes |= {"CNN_proj/W_proj": (10, size), "CNN_proj/b_proj": (size,)}
    for direction in range(2):
        for layer in range(2):
            cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shapes |= {f"{cell}/W_0": (2 * size, 4 * dim), f"{cell}/B": (4 * dim,), f"{cell}/W_P_0": (dim, size)}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "options.json").write_text(json.dumps(options), encoding="utf-8")
    with h5py.File(directory / "weights.hdf5", "w") as file:
        for name, shape in shapes.items():
            file[name] = rng.normal(size=shape).astype(np.float32)
    return options


@pytest.mark.parametrize(
    "kind",
    [{}, {"skip": False}, {"activation": "tanh", "features": 5}, {"n_highway": 0, "clip": None, "features": 4}],
    ids=["", "no skip", "tanh, projected", "no highway, no clips"],
)
def test_a_made_up_model_gives_what_numpy_gives(kind, tmp_path):
    options = made_up_model(tmp_path, **kind)
    batches = [[WORDS, WORDS[:2]], [WORDS[3:], WORDS[::-1]]]
    found = represent(tmp_path, batches)
    for row in range(2):
        oracle = NumpyElmo(options, load(tmp_path / "weights.hdf5"))
        for index, batch in enumerate(batches):
            np.testing.assert_allclose(found[index][row], oracle.sentence(batch[row]), rtol=1e-5, atol=2e-5)
