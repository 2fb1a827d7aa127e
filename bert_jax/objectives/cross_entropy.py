"""Softmax cross entropy over a large vocabulary.

Source: Devlin et al. 2019 (the loss), google-research/bert `run_pretraining.py`.
Differs: written for few passes over the logits, which are BERT's largest array: the maximum, the sum of
exponentials, and the gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def softmax_cross_entropy(
    logits: Float[Array, "*rows vocab"], labels: Int[Array, "*rows"]
) -> tuple[Float[Array, "*rows"], Bool[Array, "*rows"]]:
    """Return -log softmax(logits)[label] and whether the label's logit is the largest.

    Args:
        logits: any float dtype; computed in float32.
        labels: 0 to vocab - 1.

    Returns:
        The negative log likelihood in nats, float32, and the hits; an exact tie counts as a hit (an argmax would need
        a pass of its own). NaN logits give NaN and no hit.
    """
    # One axis of rows, as their product has: with [batch, predictions] a TPU would copy all logits to pad predictions.
    loss, hits = _cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
    return loss.reshape(labels.shape), hits.reshape(labels.shape)


@jax.custom_vjp
def _cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    loss, hits, _ = _loss_hits_normalizer(logits, labels)
    return loss, hits


def _loss_hits_normalizer(logits: Array, labels: Array) -> tuple[Array, Array, Array]:
    wide = logits.astype(jnp.float32)
    largest = jnp.max(wide, axis=-1)
    normalizer = largest + jnp.log(jnp.sum(jnp.exp(wide - largest[..., None]), axis=-1))
    picked = jnp.take_along_axis(wide, labels[..., None], axis=-1)[..., 0]
    return normalizer - picked, picked >= largest, normalizer


def _forward(logits: Array, labels: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
    loss, hits, normalizer = _loss_hits_normalizer(logits, labels)
    return (loss, hits), (logits, labels, normalizer)


def _backward(residuals: tuple[Array, Array, Array], gradients: tuple[Array, Any]) -> tuple[Array, None]:
    logits, labels, normalizer = residuals
    gradient = gradients[0][..., None]  # the hits, being bools, have none
    vocabulary = jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1)
    # One pass: (softmax - one-hot) · gradient, the one-hot as a comparison instead of a scattered write.
    softmax = jnp.exp(logits.astype(jnp.float32) - normalizer[..., None])
    onehot = (vocabulary == labels[..., None]).astype(jnp.float32)
    return ((softmax - onehot) * gradient).astype(logits.dtype), None


_cross_entropy.defvjp(_forward, _backward)
