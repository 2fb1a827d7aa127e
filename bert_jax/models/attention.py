"""Multi-head self-attention, with its back ends behind one function.

Source: Vaswani et al. 2017 §3.2; google-research/bert `attention_layer`.
Differs: packed rows mask by sequence (block-diagonal); the cuDNN back end has no attention dropout.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from bert_jax.models.layers import Dense, dropout

# modeling.py. Added to float32 scores, so exp() of it is exactly 0 unless a row has no real key at all; and such a
# row (padding) gives finite numbers, not NaN.
MASK_BIAS = -10_000.0


def attention_mask(
    input_mask: Int[Array, "batch length"], sequence_ids: Int[Array, "batch length"], packed: bool
) -> Bool[Array, "batch 1 queries length"]:
    """Return which keys a query may look at.

    Unpacked rows: every real token, for all queries alike (queries axis of size 1). Packed rows: the tokens of the
    query's own sequence; padding (sequence 0) sees padding only. Padding is never seen by a real token.
    """
    if not packed:
        return input_mask[:, None, None, :] > 0
    return sequence_ids[:, None, :, None] == sequence_ids[:, None, None, :]


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
        implementation: "xla", the reference, everywhere; "cudnn", fused, on NVIDIA GPUs in bfloat16.
        dropout_rate: of the attention probabilities; "xla" only.
        dropout_seed: None switches dropout off.

    Raises:
        ValueError: "cudnn" with another dtype than bfloat16.
    """
    if implementation == "cudnn":
        if query.dtype != jnp.bfloat16:
            raise ValueError(
                f'attention "cudnn" got {query.dtype}; it takes bfloat16: set model.dtype to "bfloat16" '
                'or model.attention to "xla"'
            )
        assert dropout_rate == 0.0, "the config refuses attention dropout with cudnn"
        whole = (mask.shape[0], 1, query.shape[1], key.shape[1])  # it refuses a mask that is the same for all queries
        return jax.nn.dot_product_attention(
            query, key, value, mask=jnp.broadcast_to(mask, whole), implementation="cudnn"
        )
    # [batch, heads, queries, keys]; float32, because bfloat16 scores would cost softmax its small differences
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = scores * (1.0 / math.sqrt(query.shape[-1])) + jnp.where(mask, 0.0, MASK_BIAS)
    probabilities = dropout(jax.nn.softmax(scores, axis=-1), dropout_rate, dropout_seed)
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities.astype(query.dtype), value)


class SelfAttention(nn.Module):
    """Project to queries, keys and values, attend, project back.

    Attributes:
        num_heads, head_dim: num_heads · head_dim is the hidden size.
        implementation: see `dot_product_attention`.
        dropout_rate: of the attention probabilities.
        initializer_range: standard deviation of the kernels.
        dtype: of the computation.
    """

    num_heads: int
    head_dim: int
    implementation: str
    dropout_rate: float
    initializer_range: float
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
        # [batch, length, heads, head_dim] each
        query = project(heads, ("embed", *names), name="query")(queries)
        key = project(heads, ("embed", *names), name="key")(hidden)
        value = project(heads, ("embed", *names), name="value")(hidden)
        context = dot_product_attention(query, key, value, mask, self.implementation, self.dropout_rate, dropout_seed)
        return project(hidden.shape[-1:], (*names, "embed"), name="output")(context)
