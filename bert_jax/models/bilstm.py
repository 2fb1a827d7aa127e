"""A stack of bidirectional LSTMs over rows of any lengths, for taggers and heads; classical ones, without projection.

Source: Hochreiter & Schmidhuber 1997; Graves & Schmidhuber 2005, by flax's own cells. `models/recurrent.py` has ELMo's
LSTMs, which are projected, clipped, and do not meet between the layers.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


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
        hidden, lengths = inputs.astype(jnp.float32), jnp.sum(mask, axis=1)
        for layer in range(self.layers):
            # Cells get no name of their own: flax's RNN makes their parameters its own.
            forward, backward = (
                nn.RNN(nn.OptimizedLSTMCell(self.cells, parent=None), name=f"{direction}_{layer}")
                for direction in ("forward", "backward")
            )
            read: Any = nn.Bidirectional(forward, backward)(hidden, seq_lengths=lengths)
            hidden = read  # the carries come with it only when asked for
        return hidden


def ends(
    outputs: Float[Array, "batch words outputs"], mask: Int[Array, "batch words"]
) -> Float[Array, "batch outputs"]:
    """Return what each direction has read at its end: forward at the last word, backward at the first."""
    half = outputs.shape[-1] // 2
    last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)
    forward = jnp.take_along_axis(outputs[..., :half], last[:, None, None], axis=1)[:, 0]
    return jnp.concatenate([forward, outputs[:, 0, half:]], axis=-1)
