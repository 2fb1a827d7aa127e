"""Stacks of projected LSTMs, two directions as one batched computation.

Source: Sak et al. 2014 (projection); allenai/bilm-tf `training.py` and TensorFlow 1's `LSTMCell` (order of the gates,
forget bias, clips). Traps: the gates stand in the order input, candidate, forget, output; the forget gate gets 1.0
added at run time; the clipped projection is both the output and the next hidden state; a skip connection adds a
layer's (dropped-out) input to its output, for layers behind the first, and not to the state.
Differs: the products with the inputs are formed before the scan, for all words at once, and the parameters' gradients
after the backward scan, from all words at once, instead of at every word: a scan reads each weight once a word, and
memory bandwidth is what limits it on every kind of device.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, UInt32

from bert_jax.config import choose
from bert_jax.models.layers import dropout, fold_seed, uniform, with_axes
from bert_jax.models.transformer import DTYPES

DIRECTIONS = 2  # forward, backward
GATES = 4  # input, candidate, forget, output
FORGET_BIAS = 1.0  # added, not stored
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
        clips = (config.cell_clip, config.proj_clip)
        times = None if mask is None else mask.T[:, :, None]
        hidden = jnp.swapaxes(inputs.astype(dtype), 1, 2)  # [directions, words, batch, projection]
        outputs, cells, hiddens = [], [], []
        gates = (config.n_layers, DIRECTIONS, -1, GATES * config.dim)
        kernels = (self.input_kernel.reshape(gates), self.hidden_kernel.reshape(gates))
        stacked = _Weights(*kernels, self.bias.reshape(config.n_layers, DIRECTIONS, -1), self.projection)
        by_layer: Any = _unstack(stacked)
        for layer, weights in enumerate(by_layer):
            hidden = dropout(hidden, config.dropout, _site_seed(dropout_seed, layer))
            cell = jnp.swapaxes(state.cell[:, layer], 0, 1)
            before = jnp.swapaxes(state.hidden[:, layer], 0, 1)
            result: Any = lstm_layer(clips, hidden, times, weights, cell, before)
            read, cell, after = result
            hidden = read + hidden if layer and config.use_skip_connections else read
            outputs.append(hidden)
            cells.append(jnp.swapaxes(cell, 0, 1))
            hiddens.append(jnp.swapaxes(after, 0, 1))
        outputs[-1] = dropout(outputs[-1], config.dropout, _site_seed(dropout_seed, _OUTPUT_SITE))
        after_all = LstmState(jnp.stack(cells, axis=1), jnp.stack(hiddens, axis=1))
        return jnp.swapaxes(jnp.stack(outputs), 2, 3), after_all


def _site_seed(seed: Array | None, site: int) -> Array | None:
    return None if seed is None else fold_seed(seed, site)


class _Weights(NamedTuple):
    """One layer's parameters; gates and cells are one axis.

    Attributes:
        input_kernel: [directions, projection, gates · cells].
        hidden_kernel: [directions, projection, gates · cells].
        bias: [directions, gates · cells].
        projection: [directions, cells, projection].
    """

    input_kernel: Array
    hidden_kernel: Array
    bias: Array
    projection: Array


@jax.custom_vjp
def _unstack(stacked: _Weights) -> list[_Weights]:
    """Return the layers' weights. Autodiff would write each layer's gradient into zeros and add these up."""
    return [_Weights(*(leaf[layer] for leaf in stacked)) for layer in range(len(stacked.bias))]


def _unstack_forward(stacked: _Weights) -> tuple[list[_Weights], None]:
    return _unstack(stacked), None


def _unstack_backward(residuals: None, gradients: list[_Weights]) -> tuple[_Weights]:
    return (_Weights(*(jnp.stack(leaves) for leaves in zip(*gradients, strict=True))),)


_unstack.defvjp(_unstack_forward, _unstack_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def lstm_layer(
    clips: tuple[float, float], inputs: Array, mask: Array | None, weights: _Weights, cell: Array, hidden: Array
) -> tuple[Array, Array, Array]:
    """Run one layer of both directions.

    Args:
        clips: of cells and of hidden states; 0 = none.
        inputs: [directions, words, batch, projection], in the dtype of the products.
        mask: bool [words, batch, 1], or None.
        weights: float32.
        cell: float32 [directions, batch, cells], before the first word.
        hidden: float32 [directions, batch, projection], before the first word.

    Returns:
        Hidden states [directions, words, batch, projection] in the inputs' dtype, and the last cell and hidden state.
    """
    outputs, _, last = _read(clips, inputs, mask, weights, cell, hidden, keep=False)
    return outputs, *last


def _forward(
    clips: tuple[float, float], inputs: Array, mask: Array | None, weights: _Weights, cell: Array, hidden: Array
) -> tuple[tuple[Array, Array, Array], Any]:
    outputs, kept, last = _read(clips, inputs, mask, weights, cell, hidden, keep=True)
    return (outputs, *last), (inputs, mask, weights, cell, hidden, outputs, kept)


def _products(left: Array, right: Array) -> Array:
    """Return left · right for each direction, at least in float32."""
    return jnp.matmul(left, right, preferred_element_type=jnp.promote_types(left.dtype, jnp.float32))


def _at(array: Array, time: Any) -> Array:
    return jax.lax.dynamic_index_in_dim(array, time, axis=1, keepdims=False)


def _put(array: Array, values: Array, time: Any) -> Array:
    return jax.lax.dynamic_update_index_in_dim(array, values.astype(array.dtype), time, axis=1)


def _read(
    clips: tuple[float, float],
    inputs: Array,
    mask: Array | None,
    weights: _Weights,
    cell: Array,
    hidden: Array,
    *,
    keep: bool,
) -> tuple[Array, tuple[Array, Array] | None, tuple[Array, Array]]:
    """Return the outputs, what the backward pass needs (activated gates, cells), the state."""
    cell_clip, proj_clip = clips
    directions, words, batch, size = inputs.shape
    dtype = inputs.dtype
    # The scans read some arrays and write others: what a loop reads and writes, XLA copies whole at every turn.
    reads = _products(inputs.reshape(directions, words * batch, size), weights.input_kernel.astype(dtype))
    reads = reads.astype(dtype).reshape(directions, words, batch, -1)
    hidden_kernel, projection = weights.hidden_kernel.astype(dtype), weights.projection.astype(dtype)

    def step(time: Any, carry: Any) -> Any:
        cell, hidden, outputs, gates, cells = carry
        sums = _at(reads, time) + _products(hidden, hidden_kernel) + weights.bias[:, None]
        in_gate, candidate, forget, out = jnp.split(sums, GATES, axis=-1)
        in_gate, candidate = jax.nn.sigmoid(in_gate), jnp.tanh(candidate)
        forget, out = jax.nn.sigmoid(forget + FORGET_BIAS), jax.nn.sigmoid(out)
        after = _clip(forget * cell + in_gate * candidate, cell_clip)
        projected = _clip(_products((out * jnp.tanh(after)).astype(dtype), projection), proj_clip).astype(dtype)
        if mask is not None:
            after, projected = jnp.where(mask[time], after, cell), jnp.where(mask[time], projected, hidden)
        if keep:
            gates = _put(gates, jnp.concatenate([in_gate, candidate, forget, out], axis=-1), time)
            cells = _put(cells, after, time)
        return after, projected, _put(outputs, projected, time), gates, cells

    gates = jax.lax.empty(reads.shape, dtype) if keep else None
    cells = jax.lax.empty((directions, words, *cell.shape[1:]), cell.dtype) if keep else None
    carry = (cell, hidden.astype(dtype), jax.lax.empty(inputs.shape, dtype), gates, cells)
    cell, hidden, outputs, gates, cells = jax.lax.fori_loop(0, words, step, carry)
    return outputs, (gates, cells) if keep else None, (cell, hidden.astype(cell.dtype))


def _clip(values: Array, limit: float) -> Array:
    return jnp.clip(values, -limit, limit) if limit else values


def _unclipped(gradient: Array, clipped: Array, limit: float) -> Array:
    """Return the gradient before `_clip`, from what came out of it."""
    return jnp.where(jnp.abs(clipped) < limit, gradient, 0.0) if limit else gradient


def _backward(clips: tuple[float, float], residuals: Any, gradients: tuple[Array, Array, Array]) -> Any:
    inputs, mask, weights, cell, hidden, outputs, (gates, cells) = residuals
    outputs_gradient, cell_gradient, hidden_gradient = gradients
    directions, words, batch, size = inputs.shape
    dtype = inputs.dtype
    # Transposed once, not at every word; without the barrier XLA folds the transposition into the products.
    hidden_kernel, projection = jax.lax.optimization_barrier(
        tuple(jnp.swapaxes(kernel.astype(dtype), 1, 2) for kernel in (weights.hidden_kernel, weights.projection))
    )

    def step(count: Any, carry: Any) -> Any:
        time = words - 1 - count
        d_cell, d_hidden, d_gates, read, d_projected = carry
        in_gate, candidate, forget, out = jnp.split(_at(gates, time).astype(cell.dtype), GATES, axis=-1)
        before, after = jnp.where(time > 0, _at(cells, jnp.maximum(time - 1, 0)), cell), _at(cells, time)
        d_hidden = d_hidden + _at(outputs_gradient, time).astype(cell.dtype)
        real = True if mask is None else mask[time]
        d_product = _unclipped(d_hidden, _at(outputs, time), clips[1])
        d_product = jnp.where(real, d_product, 0.0).astype(dtype)
        d_read = _products(d_product, projection)
        squashed = jnp.tanh(after)
        d_after = jnp.where(real, d_cell, 0.0) + d_read * out * (1.0 - squashed * squashed)
        d_after = _unclipped(d_after, after, clips[0])
        d_sums = jnp.concatenate(
            [
                d_after * candidate * in_gate * (1.0 - in_gate),
                d_after * in_gate * (1.0 - candidate * candidate),
                d_after * before * forget * (1.0 - forget),
                d_read * squashed * out * (1.0 - out),
            ],
            axis=-1,
        ).astype(dtype)
        d_cell = d_after * forget + jnp.where(real, 0.0, d_cell)
        d_hidden = _products(d_sums, hidden_kernel) + jnp.where(real, 0.0, d_hidden)
        read, d_projected = _put(read, out * squashed, time), _put(d_projected, d_product, time)
        return d_cell, d_hidden, _put(d_gates, d_sums, time), read, d_projected

    empty = (jax.lax.empty(shape, dtype) for shape in (gates.shape, cells.shape, inputs.shape))
    carry = (cell_gradient, hidden_gradient, *empty)
    d_cell, d_hidden, d_gates, read, d_projected = jax.lax.fori_loop(0, words, step, carry)

    before = jnp.concatenate([hidden.astype(dtype)[:, None], outputs[:, :-1]], axis=1)
    flat = lambda array: array.reshape(directions, words * batch, -1)  # noqa: E731
    rows = flat(jnp.concatenate([inputs, before], axis=-1))
    kernels = _products(jnp.swapaxes(rows, 1, 2), flat(d_gates))
    bias = _products(jnp.ones((directions, 1, words * batch), dtype), flat(d_gates))[:, 0]
    projection = _products(jnp.swapaxes(flat(read), 1, 2), flat(d_projected))
    d_inputs = jnp.einsum("dng,dpg->dnp", flat(d_gates), weights.input_kernel.astype(dtype))
    d_weights = _Weights(kernels[:, :size], kernels[:, size:], bias, projection)
    return d_inputs.reshape(inputs.shape), None, d_weights, d_cell, d_hidden


lstm_layer.defvjp(_forward, _backward)
