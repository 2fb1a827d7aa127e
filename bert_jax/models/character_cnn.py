"""A word's vector from its characters: convolutions, the maximum over places, highways, a projection.

Source: Kim et al. 2016; Peters et al. 2018 §3.4; allenai/bilm-tf `training.py` (_build_word_char_embeddings, whose
initial values these are).
Traps: the activation comes after the maximum; the highway gate that the released files call "carry" scales the
transformed part, 1 - carry the part that is carried on; id 0 is no character but the mask, its row is always zero.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_jax.config import choose
from bert_jax.models.layers import affine, normal, uniform, with_axes
from bert_jax.models.transformer import DTYPES

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}
# Width and number of the filters of every released model; 2048 in all.
RELEASED_FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
_CARRY_BIAS = -2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CharacterCnnConfig:
    """Sizes of the character encoder; the comments give the names in options.json's section `char_cnn`.

    Attributes:
        n_characters: rows of the embedding table, the mask's row 0 among them: 262 in every model.
        max_characters_per_token: a word's ids; fewer may be given (see `CharacterCnn`).
        character_dim: width of a character's embedding (`embedding.dim`).
        filters: pairs (width in characters, number), in the order of the concatenation.
        n_highway: highway layers; 0 = none.
        activation: "relu" or "tanh", behind the maximum; highways always have relu.
    """

    n_characters: int = 262
    max_characters_per_token: int = 50
    character_dim: int = 16
    filters: tuple[tuple[int, int], ...] = RELEASED_FILTERS
    n_highway: int = 2
    activation: str = "relu"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        choose("model.activation", self.activation, ACTIVATIONS)
        for name in ("n_characters", "max_characters_per_token", "character_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it takes 1 or more")
        if self.n_highway < 0:
            raise ValueError(f"model.n_highway is {self.n_highway}; it takes 0 or more")
        longest = self.max_characters_per_token
        if not self.filters or any(not 1 <= width <= longest or count < 1 for width, count in self.filters):
            raise ValueError(
                f"model.filters is {self.filters}; it takes pairs (width, number): widths of 1 to {longest} "
                "(model.max_characters_per_token), numbers of 1 or more"
            )

    @property
    def num_filters(self) -> int:
        """Features behind the maximum, and in the highways."""
        return sum(count for _, count in self.filters)


class CharacterCnn(nn.Module):
    """The character encoder.

    Attributes:
        config: sizes.
        features: of a word's vector. Equal to the number of filters, there is no projection (as in bilm-tf).
        dtype: of the products and the result; parameters are float32.
    """

    config: CharacterCnnConfig
    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, char_ids: Int[Array, "*words characters"]) -> Float[Array, "*words features"]:
        """Return the words' vectors.

        Args:
            char_ids: of whole words with their padding, 0 in words that are none. Trailing padding that all words share
                may be cut without changing a result, as long as the longest word keeps as many paddings as the widest
                filter has places: every window that is cut then has an equal left.
        """
        config, dtype = self.config, DTYPES[self.dtype]
        size, outer = config.character_dim, char_ids.shape[:-1]
        table = self.param("embedding", uniform(1.0), (config.n_characters, size), jnp.float32)
        table = jnp.where(jnp.arange(config.n_characters)[:, None] > 0, table, 0.0).astype(dtype)
        characters = jnp.take(table, char_ids.reshape(-1, char_ids.shape[-1]), axis=0)  # [words, characters, size]
        hidden = jnp.concatenate([self._strongest(index, characters) for index in range(len(config.filters))], axis=-1)
        hidden = ACTIVATIONS[config.activation](hidden)
        for index in range(config.n_highway):
            hidden = Highway(name=f"highway_{index}")(hidden)
        if config.num_filters != self.features:
            init = normal(math.sqrt(1.0 / config.num_filters))
            hidden = Affine(self.features, ("mlp", "embed"), init, name="projection")(hidden)
        return hidden.reshape(*outer, self.features)

    def _strongest(self, index: int, characters: Array) -> Array:
        """Return each filter's largest value over the places of a word: [words, filters of this width]."""
        width, count = self.config.filters[index]
        size = self.config.character_dim
        init = uniform(0.05) if self.config.activation == "relu" else normal(math.sqrt(1.0 / (width * size)))
        kernel = self.param(f"filter_{index}_kernel", with_axes(init, None, None, "mlp"), (width, size, count))
        zeros = with_axes(nn.initializers.zeros_init(), "mlp")
        bias = self.param(f"filter_{index}_bias", zeros, (count,), jnp.float32)
        places = characters.shape[1] - width + 1
        # A window's characters side by side: the convolution is one product of all windows.
        windows = jnp.concatenate([characters[:, start : start + places] for start in range(width)], axis=-1)
        products = windows.reshape(-1, width * size) @ kernel.reshape(width * size, count).astype(characters.dtype)
        strongest = products.reshape(-1, places, count).max(axis=1)
        return strongest + bias.astype(characters.dtype)  # the same at every place


class Highway(nn.Module):
    """One highway layer: carry · relu(x · T + t) + (1 - carry) · x, with carry = σ(x · C + c)."""

    @nn.compact
    def __call__(self, hidden: Float[Array, "words features"]) -> Float[Array, "words features"]:
        """Return the mixture of the input and its transform."""
        size = hidden.shape[-1]
        init = normal(math.sqrt(1.0 / size))
        carry = jax.nn.sigmoid(Affine(size, ("embed", "mlp"), init, _CARRY_BIAS, name="carry")(hidden))
        transformed = jax.nn.relu(Affine(size, ("embed", "mlp"), init, name="transform")(hidden))
        return carry * transformed + (1.0 - carry) * hidden


class Affine(nn.Module):
    """A dense layer with initial values of its own; in the dtype of its input.

    Attributes:
        features: of the output.
        axes: logical names of the kernel's axes.
        init: of the kernel.
        bias: its initial value.
    """

    features: int
    axes: tuple[str, str]
    init: Any
    bias: float = 0.0

    @nn.compact
    def __call__(self, inputs: Float[Array, "words inputs"]) -> Float[Array, "words features"]:
        """Return inputs · kernel + bias."""
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", with_axes(self.init, *self.axes), shape, jnp.float32)
        constant = with_axes(nn.initializers.constant(self.bias), self.axes[1])
        bias = self.param("bias", constant, (self.features,), jnp.float32)
        return affine(inputs, kernel, bias)
