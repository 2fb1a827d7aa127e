"""Softmax cross entropy over a large vocabulary from a sample of it.

Source: Jean et al. 2015; TensorFlow 1's `sampled_softmax_loss` with its log-uniform sampler, as allenai/bilm-tf
`training.py` calls it: negatives are distinct words, drawn by falling probability in the order of the vocabulary, the
same for all rows; each logit is lowered by the logarithm of how often its word is to be expected in such a sample;
a negative that is a row's label does not count in that row.
Differs: TensorFlow draws until it has enough distinct words and takes the number of tries for the expectation. Here
the sample comes from one pass (Gumbel's trick, the same distribution), and the number of tries is the one that gives
as many distinct words in the mean.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, UInt32

from bert_jax.models.layers import random_bits

_NEVER = -1e30  # the logit of a negative that does not count


def log_uniform(vocab_size: int) -> Float[np.ndarray, " vocab"]:
    """Return P(word) = log((word + 2) / (word + 1)) / log(vocab_size + 1), float64; they add up to 1."""
    edges = np.log(np.arange(1, vocab_size + 2, dtype=np.float64))
    return np.diff(edges) / math.log(vocab_size + 1)


@functools.lru_cache(maxsize=8)
def log_expected_counts(vocab_size: int, num_samples: int) -> Float32[np.ndarray, " vocab"]:
    """Return the logarithm of each word's chance to be in a sample of distinct words.

    That is 1 - (1 - P)^tries, for the number of tries with which the chances add up to `num_samples`.

    Args:
        vocab_size: words, in the order of falling frequency.
        num_samples: distinct words in a sample, fewer than the vocabulary's.
    """
    assert 0 < num_samples < vocab_size
    log_missed = np.log1p(-log_uniform(vocab_size))

    def expected(tries: float) -> np.ndarray:
        return -np.expm1(tries * log_missed)

    low, high = 0.0, float(num_samples)
    while expected(high).sum() < num_samples:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle).sum() < num_samples else (low, middle)
    return np.log(expected(high)).astype(np.float32)


def draw_words(vocab_size: int, num_samples: int, seed: UInt32[Array, ""]) -> Int32[Array, " samples"]:
    """Return distinct words, as if drawn one after the other by `log_uniform`, words that came before left out."""
    uniform = ((random_bits((1, vocab_size), seed)[0] >> 8).astype(jnp.float32) + 0.5) * np.float32(2.0**-24)
    # The smallest of independent exponential waiting times: who comes first is drawn by the rates.
    waiting = -jnp.log(uniform) / log_uniform(vocab_size).astype(np.float32)
    return jax.lax.top_k(-waiting, num_samples)[1].astype(jnp.int32)


def sampled_softmax_cross_entropy(
    hidden: Float[Array, "rows features"],
    labels: Int[Array, " rows"],
    embedding: Float[Array, "vocab features"],
    bias: Float[Array, " vocab"],
    negatives: Int32[Array, " samples"],
) -> Float[Array, " rows"]:
    """Return -log softmax over the label and the negatives, in nats, float32.

    Args:
        hidden: in the dtype of the products.
        labels: word ids.
        embedding: of all words.
        bias: of all words.
        negatives: from `draw_words`.
    """
    expected = jnp.asarray(log_expected_counts(len(bias), len(negatives)))
    dtype = hidden.dtype
    # One gather of all rows that are read, so that their gradients are one scattered sum.
    ids = jnp.concatenate([labels, negatives])
    vectors = jnp.take(embedding, ids, axis=0).astype(dtype)
    offsets = jnp.take(bias, ids) - jnp.take(expected, ids)
    own = jnp.einsum("rf,rf->r", hidden, vectors[: len(labels)], preferred_element_type=jnp.float32)
    own = own + offsets[: len(labels)]
    others = jnp.matmul(hidden, vectors[len(labels) :].T, preferred_element_type=jnp.float32)
    others = others + offsets[len(labels) :]
    others = jnp.where(labels[:, None] == negatives[None], _NEVER, others)
    largest = jax.lax.stop_gradient(jnp.maximum(own, others.max(axis=1)))
    total = jnp.exp(own - largest) + jnp.exp(others - largest[:, None]).sum(axis=1)
    return largest + jnp.log(total) - own
