"""What fine-tuning optimizes: classes and scores of sentences, classes of tokens, spans, choices.

Source: Devlin et al. 2019 §4; google-research/bert `run_classifier.py`, `run_squad.py` (compute_loss).
Differs: the denominators are the weights of the whole global batch, so that shares add up (see `masked_lm`); padding
has no probability of being a span's end, so a row's loss does not depend on the length it is padded to.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from bert_jax.models.bert import BertConfig
from bert_jax.models.downstream import BertForTask
from bert_jax.objectives.cross_entropy import softmax_cross_entropy
from bert_jax.objectives.objective import LinenObjective, Metrics

_PADDING_LOGIT = -1e9  # exp() of it is exactly 0 in float32


@dataclasses.dataclass(frozen=True)
class DownstreamObjective(LinenObjective):
    """Loss of `BertForTask`, as functions of (parameters, batch).

    A batch has input_ids, input_mask, segment_ids [rows, length] ([rows, choices, length] for choices), row_weights
    float32 [rows] (0 for rows that fill up the last batch), and by head:

        sentences   label_ids [rows], int32 classes or, with one output, float32 scores (squared error)
        tokens      label_ids int32 [rows, length], -1 where a token has no label
        span        start_positions, end_positions int32 [rows]
        choices     label_ids int32 [rows]

    Attributes:
        config: the model.
        head: "sentences", "tokens", "span" or "choices".
        outputs: of the classifier, see `BertForTask`.
        bilstm_cells: likewise.
    """

    config: BertConfig
    head: str
    outputs: int
    bilstm_cells: int = 0

    @property
    def model(self) -> BertForTask:
        """The Linen module."""
        return BertForTask(self.config, self.head, self.outputs, self.bilstm_cells)

    @property
    def inputs(self) -> tuple[Array, ...]:
        """Inputs of the module, for the shapes of its parameters."""
        return (jnp.zeros((1, 1), jnp.int32),) * 3

    def normalizers(self, batch: Mapping[str, Any]) -> dict[str, Float[Array, ""]]:
        """Return the weight total of a global batch: real rows, or labelled tokens."""
        return {"weights": jnp.sum(self._weights(batch))}

    def outputs_of(
        self, params: Any, batch: Mapping[str, Any], dropout_seed: UInt32[Array, ""] | None = None
    ) -> dict[str, Float[Array, "..."]]:
        """Return float32 logits by name: `logits`, or `start_logits` and `end_logits` [rows, length] of a span."""
        inputs = [batch[name] for name in ("input_ids", "input_mask", "segment_ids")]
        if self.head == "choices":
            choices = inputs[0].shape[1]
            inputs = [array.reshape(-1, array.shape[-1]) for array in inputs]  # [rows · choices, length]
            logits = self._apply(params, inputs, dropout_seed)
            return {"logits": logits.reshape(-1, choices)}
        logits = self._apply(params, inputs, dropout_seed)
        if self.head == "span":
            padded = jnp.where(batch["input_mask"][..., None] > 0, logits, _PADDING_LOGIT)
            return {"start_logits": padded[..., 0], "end_logits": padded[..., 1]}
        return {"logits": logits}

    def loss(
        self,
        params: Any,
        carry: dict[str, Array],
        microbatch: Mapping[str, Any],
        normalizers: Mapping[str, Float[Array, ""]],
        dropout_seed: UInt32[Array, ""] | None,
    ) -> tuple[Float[Array, ""], Metrics, dict[str, Array]]:
        """Return this microbatch's share of the mean loss over real rows (labelled tokens), metrics, and the carry.

        Args:
            params: a tree as of `init`.
            carry: empty.
            microbatch: rows of the global batch.
            normalizers: of the global batch; a batch without weight has loss 0.
            dropout_seed: another one for each step and microbatch; None is evaluation, without dropout.

        Returns:
            The share; sums and counts of `loss` and, for classes, `accuracy`; the carry.
        """
        losses, hits = self._losses(self.outputs_of(params, microbatch, dropout_seed), microbatch)
        weights = self._weights(microbatch)
        total, count = jnp.sum(losses * weights), jnp.sum(weights)
        metrics = {"task_loss": (total, count)}
        if hits is not None:
            metrics["accuracy"] = (jnp.sum(jnp.where(hits, weights, 0.0)), count)
        return total / jnp.maximum(normalizers["weights"], 1.0), metrics, carry

    def _losses(self, outputs: dict[str, Array], batch: Mapping[str, Any]) -> tuple[Array, Array | None]:
        if self.head == "span":
            start, start_hits = softmax_cross_entropy(outputs["start_logits"], batch["start_positions"])
            end, end_hits = softmax_cross_entropy(outputs["end_logits"], batch["end_positions"])
            return (start + end) / 2, start_hits & end_hits
        logits, labels = outputs["logits"], batch["label_ids"]
        if self.head == "sentences" and self.outputs == 1:
            return jnp.square(logits[:, 0] - labels), None
        return softmax_cross_entropy(logits, jnp.maximum(labels, 0))

    def _weights(self, batch: Mapping[str, Any]) -> Array:
        if self.head == "tokens":
            return (batch["label_ids"] >= 0) * batch["row_weights"][:, None]
        return jnp.asarray(batch["row_weights"])

    def _apply(self, params: Any, inputs: list[Array], dropout_seed: UInt32[Array, ""] | None) -> Array:
        logits = self.model.apply({"params": params}, *inputs, dropout_seed)
        return typing.cast(Array, logits)  # `apply` returns pairs only when asked for mutable state
