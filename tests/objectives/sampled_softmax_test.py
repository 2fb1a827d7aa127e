import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.objectives.sampled_softmax import (
    draw_words,
    log_expected_counts,
    log_uniform,
    sampled_softmax_cross_entropy,
)


def test_the_distribution_is_tensorflows_log_uniform():
    probabilities = log_uniform(1000)
    np.testing.assert_allclose(probabilities.sum(), 1.0)
    np.testing.assert_allclose(probabilities[:2], np.log([2 / 1, 3 / 2]) / np.log(1001))


def test_samples_are_distinct_and_as_frequent_as_expected():
    size, num_samples, repeats = 400, 40, 4000
    draw = jax.jit(jax.vmap(lambda seed: draw_words(size, num_samples, seed)))
    samples = np.asarray(draw(jnp.arange(repeats, dtype=jnp.uint32)))
    assert all(len(set(sample)) == num_samples for sample in samples[:100])
    found = np.bincount(samples.ravel(), minlength=size) / repeats
    # TensorFlow's expectation is itself approximate: it takes the tries, which vary, as given.
    np.testing.assert_allclose(found, np.exp(log_expected_counts(size, num_samples)), atol=0.02)


def test_samples_are_those_of_drawing_until_there_are_enough():
    """The first of a sample without replacement is drawn by P, as is that of a rejection sampler."""
    size, repeats = 20, 20_000
    first = jax.jit(jax.vmap(lambda seed: draw_words(size, 1, seed)))(jnp.arange(repeats, dtype=jnp.uint32))
    found = np.bincount(np.asarray(first)[:, 0], minlength=size) / repeats
    np.testing.assert_allclose(found, log_uniform(size), atol=0.015)


@pytest.mark.parametrize(("size", "num_samples"), [(64, 8), (1000, 900), (793_471, 8192)])
def test_expected_counts_add_up_to_the_sample(size, num_samples):
    expected = np.exp(log_expected_counts(size, num_samples).astype(np.float64))
    np.testing.assert_allclose(expected.sum(), num_samples, rtol=1e-4)
    assert (np.diff(expected) <= 0).all()


def random_case(rows=7, size=40, features=5, num_samples=12):
    generator = np.random.default_rng(0)
    hidden = generator.standard_normal((rows, features), np.float32)
    embedding = generator.standard_normal((size, features), np.float32)
    bias = generator.standard_normal(size, np.float32)
    negatives = generator.permutation(size)[:num_samples].astype(np.int32)
    labels = generator.integers(0, size, rows).astype(np.int32)
    labels[0] = negatives[3]  # an accidental hit
    return hidden, labels, embedding, bias, negatives


def test_the_loss_is_that_of_a_loop_over_rows():
    hidden, labels, embedding, bias, negatives = random_case()
    log_expected = log_expected_counts(len(bias), len(negatives)).astype(np.float64)
    logits = hidden @ embedding.T + bias - log_expected
    expected = []
    for row, label in enumerate(labels):
        others = [word for word in negatives if word != label]
        scores = np.exp(logits[row, [label, *others]].astype(np.float64))
        expected.append(-np.log(scores[0] / scores.sum()))
    found = sampled_softmax_cross_entropy(*map(jnp.asarray, (hidden, labels, embedding, bias, negatives)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_gradients_are_those_of_the_same_loss_written_plainly():
    hidden, labels, embedding, bias, negatives = map(jnp.asarray, random_case())
    corrected = log_expected_counts(len(bias), len(negatives))

    def plain(hidden, embedding, bias):
        logits = hidden @ embedding.T + bias - corrected
        allowed = jnp.zeros(logits.shape, bool).at[:, negatives].set(True).at[jnp.arange(len(labels)), labels].set(True)
        return -jax.nn.log_softmax(jnp.where(allowed, logits, -jnp.inf))[jnp.arange(len(labels)), labels].sum()

    def sampled(hidden, embedding, bias):
        return sampled_softmax_cross_entropy(hidden, labels, embedding, bias, negatives).sum()

    found, expected = (jax.grad(loss, (0, 1, 2))(hidden, embedding, bias) for loss in (sampled, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_with_nearly_all_words_drawn_the_loss_is_nearly_the_whole_softmax():
    hidden, labels, embedding, bias, _ = map(jnp.asarray, random_case())
    negatives = draw_words(40, 39, jnp.uint32(5))
    whole = -jax.nn.log_softmax(hidden @ embedding.T + bias)[jnp.arange(7), labels]
    sampled = sampled_softmax_cross_entropy(hidden, labels, embedding, bias, negatives)
    np.testing.assert_allclose(sampled, whole, atol=0.3)
