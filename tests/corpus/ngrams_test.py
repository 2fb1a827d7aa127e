import math
from collections import Counter

import numpy as np
import pytest

from bert_jax.corpus.ngrams import kneser_ney_perplexity


def plain_probability(train, context, word, vocab_size, order):
    """Interpolated Kneser-Ney by its definition, with dictionaries."""
    size = len(context) + 1
    if size == 1 and order == 0:
        return 1 / vocab_size

    def grams(length):
        return [tuple(train[start : start + length]) for start in range(len(train) - length + 1)]

    counts = Counter(grams(size)) if size == order else Counter(gram[1:] for gram in set(grams(size + 1)))
    ones, twos = (sum(count == n for count in counts.values()) for n in (1, 2))
    discount = ones / (ones + 2 * twos) if ones else 0.5
    lower = 1 / vocab_size if size == 1 else plain_probability(train, context[1:], word, vocab_size, order)
    following = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == tuple(context)}
    total = sum(following.values())
    if not total:
        return lower
    return max(following.get(word, 0) - discount, 0) / total + discount * len(following) / total * lower


def random_text(length, seed):
    generator, words = np.random.default_rng(seed), [0]
    for _ in range(length - 1):
        words.append(int((words[-1] * 3 + generator.integers(0, 3)) % 11))
    return np.array(words)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_perplexity_is_that_of_the_definition(order):
    train, held_out, vocab_size = random_text(150, 0), random_text(40, 1), 13
    logs = []
    for end in range(order - 1, len(held_out)):
        context = list(held_out[end - order + 1 : end])
        logs.append(math.log(plain_probability(list(train), context, held_out[end], vocab_size, order)))
    expected = math.exp(-sum(logs) / len(logs))
    assert kneser_ney_perplexity(train, held_out, order, vocab_size) == pytest.approx(expected)


def test_the_probabilities_of_all_words_add_up_to_one():
    train, context = random_text(200, 0), [3, 9]
    total = 0.0
    for word in range(13):
        # Two held-out words are predicted, the first of them always the same.
        pair = kneser_ney_perplexity(train, np.array([5, *context, word]), 3, 13) ** -2
        total += pair / plain_probability(list(train), [5, context[0]], context[1], 13, 3)
    assert total == pytest.approx(1.0)


def test_longer_contexts_help_where_there_is_something_to_learn():
    train, held_out = random_text(5000, 0), random_text(1000, 1)
    unigram, bigram = (kneser_ney_perplexity(train, held_out, order, 11) for order in (1, 2))
    assert bigram == pytest.approx(3.0, rel=0.05)  # three words may follow each
    assert unigram > 8
    with pytest.raises(ValueError, match="order is 0"):
        kneser_ney_perplexity(train, held_out, 0, 11)
