"""What a tagger on frozen vectors optimizes: the cross entropy of each word's tag.

Source: Devlin et al. 2019 §5.3: no CRF.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from bert_jax.models.tagger import Tagger, TaggerConfig
from bert_jax.objectives.cross_entropy import softmax_cross_entropy
from bert_jax.objectives.objective import LinenObjective, Metrics


@dataclasses.dataclass(frozen=True)
class TaggingObjective(LinenObjective):
    """Loss of `Tagger`, as functions of (parameters, batch).

    A batch has vectors [rows, kept, words, features], label_ids int32 [rows, words] (-1 in padding and where a word has
    no label) and lengths int32 [rows] (0 for rows that fill up the last batch).

    Attributes:
        config: of the tagger.
        outputs: tags.
        kept: layers of each vector.
        features: width of a vector.
    """

    config: TaggerConfig
    outputs: int
    kept: int
    features: int

    @property
    def model(self) -> Tagger:
        """The Linen module."""
        return Tagger(self.config, self.outputs)

    @property
    def inputs(self) -> tuple[Array, ...]:
        """Inputs of the module, for the shapes of its parameters."""
        return jnp.zeros((1, self.kept, 1, self.features)), jnp.ones((1, 1), jnp.int32)

    def normalizers(self, batch: Mapping[str, Any]) -> dict[str, Float[Array, ""]]:
        """Return the labelled words of a global batch."""
        return {"weights": jnp.sum(batch["label_ids"] >= 0).astype(jnp.float32)}

    def logits(
        self, params: Any, batch: Mapping[str, Any], dropout_seed: UInt32[Array, ""] | None = None
    ) -> Float[Array, "rows words outputs"]:
        """Return float32 logits; those of padding mean nothing."""
        mask = word_mask(batch["lengths"], batch["label_ids"].shape[1])
        logits = self.model.apply({"params": params}, batch["vectors"], mask, dropout_seed)
        return typing.cast(Array, logits)  # `apply` returns pairs only when asked for mutable state

    def loss(
        self,
        params: Any,
        carry: dict[str, Array],
        microbatch: Mapping[str, Any],
        normalizers: Mapping[str, Float[Array, ""]],
        dropout_seed: UInt32[Array, ""] | None,
    ) -> tuple[Float[Array, ""], Metrics, dict[str, Array]]:
        """Return this microbatch's share of the mean loss over labelled words, metrics, and the carry."""
        labels = microbatch["label_ids"]
        weights = (labels >= 0).astype(jnp.float32)
        losses, hits = softmax_cross_entropy(self.logits(params, microbatch, dropout_seed), jnp.maximum(labels, 0))
        total, count = jnp.sum(losses * weights), jnp.sum(weights)
        metrics = {"task_loss": (total, count), "accuracy": (jnp.sum(jnp.where(hits, weights, 0.0)), count)}
        return total / jnp.maximum(normalizers["weights"], 1.0), metrics, carry


def word_mask(lengths: Int[Array, " rows"], words: int) -> Int[Array, "rows words"]:
    """Return 1 for each row's words and 0 behind them."""
    return (jnp.arange(words)[None, :] < lengths[:, None]).astype(jnp.int32)
