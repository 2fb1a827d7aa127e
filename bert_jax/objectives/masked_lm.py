"""BERT's pretraining objective: masked words, and optionally the next sentence.

Source: Devlin et al. 2019 §3.1; google-research/bert `run_pretraining.py`.
Differs: the denominators are the weights of the whole global batch, so the shares of microbatches and devices add up
to one loss (Google's data parallelism averages per-replica means); packed rows have a label a sequence, and
sequences without a label weigh 0.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from bert_jax.models.bert import BertConfig
from bert_jax.models.heads import BertForPreTraining, PreTrainingOutput
from bert_jax.objectives.cross_entropy import softmax_cross_entropy
from bert_jax.objectives.objective import LinenObjective, Metrics

# run_pretraining.py: keeps a batch without any masked word finite. NSP has no such term there.
_MASKED_LM_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class MaskedLmObjective(LinenObjective):
    """Loss of `BertForPreTraining`, as functions of (parameters, batch).

    Attributes:
        config: the model.
        next_sentence: whether the model has the second task; without it neither pooler nor head exist.
        next_sentence_weight: of the second task's loss in the sum.
    """

    config: BertConfig
    next_sentence: bool = True
    next_sentence_weight: float = 1.0

    @property
    def model(self) -> BertForPreTraining:
        """The Linen module."""
        return BertForPreTraining(self.config, self.next_sentence)

    @property
    def inputs(self) -> tuple[Array, ...]:
        """Inputs of the module, for the shapes of its parameters."""
        return (jnp.zeros((1, 1), jnp.int32),) * 7

    def normalizers(self, batch: Mapping[str, Any]) -> dict[str, Float[Array, ""]]:
        """Return the weight totals of a global batch, the denominators of `loss`."""
        return {
            "masked_lm_weights": jnp.sum(batch["masked_lm_weights"]),
            "next_sentence_weights": jnp.sum(batch["next_sentence_weights"]),
        }

    def loss(
        self,
        params: Any,
        carry: dict[str, Array],
        microbatch: Mapping[str, Any],
        normalizers: Mapping[str, Float[Array, ""]],
        dropout_seed: UInt32[Array, ""] | None,
    ) -> tuple[Float[Array, ""], Metrics, dict[str, Array]]:
        """Return this microbatch's share of Σ w·nll / (Σw + 1e-5) + next_sentence_weight · Σ w·nsp / Σw.

        Args:
            params: a tree as of `init`.
            carry: empty.
            microbatch: rows of the global batch (see `Bert`), with masked_lm_positions, masked_lm_ids,
                masked_lm_weights [rows, predictions], next_sentence_labels, next_sentence_weights
                [rows, sequences]. Weight 0 marks fillers; a batch whose weights are all 0 has loss 0.
            normalizers: of the global batch.
            dropout_seed: another one for each step and microbatch; None is evaluation, without dropout.

        Returns:
            The share in nats; sums and counts over the microbatch of loss and accuracy of each task; the carry.
        """
        outputs = self.model.apply(
            {"params": params},
            microbatch["input_ids"],
            microbatch["input_mask"],
            microbatch["segment_ids"],
            microbatch["position_ids"],
            microbatch["sequence_ids"],
            microbatch["sequence_starts"],
            microbatch["masked_lm_positions"],
            dropout_seed,
        )
        output = typing.cast(PreTrainingOutput, outputs)  # `apply` returns pairs only when asked for mutable state
        logits, labels = output.masked_lm_logits, microbatch["masked_lm_ids"]
        share, metrics = _weighted(logits, labels, microbatch["masked_lm_weights"], "masked_lm")
        share = share / (normalizers["masked_lm_weights"] + _MASKED_LM_EPSILON)
        if output.next_sentence_logits is not None:
            logits, labels = output.next_sentence_logits, microbatch["next_sentence_labels"]
            total, more = _weighted(logits, labels, microbatch["next_sentence_weights"], "next_sentence")
            weights = normalizers["next_sentence_weights"]
            mean = total / jnp.where(weights > 0, weights, 1.0)  # without labels the total is 0 too
            share = share + self.next_sentence_weight * mean
            metrics |= more
        return share, metrics, carry


def _weighted(logits: Array, labels: Array, weights: Array, task: str) -> tuple[Array, Metrics]:
    """Return the weighted sum of losses, and the task's loss and accuracy as (sum, count)."""
    losses, hits = softmax_cross_entropy(logits, labels)
    total, count = jnp.sum(losses * weights), jnp.sum(weights)
    right = jnp.sum(jnp.where(hits, weights, 0.0))
    return total, {f"{task}_loss": (total, count), f"{task}_accuracy": (right, count)}
