"""ELMo's pretraining objective: the next word forward, the next word backward.

Source: Peters et al. 2018 §3.1; allenai/bilm-tf `training.py` (LanguageModel): the mean of the two directions' losses,
one softmax for both, negatives drawn for each direction, LSTM state from batch to batch and no gradient through it.
Differs: the character encoder runs once for each distinct word of a batch; words are rarely so many that its first
pass, whose size is fixed, does not hold them, and the others then take a second one. bilm-tf multiplies the loss by the
number of unrolled steps before it takes the gradient; see configs/elmo.py for what stands for that here.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from bert_jax.models.elmo import ElmoConfig, ElmoLanguageModel
from bert_jax.models.layers import fold_seed
from bert_jax.models.recurrent import LstmState, zero_state
from bert_jax.objectives.cross_entropy import softmax_cross_entropy
from bert_jax.objectives.objective import LinenObjective, Metrics
from bert_jax.objectives.sampled_softmax import draw_words, sampled_softmax_cross_entropy

DIRECTIONS = ("forward", "backward")
_SHORT_PLACES = 24  # characters, marks and padding that most words are read with
_LONG_FRACTION = 0.08  # of the distinct words, read with all places
_NEGATIVES_SITE = 2**30  # dropout's sites count up from 0


@dataclasses.dataclass(frozen=True)
class BidirectionalLmConfig:
    """What is predicted, and how it is computed.

    Attributes:
        vocab_size: words of the softmax, 4 or more; 0 for a converted model, which has none.
        num_negatives: words that the training's softmax is computed over besides the right one; 0: over all of them.
            Evaluation always takes all.
        distinct_fraction: the share of a batch' places that the character encoder's first pass has room for, in (0, 1].
            It changes no result; too small a share takes time, because a second pass follows, and too large as well.
    """

    vocab_size: int
    num_negatives: int = 8192
    distinct_fraction: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if self.vocab_size < 4 and self.vocab_size != 0:
            raise ValueError(f"config.objective.vocab_size is {self.vocab_size}; it takes 4 or more, or 0: the corpus'")
        if not 0 <= self.num_negatives < max(self.vocab_size, 1):
            raise ValueError(
                f"config.objective.num_negatives is {self.num_negatives} for a vocabulary of {self.vocab_size} words; "
                "use fewer than these, or 0 for the whole softmax"
            )
        if not 0.0 < self.distinct_fraction <= 1.0:
            raise ValueError(
                f"config.objective.distinct_fraction is {self.distinct_fraction}; use more than 0, up to 1"
            )


@dataclasses.dataclass(frozen=True)
class BidirectionalLmObjective(LinenObjective):
    """Loss of `ElmoLanguageModel`, as functions of (parameters, carry, batch).

    Attributes:
        model_config: ELMo.
        config: the softmax.
    """

    model_config: ElmoConfig
    config: BidirectionalLmConfig

    @property
    def model(self) -> ElmoLanguageModel:
        """The Linen module."""
        return ElmoLanguageModel(self.model_config, self.config.vocab_size)

    @property
    def inputs(self) -> tuple[Array, ...]:
        """Inputs of the module, for the shapes of its parameters."""
        return (jnp.zeros((1, 1, self.model_config.max_characters_per_token), jnp.int32),)

    def init_carry(self, batch_size: int) -> LstmState:
        """Return the state before the first batch of a stream."""
        return zero_state(self.model_config, batch_size)

    def normalizers(self, batch: Mapping[str, Any]) -> dict[str, Float[Array, ""]]:
        """Return the number of words to predict in each direction, over a global batch."""
        return {"target_weights": jnp.sum(batch["target_weights"])}

    def loss(
        self,
        params: Any,
        carry: LstmState,
        microbatch: Mapping[str, Any],
        normalizers: Mapping[str, Float[Array, ""]],
        dropout_seed: UInt32[Array, ""] | None,
    ) -> tuple[Float[Array, ""], Metrics, LstmState]:
        """Return this microbatch's share of (forward + backward) / 2, each Σ w·nll / Σw.

        Args:
            params: a tree as of `init`.
            carry: of the words before, row by row.
            microbatch: see `input.streams.train_stream`.
            normalizers: of the global batch.
            dropout_seed: another one for each step and microbatch, of the negatives too; None is evaluation, without
                dropout and over the whole vocabulary.

        Returns:
            The share in nats; `forward_loss` and `backward_loss`, sums and counts over the microbatch, those of a
            sampled softmax in training; the new carry.
        """
        weights = microbatch["target_weights"]
        tokens = self._tokens(params, microbatch)
        hidden, carry = self.model.apply({"params": params}, tokens, carry, dropout_seed, method="read")  # type: ignore
        losses = self._losses(params["softmax"], hidden, microbatch, dropout_seed)
        count = jnp.sum(weights)
        totals = [jnp.sum(each * weights) for each in losses]
        total_weight = normalizers["target_weights"]
        share = sum(totals) / (len(totals) * jnp.where(total_weight > 0, total_weight, 1.0))
        metrics = {f"{name}_loss": (total, count) for name, total in zip(DIRECTIONS, totals, strict=True)}
        return share, metrics, carry

    def _tokens(self, params: Any, microbatch: Mapping[str, Any]) -> Float[Array, "directions rows words features"]:
        """Return the words' vectors where they stand, each distinct word computed once."""
        tables = microbatch["char_ids"]
        index = jnp.stack([microbatch["word_index"], microbatch["word_index_reverse"]])

        def encode_all(params: Any, char_ids: Array) -> Array:
            found: Any = self.model.apply({"params": params}, char_ids, method="encode")
            return found

        widest = max(width for width, _ in self.model_config.filters)
        encode = functools.partial(_encode_by_length, encode_all, widest)
        room = math.ceil(self.config.distinct_fraction * tables.shape[1])
        vectors = encode(params, tables[:, :room])
        if room < tables.shape[1]:
            rest = tables[:, room:]
            # Recomputed in the backward pass: the untaken branch would write zeros as large as what is kept of it.
            more = jax.lax.cond(
                jnp.max(index) >= room,
                jax.checkpoint(encode),
                lambda _, char_ids: jnp.zeros((*char_ids.shape[:2], vectors.shape[-1]), vectors.dtype),
                params,
                rest,
            )
            vectors = jnp.concatenate([vectors, more], axis=1)
        directions, rows, words = index.shape
        grouped = index.reshape(directions, len(tables), -1)
        found = jax.vmap(lambda table, places: table[places], in_axes=(0, 1), out_axes=1)(vectors, grouped)
        return found.reshape(directions, rows, words, -1)

    def _losses(
        self,
        softmax: Any,
        hidden: Float[Array, "directions rows words features"],
        microbatch: Mapping[str, Any],
        seed: UInt32[Array, ""] | None,
    ) -> list[Float[Array, "rows words"]]:
        """Return the negative log likelihoods of both directions' next words."""
        embedding, bias = softmax["embedding"], softmax["bias"]
        targets = [microbatch["target_ids"], microbatch["target_ids_reverse"]]
        losses = []
        for direction, labels in enumerate(targets):
            rows, flat = hidden[direction], labels.reshape(-1)
            if seed is None:
                losses.append(_by_column(rows, labels, embedding, bias))
            elif not self.config.num_negatives:
                logits = rows.reshape(flat.size, -1) @ embedding.astype(rows.dtype).T + bias.astype(rows.dtype)
                losses.append(softmax_cross_entropy(logits, flat)[0].reshape(labels.shape))
            else:
                own = fold_seed(seed, _NEGATIVES_SITE + direction)
                negatives = draw_words(self.config.vocab_size, self.config.num_negatives, own)
                nll = sampled_softmax_cross_entropy(rows.reshape(flat.size, -1), flat, embedding, bias, negatives)
                losses.append(nll.reshape(labels.shape))
        return losses


def _encode_by_length(
    encode: Callable[[Any, Array], Array], widest: int, params: Any, char_ids: Int[Array, "groups words characters"]
) -> Float[Array, "groups words features"]:
    """Return what `encode` says of words, most of them without the places behind their end; same result.

    The longest few keep all places. The others keep the first `_SHORT_PLACES`, or all in the batch where one of them
    has no room there for its end and a window of padding (see `CharacterCnn`).
    """
    words, places = char_ids.shape[1:]
    num_long = math.ceil(_LONG_FRACTION * words)
    if places <= _SHORT_PLACES + widest or num_long == words:
        return encode(params, char_ids)
    inside = char_ids != char_ids[:, :, -1:]
    lengths = jnp.max(jnp.where(inside, 1 + jnp.arange(places), 0), axis=-1)
    order = jnp.argsort(-lengths, axis=1)
    by_length = jnp.take_along_axis(char_ids, order[:, :, None], axis=1)
    rest = by_length[:, num_long:]
    fits = jnp.take_along_axis(lengths, order[:, num_long, None], axis=1).max() <= _SHORT_PLACES - widest
    short = jax.lax.cond(
        fits,
        lambda params, rest: encode(params, rest[:, :, :_SHORT_PLACES]),
        jax.checkpoint(encode),  # rare: the other branch would write zeros for what it kept
        params,
        rest,
    )
    vectors = jnp.concatenate([encode(params, by_length[:, :num_long]), short], axis=1)
    return jnp.take_along_axis(vectors, jnp.argsort(order, axis=1)[:, :, None], axis=1)


def _by_column(hidden: Array, labels: Array, embedding: Array, bias: Array) -> Array:
    """Return the losses over the whole vocabulary, a word of each row at a time: logits of all of them are large."""

    def column(part: tuple[Array, Array]) -> Array:
        rows, flat = part
        logits = jnp.matmul(rows, embedding.astype(rows.dtype).T, preferred_element_type=jnp.float32) + bias
        return softmax_cross_entropy(logits, flat)[0]

    return jax.lax.map(column, (jnp.swapaxes(hidden, 0, 1), labels.T)).T
