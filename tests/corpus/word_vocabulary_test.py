from collections import Counter

import numpy as np
import pytest

from bert_jax.corpus.word_vocabulary import (
    MARKS,
    WordSettings,
    WordVocabulary,
    choose_words,
    count_words,
    split_words,
)


def test_the_most_frequent_words_follow_the_marks_and_equal_counts_are_in_order():
    counts = Counter({"b": 3, "a": 3, "z": 9, "rare": 1, "c": 2})
    assert choose_words(counts, 100, min_count=2) == [*MARKS, "z", "a", "b", "c"]
    assert choose_words(counts, 5, min_count=1) == [*MARKS, "z", "a"]


def test_words_are_split_as_berts_cased_tokenizer_does_or_at_whitespace():
    text = "Don't say naïve-\u3000<S> 日本!"
    assert split_words(text, "basic") == ["Don", "'", "t", "say", "naïve", "-", "<", "S", ">", "日", "本", "!"]
    # A mark that the text spells is none.
    assert split_words(text, "whitespace") == ["Don't", "say", "naïve-", "<UNK>", "日本!"]


def test_ids_of_unseen_words_are_that_of_unknown():
    vocabulary = WordVocabulary([*MARKS, "the", "cat"])
    np.testing.assert_array_equal(vocabulary.ids(["cat", "dog", "<S>", "</S>", "the"]), [4, 2, 0, 1, 3])


def test_counts_are_of_what_is_predicted_forward():
    sentences = ["the cat", "", "the dog the"]
    counts, num_sentences = count_words(sentences, "basic")
    vocabulary = WordVocabulary([*MARKS, "the", "cat"])
    # <S> is read and never predicted; each of two sentences has an end; the dog is unknown.
    np.testing.assert_array_equal(vocabulary.count_ids(counts, num_sentences), [0, 2, 1, 3, 1])


def test_a_vocabulary_is_read_as_it_was_written(tmp_path):
    words = [*MARKS, "the", "\u2028", "é"]
    WordVocabulary(words, WordSettings("whitespace")).save(tmp_path)
    read = WordVocabulary.load(tmp_path)
    assert (read.words, read.settings) == (words, WordSettings("whitespace"))


def test_another_kind_of_vocabulary_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="stream-20 makes one"):
        WordVocabulary.load(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    (tmp_path / "settings.json").write_text('{"kind": "wordpiece"}')
    with pytest.raises(ValueError, match="'wordpiece'; a vocabulary of 'words' is read here"):
        WordVocabulary.load(tmp_path)
    with pytest.raises(ValueError, match="the first three are <S>, </S>, <UNK>"):
        WordVocabulary(["the", "cat"])
