"""A stack of post-LN Transformer layers with stacked parameters.

Source: Vaswani et al. 2017 §3; google-research/bert `transformer_model` (normalisation after each residual).
Differs: layers are stacked on a leading axis and scanned, so compile time does not grow with depth; the last layer
is computed only at the positions whose output is read.
"""

import dataclasses
import typing
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Bool, Float, Int, UInt32

from bert_jax.config import choose
from bert_jax.models.attention import ATTENTION_INITS, BACK_ENDS, SelfAttention
from bert_jax.models.layers import ACTIVATIONS, Dense, LayerNorm, dropout, fold_seed

REMAT_POLICIES = {
    "none": None,
    # Keep the results of matrix products, recompute what lies between them.
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Keep a layer's input only.
    "full": jax.checkpoint_policies.nothing_saveable,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
ATTENTION_DROPOUT, ATTENTION_OUTPUT_DROPOUT, MLP_OUTPUT_DROPOUT = range(3)  # a layer's dropout sites


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes and ways of computing of a stack of Transformer layers; the first names are bert_config.json's.

    Attributes:
        hidden_size: a multiple of num_attention_heads.
        num_hidden_layers: 1 or more.
        num_attention_heads: heads are hidden_size / num_attention_heads wide.
        intermediate_size: width of the feed-forward layer, 4 · hidden_size in all of BERT.
        hidden_act: "gelu" (erf) or "gelu_tanh".
        hidden_dropout_prob: of the embeddings and of each sub-layer's output.
        attention_probs_dropout_prob: of the attention probabilities; must be 0 with attention "cudnn" or "splash".
        initializer_range: standard deviation of the truncated normal before truncation.
        attention_init: initial kernels of queries and keys: "normal", as released, or "mimetic", alike, with which
            short trainings leave a bag of words sooner (see `models.attention`).
        layer_norm_eps: added to the variance.
        dtype: "float32" or "bfloat16", of the computation; parameters are float32.
        attention: "xla"; "cudnn", fused, on NVIDIA GPUs in bfloat16; "splash", fused, on TPUs.
        remat: what the backward pass recomputes: "none", "dots" (all but matrix products) or "full".
        scan_unroll: layers a loop iteration; num_hidden_layers unrolls the loop.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    attention_init: str = "normal"
    layer_norm_eps: float = 1e-12
    dtype: str = "float32"
    attention: str = "xla"
    remat: str = "none"
    scan_unroll: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        choose("model.hidden_act", self.hidden_act, ACTIVATIONS)
        choose("model.dtype", self.dtype, DTYPES)
        choose("model.attention", self.attention, BACK_ENDS)
        choose("model.attention_init", self.attention_init, ATTENTION_INITS)
        choose("model.remat", self.remat, REMAT_POLICIES)
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "scan_unroll"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it takes 1 or more")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it takes 0 ≤ rate < 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"model.hidden_size {self.hidden_size} is not divisible by {self.num_attention_heads} heads; "
                "use a multiple, BERT has 64 a head"
            )
        if self.attention != "xla" and self.attention_probs_dropout_prob:
            raise ValueError(
                f'model.attention "{self.attention}" has no attention dropout and got '
                f"{self.attention_probs_dropout_prob}; "
                'set model.attention_probs_dropout_prob to 0 or model.attention to "xla"'
            )
        if self.attention == "cudnn" and self.dtype != "bfloat16":
            raise ValueError(
                f'model.attention "cudnn" computes in bfloat16 and model.dtype is {self.dtype!r}; '
                'set it to "bfloat16" or model.attention to "xla"'
            )


class Mlp(nn.Module):
    """The feed-forward sub-layer: widen, GELU, narrow; without residual and normalisation."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Return the narrowed features."""
        config, dtype = self.config, DTYPES[self.config.dtype]
        wide = Dense(
            (config.intermediate_size,), ("embed", "mlp"), config.initializer_range, dtype, name="intermediate"
        )(hidden)
        wide = ACTIVATIONS[config.hidden_act](wide)
        return Dense((config.hidden_size,), ("mlp", "embed"), config.initializer_range, dtype, name="output")(wide)


class TransformerLayer(nn.Module):
    """Attention and feed-forward sub-layer; each: dropout, add the input, normalise."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch length embed"],
        layer: int | UInt32[Array, ""],
        mask: Bool[Array, "batch 1 queries length"],
        dropout_seed: UInt32[Array, ""] | None,
        output_positions: Int[Array, "batch outputs"] | None = None,
    ) -> Float[Array, "batch outputs embed"]:
        """Return the layer's output, everywhere or at `output_positions` only."""
        config, implementation = self.config, self.config.attention
        rate = config.hidden_dropout_prob
        attention_seed, attention_output_seed, mlp_output_seed = _site_seeds(dropout_seed, layer)
        queries = hidden
        if output_positions is not None:
            queries = jnp.take_along_axis(hidden, output_positions[:, :, None], axis=1)
            if mask.shape[2] > 1:
                mask = jnp.take_along_axis(mask, output_positions[:, None, :, None], axis=2)
            implementation = "xla"  # few queries, of any number: nothing for a fused kernel
        attended = SelfAttention(
            num_heads=config.num_attention_heads,
            head_dim=config.hidden_size // config.num_attention_heads,
            implementation=implementation,
            dropout_rate=config.attention_probs_dropout_prob,
            initializer_range=config.initializer_range,
            attention_init=config.attention_init,
            dtype=DTYPES[config.dtype],
            name="attention",
        )(queries, hidden, mask, attention_seed)
        hidden = queries + dropout(attended, rate, attention_output_seed)
        hidden = LayerNorm(config.layer_norm_eps, name="attention_layer_norm")(hidden)
        hidden = hidden + dropout(Mlp(config, name="mlp")(hidden), rate, mlp_output_seed)
        hidden = LayerNorm(config.layer_norm_eps, name="mlp_layer_norm")(hidden)
        return with_logical_constraint(hidden, ("batch", "length", "embed"))


def _site_seeds(seed: Array | None, layer: Any) -> tuple[Array | None, ...]:
    sites = (ATTENTION_DROPOUT, ATTENTION_OUTPUT_DROPOUT, MLP_OUTPUT_DROPOUT)
    if seed is None:
        return (None,) * len(sites)
    layer_seed = fold_seed(seed, layer)
    return tuple(fold_seed(layer_seed, site) for site in sites)


class TransformerStack(nn.Module):
    """The layers, one after the other; each parameter has a leading `layers` axis.

    Attributes:
        config: sizes.
        keep_hidden: whether to return the output of every layer.
    """

    config: TransformerConfig
    keep_hidden: bool = False

    def setup(self) -> None:
        """Declare the stacked parameters, under the names that one layer gives them."""
        stacked = nn.vmap(
            TransformerLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=typing.cast(Any, None),  # which the stub forgets: no argument has a layers axis
            axis_size=self.config.num_hidden_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        self.stacked = stacked(self.config)
        nn.share_scope(self, self.stacked)

    def __call__(
        self,
        hidden: Float[Array, "batch length embed"],
        mask: Bool[Array, "batch 1 queries length"],
        dropout_seed: UInt32[Array, ""] | None,
        output_positions: Int[Array, "batch outputs"] | None = None,
    ) -> tuple[Float[Array, "batch outputs embed"], Float[Array, "layers batch length embed"] | None]:
        """Return the last output and, with `keep_hidden`, those of all layers.

        Args:
            hidden: the embeddings.
            mask: see `attention_mask`.
            dropout_seed: None switches dropout off.
            output_positions: where the last output is read; None is everywhere. The last layer then attends from
                these alone, which leaves out up to 10 of its 12 parts of the work and changes no result. Not with
                `keep_hidden`.
        """
        config = self.config
        if self.is_initializing():
            self.stacked(hidden, 0, mask, None, output_positions)  # makes the parameters; nothing else is read
        layer = TransformerLayer(config, parent=None)
        count = config.num_hidden_layers if output_positions is None else config.num_hidden_layers - 1

        def apply(hidden: Array, part: tuple[Any, Array]) -> tuple[Array, Array | None]:
            params, number = part
            hidden = typing.cast(Array, layer.apply({"params": params}, hidden, number, mask, dropout_seed))
            return hidden, hidden if self.keep_hidden else None

        def apply_last(params: Any, hidden: Array) -> Array:
            output = layer.apply({"params": params}, hidden, count, mask, dropout_seed, output_positions)
            return typing.cast(Array, output)  # `apply` returns pairs only when asked for mutable state

        if config.remat != "none":
            policy = REMAT_POLICIES[config.remat]
            # prevent_cse is for code outside of loops; inside a scan it would only block fusions.
            apply = jax.checkpoint(apply, policy=policy, prevent_cse=config.scan_unroll >= count)
            apply_last = jax.checkpoint(apply_last, policy=policy)
        params = nn.unbox(self.variables["params"])
        parts = (jax.tree.map(lambda p: p[:count], params), jnp.arange(count, dtype=jnp.uint32))
        hidden, outputs = jax.lax.scan(apply, hidden, parts, unroll=max(1, min(config.scan_unroll, count)))
        if output_positions is not None:
            hidden = apply_last(jax.tree.map(lambda p: p[-1], params), hidden)
        return hidden, outputs
