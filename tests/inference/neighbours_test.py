import numpy as np
import pytest

from bert_jax.inference.feature_rows import Notes
from bert_jax.inference.features import FeatureExtractor
from bert_jax.inference.layer_choice import LayerChoice
from bert_jax.inference.neighbours import Occurrence, Search, Senses, find_senses, spread
from tests.inference.feature_models import bert_features, elmo_features

TEXT = ["the cat sat", "a mat.", "", "on the CAT, the cat", "cats sat", "a cat on it"]


def extractor(kind="bert", layers="-1", combine="none"):
    encoder = bert_features() if kind == "bert" else elmo_features()
    return FeatureExtractor(encoder, LayerChoice.parse(layers, encoder.num_outputs, combine), batch_size=4)


def find(extractor, word="cat", contexts=(), text=TEXT, **search):
    return find_senses(extractor, enumerate(text, 1), word, contexts, Search(**search))


@pytest.mark.parametrize("kind", ["bert", "elmo"])
def test_every_occurrence_is_found_with_its_vector(kind):
    each = extractor(kind)
    senses = find(each, word="Cat")
    assert [(o.line, o.position) for o in senses.occurrences] == [(1, 1), (4, 2), (4, 5), (6, 1)]
    assert senses.occurrences[1].words[2] == ("cat" if kind == "bert" else "CAT")
    (line,) = each.extract([each.encode(0, TEXT[3], False, Notes())])
    expected = line.vectors[0, [2, 5]]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(senses.vectors[1:3], expected, atol=1e-6)


def test_the_same_context_is_the_nearest():
    senses = find(extractor(), contexts=["A cat on it", "the cat sat, the cat"])
    assert senses.num_in_text == 4
    assert [o.line for o in senses.occurrences] == [1, 4, 4, 6, 0, 0]
    assert list(senses.queries) == [4, 5]
    best, *others = senses.neighbours(4, top_k=3)
    assert best.occurrence.line == 6
    assert best.similarity == pytest.approx(1.0, abs=1e-6)
    assert len(others) == 2
    assert all(each.occurrence.line for each in others)
    assert senses.groups()[3] == 0


def test_neighbours_are_those_of_the_largest_cosine():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    senses = Senses([Occurrence(["cat"], 0, line) for line in range(1, 7)], vectors, [2], 6)
    found = senses.neighbours(2, top_k=9)
    assert 3 not in [each.occurrence.line for each in found]
    cosines = {line: float(vectors[line - 1] @ vectors[2]) for line in (1, 2, 4, 5, 6)}
    assert [each.occurrence.line for each in found] == sorted(cosines, key=lambda line: -cosines[line])
    np.testing.assert_allclose([each.similarity for each in found], sorted(cosines.values(), reverse=True))


def test_what_stands_for_all_is_one_of_each_kind():
    rng = np.random.default_rng(0)
    kinds = np.repeat([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [9, 5, 3], axis=0)
    vectors = kinds + rng.normal(0, 0.05, kinds.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = spread(vectors, 3)
    assert sorted(int(kinds[number].argmax()) for number in chosen) == [0, 1, 2]
    assert spread(vectors[:2], 5) in ([0, 1], [1, 0])


def test_the_plane_has_the_two_largest_components():
    rng = np.random.default_rng(0)
    scales = np.array([0.1, 3.0, 0.2, 1.0])
    vectors = rng.normal(size=(200, 4)) * scales + 5
    points, shares = Senses([], vectors, [], 0).plane()
    centred = vectors - vectors.mean(axis=0)
    for column, axis in ((0, 1), (1, 3)):
        assert abs(np.corrcoef(points[:, column], centred[:, axis])[0, 1]) > 0.99
    np.testing.assert_allclose((points**2).sum(axis=0) / (centred**2).sum(), shares, rtol=1e-6)
    flipped, _ = Senses([], -vectors, [], 0).plane()
    np.testing.assert_allclose(np.abs(flipped), np.abs(points), atol=1e-6)
    single, _ = Senses([], np.ones((2, 1)), [], 0).plane()
    assert single.shape == (2, 2)


def test_a_context_is_shown_with_the_word_in_brackets():
    words = [*"abcdefg"]
    assert Occurrence(words, 3, 1).text(2) == "… b c [d] e f …"
    assert Occurrence(words, 0, 1).text(9) == "[a] b c d e f g"


def test_reading_ends_where_enough_was_found():
    def endless():
        number = 0
        while True:
            number += 1
            yield number, "the cat"

    assert find_senses(extractor(), endless(), "cat", [], Search(max_contexts=6)).num_in_text == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"word": "dog"}, "the text has 'dog' 0 times"),
        ({"word": "mat"}, "the text has 'mat' 1 times"),
        ({"word": "a cat"}, r"'a cat' is 2 words for the model \(a cat\)"),
        ({"word": " "}, "is 0 words"),
        ({"contexts": ["the cat", "a mat"]}, "the context 'a mat' has no 'cat'"),
        ({"max_contexts": 1}, "max_contexts is 1; it takes 2 or more"),
        ({"num_queries": 0}, "num_queries is 0"),
    ],
)
def test_what_cannot_be_found_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        find(extractor(), **arguments)


def test_several_layers_are_compared_as_one():
    with pytest.raises(ValueError, match="2 vectors a word cannot be compared"):
        find(extractor(layers="all"))
    assert find(extractor(layers="all", combine="concat")).vectors.shape == (4, 32)
