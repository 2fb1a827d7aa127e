"""The perplexity of word n-grams, beside which a trained language model's can be read.

Source: Kneser and Ney 1995, in the interpolated form of Chen and Goodman 1999 §4.1: one discount an order,
D = n1 / (n1 + 2·n2); lower orders count the different words in front of an n-gram instead of its occurrences; the
lowest order is interpolated with the uniform distribution over the vocabulary.
"""

import math

import numpy as np
from jaxtyping import Int

_SMALL_DISCOUNT = 0.5  # where no n-gram occurs once: a text that is no natural one
_MIX = np.uint64(0x9E3779B97F4A7C15)


def kneser_ney_perplexity(
    train: Int[np.ndarray, " train_words"], held_out: Int[np.ndarray, " held_out_words"], order: int, vocab_size: int
) -> float:
    """Return exp of the mean negative log probability of the held-out words, each given the order - 1 before it.

    Sentences are not set apart here: their marks are words of the text, as they are in a model's stream. The first
    order - 1 held-out words are context alone.

    Args:
        train: word ids in the order of the text, more than `order`.
        held_out: likewise.
        order: 1 or more; 2 for bigrams, 5 for 5-grams.
        vocab_size: ids; words that were never seen share what discounting frees.
    """
    if not 1 <= order < min(len(train), len(held_out)):
        raise ValueError(f"order is {order}; it takes 1 or more, and fewer than the words of either text")
    probability = np.full(len(held_out) - order + 1, 1.0 / vocab_size)
    for size in range(1, order + 1):
        probability = _interpolate(train, held_out[order - size :], size, probability, highest=size == order)
    return math.exp(-float(np.log(probability).mean()))


def _interpolate(train: np.ndarray, text: np.ndarray, size: int, lower: np.ndarray, *, highest: bool) -> np.ndarray:
    """Return the probability of the last word of each n-gram of the text, given that of the order below."""
    grams = np.unique(_keys(train, size + 1), return_index=True)[1] if not highest else None
    # Each distinct (size + 1)-gram counts once for its last `size` words; the highest order counts occurrences.
    places = np.arange(len(train) - size + 1) if grams is None else grams + 1
    whole, context = _keys(train, size)[places], _keys(train, size - 1)[places]
    found, first, counts = np.unique(whole, return_index=True, return_counts=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once else _SMALL_DISCOUNT
    contexts, inverse = np.unique(context[first], return_inverse=True)
    totals = np.bincount(inverse, weights=counts)
    kinds = np.bincount(inverse)

    own = _look_up(found, counts.astype(np.float64), _keys(text, size))
    before = _keys(text, size - 1)[: len(own)]
    total, kind = _look_up(contexts, totals, before), _look_up(contexts, kinds.astype(np.float64), before)
    seen = total > 0
    total = np.where(seen, total, 1.0)
    mixed = np.maximum(own - discount, 0.0) / total + discount * kind / total * lower
    return np.where(seen, mixed, lower)


def _keys(words: np.ndarray, size: int) -> np.ndarray:
    """Return a 64-bit hash for the n-gram that begins at each word; one and the same for n-grams of no word."""
    count = len(words) - max(size, 1) + 1
    keys = np.zeros(count, np.uint64)
    for offset in range(size):
        keys = (keys ^ (words[offset : offset + count].astype(np.uint64) + np.uint64(1))) * _MIX
        keys ^= keys >> np.uint64(29)
    return keys


def _look_up(names: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted name, 0 where there is none; names ascend."""
    places = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    return np.where(names[places] == wanted, values[places], 0.0)
