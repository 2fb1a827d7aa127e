import numpy as np
import pytest

from bert_jax.corpus import characters
from bert_jax.corpus.characters import CharacterIds


def plain_ids(word, max_characters=50):
    """bilm-tf's ids, byte by byte, and one more."""
    codes = [258, *word.encode("utf-8", "ignore")[: max_characters - 2], 259]
    return [code + 1 for code in codes + [260] * (max_characters - len(codes))]


def test_a_word_is_its_bytes_between_its_marks():
    ids = CharacterIds().encode_words(["cat"])
    assert ids.dtype == np.int32
    assert ids[0].tolist() == [259, ord("c") + 1, ord("a") + 1, ord("t") + 1, 260] + [261] * 45


@pytest.mark.parametrize("word", ["é", "東京", "\N{GRINNING FACE}", "x" * 48, "x" * 49, "é" * 40, "a\ud800b", "a b"])
def test_all_words_are_bilm_tfs(word):
    assert CharacterIds().encode_words([word])[0].tolist() == plain_ids(word)


def test_marks_of_a_sentence_are_words_of_one_mark():
    begin, end, mask = CharacterIds().encode_words(["<S>", "</S>", ""]).tolist()
    assert begin == [259, 257, 260] + [261] * 47
    assert end == [259, 258, 260] + [261] * 47
    assert mask == [0] * 50


def test_repeated_and_known_words_get_the_same_ids():
    encoder = CharacterIds()
    words = ["a", "b", "a", "c" * 60, "b", "<S>"]
    first = encoder.encode_words(words)
    np.testing.assert_array_equal(first, encoder.encode_words(words))
    np.testing.assert_array_equal(first[:5], [plain_ids(word) for word in words[:5]])


def test_the_cache_is_emptied_when_it_is_full(monkeypatch):
    monkeypatch.setattr(characters, "_MAX_WORDS", 5)
    encoder = CharacterIds()
    for start in range(0, 40, 4):
        words = [f"word{number}" for number in range(start, start + 4)]
        assert encoder.encode_words(words).tolist() == [plain_ids(word) for word in words]
        assert len(encoder._number_of) <= 3 + 8


def test_what_was_handed_out_does_not_change():
    encoder = CharacterIds()
    first = encoder.encode_words(["a"])
    first[:] = 0
    assert encoder.encode_words(["a"])[0].tolist() == plain_ids("a")


def test_sentences_stand_between_their_marks_and_are_padded_with_zeros():
    ids = CharacterIds().encode_sentences([["a", "b"], []])
    assert ids.shape == (2, 4, 50)
    assert ids[:, :, 1].tolist() == [[257, ord("a") + 1, ord("b") + 1, 258], [257, 258, 0, 0]]
    assert CharacterIds().encode_sentences([["a"]], num_words=7).shape == (1, 7, 50)


def test_too_long_sentences_are_refused():
    with pytest.raises(ValueError, match="a sentence of 3 words takes 5 places and rows have 4"):
        CharacterIds().encode_sentences([["a", "b", "c"]], num_words=4)


def test_other_widths():
    assert CharacterIds(6).encode_words(["abcdefgh"])[0].tolist() == plain_ids("abcdefgh", 6)
    with pytest.raises(ValueError, match="max_characters is 2; a word takes 3 or more"):
        CharacterIds(2)
