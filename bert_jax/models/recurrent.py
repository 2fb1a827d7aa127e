"""ELMo's stacks of projected LSTMs, one for each direction, which do not meet; `models/lstm.py` has the cells.

Source: allenai/bilm-tf `training.py`. Trap: a skip connection adds a layer's (dropped-out) input to its output, for
layers behind the first, and not to the state.
"""

import dataclasses
import math
import operator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, UInt32

from bert_jax.config import choose
from bert_jax.models.layers import dropout, fold_seed, uniform, with_axes
from bert_jax.models.lstm import DIRECTIONS, GATES, LstmWeights, read_words
from bert_jax.models.transformer import DTYPES

_OUTPUT_SITE = 2**31  # dropout's seed of the last output; layers count up from 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """Sizes of the two stacks; the names are those of options.json's section `lstm`.

    Attributes:
        dim: cells of a layer and direction.
        projection_dim: width of inputs, hidden states and outputs of a direction.
        n_layers: 1 or more.
        cell_clip: cells are clipped to ± this; 0 = not.
        proj_clip: hidden states are clipped to ± this; 0 = not.
        use_skip_connections: whether layers behind the first add their input to their output.
        dropout: of every layer's input and of the last output, in training.
        dtype: "float32" or "bfloat16", of the products; cells and gates are float32, as are parameters.
    """

    dim: int
    projection_dim: int
    n_layers: int = 2
    cell_clip: float = 3.0
    proj_clip: float = 3.0
    use_skip_connections: bool = True
    dropout: float = 0.1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        choose("model.dtype", self.dtype, DTYPES)
        for name in ("dim", "projection_dim", "n_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it takes 1 or more")
        for name in ("cell_clip", "proj_clip"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it takes 0 (no clipping) or more")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"model.dropout is {self.dropout}; it takes 0 ≤ rate < 1")


class LstmState(NamedTuple):
    """What flows from one batch to the next, float32. The batch leads, so that a carry is sharded like a batch.

    Attributes:
        cell: [batch, layers, directions, cells].
        hidden: [batch, layers, directions, projection].
    """

    cell: Float32[Array, "batch layers directions cells"]
    hidden: Float32[Array, "batch layers directions projection"]


def zero_state(config: RecurrentConfig, batch_size: int) -> LstmState:
    """Return the state before the first word."""
    shape = (batch_size, config.n_layers, DIRECTIONS)
    return LstmState(jnp.zeros((*shape, config.dim)), jnp.zeros((*shape, config.projection_dim)))


class LstmStacks(nn.Module):
    """The forward and the backward stack; every parameter has leading axes for layers and directions."""

    config: RecurrentConfig

    def setup(self) -> None:
        """Declare the parameters; the two kernels are the upper and lower half of TensorFlow's one."""
        config = self.config
        stacked = (config.n_layers, DIRECTIONS)
        size, cells = config.projection_dim, config.dim
        # Glorot's limits for TensorFlow's kernel of [inputs and hidden, gates · cells].
        init = uniform(math.sqrt(6.0 / (2 * size + GATES * cells)))
        kernel = with_axes(init, "layers", None, "embed", None, "mlp")
        self.input_kernel = self.param("input_kernel", kernel, (*stacked, size, GATES, cells), jnp.float32)
        self.hidden_kernel = self.param("hidden_kernel", kernel, (*stacked, size, GATES, cells), jnp.float32)
        zeros = with_axes(nn.initializers.zeros_init(), "layers", None, None, "mlp")
        self.bias = self.param("bias", zeros, (*stacked, GATES, cells), jnp.float32)
        init = uniform(math.sqrt(6.0 / (cells + size)))
        projection = with_axes(init, "layers", None, "mlp", "embed")
        self.projection = self.param("projection", projection, (*stacked, cells, size), jnp.float32)

    def __call__(
        self,
        inputs: Float[Array, "directions batch words projection"],
        state: LstmState,
        mask: Bool[Array, "batch words"] | None = None,
        dropout_seed: UInt32[Array, ""] | None = None,
    ) -> tuple[Float[Array, "layers directions batch words projection"], LstmState]:
        """Return every layer's outputs and the state after the last word.

        Args:
            inputs: each direction's words in its own reading order.
            state: before the first word.
            mask: False where a row has no word: its state stays, its output there means nothing. None is all True.
            dropout_seed: None switches dropout off.
        """
        config, dtype = self.config, DTYPES[self.config.dtype]
        clips = config.cell_clip, config.proj_clip
        times = None if mask is None else mask.T[:, :, None]
        hidden = jnp.swapaxes(inputs.astype(dtype), 1, 2)  # [directions, words, batch, projection]
        outputs, cells, hiddens = [], [], []
        sites = (*range(config.n_layers), _OUTPUT_SITE)
        seeds = [None if dropout_seed is None else fold_seed(dropout_seed, site) for site in sites]
        parameters = (self.input_kernel, self.hidden_kernel, self.bias)
        flat = [each.reshape(*each.shape[:-2], GATES * config.dim) for each in parameters]
        by_layer: Any = _unstack(LstmWeights(*flat, projection=self.projection))
        for layer, weights in enumerate(by_layer):
            hidden = dropout(hidden, config.dropout, seeds[layer])
            cell = jnp.swapaxes(state.cell[:, layer], 0, 1)
            before = jnp.swapaxes(state.hidden[:, layer], 0, 1)
            read, cell, after = read_words(clips, hidden, times, weights, cell, before)
            hidden = read + hidden if layer and config.use_skip_connections else read
            outputs.append(hidden)
            cells.append(jnp.swapaxes(cell, 0, 1))
            hiddens.append(jnp.swapaxes(after, 0, 1))
        outputs[-1] = dropout(outputs[-1], config.dropout, seeds[-1])
        after_all = LstmState(jnp.stack(cells, axis=1), jnp.stack(hiddens, axis=1))
        return jnp.swapaxes(jnp.stack(outputs), 2, 3), after_all


@jax.custom_vjp
def _unstack(stacked: LstmWeights) -> list[LstmWeights]:
    """Return the layers' weights. Autodiff would write each layer's gradient into zeros and add these up."""
    return [jax.tree.map(operator.itemgetter(layer), stacked) for layer in range(len(stacked.bias))]


def _unstack_forward(stacked: LstmWeights) -> tuple[list[LstmWeights], None]:
    return _unstack(stacked), None


def _unstack_backward(residuals: None, gradients: list[LstmWeights]) -> tuple[LstmWeights]:
    return (jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients),)


_unstack.defvjp(_unstack_forward, _unstack_backward)
