import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.objectives.cross_entropy import softmax_cross_entropy


def numpy_loss(logits, labels):
    """Loss and its gradient in float64, row by row, straight from the definition."""
    logits = np.asarray(logits, np.float64)
    losses, gradients = np.zeros(labels.shape), np.zeros(logits.shape)
    for index in np.ndindex(*labels.shape):
        exponentials = [np.exp(logit - max(logits[index])) for logit in logits[index]]
        probabilities = np.array(exponentials) / sum(exponentials)
        losses[index] = -np.log(probabilities[labels[index]])
        gradients[index] = probabilities
        gradients[index][labels[index]] -= 1
    return losses, gradients


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_loss_and_gradient_match_numpy(scale):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(scale * rng.normal(size=(3, 5, 37)), jnp.float32)
    labels, weights = rng.integers(0, 37, (3, 5)), rng.random((3, 5))
    losses, hits = softmax_cross_entropy(logits, jnp.asarray(labels))
    gradient = jax.grad(lambda logits: jnp.sum(weights * softmax_cross_entropy(logits, jnp.asarray(labels))[0]))(logits)
    expected, expected_gradient = numpy_loss(logits, labels)
    np.testing.assert_allclose(losses, expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(gradient, expected_gradient * weights[..., None], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(hits, np.argmax(logits, -1) == labels)


def test_huge_logits_stay_finite():
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e9, 3.0, 3.0]])
    losses, hits = softmax_cross_entropy(logits, jnp.array([1, 1]))
    np.testing.assert_allclose(losses, [2e4, np.log(2)], rtol=1e-6)
    np.testing.assert_array_equal(hits, [False, True])


def test_bfloat16_logits_are_summed_in_float32():
    # 1 + 1/4096 is 1 in bfloat16: a sum of 4,096 equal terms would stop growing at 256.
    losses, _ = softmax_cross_entropy(jnp.zeros((1, 4096), jnp.bfloat16), jnp.array([0]))
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, np.log(4096), rtol=1e-6)


def test_nan_logits_give_nan_and_no_hit():
    losses, hits = softmax_cross_entropy(jnp.array([[jnp.nan, 1.0]]), jnp.array([1]))
    assert np.isnan(losses).all()
    assert not hits.any()
