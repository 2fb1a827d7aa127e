"""A stack of bidirectional LSTMs over rows of any lengths, for taggers and heads; classical ones, without projection.

Source: Hochreiter & Schmidhuber 1997; Graves & Schmidhuber 2005; `models/lstm.py` has the cells.
Differs: the forget gate begins with a bias of 1 (Jozefowicz et al. 2015). `models/recurrent.py` has ELMo's LSTMs, which
are projected, clipped, and do not meet between the layers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bert_jax.models.lstm import DIRECTIONS, GATES, LstmWeights, read_words

_NO_CLIPS = (0.0, 0.0)


class BiLstm(nn.Module):
    """The layers; each reads both directions of the one below.

    Attributes:
        cells: of each direction.
        layers: 1 or more.
    """

    cells: int
    layers: int = 1

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch words features"], mask: Int[Array, "batch words"]
    ) -> Float[Array, "batch words outputs"]:
        """Return float32 outputs, forward and backward side by side.

        Args:
            inputs: of any width.
            mask: 1 for words, 0 for padding at the row's end, which no word sees and whose outputs mean nothing.
        """
        hidden, real = inputs.astype(jnp.float32), jnp.swapaxes(mask, 0, 1)[..., None] > 0  # [words, batch, 1]
        for layer in range(self.layers):
            weights = self._weights(layer, hidden.shape[-1])
            both = jnp.stack([hidden, _reversed(hidden, mask)])
            zeros = jnp.zeros((DIRECTIONS, len(hidden), self.cells))
            read, *_ = read_words(_NO_CLIPS, jnp.swapaxes(both, 1, 2), real, weights, zeros, zeros)
            forward, backward = jnp.swapaxes(read, 1, 2)  # [directions, batch, words, cells]
            hidden = jnp.concatenate([forward, _reversed(backward, mask)], axis=-1)
        return hidden

    def _weights(self, layer: int, features: int) -> LstmWeights:
        """Declare a layer's parameters; each gate's hidden kernel begins orthogonal."""
        gates = GATES * self.cells
        lecun, orthogonal = nn.initializers.lecun_normal(batch_axis=0), nn.initializers.orthogonal()

        def by_gate(key: Array, shape: tuple[int, int, int]) -> Array:
            keys = jax.random.split(key, DIRECTIONS * GATES)
            kernels = jnp.concatenate([orthogonal(each, (self.cells, self.cells)) for each in keys], axis=-1)
            return kernels.reshape(self.cells, DIRECTIONS, gates).swapaxes(0, 1)

        return LstmWeights(
            self.param(f"input_kernel_{layer}", lecun, (DIRECTIONS, features, gates)),
            self.param(f"hidden_kernel_{layer}", by_gate, (DIRECTIONS, self.cells, gates)),
            self.param(f"bias_{layer}", nn.initializers.zeros, (DIRECTIONS, gates)),
        )


def _reversed(rows: Float[Array, "batch words features"], mask: Int[Array, "batch words"]) -> Array:
    """Return each row's words from its last to its first; padding stays behind them."""
    words = jnp.arange(mask.shape[1])
    left = jnp.sum(mask, axis=1, keepdims=True) - 1 - words
    return jnp.take_along_axis(rows, jnp.where(left >= 0, left, words)[..., None], axis=1)


def ends(
    outputs: Float[Array, "batch words outputs"], mask: Int[Array, "batch words"]
) -> Float[Array, "batch outputs"]:
    """Return what each direction has read at its end: forward at the last word, backward at the first."""
    half = outputs.shape[-1] // 2
    last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)
    forward = jnp.take_along_axis(outputs[..., :half], last[:, None, None], axis=1)[:, 0]
    return jnp.concatenate([forward, outputs[:, 0, half:]], axis=-1)
