"""BERT: embeddings, a stack of post-LN Transformer layers, a tanh pooler.

Source: Devlin et al. 2019 §3 and A.2; google-research/bert `modeling.py`.
Differs: rows may hold several packed sequences (attention is then block-diagonal and each [CLS] is pooled); the
pooler is optional; the embedding table may be padded to a multiple that the hardware likes.
"""

import dataclasses
import math
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Float, Int, UInt32

from bert_jax.config import choose
from bert_jax.models.attention import attention_mask
from bert_jax.models.layers import Dense, LayerNorm, dropout, fold_seed, sinusoids, truncated_normal, with_axes
from bert_jax.models.transformer import DTYPES, TransformerConfig, TransformerStack

VOCAB_SIZES = {"uncased": 30_522, "cased": 28_996}  # the released vocab.txt files
POSITION_INITS = {"normal": truncated_normal, "sinusoids": sinusoids}

# layers, hidden size, heads
_PAPER_SIZES = {"base": (12, 768, 12), "large": (24, 1024, 16)}
# google-research/bert README, 11 March 2020: 24 smaller models, four of them with a name
_SMALL_SIZES = {
    f"L{layers}-H{hidden}": (layers, hidden, hidden // 64)
    for layers in (2, 4, 6, 8, 10, 12)
    for hidden in (128, 256, 512, 768)
}
_SMALL_NAMES = {"tiny": "L2-H128", "mini": "L4-H256", "small": "L4-H512", "medium": "L8-H512"}
# BERT's Table 6, in its order: layers, hidden size, heads
_TABLE_6_SIZES = {
    f"{layers}-{hidden}-{heads}": (layers, hidden, heads)
    for layers, hidden, heads in (
        (3, 768, 12),
        (6, 768, 3),
        (6, 768, 12),
        (12, 768, 12),
        (12, 1024, 16),
        (24, 1024, 16),
    )
}
NAMED_SIZES = {
    **_PAPER_SIZES,
    **{name: _SMALL_SIZES[size] for name, size in _SMALL_NAMES.items()},
    **_SMALL_SIZES,
    **_TABLE_6_SIZES,
}

_EMBEDDINGS_SITE = 2**31  # its dropout seed; layers count up from 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(TransformerConfig):
    """bert_config.json's fields, and how to compute (see `TransformerConfig`).

    Attributes:
        vocab_size: real word pieces.
        max_position_embeddings: the longest sequence.
        type_vocab_size: segments; 2 in every released model (the 16 of Google's code is used by none).
        vocab_size_multiple: the embedding table is padded to a multiple of it; padding pieces have probability 0.
        position_init: initial values of the position embeddings: "normal", as released, or "sinusoids", from which
            short trainings learn the order of words much sooner.
        position_initializer_range: their standard deviation (before truncation); 0: initializer_range.
        causal: whether a token sees itself and what is to its left only, as in the left-to-right models of BERT's
            Table 5. [CLS] then sees nothing, so the pooler reads each sequence's last token (the paper does not say).
    """

    vocab_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    vocab_size_multiple: int = 1
    position_init: str = "normal"
    position_initializer_range: float = 0.0
    causal: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        super().__post_init__()
        choose("model.position_init", self.position_init, POSITION_INITS)
        for name in ("vocab_size", "max_position_embeddings", "type_vocab_size", "vocab_size_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it takes 1 or more")
        if not 0.0 <= self.position_initializer_range < math.inf:
            raise ValueError(
                f"model.position_initializer_range is {self.position_initializer_range}; it takes a standard "
                "deviation, or 0 for initializer_range's"
            )
        if self.causal and self.attention == "splash":
            raise ValueError('model.attention "splash" has no causal mask here; set it to "xla" for model.causal')

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table."""
        return -(-self.vocab_size // self.vocab_size_multiple) * self.vocab_size_multiple


def named_size(name: str) -> dict[str, Any]:
    """Return the four size fields of a BERT, as keywords for `BertConfig`.

    Args:
        name: base, large; tiny, mini, small, medium; L2-H128 … L12-H768 (the 24 small models); or layers, hidden size
            and heads: 3-768-12 … 24-1024-16 (the six of BERT's Table 6), or any others.
    """
    triple = re.fullmatch(r"(\d+)-(\d+)-(\d+)", name)
    layers, hidden, heads = map(int, triple.groups()) if triple else NAMED_SIZES[choose("size", name, NAMED_SIZES)]
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
    }


class BertOutput(NamedTuple):
    """What the encoder returns, in the dtype of the computation.

    Attributes:
        hidden: [batch, length, embed], the last layer's output; [batch, outputs, embed] with output_positions.
        pooled: [batch, sequences, embed], tanh(dense([CLS])) of each packed sequence; None without pooler.
        all_hidden: [1 + layers, batch, length, embed], embeddings first; None unless asked for.
    """

    hidden: Float[Array, "batch outputs embed"]
    pooled: Float[Array, "batch sequences embed"] | None
    all_hidden: Float[Array, "outputs batch length embed"] | None


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalised, with dropout."""

    config: BertConfig

    def setup(self) -> None:
        """Declare the three tables."""
        config = self.config
        size, init = config.hidden_size, truncated_normal(config.initializer_range)
        words = with_axes(init, "vocab", "embed")
        others = with_axes(init, None, "embed")  # small tables: every device has all rows
        self.word_embeddings = self.param("word_embeddings", words, (config.padded_vocab_size, size), jnp.float32)
        positions = (config.max_position_embeddings, size)
        spread = config.position_initializer_range or config.initializer_range
        init_position = with_axes(POSITION_INITS[config.position_init](spread), None, "embed")
        self.position_embeddings = self.param("position_embeddings", init_position, positions, jnp.float32)
        segments = (config.type_vocab_size, size)
        self.token_type_embeddings = self.param("token_type_embeddings", others, segments, jnp.float32)
        self.layer_norm = LayerNorm(config.layer_norm_eps)

    def __call__(
        self,
        input_ids: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        position_ids: Int[Array, "batch length"],
        dropout_seed: UInt32[Array, ""] | None,
    ) -> Float[Array, "batch length embed"]:
        """Return the embeddings; padding tokens get some too, which nothing reads."""
        # Whole rows on every device that looks up its part of the batch: a table split along the hidden size would
        # give results split along it too, to be exchanged (and XLA warns that it replicates them on the way).
        words = with_logical_constraint(self.word_embeddings, ("vocab", None))
        positions = with_logical_constraint(self.position_embeddings, (None, None))
        segments = with_logical_constraint(self.token_type_embeddings, (None, None))
        hidden = jnp.take(words, input_ids, axis=0)
        hidden = hidden + jnp.take(positions, position_ids, axis=0) + jnp.take(segments, segment_ids, axis=0)
        hidden = dropout(self.layer_norm(hidden), self.config.hidden_dropout_prob, dropout_seed)
        return hidden.astype(DTYPES[self.config.dtype])


class Bert(nn.Module):
    """The encoder.

    Attributes:
        config: sizes.
        add_pooler: whether the model has the dense tanh layer over [CLS].
        keep_hidden: whether to return the embeddings and all layers' outputs.
    """

    config: BertConfig
    add_pooler: bool = True
    keep_hidden: bool = False

    def setup(self) -> None:
        """Declare the parts; their attribute names are the parameters' names."""
        config = self.config
        self.embeddings = Embeddings(config)
        self.layers = TransformerStack(config, self.keep_hidden)
        if self.add_pooler:
            size, dtype = config.hidden_size, DTYPES[config.dtype]
            self.pooler = Dense((size,), ("embed", None), config.initializer_range, dtype)

    def __call__(
        self,
        input_ids: Int[Array, "batch length"],
        input_mask: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        position_ids: Int[Array, "batch length"],
        sequence_ids: Int[Array, "batch length"],
        sequence_starts: Int[Array, "batch sequences"],
        dropout_seed: UInt32[Array, ""] | None = None,
        output_positions: Int[Array, "batch outputs"] | None = None,
    ) -> BertOutput:
        """Encode rows of word pieces.

        Args:
            input_ids: word pieces; 0 in padding.
            input_mask: 1 for real tokens, 0 for padding, which no real token sees.
            segment_ids: 0 or 1.
            position_ids: count from 0 in each packed sequence.
            sequence_ids: 1, 2, … for the packed sequences, 0 in padding; read when a row holds several.
            sequence_starts: where each packed sequence's [CLS] stands. Its size decides at trace time: with one
                sequence a row the mask is over keys alone and [CLS] is the first token.
            dropout_seed: None switches dropout off (evaluation).
            output_positions: the tokens whose output is read, counted from the row's start; None is all. Each [CLS]
                is computed for the pooler besides. The last layer then does only what these need, with the same
                results; with `keep_hidden` it cannot.

        Raises:
            ValueError: rows longer than max_position_embeddings, or output_positions with `keep_hidden`.
        """
        config = self.config
        length = input_ids.shape[1]
        if length > config.max_position_embeddings:
            raise ValueError(
                f"rows have {length} tokens and the model has {config.max_position_embeddings} position embeddings; "
                "use shorter rows or a larger model.max_position_embeddings"
            )
        if self.keep_hidden and output_positions is not None:
            raise ValueError("keep_hidden returns whole outputs of all layers; call without output_positions")
        num_sequences = sequence_starts.shape[1]
        packed = num_sequences > 1
        seed = None if dropout_seed is None else fold_seed(dropout_seed, _EMBEDDINGS_SITE)
        embedded = self.embeddings(input_ids, segment_ids, position_ids, seed)
        embedded = with_logical_constraint(embedded, ("batch", "length", "embed"))
        mask = attention_mask(input_mask, sequence_ids, packed, config.causal)
        pooled_at = _last_tokens(input_mask, sequence_ids, num_sequences) if config.causal else sequence_starts
        if output_positions is not None and self.add_pooler:
            output_positions = jnp.concatenate([pooled_at, output_positions], axis=1)
        hidden, layer_outputs = self.layers(embedded, mask, dropout_seed, output_positions)
        pooled = None
        if self.add_pooler:
            if output_positions is not None:
                first, hidden = hidden[:, :num_sequences], hidden[:, num_sequences:]
            else:
                at_start = not (packed or config.causal)
                first = hidden[:, :1] if at_start else jnp.take_along_axis(hidden, pooled_at[:, :, None], axis=1)
            pooled = jnp.tanh(self.pooler(first))  # [batch, sequences, embed]
        all_hidden = None if layer_outputs is None else jnp.concatenate([embedded[None], layer_outputs])
        return BertOutput(hidden, pooled, all_hidden)


def _last_tokens(
    input_mask: Int[Array, "batch length"], sequence_ids: Int[Array, "batch length"], num_sequences: int
) -> Int[Array, "batch sequences"]:
    """Return where each sequence of a row ends; 0 for one that is not there, if the row is empty."""
    if num_sequences == 1:
        return jnp.maximum(jnp.sum(input_mask, axis=1, keepdims=True) - 1, 0)
    numbers = jnp.arange(1, num_sequences + 1)[None, :, None]
    up_to = (sequence_ids[:, None, :] > 0) & (sequence_ids[:, None, :] <= numbers)
    return jnp.maximum(jnp.sum(up_to, axis=2) - 1, 0)
