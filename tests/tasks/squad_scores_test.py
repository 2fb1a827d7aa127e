"""The official scores, against a plain statement of them."""

import collections
import random
import string

import numpy as np
import pytest

from bert_jax.tasks.squad_scores import best_threshold, normalize_answer, score_answers, score_with_impossible


def words_of(text):
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def plain_f1(answer, right):
    left = collections.Counter(words_of(answer))
    common = sum(min(count, words_of(right).count(word)) for word, count in left.items())
    if not common:
        return 0.0
    precision, recall = common / len(words_of(answer)), common / len(words_of(right))
    return 2 * precision * recall / (precision + recall)


def test_scores_are_the_best_over_right_answers():
    generator = random.Random(0)
    words = ["the", "a", "Cat", "cat,", "dog", "(Dog)", "in 1990", "-"]
    texts = [" ".join(generator.choices(words, k=generator.randrange(1, 5))) for _ in range(400)]
    predicted, right = texts[:100], [texts[100 + 3 * n : 103 + 3 * n] for n in range(100)]
    scores = score_answers(predicted, right)
    exact = [
        max(words_of(answer) == words_of(text) for text in texts)
        for answer, texts in zip(predicted, right, strict=True)
    ]
    f1 = [max(plain_f1(answer, text) for text in texts) for answer, texts in zip(predicted, right, strict=True)]
    assert scores["exact_match"] == pytest.approx(np.mean(exact))
    assert scores["f1"] == pytest.approx(np.mean(f1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("The  Cat, an U.S. cat!", "cat us cat"), ("a-b theory", "ab theory"), ("\u00bbThe\u00ab", "\u00bb \u00ab")],
)
def test_normalization(text, expected):
    assert normalize_answer(text) == expected


def test_impossible_questions_are_right_when_nothing_is_answered():
    predicted = ["", "cat", "", "dog"]
    right = [(), (), ("cat",), ("dog", "a big dog")]
    scores = score_with_impossible(predicted, right, ["x", "cat", "cat", "dog"], np.array([3.0, -1.0, 2.0, -2.0]))
    assert scores["exact_match"] == 0.5
    assert (scores["no_answer_f1"], scores["has_answer_f1"]) == (0.5, 0.5)
    assert (scores["best_f1"], scores["best_f1_threshold"]) == (0.75, -2.0)  # the lowest of two as good
    assert scores["best_exact_match"] == 0.75


def test_the_best_threshold_is_the_best_of_all():
    generator = np.random.default_rng(0)
    for _ in range(50):
        size = int(generator.integers(1, 12))
        has_answer, filled = generator.random(size) < 0.5, generator.random(size) < 0.9
        raw = np.where(has_answer, generator.random(size), ~filled)  # "" is right for an impossible question
        odds = generator.normal(size=size)
        means = [np.where(odds <= limit, raw, ~has_answer).mean() for limit in [-np.inf, *odds]]
        best, threshold = best_threshold(raw, filled, has_answer, odds)
        assert best == pytest.approx(max(means))
        if best > (~has_answer).mean():
            assert np.where(odds <= threshold, raw, ~has_answer).mean() == pytest.approx(best)


def test_no_word_is_no_f1_in_version_1():
    assert score_answers(["the"], [["a"]]) == {"exact_match": 1.0, "f1": 0.0}
