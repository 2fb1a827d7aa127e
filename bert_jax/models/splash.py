"""Attention as one TPU kernel: scores and probabilities of a block stay on the chip, forward and backward.

Source: Dao et al. 2022 §3 (attention by blocks); jax.experimental.pallas.ops.tpu.splash_attention (the kernel).
Differs: no dropout of the probabilities. Padding sees padding alone, where the back end "xla" lets the padding of an
unpacked row see the real tokens; nothing reads either.
"""

import functools
import math
import typing

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from bert_jax.models.layers import dividing_axes

_LANES = 128  # rows of a kernel's blocks come in multiples of it
_BLOCKS = (512, 256, _LANES)  # tokens; the largest that divides a row


def splash_attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch length heads head_dim"],
    value: Float[Array, "batch length heads head_dim"],
    mask: Bool[Array, "batch 1 #length length"],
) -> Float[Array, "batch length heads head_dim"]:
    """Return softmax(query · key / √head_dim) · value, each device its own rows and heads.

    Args:
        query: what looks; as many as keys.
        key: what is looked at.
        value: what is taken from there.
        mask: of `attention_mask`, not causal.
    """
    arguments = query * (1.0 / math.sqrt(query.shape[-1])), key, value, token_groups(mask)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.auto_axes:  # no mesh, or the caller has dealt out the rows already
        return _attend(*arguments)
    # The compiler cannot split a kernel, so that is said here.
    batch = dividing_axes("batch", query.shape[0], mesh)
    tokens = PartitionSpec(batch, None, dividing_axes("heads", query.shape[2], mesh), None)
    specs = (tokens, tokens, tokens, PartitionSpec(batch, None))
    return jax.shard_map(_attend, in_specs=specs, out_specs=tokens, check_vma=False)(*arguments)


def token_groups(mask: Bool[Array, "batch 1 queries length"]) -> Int[Array, "batch length"]:
    """Return numbers that are equal for tokens that see each other, and for no others of a row.

    Of a packed row: the place of the first key that a token sees, which is its sequence's first. Of an unpacked one: 1
    for real tokens and 0 for padding.
    """
    if mask.shape[2] == 1:
        return mask[:, 0, 0, :].astype(jnp.int32)
    return jnp.argmax(mask[:, 0], axis=-1).astype(jnp.int32)


def _attend(query: Array, key: Array, value: Array, groups: Array) -> Array:
    """Run the kernel on the rows and heads of one device; the query is scaled already."""
    # Imported where it is used: it takes as long as all of this package.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    heads, real = query.shape[2], query.shape[1]
    fill = -real % _LANES  # tokens of a group of their own, behind the row's
    query, key, value = (jnp.pad(x, ((0, 0), (0, fill), (0, 0), (0, 0))) for x in (query, key, value))
    groups = jnp.pad(groups, ((0, 0), (0, fill)), constant_values=-1)
    length = real + fill
    block = next(size for size in _BLOCKS if length % size == 0)
    sizes = kernels.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, use_fused_bwd_kernel=True
    )
    everything = masks.MultiHeadMask([masks.FullMask((length, length))] * heads)
    attend = kernels.make_splash_mha(everything, block_sizes=sizes, head_shards=1, q_seq_shards=1)

    def one_row(query: Array, key: Array, value: Array, groups: Array) -> Array:
        context = attend(query, key, value, segment_ids=kernels.SegmentIds(groups, groups))
        return typing.cast(Array, context)  # pairs come only where residuals are asked for

    by_head = functools.partial(jnp.swapaxes, axis1=1, axis2=2)  # [batch, heads, length, head_dim], and back
    return by_head(jax.vmap(one_row)(by_head(query), by_head(key), by_head(value), groups))[:, :real]
