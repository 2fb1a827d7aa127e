"""Stacks of projected LSTMs, two directions as one batched computation.

Source: Sak et al. 2014 (projection); allenai/bilm-tf `training.py` and TensorFlow 1's `LSTMCell` (order of the gates,
forget bias, clips). Traps: the gates stand in the order input, candidate, forget, output; the forget gate gets 1.0
added at run time; the clipped projection is both the output and the next hidden state; a skip connection adds a
layer's (dropped-out) input to its output, for layers behind the first, and not to the state.
Differs: the products with the inputs are formed before the scan, for all words at once, and the parameters' gradients
after the backward scan, from all words at once, instead of at every word: a scan reads each weight once a word, and
memory bandwidth limits it on every kind of device.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, UInt32

from bert_jax.config import choose
from bert_jax.models.layers import dividing_axes, dropout, fold_seed, on_cpu, uniform, with_axes
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
        read_words = functools.partial(lstm_layer, (config.cell_clip, config.proj_clip))
        times = None if mask is None else mask.T[:, :, None]
        hidden = jnp.swapaxes(inputs.astype(dtype), 1, 2)  # [directions, words, batch, projection]
        outputs, cells, hiddens = [], [], []
        sites = (*range(config.n_layers), _OUTPUT_SITE)
        seeds = [None if dropout_seed is None else fold_seed(dropout_seed, site) for site in sites]
        parameters = (self.input_kernel, self.hidden_kernel, self.bias)
        flat = [each.reshape(*each.shape[:-2], GATES * config.dim) for each in parameters]
        by_layer: Any = _unstack(_Weights(*flat, projection=self.projection))
        for layer, weights in enumerate(by_layer):
            hidden = dropout(hidden, config.dropout, seeds[layer])
            cell = jnp.swapaxes(state.cell[:, layer], 0, 1)
            before = jnp.swapaxes(state.hidden[:, layer], 0, 1)
            read, cell, after = _by_rows(read_words, hidden, times, weights, cell, before)
            hidden = read + hidden if layer and config.use_skip_connections else read
            outputs.append(hidden)
            cells.append(jnp.swapaxes(cell, 0, 1))
            hiddens.append(jnp.swapaxes(after, 0, 1))
        outputs[-1] = dropout(outputs[-1], config.dropout, seeds[-1])
        after_all = LstmState(jnp.stack(cells, axis=1), jnp.stack(hiddens, axis=1))
        return jnp.swapaxes(jnp.stack(outputs), 2, 3), after_all


def _by_rows(layer: Any, inputs: Array, *others: Any) -> Any:
    """Run a layer on each device's rows: left to itself the compiler lets every device read all rows, in the loops."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = dividing_axes("batch", inputs.shape[2], mesh) if mesh.auto_axes else ()
    if math.prod(mesh.shape[axis] for axis in axes) == 1:
        return layer(inputs, *others)
    rows, state = PartitionSpec(None, None, axes), PartitionSpec(None, axes)  # a mask's axes are as a state's
    specs = {"in_specs": (rows, state, PartitionSpec(), state, state), "out_specs": (rows, state, state)}
    return jax.shard_map(layer, **specs, check_vma=False)(inputs, *others)


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
    return _read(False, clips, inputs, mask, weights, cell, hidden)[0]


def _forward(
    clips: tuple[float, float], inputs: Array, mask: Array | None, weights: _Weights, cell: Array, hidden: Array
) -> tuple[tuple[Array, Array, Array], Any]:
    result, kept = _read(True, clips, inputs, mask, weights, cell, hidden)
    return result, (inputs, mask, weights, hidden, result[0], kept)


def _split(tree: Any) -> list[Any]:
    """Return what is computed by operations of its own: each direction, or both as one, with an axis in front.

    A CPU runs independent operations at once, but a loop's writes on one core each, a batch's products one by one.
    """
    if not on_cpu():
        return [tree]
    return [jax.tree.map(lambda leaf: leaf[direction], tree) for direction in range(DIRECTIONS)]  # noqa: B023


def _join(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts) if on_cpu() else parts[0]


def _product(left: Array, right: Array) -> Array:
    """Return left · right, at least in float32."""
    return jnp.matmul(left, right, preferred_element_type=jnp.promote_types(left.dtype, jnp.float32))


# Not `vmap`, which would make these slices gathers and scatters: arrays are [words, batch, …], or both directions' with
# an axis in front.
def _at(array: Array, time: Any) -> Array:
    return jax.lax.dynamic_index_in_dim(array, time, axis=array.ndim - 3, keepdims=False)


def _put(array: Array, values: Array, time: Any, first_column: int = 0) -> Array:
    values = jnp.expand_dims(values.astype(array.dtype), -3)
    return jax.lax.dynamic_update_slice(array, values, (*[0] * (array.ndim - 3), time, 0, first_column))


def _halved(weights: _Weights, dtype: Any) -> _Weights:
    """Return the weights in the dtype of the products, those of σ's gates for half of σ's argument (see `_sigmoid`)."""
    cells = weights.bias.shape[-1] // GATES
    halves = jnp.repeat(jnp.array([0.5, 1.0, 0.5, 0.5], weights.bias.dtype), cells)
    forget = jnp.repeat(jnp.array([0.0, 0.0, FORGET_BIAS, 0.0], weights.bias.dtype), cells)
    read, last = (weights.input_kernel * halves).astype(dtype), (weights.hidden_kernel * halves).astype(dtype)
    return _Weights(read, last, (weights.bias + forget) * halves, weights.projection.astype(dtype))


def _sigmoid(squashed: Array) -> Array:
    """Return σ(x) from tanh(x / 2): all gates are one tanh."""
    return 0.5 * squashed + 0.5


def _read(keep: bool, clips: tuple[float, float], inputs: Array, mask: Array | None, *start: Any) -> Any:
    """Return outputs and state, and what the backward pass needs of each part of `_split`; `start` as in `lstm_layer`.

    That is squashed gates, cells (the first one is that before the first word) and what was projected.
    """
    (weights, cell, hidden), dtype = start, inputs.dtype
    # The barrier, here and below: or loops would cut the parts out of the whole anew at every turn.
    parts = jax.lax.optimization_barrier(_split((inputs, _halved(weights, dtype), cell, hidden.astype(dtype))))
    halved = [part[1] for part in parts]
    carries = [_begin(keep, *part) for part in parts]

    def turn(time: Any, carries: list[Any]) -> list[Any]:
        return [_step(clips, mask, time, *pair) for pair in zip(halved, carries, strict=True)]

    carries = jax.lax.fori_loop(0, inputs.shape[1], turn, carries)
    outputs, after, last = _join([(carry[2], carry[0], carry[1]) for carry in carries])
    return (outputs, after, last.astype(cell.dtype)), [carry[3] for carry in carries]


def _begin(keep: bool, rows: Array, halved: _Weights, cell: Array, hidden: Array) -> Any:
    """Return the carry before the first word."""
    *both, words, batch, _ = rows.shape
    gates = _product(_flat(rows), halved.input_kernel).astype(rows.dtype)
    kept = gates.reshape(*both, words, batch, -1), None, None
    if keep:
        cells = _put(jax.lax.empty((*both, words + 1, batch, cell.shape[-1]), cell.dtype), cell, 0)
        kept = kept[0], cells, jax.lax.empty((*both, words, batch, cell.shape[-1]), rows.dtype)
    return cell, hidden, jax.lax.empty(rows.shape, rows.dtype), kept


def _step(clips: tuple[float, float], mask: Array | None, time: Any, weights: _Weights, carry: Any) -> Any:
    """Return the carry behind a word from that before it."""
    before, hidden, outputs, (gates, cells, exposed) = carry
    # A word's gates replace what was read for them: that halves the memory, and no other memory is cleared.
    squashed = jnp.tanh(_at(gates, time) + _product(hidden, weights.hidden_kernel) + weights.bias[..., None, :])
    in_gate, candidate, forget, out = jnp.split(squashed, GATES, axis=-1)
    cell = _clip(_sigmoid(forget) * before + _sigmoid(in_gate) * candidate, clips[0])
    shown = (_sigmoid(out) * jnp.tanh(cell)).astype(hidden.dtype)
    projected = _clip(_product(shown, weights.projection), clips[1]).astype(hidden.dtype)
    if mask is not None:
        cell, projected = jnp.where(mask[time], cell, before), jnp.where(mask[time], projected, hidden)
    if cells is not None:
        gates, cells, exposed = _put(gates, squashed, time), _put(cells, cell, time + 1), _put(exposed, shown, time)
    return cell, projected, _put(outputs, projected, time), (gates, cells, exposed)


def _clip(values: Array, limit: float) -> Array:
    return jnp.clip(values, -limit, limit) if limit else values


def _unclipped(gradient: Array, clipped: Array, limit: float) -> Array:
    """Return the gradient before `_clip`, from what came out of it."""
    return jnp.where(jnp.abs(clipped) < limit, gradient, 0.0) if limit else gradient


def _backward(clips: tuple[float, float], residuals: Any, gradients: tuple[Array, Array, Array]) -> Any:
    inputs, mask, weights, hidden, outputs, kept = residuals
    words = inputs.shape[1]
    turned = jax.tree.map(lambda kernel: jnp.swapaxes(kernel.astype(inputs.dtype), 1, 2), weights._replace(bias=None))
    whole = (inputs, hidden.astype(inputs.dtype), outputs, turned, gradients)
    parts = jax.lax.optimization_barrier(_split(whole))
    carries = [_begin_back(*pair) for pair in zip(parts, kept, strict=True)]

    def turn(count: Any, carries: list[Any]) -> list[Any]:
        time = words - 1 - count
        return [_step_back(clips, mask, time, *each) for each in zip(parts, kept, carries, strict=True)]

    carries = jax.lax.fori_loop(0, words, turn, carries)
    d_inputs, d_weights, d_cell, d_hidden = _join([_end_back(*each) for each in zip(parts, kept, carries, strict=True)])
    return d_inputs, None, d_weights, d_cell, d_hidden


def _begin_back(part: Any, kept: Any) -> Any:
    """Return the carry behind the last word; the gates' array turns into that of their gradients."""
    d_outputs, d_cell, d_hidden = part[-1]
    return d_cell, d_hidden, kept[0][..., -1, :, :], kept[0], jax.lax.empty(d_outputs.shape, d_outputs.dtype)


def _step_back(clips: tuple[float, float], mask: Array | None, time: Any, part: Any, kept: Any, carry: Any) -> Any:
    """Return the carry before a word from that behind it.

    The carry's gates are those of the word at hand. They are taken from the array ahead of it, whose place then gets
    the gradients: what a loop reads and writes, XLA copies whole at every turn unless all reads come first.
    """
    _, _, outputs, turned, (d_outputs, _, _) = part
    d_cell, d_hidden, squashed, gates, d_projected = carry
    before, after = _at(kept[1], time), _at(kept[1], time + 1)
    in_gate, candidate, forget, out = jnp.split(squashed.astype(after.dtype), GATES, axis=-1)
    d_hidden = d_hidden + _at(d_outputs, time).astype(after.dtype)
    real = True if mask is None else mask[time]
    d_product = _unclipped(d_hidden, _at(outputs, time), clips[1])
    d_product = jnp.where(real, d_product, 0.0).astype(gates.dtype)
    d_read = _product(d_product, turned.projection)
    exposed = jnp.tanh(after)
    d_after = jnp.where(real, d_cell, 0.0) + d_read * _sigmoid(out) * (1.0 - exposed * exposed)
    d_after = jax.lax.optimization_barrier(_unclipped(d_after, after, clips[0]))  # once, not for each gate
    d_sums = (
        d_after * candidate * _sigmoid_slope(in_gate),
        d_after * _sigmoid(in_gate) * (1.0 - candidate * candidate),
        d_after * before * _sigmoid_slope(forget),
        d_read * exposed * _sigmoid_slope(out),
    )
    for gate, values in enumerate(d_sums):
        gates = _put(gates, values, time, gate * values.shape[-1])
    d_cell = d_after * _sigmoid(forget) + jnp.where(real, 0.0, d_cell)
    d_hidden = _product(_at(gates, time), turned.hidden_kernel) + jnp.where(real, 0.0, d_hidden)
    return d_cell, d_hidden, _at(gates, jnp.maximum(time - 1, 0)), gates, _put(d_projected, d_product, time)


def _sigmoid_slope(squashed: Array) -> Array:
    """Return σ'(x) from tanh(x / 2)."""
    return 0.25 * (1.0 - squashed * squashed)


def _end_back(part: Any, kept: Any, carry: Any) -> tuple[Array, _Weights, Array, Array]:
    """Return the gradients: of inputs and weights from all words at once, and of the state."""
    rows, hidden, outputs, turned, _ = part
    d_cell, d_hidden, _, d_gates, d_projected = carry
    size = rows.shape[-1]
    before = jnp.concatenate([jnp.expand_dims(hidden, -3), outputs[..., :-1, :, :]], axis=-3)
    # The narrow factors are transposed, and before the products: these are slower with the transposition inside.
    inputs = jnp.swapaxes(_flat(jnp.concatenate([rows, before], axis=-1)), -1, -2)
    inputs, projected = jax.lax.optimization_barrier((inputs, jnp.swapaxes(_flat(d_projected), -1, -2)))
    d_gates = _flat(d_gates)
    kernels = _product(inputs, d_gates)
    bias = _product(jnp.ones((*d_gates.shape[:-2], 1, d_gates.shape[-2]), rows.dtype), d_gates)[..., 0, :]
    projection = jnp.swapaxes(_product(projected, _flat(kept[2])), -1, -2)
    d_rows = _product(d_gates, turned.input_kernel).astype(rows.dtype).reshape(rows.shape)
    return d_rows, _Weights(kernels[..., :size, :], kernels[..., size:, :], bias, projection), d_cell, d_hidden


def _flat(array: Array) -> Array:
    """Return [words, batch, …] as [words · batch, …]."""
    *both, words, batch, size = array.shape
    return array.reshape(*both, words * batch, size)


lstm_layer.defvjp(_forward, _backward)
