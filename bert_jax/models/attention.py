"""Multi-head self-attention, with its back ends behind one function.

Source: Vaswani et al. 2017 §3.2; google-research/bert `attention_layer`.
Differs: packed rows mask by sequence (block-diagonal); the fused back ends have no attention dropout.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from bert_jax.models.layers import Dense, dropout, normal
from bert_jax.models.splash import splash_attention

# The reference, everywhere; fused, on NVIDIA GPUs in bfloat16; fused, on TPUs.
BACK_ENDS = ("xla", "cudnn", "splash")
# As released; queries and keys alike, so that a token attends at first to what resembles it: with sinusoids as
# positions (`models.bert`) to its neighbours, where small random kernels make attention an average over the row.
# Trockman & Kolter 2023, Mimetic Initialization of Self-Attention Layers, whose other half (values and output) is left.
ATTENTION_INITS = ("normal", "mimetic")
_SELF_SCORE = 12.0  # of 1, 4 and 12 tried (docs/results.md)
# modeling.py. Added to float32 scores, so exp() of it is exactly 0 unless a row has no real key at all; and such a
# row (padding) gives finite numbers, not NaN.
MASK_BIAS = -10_000.0


def attention_mask(
    input_mask: Int[Array, "batch length"], sequence_ids: Int[Array, "batch length"], packed: bool, causal: bool = False
) -> Bool[Array, "batch 1 queries length"]:
    """Return which keys a query may look at.

    Unpacked rows: every real token, for all queries alike (queries axis of size 1). Packed rows: the tokens of the
    query's own sequence; padding (sequence 0) sees padding only. Padding is never seen by a real token. Causal: of
    these the query's own token and those to its left.
    """
    if packed:
        mask = sequence_ids[:, None, :, None] == sequence_ids[:, None, None, :]
    else:
        mask = input_mask[:, None, None, :] > 0
    return mask & jnp.tri(input_mask.shape[1], dtype=bool) if causal else mask


def dot_product_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch length heads head_dim"],
    value: Float[Array, "batch length heads head_dim"],
    mask: Bool[Array, "batch 1 #queries length"],
    implementation: str,
    dropout_rate: float,
    dropout_seed: UInt32[Array, ""] | None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Return softmax(query · key / √head_dim) · value.

    Scores and softmax are float32 whatever the dtype.

    Args:
        query: what looks.
        key: what is looked at.
        value: what is taken from there.
        mask: True where a query may see a key.
        implementation: of BACK_ENDS.
        dropout_rate: of the attention probabilities; "xla" only.
        dropout_seed: None switches dropout off.

    Raises:
        ValueError: "cudnn" with another dtype than bfloat16.
    """
    assert implementation == "xla" or dropout_rate == 0.0, "the config refuses attention dropout with fused back ends"
    if implementation == "splash":
        return splash_attention(query, key, value, mask)
    if implementation == "cudnn":
        if query.dtype != jnp.bfloat16:
            raise ValueError(
                f'attention "cudnn" got {query.dtype}; it takes bfloat16: set model.dtype to "bfloat16" '
                'or model.attention to "xla"'
            )
        whole = (mask.shape[0], 1, query.shape[1], key.shape[1])  # it refuses a mask that is the same for all queries
        return jax.nn.dot_product_attention(
            query, key, value, mask=jnp.broadcast_to(mask, whole), implementation="cudnn"
        )
    query, key, value = (_swap_heads(x) for x in (query, key, value))
    return _swap_heads(_attend(query, key, value, mask, dropout_rate, dropout_seed))


def _swap_heads(x: Array) -> Array:
    """Turn [batch, length, heads, head_dim] into [batch, heads, length, head_dim] or back."""
    return jnp.swapaxes(x, 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(
    query: Array, key: Array, value: Array, mask: Array, dropout_rate: float, dropout_seed: Array | None
) -> Array:
    """Return the context of each query; arguments and result are [batch, heads, length, head_dim].

    The backward pass is written out to keep one array of [batch, heads, queries, keys] and not three, and because
    XLA's CPU back end is slow with the product of a transposed matrix of that size: see docs/performance.md.
    """
    return _attend_forward(query, key, value, mask, dropout_rate, dropout_seed)[0]


def _attend_forward(
    query: Array, key: Array, value: Array, mask: Array, dropout_rate: float, dropout_seed: Array | None
) -> tuple[Array, Any]:
    # float32, because bfloat16 scores would cost softmax its small differences
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = scores * (1.0 / math.sqrt(query.shape[-1])) + jnp.where(mask, 0.0, MASK_BIAS)
    probabilities = jax.nn.softmax(scores, axis=-1)
    dropped = dropout(probabilities, dropout_rate, dropout_seed).astype(query.dtype)
    context = jnp.einsum("bhqk,bhkd->bhqd", dropped, value)
    return context, (query, key, value, probabilities.astype(query.dtype), dropout_seed, context)


def _attend_backward(dropout_rate: float, residuals: Any, gradient: Array) -> tuple[Array | None, ...]:
    query, key, value, probabilities, seed, context = residuals
    seed = None if seed is None else jnp.asarray(seed)  # outside of jit a residual may be numpy's
    wide = probabilities.astype(jnp.float32)
    dropped = dropout(wide, dropout_rate, seed).astype(query.dtype)
    # Softmax's backward pass subtracts, for each query, the sum over keys of probability · gradient. That sum is
    # context · gradient, which is head_dim long instead of keys (Dao et al. 2022, appendix B.2).
    inner = jnp.sum(context.astype(jnp.float32) * gradient, axis=-1, keepdims=True)
    d_dropped = jnp.einsum("bhqd,bhkd->bhqk", gradient, value, preferred_element_type=jnp.float32)
    d_scores = wide * (dropout(d_dropped, dropout_rate, seed) - inner) * (1.0 / math.sqrt(query.shape[-1]))
    d_scores = d_scores.astype(query.dtype)
    d_query = jnp.einsum("bhqk,bhkd->bhqd", d_scores, key)
    # The narrow factor is transposed, [batch, heads, head_dim, queries], not the one of queries · keys.
    d_key = jnp.einsum("bhdq,bhqk->bhdk", jnp.swapaxes(query, 2, 3), d_scores)
    d_value = jnp.einsum("bhdq,bhqk->bhdk", jnp.swapaxes(gradient, 2, 3), dropped)
    return d_query, jnp.swapaxes(d_key, 2, 3), jnp.swapaxes(d_value, 2, 3), None, None


_attend.defvjp(_attend_forward, _attend_backward)


class SelfAttention(nn.Module):
    """Project to queries, keys and values, attend, project back.

    Attributes:
        num_heads, head_dim: num_heads · head_dim is the hidden size.
        implementation: see `dot_product_attention`.
        dropout_rate: of the attention probabilities.
        initializer_range: standard deviation of the kernels.
        attention_init: of ATTENTION_INITS.
        dtype: of the computation.
    """

    num_heads: int
    head_dim: int
    implementation: str
    dropout_rate: float
    initializer_range: float
    attention_init: str
    dtype: Any

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "batch queries embed"],
        hidden: Float[Array, "batch length embed"],
        mask: Bool[Array, "batch 1 #queries length"],
        dropout_seed: UInt32[Array, ""] | None,
    ) -> Float[Array, "batch queries embed"]:
        """Return what `queries` (all of `hidden`, or some of it) take from `hidden`.

        That is before residual, dropout and normalisation.
        """
        heads, names = (self.num_heads, self.head_dim), ("heads", "head_dim")
        project = functools.partial(Dense, initializer_range=self.initializer_range, dtype=self.dtype)
        init = None
        if self.attention_init == "mimetic" and self.is_initializing():
            init = _same_start(self.make_rng("params"), hidden.shape[-1], self.head_dim)
        # [batch, length, heads, head_dim] each
        query = project(heads, ("embed", *names), kernel_init=init, name="query")(queries)
        key = project(heads, ("embed", *names), kernel_init=init, name="key")(hidden)
        value = project(heads, ("embed", *names), name="value")(hidden)
        context = dot_product_attention(query, key, value, mask, self.implementation, self.dropout_rate, dropout_seed)
        return project(hidden.shape[-1:], (*names, "embed"), name="output")(context)


def _same_start(rng: Any, hidden_size: int, head_dim: int) -> nn.initializers.Initializer:
    """Return the kernel of both queries and keys: at first a token's score with itself is _SELF_SCORE on average."""
    draws = normal(math.sqrt(_SELF_SCORE / (hidden_size * math.sqrt(head_dim))))
    return lambda _, shape, dtype=jnp.float32: draws(rng, shape, dtype)
