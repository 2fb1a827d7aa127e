"""BERT's operations as one first writes them, with autodiff's gradients: what the recipes' costs are held against.

Dropout draws Threefry bits with `jax.random.bernoulli`, probabilities and logits are float32 arrays that the backward
pass keeps, layer normalisation and GELU keep what autodiff wants.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from bert_jax.models import attention, bert, heads, layers, transformer
from bert_jax.objectives import masked_lm


def use_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the operations that have a form of their own here."""
    for module in (attention, bert, transformer):
        monkeypatch.setattr(module, "dropout", _dropout)
    monkeypatch.setattr(attention, "_attend", _attend)
    monkeypatch.setattr(
        layers, "affine", lambda rows, kernel, bias: rows @ kernel.astype(rows.dtype) + bias.astype(rows.dtype)
    )
    monkeypatch.setattr(layers, "_layer_norm", _layer_norm)
    monkeypatch.setitem(layers.ACTIVATIONS, "gelu", lambda inputs: jax.nn.gelu(inputs, approximate=False))
    monkeypatch.setattr(heads, "_vocabulary_logits", _vocabulary_logits)
    monkeypatch.setattr(masked_lm, "softmax_cross_entropy", _cross_entropy)


def _dropout(inputs: Any, rate: float, seed: Any) -> Any:
    if seed is None or rate == 0.0:
        return inputs
    keep = jax.random.bernoulli(jax.random.key(seed), 1.0 - rate, inputs.shape)
    return jnp.where(keep, inputs / (1.0 - rate), 0.0).astype(inputs.dtype)


def _attend(query: Any, key: Any, value: Any, mask: Any, rate: float, seed: Any) -> Any:
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32) / query.shape[-1] ** 0.5
    probabilities = jax.nn.softmax(jnp.where(mask, scores, scores + attention.MASK_BIAS), axis=-1)
    probabilities = _dropout(probabilities, rate, seed).astype(query.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", probabilities, value)


def _layer_norm(inputs: Any, scale: Any, bias: Any, epsilon: float) -> Any:
    wide = inputs.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    return ((wide - mean) * jax.lax.rsqrt(variance + epsilon) * scale + bias).astype(inputs.dtype)


def _vocabulary_logits(rows: Any, table: Any, bias: Any) -> Any:
    return jnp.matmul(rows, table.astype(rows.dtype).T, preferred_element_type=jnp.float32) + bias


def _cross_entropy(logits: Any, labels: Any) -> Any:
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
    return losses, jnp.argmax(logits, axis=-1) == labels
