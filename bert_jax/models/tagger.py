"""A tagger on top of frozen vectors: a mixture of layers, a BiLSTM, one dense layer.

Source: Devlin et al. 2019 §5.3 ("randomly initialized two-layer 768-dimensional BiLSTM before the classification
layer"); Peters et al. 2018 §3.2 for the mixture.
Differs: dropout and the mixture's weights are not in the paper; a weighted sum is learned here, as ELMo's is.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from bert_jax.models.bilstm import BiLstm
from bert_jax.models.elmo import ScalarMix
from bert_jax.models.layers import dropout, fold_seed

_INPUT, _OUTPUT = 0, 1  # dropout's sites


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggerConfig:
    """Sizes.

    Attributes:
        cells: of each direction of the BiLSTM.
        layers: of it.
        dropout: of its inputs and outputs, in training.
    """

    cells: int = 768
    layers: int = 2
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name in ("cells", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"config.model.{name} is {getattr(self, name)}; it takes 1 or more")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"config.model.dropout is {self.dropout}; it takes 0 ≤ rate < 1")


class Tagger(nn.Module):
    """Vectors of words → logits of tags.

    Attributes:
        config: sizes.
        outputs: tags.
    """

    config: TaggerConfig
    outputs: int

    @nn.compact
    def __call__(
        self,
        vectors: Float[Array, "batch kept words features"],
        mask: Int[Array, "batch words"],
        dropout_seed: UInt32[Array, ""] | None = None,
    ) -> Float[Array, "batch words outputs"]:
        """Return float32 logits.

        Args:
            vectors: of each word, in one layer or in several, whose mixture is learned then.
            mask: 1 for words, 0 for padding at the row's end.
            dropout_seed: None switches dropout off.
        """
        rate = self.config.dropout
        seeds = [None if dropout_seed is None else fold_seed(dropout_seed, site) for site in (_INPUT, _OUTPUT)]
        layers = jnp.swapaxes(vectors.astype(jnp.float32), 0, 1)
        hidden = layers[0] if len(layers) == 1 else ScalarMix(name="mixture")(layers)
        hidden = dropout(hidden, rate, seeds[_INPUT])
        hidden = BiLstm(self.config.cells, self.config.layers, name="bilstm")(hidden, mask)
        return nn.Dense(self.outputs, name="classifier")(dropout(hidden, rate, seeds[_OUTPUT]))
