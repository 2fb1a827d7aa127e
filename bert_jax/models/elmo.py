"""ELMo: words as characters, read by a forward and a backward language model; a mixture of their layers.

Source: Peters et al. 2018 §3; allenai/bilm-tf `model.py`, `elmo.py`, `training.py`; AllenNLP's `Elmo`, `ScalarMix`.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Bool, Float, Int, UInt32

from bert_jax.config import choose
from bert_jax.models.character_cnn import CharacterCnn, CharacterCnnConfig
from bert_jax.models.layers import normal, with_axes
from bert_jax.models.recurrent import LstmStacks, LstmState, RecurrentConfig, zero_state

# The released models: cells, projection, highway layers.
NAMED_SIZES = {"small": (1024, 128, 1), "medium": (2048, 256, 1), "original": (4096, 512, 2)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmoConfig(CharacterCnnConfig, RecurrentConfig):
    """options.json's fields, and how to compute: see the two parts, whose fields all stand side by side here."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        CharacterCnnConfig.__post_init__(self)
        RecurrentConfig.__post_init__(self)


def named_size(name: str) -> dict[str, Any]:
    """Return the size fields of a released ELMo, as keywords for `ElmoConfig`.

    Args:
        name: small, medium or original (which "5.5B" shares).
    """
    dim, projection_dim, n_highway = NAMED_SIZES[choose("model size", name, NAMED_SIZES)]
    return {"dim": dim, "projection_dim": projection_dim, "n_highway": n_highway}


class ElmoOutput(NamedTuple):
    """What a sentence's words look like, layer by layer.

    Attributes:
        hidden: [1 + layers, batch, words, 2 · projection]: the words' own vectors, twice side by side, then each
            layer's forward and backward outputs side by side; 0 in padding.
        state: after each row's last word.
    """

    hidden: Float[Array, "outputs batch words features"]
    state: LstmState


class Elmo(nn.Module):
    """The character encoder and the two language models; softmax apart."""

    config: ElmoConfig

    def setup(self) -> None:
        """Declare the parts; their attribute names are the parameters' names."""
        config = self.config
        self.character_cnn = CharacterCnn(config, config.projection_dim, config.dtype)
        self.lstms = LstmStacks(config)

    def __call__(self, char_ids: Int[Array, "batch words characters"], state: LstmState | None = None) -> ElmoOutput:
        """Represent sentences, as features.

        Args:
            char_ids: the words, begin and end of the sentence among them (`corpus.characters`); words of zeros behind
                a row's last are padding, which changes nothing. The backward direction starts at the last real word.
            state: that the originals carry from one batch to the next, row by row; None starts anew.
        """
        return self.contextualize(self.encode(char_ids), jnp.any(char_ids > 0, axis=-1), state)

    def contextualize(
        self,
        tokens: Float[Array, "batch words projection"],
        mask: Bool[Array, "batch words"],
        state: LstmState | None = None,
    ) -> ElmoOutput:
        """Represent sentences whose words' own vectors are there already; see `__call__`.

        Args:
            tokens: what `encode` says of the words.
            mask: True for words, from each row's begin on; False behind them.
            state: before the first word; None starts anew.
        """
        lengths = mask.sum(axis=1)
        inputs = jnp.stack([tokens, reverse_rows(tokens, lengths)])
        state = zero_state(self.config, len(tokens)) if state is None else state
        outputs, state = self.read(inputs, state, mask)
        backward = jnp.stack([reverse_rows(layer, lengths) for layer in outputs[:, 1]])
        layers = jnp.concatenate([outputs[:, 0], backward], axis=-1)
        hidden = jnp.concatenate([jnp.concatenate([tokens, tokens], axis=-1)[None], layers])
        return ElmoOutput(jnp.where(mask[:, :, None], hidden, 0.0), state)

    def encode(self, char_ids: Int[Array, "*words characters"]) -> Float[Array, "*words projection"]:
        """Return the words' vectors, whatever stands around them."""
        return self.character_cnn(char_ids)

    def read(
        self,
        tokens: Float[Array, "directions batch words projection"],
        state: LstmState,
        mask: Bool[Array, "batch words"] | None = None,
        dropout_seed: UInt32[Array, ""] | None = None,
    ) -> tuple[Float[Array, "layers directions batch words projection"], LstmState]:
        """Return all layers' outputs in the directions' own orders, as language models are trained.

        Args:
            tokens: words' vectors in the order in which each direction reads them.
            state: from the words before.
            mask: see `LstmStacks`.
            dropout_seed: None switches dropout off.
        """
        tokens = with_logical_constraint(tokens, (None, "batch", "length", None))
        return self.lstms(tokens, state, mask, dropout_seed)


def reverse_rows(
    rows: Float[Array, "batch words features"], lengths: Int[Array, " batch"]
) -> Float[Array, "batch words features"]:
    """Return each row's first `length` words in reverse order, what lies behind them as it was.

    [a b c 0]      [c b a 0]
    [d e 0 0]  →   [e d 0 0]
    """
    places = jnp.arange(rows.shape[1])[None]
    sources = jnp.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)
    return jnp.take_along_axis(rows, sources[:, :, None], axis=1)


class ElmoLanguageModel(nn.Module):
    """ELMo with the softmax that it is trained with, which both directions share.

    Attributes:
        config: of ELMo.
        vocab_size: words that are predicted.
    """

    config: ElmoConfig
    vocab_size: int

    def setup(self) -> None:
        """Declare the parts; their attribute names are the parameters' names."""
        self.elmo = Elmo(self.config)
        self.softmax = Softmax(self.vocab_size, self.config.projection_dim)

    def __call__(self, char_ids: Int[Array, "batch words characters"]) -> None:
        """Touch every parameter, for initialisation."""
        self.elmo(char_ids)
        self.softmax()

    def encode(self, char_ids: Int[Array, "*words characters"]) -> Float[Array, "*words projection"]:
        """See `Elmo.encode`."""
        return self.elmo.encode(char_ids)

    def read(
        self,
        tokens: Float[Array, "directions batch words projection"],
        state: LstmState,
        dropout_seed: UInt32[Array, ""] | None = None,
    ) -> tuple[Float[Array, "directions batch words projection"], LstmState]:
        """Return the last layer's outputs, which predict the next word of each direction, and the state."""
        outputs, state = self.elmo.read(tokens, state, None, dropout_seed)
        return outputs[-1], state


class Softmax(nn.Module):
    """A vector and a bias for each word of a vocabulary.

    Attributes:
        vocab_size: words.
        features: of a vector.
    """

    vocab_size: int
    features: int

    @nn.compact
    def __call__(self) -> None:
        """Declare the parameters; whoever computes with them picks the rows that it needs."""
        init = with_axes(normal(math.sqrt(1.0 / self.features)), "vocab", "embed")  # bilm-tf: training.py
        self.param("embedding", init, (self.vocab_size, self.features), jnp.float32)
        self.param("bias", with_axes(nn.initializers.zeros_init(), "vocab"), (self.vocab_size,), jnp.float32)


class ScalarMix(nn.Module):
    """A task's own mixture of the layers: γ · Σ softmax(w)_j · layer_j. Starts as their mean.

    bilm-tf's penalty λ · Σ w² on `weights` (λ = 0.001 leaves them free, 1 keeps them near the mean) is the task's to
    add.

    Attributes:
        layer_norm: whether each layer is first normalised over all features of all real words of the batch.
    """

    layer_norm: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "outputs batch words features"],
        mask: Bool[Array, "batch words"] | None = None,
    ) -> Float[Array, "batch words features"]:
        """Return the mixture; `mask`, False in padding, is read by the normalisation alone."""
        weights = self.param("weights", nn.initializers.zeros_init(), hidden.shape[:1], jnp.float32)
        scale = self.param("scale", nn.initializers.ones_init(), (), jnp.float32)
        if self.layer_norm:
            hidden = _normalised(hidden, mask)
        return scale * jnp.einsum("l,lbwf->bwf", jax.nn.softmax(weights), hidden)


def _normalised(hidden: Array, mask: Array | None) -> Array:
    real = jnp.ones(hidden.shape[1:3]) if mask is None else mask
    real = real.astype(jnp.float32)[None, :, :, None]
    count = real.sum() * hidden.shape[-1]
    mean = (hidden * real).sum(axis=(1, 2, 3), keepdims=True) / count
    centred = (hidden - mean) * real
    variance = jnp.square(centred).sum(axis=(1, 2, 3), keepdims=True) / count
    return (hidden - mean) / jnp.sqrt(variance + 1e-12)
