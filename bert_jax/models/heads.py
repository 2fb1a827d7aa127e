"""BERT's pretraining heads: masked words and next sentence.

Source: Devlin et al. 2019 §3.1; google-research/bert `run_pretraining.py` (get_masked_lm_output,
get_next_sentence_output).
Differs: several packed sequences a row; the vocabulary may be padded.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from bert_jax.models.bert import Bert, BertConfig
from bert_jax.models.layers import ACTIVATIONS, Dense, LayerNorm, sum_rows, with_axes
from bert_jax.models.transformer import DTYPES

# Added to the logits of pieces that only pad the vocabulary: exp() of it is exactly 0 in float32.
_PADDING_LOGIT = -1e9


class PreTrainingOutput(NamedTuple):
    """Logits of the two tasks, float32.

    Attributes:
        masked_lm_logits: [batch, predictions, padded vocabulary], at the masked positions only.
        next_sentence_logits: [batch, sequences, 2], IsNext first; None without that task.
    """

    masked_lm_logits: Float[Array, "batch predictions vocab"]
    next_sentence_logits: Float[Array, "batch sequences 2"] | None


class MaskedLmHead(nn.Module):
    """Transform the hidden states and compare them with every row of the embedding table."""

    config: BertConfig

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "batch predictions embed"], word_embeddings: Float[Array, "vocab embed"]
    ) -> Float[Array, "batch predictions vocab"]:
        """Return float32 logits; pieces beyond `vocab_size` get one that never wins and has probability 0."""
        config, dtype = self.config, DTYPES[self.config.dtype]
        dense = Dense((config.hidden_size,), ("embed", None), config.initializer_range, dtype, name="transform")
        transformed = ACTIVATIONS[config.hidden_act](dense(hidden))
        transformed = LayerNorm(config.layer_norm_eps, name="layer_norm")(transformed)
        zeros = with_axes(nn.initializers.zeros_init(), "vocab")
        bias = self.param("bias", zeros, (config.padded_vocab_size,), jnp.float32)
        if config.padded_vocab_size > config.vocab_size:
            bias = jnp.where(jnp.arange(config.padded_vocab_size) < config.vocab_size, bias, _PADDING_LOGIT)
        # [batch · predictions, embed] · [vocabulary, embed]ᵀ
        rows = transformed.reshape(-1, transformed.shape[-1])
        return _vocabulary_logits(rows, word_embeddings, bias).reshape(*hidden.shape[:2], -1)


@jax.custom_vjp
def _vocabulary_logits(rows: Array, table: Array, bias: Array) -> Array:
    """Return rows · tableᵀ + bias: a product in the rows' dtype with float32 results.

    The loss needs the differences of large logits, and the parameters' gradients are float32 too.
    """
    return jnp.matmul(rows, table.astype(rows.dtype).T, preferred_element_type=jnp.float32) + bias


def _vocabulary_logits_forward(rows: Array, table: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    return _vocabulary_logits(rows, table, bias), (rows, table)


def _vocabulary_logits_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    rows, table = residuals
    narrow = gradient.astype(rows.dtype)
    rows_gradient = jnp.matmul(narrow, table.astype(rows.dtype))
    # Autodiff's form of this product made XLA's CPU back end transpose the whole gradient, its largest array.
    table_gradient = jnp.einsum("nv,ne->ve", narrow, rows, preferred_element_type=jnp.float32)
    return rows_gradient, table_gradient, sum_rows(gradient)


_vocabulary_logits.defvjp(_vocabulary_logits_forward, _vocabulary_logits_backward)


class PreTrainingHeads(nn.Module):
    """Both heads, under the names `masked_lm` and `next_sentence`."""

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        masked: Float[Array, "batch predictions embed"],
        pooled: Float[Array, "batch sequences embed"] | None,
        word_embeddings: Float[Array, "vocab embed"],
    ) -> PreTrainingOutput:
        """Return the logits; no next-sentence head is made without `pooled`."""
        masked_lm_logits = MaskedLmHead(self.config, name="masked_lm")(masked, word_embeddings)
        if pooled is None:
            return PreTrainingOutput(masked_lm_logits, None)
        initializer_range = self.config.initializer_range
        next_sentence = Dense((2,), ("embed", None), initializer_range, jnp.float32, name="next_sentence")
        return PreTrainingOutput(masked_lm_logits, next_sentence(pooled))


class BertForPreTraining(nn.Module):
    """The encoder and its pretraining heads; parameters `embeddings`, `layers`, `pooler`, `heads`.

    Attributes:
        config: sizes.
        next_sentence: whether there is a next-sentence head (and the pooler that only it trains).
    """

    config: BertConfig
    next_sentence: bool = True

    def setup(self) -> None:
        """Declare the parts."""
        self.bert = Bert(self.config, add_pooler=self.next_sentence)
        # The encoder's parameters stand at the root, as in a model without heads.
        nn.share_scope(self, self.bert)
        self.heads = PreTrainingHeads(self.config)

    def __call__(
        self,
        input_ids: Int[Array, "batch length"],
        input_mask: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        position_ids: Int[Array, "batch length"],
        sequence_ids: Int[Array, "batch length"],
        sequence_starts: Int[Array, "batch sequences"],
        masked_lm_positions: Int[Array, "batch predictions"],
        dropout_seed: UInt32[Array, ""] | None = None,
    ) -> PreTrainingOutput:
        """Return the logits of both tasks.

        Takes the arguments of `Bert`, and masked_lm_positions: the tokens to predict, counted from the row's start
        (fillers may point at any).
        """
        output = self.bert(
            input_ids,
            input_mask,
            segment_ids,
            position_ids,
            sequence_ids,
            sequence_starts,
            dropout_seed,
            output_positions=masked_lm_positions,
        )
        return self.heads(output.hidden, output.pooled, self.bert.embeddings.word_embeddings)
