"""A stack of post-LN Transformer layers with stacked parameters.

Source: Vaswani et al. 2017 §3; google-research/bert `transformer_model` (normalisation after each residual).
Differs: layers are stacked on a leading axis and scanned, so compile time does not grow with depth.
"""

import dataclasses
import typing
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Bool, Float, UInt32

from bert_jax.config import choose
from bert_jax.models.attention import SelfAttention
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
        attention_probs_dropout_prob: of the attention probabilities; must be 0 with attention "cudnn".
        initializer_range: standard deviation of the truncated normal before truncation.
        layer_norm_eps: added to the variance.
        dtype: "float32" or "bfloat16", of the computation; parameters are float32.
        attention: "xla" or "cudnn".
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
    layer_norm_eps: float = 1e-12
    dtype: str = "float32"
    attention: str = "xla"
    remat: str = "none"
    scan_unroll: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        choose("model.hidden_act", self.hidden_act, ACTIVATIONS)
        choose("model.dtype", self.dtype, DTYPES)
        choose("model.attention", self.attention, ("xla", "cudnn"))
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
        if self.attention == "cudnn" and self.attention_probs_dropout_prob:
            raise ValueError(
                f'model.attention "cudnn" has no attention dropout and got {self.attention_probs_dropout_prob}; '
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
    """Attention and feed-forward sub-layer; each: dropout, add the input, normalise.

    Attributes:
        config: sizes.
        keep_hidden: also return the output as the scan's stacked result.
    """

    config: TransformerConfig
    keep_hidden: bool

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch length embed"],
        layer: UInt32[Array, ""],
        mask: Bool[Array, "batch 1 queries length"],
        dropout_seed: UInt32[Array, ""] | None,
    ) -> tuple[Float[Array, "batch length embed"], Float[Array, "batch length embed"] | None]:
        """Return the layer's output, and once more if it is to be kept."""
        config = self.config
        rate = config.hidden_dropout_prob
        attention_seed, attention_output_seed, mlp_output_seed = _site_seeds(dropout_seed, layer)
        attended = SelfAttention(
            num_heads=config.num_attention_heads,
            head_dim=config.hidden_size // config.num_attention_heads,
            implementation=config.attention,
            dropout_rate=config.attention_probs_dropout_prob,
            initializer_range=config.initializer_range,
            dtype=DTYPES[config.dtype],
            name="attention",
        )(hidden, mask, attention_seed)
        hidden = hidden + dropout(attended, rate, attention_output_seed)
        hidden = LayerNorm(config.layer_norm_eps, name="attention_layer_norm")(hidden)
        hidden = hidden + dropout(Mlp(config, name="mlp")(hidden), rate, mlp_output_seed)
        hidden = LayerNorm(config.layer_norm_eps, name="mlp_layer_norm")(hidden)
        hidden = with_logical_constraint(hidden, ("batch", "length", "embed"))
        return hidden, hidden if self.keep_hidden else None


def _site_seeds(seed: Array | None, layer: Array) -> tuple[Array | None, ...]:
    sites = (ATTENTION_DROPOUT, ATTENTION_OUTPUT_DROPOUT, MLP_OUTPUT_DROPOUT)
    if seed is None:
        return (None,) * len(sites)
    layer_seed = fold_seed(seed, layer)
    return tuple(fold_seed(layer_seed, site) for site in sites)


def stack_layers(config: TransformerConfig, keep_hidden: bool) -> nn.Module:
    """Return the scanned stack of layers.

    Args:
        config: sizes.
        keep_hidden: whether to return the output of every layer too.

    Returns:
        A module (hidden, layer numbers 0 … layers - 1, mask, dropout seed) -> (last output, all outputs or None)
        whose parameters have a leading `layers` axis.
    """
    layer = TransformerLayer
    if config.remat != "none":
        # prevent_cse is for code outside of loops; inside a scan it would only block fusions.
        in_loop = config.scan_unroll < config.num_hidden_layers
        layer = nn.remat(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=not in_loop)
    stack = nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=typing.cast(Any, (0, nn.broadcast, nn.broadcast)),  # one entry an argument, which the stub forgets
        length=config.num_hidden_layers,
        unroll=config.scan_unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return stack(config, keep_hidden)
