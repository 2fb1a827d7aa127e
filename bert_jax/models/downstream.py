"""BERT with one linear layer on top, for each kind of task: sentences, tokens, spans, choices.

Source: Devlin et al. 2019 §4 and figure 4; google-research/bert `run_classifier.py` (create_model), `run_squad.py`.
"+ BiLSTM" of BERT's Table 5 is `bilstm_cells`; sentences are read from each direction's end, the paper does not say.
Differs: tokens get dropout before their layer, as in Hugging Face's models (the paper does not say); choices share one
output on [CLS], which is the paper's score vector.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from bert_jax.models.bert import Bert, BertConfig
from bert_jax.models.bilstm import BiLstm, ends
from bert_jax.models.layers import Dense, dropout, fold_seed

_HEAD_SITE = 2**31 + 1  # its dropout seed, after the embeddings'


class Head(nn.Module):
    """Dropout and a dense layer, under the name that checkpoints know: `classifier` or `span`.

    Attributes:
        config: of the encoder.
        name_of_layer: "classifier" or "span".
        outputs: numbers for each input vector.
        bilstm_cells: of each direction of a BiLSTM before the layer; 0 = none.
        reads_ends: whether the layer reads what the BiLSTM's directions come to, or every token's output.
    """

    config: BertConfig
    name_of_layer: str
    outputs: int
    bilstm_cells: int = 0
    reads_ends: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "*rows embed"],
        dropout_seed: UInt32[Array, ""] | None,
        input_mask: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "*outputs outputs"]:
        """Return float32 logits; no dropout for seed None. A BiLSTM takes whole rows and their mask."""
        seed = None if dropout_seed is None else fold_seed(dropout_seed, _HEAD_SITE)
        hidden = dropout(hidden, self.config.hidden_dropout_prob, seed)
        if self.bilstm_cells:
            assert input_mask is not None
            hidden = BiLstm(self.bilstm_cells, name="bilstm")(hidden, input_mask)
            hidden = ends(hidden, input_mask) if self.reads_ends else hidden
        init = self.config.initializer_range
        return Dense((self.outputs,), ("embed", None), init, jnp.float32, name=self.name_of_layer)(hidden)


class BertForTask(nn.Module):
    """The encoder and one head; parameters `embeddings`, `layers`, `heads` and, for sentences and choices, `pooler`.

    Attributes:
        config: sizes.
        head: "sentences" and "choices" read the pooled [CLS], "tokens" and "span" every token.
        outputs: of the classifier: classes; 1 for a score and for choices. A span has two, start and end.
        bilstm_cells: of each direction of a BiLSTM over all tokens, in the pooler's place; 0 = none.
    """

    config: BertConfig
    head: str
    outputs: int
    bilstm_cells: int = 0

    def setup(self) -> None:
        """Declare the parts."""
        self.pools = self.head in ("sentences", "choices")
        self.bert = Bert(self.config, add_pooler=self.pools and not self.bilstm_cells)
        nn.share_scope(self, self.bert)  # the encoder's parameters stand at the root, as in every model here
        span = self.head == "span"
        name, outputs = ("span", 2) if span else ("classifier", self.outputs)
        self.heads = Head(self.config, name, outputs, self.bilstm_cells, reads_ends=self.pools)

    def __call__(
        self,
        input_ids: Int[Array, "batch length"],
        input_mask: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        dropout_seed: UInt32[Array, ""] | None = None,
    ) -> Float[Array, "..."]:
        """Return float32 logits: [batch, outputs] of pooled rows, else [batch, length, outputs].

        Args:
            input_ids: one sequence a row, padded at its end.
            input_mask: 1 for real tokens.
            segment_ids: 0 or 1.
            dropout_seed: None switches dropout off.
        """
        batch, length = input_ids.shape
        positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
        starts = jnp.zeros((batch, 1), jnp.int32)
        # Where [CLS] alone is read, the last layer computes it alone.
        read: Any = jnp.zeros((batch, 0), jnp.int32) if self.pools and not self.bilstm_cells else None
        output = self.bert(input_ids, input_mask, segment_ids, positions, input_mask, starts, dropout_seed, read)
        if self.bilstm_cells:
            return self.heads(output.hidden, dropout_seed, input_mask)
        if not self.pools:
            return self.heads(output.hidden, dropout_seed)
        assert output.pooled is not None
        return self.heads(output.pooled[:, 0], dropout_seed)
