"""The cache of words must change nothing but the time."""

import random

import pytest

from bert_jax.corpus import vocabulary, word_cache
from tests.corpus.golden import make_wordpiece


def random_texts(count, seed):
    rng = random.Random(seed)
    words = [
        "unaffable",
        "houses",
        "The",
        "thé",
        "中文",
        "a\u200bb",
        "x\x85y",
        "\x0b",
        "\0",
        "[MASK]",
        "σΣ",
        "Σ.Σ",
        "don't",
    ]
    words += [
        "\ud800",
        "",
        "a" * 16,
        "a" * 17,
        "A" * 250,
        "é" * 8,
        "é" * 9,
        "the\u2028a",
        "x中文文y\U00020000\u33ff豈한",
        "\x1c",
        "\n",
        "\t",
    ]
    ends = [" ", " ", "", ",", "\u3000", ".\u0301", "\r\n"]
    return ["".join(rng.choice(words) + rng.choice(ends) for _ in range(9)) for _ in range(count)]


def plain_ids(wordpiece, text):
    words = wordpiece.split_words([text])[0]
    return [index for word in words for part in wordpiece.split_word(word) for index in wordpiece.match_pieces(part)]


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False, "strip_accents": False}])
@pytest.mark.parametrize("long_chunk", [1, 1 << 30])
def test_the_cache_does_not_change_a_single_id(monkeypatch, long_chunk, settings):
    """Neither as arrays of bytes nor as lists of words, neither when words are new nor when they are known."""
    texts = random_texts(80, seed=1)
    wordpiece = make_wordpiece(**settings)
    expected = [plain_ids(wordpiece, text) for text in texts]
    monkeypatch.setattr(vocabulary, "_LONG_CHUNK", long_chunk)
    monkeypatch.setattr(vocabulary, "_CHUNK_CHARACTERS", 400)
    for most in (1000, 20):
        monkeypatch.setattr(word_cache, "_MAX_WORDS", most)
        for _ in range(2):
            assert [ids.tolist() for ids in wordpiece.encode_many(texts)] == expected


def test_words_that_share_a_slot_are_told_apart(monkeypatch):
    monkeypatch.setattr(word_cache, "_SLOT_BITS", 8)
    monkeypatch.setattr(vocabulary, "_LONG_CHUNK", 1)
    words = [f"samestart{number:x}"[begin:] for number in range(60) for begin in (0, 1, 9)]  # in 256 slots
    wordpiece = make_wordpiece([*words, "the"])
    for _ in range(2):
        assert wordpiece.tokens(wordpiece.encode(" ".join(3 * words))) == 3 * words


@pytest.mark.parametrize("long_chunk", [1, 1 << 30])
def test_the_cache_is_bounded(monkeypatch, long_chunk):
    monkeypatch.setattr(vocabulary, "_LONG_CHUNK", long_chunk)
    monkeypatch.setattr(vocabulary, "_CHUNK_CHARACTERS", 50)
    monkeypatch.setattr(word_cache, "_MAX_WORDS", 10)
    wordpiece = make_wordpiece()
    wordpiece.encode_many([f"the{number}" for number in range(500)])
    assert len(wordpiece._cache) < 60
    monkeypatch.setattr(word_cache, "_MAX_CHARACTERS", 100)
    monkeypatch.setattr(word_cache, "_MAX_WORDS", 10**6)
    wordpiece.encode_many([f"{number:060}" for number in range(500)])
    assert len(wordpiece._cache) < 60
