"""Features against the model on one sentence alone (always) and against bilm-tf's and AllenNLP's (shared data)."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.corpus.characters import CharacterIds
from bert_jax.inference import bert_features as bert_module
from bert_jax.inference import elmo_features as elmo_module
from bert_jax.inference import features
from bert_jax.inference.bert_features import BertFeatures
from bert_jax.inference.elmo_features import ElmoFeatures
from bert_jax.inference.feature_rows import Notes, padded_length, rows_per_batch
from bert_jax.inference.features import FeatureExtractor
from bert_jax.inference.layer_choice import LayerChoice
from bert_jax.interop import name_map
from bert_jax.models.bert import Bert
from bert_jax.models.elmo import Elmo
from bert_jax.models.recurrent import zero_state
from bert_jax.tasks.context_windows import plan_windows
from tests.inference.feature_models import bert_features, elmo_features, tiny_elmo_params, write_elmo
from tests.tasks.tiny_tasks import tiny_weights, write_model

FIXTURES = Path(__file__).parents[2].parent / "shared" / "data" / "elmo_fixture"
SENTENCES = {"allennlp": "sentences.json", "bilm_tf": "lm_embeddings_sentences.json"}
LINES = ["the cat sat on the mat.", "a bad cat", "", "the cat sat on it.", "on"]  # of two padded lengths


@functools.cache
def extractor(kind, **settings):
    """Return one of batches of four: few shapes for all these tests to compile."""
    encoder = elmo_features() if kind == "elmo" else bert_features()
    return FeatureExtractor(encoder, LayerChoice.parse("all", encoder.num_outputs), **{"batch_size": 4, **settings})


def extract(extractor, lines, notes=None):
    notes = notes or Notes()
    return list(extractor.extract(extractor.encode(index, line, False, notes) for index, line in enumerate(lines)))


def bert_alone(ids):
    """Return all layers of one row without padding, by the model itself: [outputs, tokens, width]."""
    weights = tiny_weights()
    row, ones = jnp.asarray(ids)[None], jnp.ones((1, len(ids)), jnp.int32)
    model = Bert(weights.config, add_pooler=False, keep_hidden=True)
    output: Any = jax.jit(model.apply)(
        {"params": name_map.nest(weights.params)},
        input_ids=row,
        input_mask=ones,
        segment_ids=0 * ones,
        position_ids=jnp.arange(len(ids))[None],
        sequence_ids=ones,
        sequence_starts=jnp.zeros((1, 1), jnp.int32),
    )
    return np.asarray(output.all_hidden)[:, 0]


def elmo_alone(words):
    """Return all layers of one sentence, by the model itself: [outputs, words, width]."""
    config, params = tiny_elmo_params()
    output: Any = jax.jit(Elmo(config).apply)({"params": params}, CharacterIds().encode_sentences([words]))
    return np.asarray(output.hidden)[:, 0, 1:-1]


@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
def test_berts_words_are_their_pieces(pooling):
    (found,) = extract(extractor("bert", pooling=pooling), ["The cats sat, boldly."])
    assert found.words == ["the", "cats", "sat", ",", "boldly", "."]
    tokenizer = tiny_weights().tokenizer
    pieces = [tokenizer.encode(word) for word in found.words]
    special = tokenizer.special_ids
    hidden = bert_alone([special["cls"], *np.concatenate(pieces), special["sep"]])
    start = 1
    for index, ids in enumerate(pieces):
        tokens = hidden[:, start : start + len(ids)]
        expected = {"first": tokens[:, 0], "mean": tokens.mean(axis=1), "last": tokens[:, -1]}[pooling]
        np.testing.assert_allclose(found.vectors[:, index], expected, atol=1e-5)
        start += len(ids)
    assert max(map(len, pieces)) > 2


def test_elmos_words_are_the_models():
    (found,) = extract(extractor("elmo"), ["The naïve cat's 東京."])
    assert found.words == ["The", "naïve", "cat", "'", "s", "東", "京", "."]
    np.testing.assert_allclose(found.vectors, elmo_alone(found.words), atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "elmo"])
def test_a_sentence_has_the_same_bits_wherever_it_stands(kind):
    rng = np.random.default_rng(0)
    lines = [LINES[number] for number in rng.integers(0, len(LINES), 40)]
    found = extract(extractor(kind), lines)
    assert [each.index for each in found] == [*range(40)]
    alone = {line: extract(extractor(kind), [line])[0].vectors for line in LINES}
    for line, each in zip(lines, found, strict=True):
        np.testing.assert_array_equal(each.vectors, alone[line])


def test_products_are_float32_on_every_device():
    bert, elmo, choice = bert_features(), elmo_features(), LayerChoice.parse("0", 2)
    ids = np.zeros((1, 4), np.int32)
    names = ("input_ids", "input_mask", "segment_ids", "position_ids", "sequence_ids")
    batch = {**dict.fromkeys(names, ids), "sequence_starts": ids[:, :1]}
    state, tokens = zero_state(elmo.config, 1), np.zeros((1, 4, elmo.config.projection_dim), np.float32)
    for program in (
        bert_module._hidden.lower(bert._model, choice, bert._params, batch),
        elmo_module._encode.lower(elmo.config, elmo._params, np.zeros((2, 50), np.int32)),
        elmo_module._contextualize.lower(elmo.config, choice, elmo._params, tokens, ids == 0, state),
    ):
        products = [line for line in program.as_text().splitlines() if "stablehlo.dot" in line]
        assert products
        assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_padding_depends_on_the_row_alone():
    lengths = np.arange(1, 3000)
    padded = np.array([padded_length(int(length)) for length in lengths])
    assert np.all(padded >= lengths)
    assert np.all(padded - lengths < np.maximum(8, lengths / 2))
    assert sorted({*padded[:512].tolist()}) == [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    assert padded_length(45, limit=46) == 46
    assert [rows_per_batch(length, 32) for length in (8, 512, 1024, 10**6)] == [32, 32, 16, 1]


def test_lines_are_read_as_they_are_needed():
    read = []

    def endless():
        while True:
            read.append(1)
            yield each.encode(len(read) - 1, "the cat", False, Notes())

    each = extractor("bert")
    found = each.extract(endless())
    assert next(found).index == 0
    assert len(read) <= 8


@pytest.mark.parametrize("limit", ["_MAX_WAITING_LINES", "_MAX_WAITING_BYTES"])
def test_a_line_of_a_rare_length_does_not_hold_up_the_others(limit, monkeypatch):
    monkeypatch.setattr(features, limit, {"_MAX_WAITING_LINES": 5, "_MAX_WAITING_BYTES": 1000}[limit])
    read = []

    def lines():
        for index in range(40):
            read.append(index)
            yield each.encode(index, "the cat sat on the mat." if not index else "the cat", False, Notes())

    each = extractor("bert")
    found = each.extract(lines())
    assert next(found).index == 0
    assert len(read) <= 8
    assert [features.index for features in found] == [*range(1, 40)]


def test_a_line_without_words_has_no_vectors():
    notes = Notes()
    for kind, size in (("bert", (2, 0, 16)), ("elmo", (3, 0, 10))):
        (found,) = extract(extractor(kind), [" \t"], notes)
        assert found.vectors.shape == size
    assert notes.lines() == ["2 × an empty line, an entry without words, first in line 1"]


@pytest.mark.parametrize(("kind", "said"), [("bert", "48 tokens"), ("elmo", "46 words")])
def test_a_line_longer_than_a_row_is_read_in_windows(kind, said, monkeypatch):
    room = 46
    monkeypatch.setattr(elmo_module, "_MAX_WORDS", room)
    notes, words = Notes(), [*"abcdefghijklmnopqrstuvwxyz"] * 4
    found, short = extract(extractor(kind), [" ".join(words), "a"], notes)
    assert found.words == words
    assert notes.lines() == [f"1 × a line of more than {said}, read in windows, first in line 1"]
    windows = plan_windows(np.ones(len(words), np.int64), np.array([len(words)]), room)
    assert len(windows) > 2
    for window in windows:
        (alone,) = extract(extractor(kind), [" ".join(words[window.start : window.stop])])
        own = slice(window.own_start - window.start, window.own_stop - window.start)
        np.testing.assert_array_equal(found.vectors[:, window.own_start : window.own_stop], alone.vectors[:, own])
    assert short.vectors.shape[1] == 1


def test_a_line_longer_than_a_row_is_refused_where_state_flows(monkeypatch):
    monkeypatch.setattr(elmo_module, "_MAX_WORDS", 3)
    each = dataclasses.replace(extractor("elmo"), stateful=True)
    with pytest.raises(ValueError, match=r"line 2 has 4 words, more than .*: break the line into several"):
        extract(each, ["the cat", "the cat sat on"])


def test_words_too_long_are_counted():
    notes = Notes()
    extractor("elmo").encoder.encode(4, ["é" * 24, "é" * 25, "a" * 48], notes)
    extractor("bert").encoder.encode(6, ["a" * 60, "b"], notes)
    assert notes.lines() == [
        "1 × a word of more than 48 bytes, the rest of which is not read, first in line 5",
        "1 × a word of more pieces than a row, cut, first in line 7",
        "1 × a line of more than 48 tokens, read in windows, first in line 7",
    ]


def test_pieces_have_vectors_of_their_own():
    encoder = bert_features(unit="piece")
    (found,) = extract(FeatureExtractor(encoder, LayerChoice.parse("-1", 2), batch_size=4), ["The cats."])
    ids = encoder.weights.tokenizer.encode("The cats.")
    assert found.words == encoder.weights.tokenizer.tokens(ids)
    special = encoder.weights.tokenizer.special_ids
    np.testing.assert_allclose(
        found.vectors[0], bert_alone([special["cls"], *ids, special["sep"]])[-1, 1:-1], atol=1e-5
    )


def test_text_and_words_are_split_by_different_hands():
    bert, elmo = extractor("bert"), extractor("elmo")
    text = "The cat's naïve\u00a0ΑΣ. 東京"
    assert bert.encode(0, text, True, Notes()).words == text.split()
    assert elmo.encode(0, text, True, Notes()).words == text.split()
    line = bert.encode(0, text, False, Notes())
    np.testing.assert_array_equal(line.rows[0].tokens[1:-1], tiny_weights().tokenizer.encode(text))


def test_googles_rows_have_their_marks_and_pairs():
    encoder, notes = bert_features(max_seq_length=9), Notes()
    line = encoder.encode_text(0, "The cat ||| sat on", notes)
    assert line.words == ["[CLS]", "the", "cat", "[SEP]", "sat", "on", "[SEP]"]
    assert line.rows[0].segments.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert not notes.lines()
    assert len(encoder.encode_text(1, "a b c d e f g h", notes).words) == 9
    assert encoder.encode_text(2, "", notes).words == ["[CLS]", "[SEP]"]
    assert notes.lines() == ["1 × a line of more than 9 tokens, cut, first in line 2"]
    each = FeatureExtractor(encoder, LayerChoice.parse("-1", 2), batch_size=1)
    (found,) = each.extract([encoder.encode_text(0, "The cat", notes)])
    ids = [encoder.weights.tokenizer.vocab.index(word) for word in found.words]
    np.testing.assert_allclose(found.vectors, bert_alone(ids)[1:], atol=1e-5)


def test_state_flows_from_line_to_line_where_it_is_asked_for():
    words = [["the", "cat"], ["a"], ["sat", "on", "mats"], [], ["on", "it"]]
    found = extract(dataclasses.replace(extractor("elmo"), stateful=True, batch_size=2), map(" ".join, words))
    assert [each.index for each in found] == [*range(5)]
    config, params = tiny_elmo_params()
    apply = jax.jit(Elmo(config).apply)
    for row in range(2):
        state = zero_state(config, 1)
        for index in range(row, 5, 2):
            ids = jnp.asarray(CharacterIds().encode_sentences([words[index]], 5))
            output: Any = apply({"params": params}, ids, state)
            state = output.state
            np.testing.assert_allclose(found[index].vectors, output.hidden[:, 0, 1 : len(words[index]) + 1], atol=1e-5)
    assert np.abs(found[2].vectors - extract(extractor("elmo"), ["sat on mats"])[0].vectors).max() > 0.01


@pytest.mark.shared
@pytest.mark.skipif(not FIXTURES.exists(), reason="needs the shared data")
@pytest.mark.parametrize("name", SENTENCES)
def test_stateful_vectors_are_the_originals(name):
    lists = json.loads((FIXTURES / name / SENTENCES[name]).read_text(encoding="utf-8"))
    lines = [sentence for batch in zip(*lists, strict=True) for sentence in batch]
    encoder = features.load(f"elmo:{FIXTURES / name}")
    extractor = FeatureExtractor(encoder, LayerChoice.parse("-1", encoder.num_outputs), batch_size=3, stateful=True)
    found = list(extractor.extract(extractor.encode(index, line, True, Notes()) for index, line in enumerate(lines)))
    for number in range(3):
        with h5py.File(FIXTURES / name / f"lm_embeddings_{number}.hdf5", "r") as file:
            for index in range(10):
                expected = np.concatenate([*np.asarray(file[str(index)])], axis=-1)
                np.testing.assert_allclose(found[3 * index + number].vectors[0], expected, atol=1e-5)


def test_layers_are_combined_as_asked():
    hidden = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    last, first = hidden[3], hidden[0]

    def found(*arguments):
        return np.asarray(LayerChoice.parse("-1,0", 4, *arguments).apply(jnp.asarray(hidden)))

    np.testing.assert_array_equal(found(), np.stack([last, first]))
    np.testing.assert_array_equal(found("concat"), np.concatenate([last, first], axis=-1)[None])
    np.testing.assert_allclose(found("sum"), (last + first)[None], atol=1e-6)
    np.testing.assert_allclose(found("mean"), (last + first)[None] / 2, atol=1e-6)
    np.testing.assert_allclose(found("mix", (0.25, 2.0), 3.0), 3 * (0.25 * last + 2 * first)[None], atol=1e-5)


def test_combined_layers_have_no_axis_and_half_precision_half_the_size():
    base = extractor("elmo")
    each = dataclasses.replace(base, choice=LayerChoice.parse("all", 3, "concat"), dtype="float16")
    (found,), (full,) = extract(each, ["the cat"]), extract(base, ["the cat"])
    assert found.vectors.dtype == np.float16
    np.testing.assert_array_equal(found.vectors, np.concatenate([*full.vectors], axis=-1).astype(np.float16))
    assert each.shape == (1, 30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("3",), r"the model has no layer 3; layers takes numbers from -3 to 2 with commas between \(0 is the input\)"),
        (("-4",), "the model has no layer -4"),
        (("last",), "layers is 'last'; it takes numbers"),
        (("0,1", "mix", (1.0,)), "mix has 1 weights for 2 layers"),
        (("0", "sum", (1.0,)), "combine is 'sum', which has no weights"),
        (("0", "sun"), "did you mean"),
    ],
)
def test_layers_that_are_not_there_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LayerChoice.parse(arguments[0], 3, *arguments[1:])


def test_settings_that_make_no_sense_are_refused(tmp_path):
    base = extractor("bert")
    for changes, message in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"stateful": True}, "stateful is for ELMo"),
        ({"dtype": "float64"}, "float64"),
        ({"pooling": "max"}, "max"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(base, **changes)
    with pytest.raises(ValueError, match="max_seq_length is 49; the model takes 3 to 48"):
        bert_features(max_seq_length=49)
    with pytest.raises(ValueError, match="is an ELMo, which reads whole words"):
        features.load(write_elmo(tmp_path / "elmo"), unit="piece")


def test_models_are_loaded_by_their_addresses(tmp_path):
    elmo, bert = features.load(write_elmo(tmp_path / "elmo")), features.load(write_model(tmp_path / "bert"))
    assert isinstance(elmo, ElmoFeatures)
    assert isinstance(bert, BertFeatures)
    found = extract(dataclasses.replace(extractor("elmo"), encoder=elmo), ["the cat"])
    np.testing.assert_array_equal(found[0].vectors, extract(extractor("elmo"), ["the cat"])[0].vectors)
    found = extract(dataclasses.replace(extractor("bert"), encoder=bert), ["the cat"])
    np.testing.assert_allclose(found[0].vectors, extract(extractor("bert"), ["the cat"])[0].vectors, atol=1e-6)


def test_words_are_computed_again_when_too_many_were_kept(monkeypatch):
    monkeypatch.setattr("bert_jax.inference.elmo_features._MAX_KEPT_WORDS", 3)
    encoder = elmo_features()
    words = [["a", "b", "c", "d"], ["e", "f"], ["a", "b", "e"]]
    for each in words:
        np.testing.assert_array_equal(encoder._word_vectors(each), elmo_features()._word_vectors(each))
    assert len(encoder._number_of) == 4  # e, f; a, b
