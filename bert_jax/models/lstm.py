"""One layer of LSTMs in two directions, as one batched computation; with a projection, or without.

Source: Hochreiter & Schmidhuber 1997; Sak et al. 2014 (projection); TensorFlow 1's `LSTMCell` (order of the gates,
forget bias, clips). Traps: the gates stand in the order input, candidate, forget, output; the forget gate gets 1.0
added at run time; the clipped projection is both the output and the next hidden state.
Differs: the products with the inputs are formed before the scan, for all words at once, and the parameters' gradients
after the backward scan, from all words at once, instead of at every word: a scan reads each weight once a word, and
memory bandwidth limits it on every kind of device.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array

from bert_jax.models.layers import dividing_axes, on_cpu

DIRECTIONS = 2  # forward, backward
GATES = 4  # input, candidate, forget, output
FORGET_BIAS = 1.0  # added, not stored


class LstmWeights(NamedTuple):
    """One layer's parameters; gates and cells are one axis.

    Attributes:
        input_kernel: [directions, features, gates · cells].
        hidden_kernel: [directions, hidden, gates · cells].
        bias: [directions, gates · cells].
        projection: [directions, cells, hidden]; None = the hidden state is what the cells show.
    """

    input_kernel: Array
    hidden_kernel: Array
    bias: Array
    projection: Array | None = None


def read_words(
    clips: tuple[float, float], inputs: Array, mask: Array | None, weights: LstmWeights, cell: Array, hidden: Array
) -> tuple[Array, Array, Array]:
    """Run `lstm_layer` on each device's rows; arguments and results are its own.

    The compiler alone lets every device read all rows, in the loops. It does so still where the mesh does not divide
    the batch.
    """
    layer: Any = functools.partial(lstm_layer, clips)
    others = mask, weights, cell, hidden
    mesh = jax.sharding.get_abstract_mesh()
    axes = dividing_axes("batch", inputs.shape[2], mesh) if mesh.auto_axes else ()
    if math.prod(mesh.shape[axis] for axis in axes) == 1:
        return layer(inputs, *others)
    rows, state = PartitionSpec(None, None, axes), PartitionSpec(None, axes)  # a mask's axes are as a state's
    specs = {"in_specs": (rows, state, PartitionSpec(), state, state), "out_specs": (rows, state, state)}
    return jax.shard_map(layer, **specs, check_vma=False)(inputs, *others)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def lstm_layer(
    clips: tuple[float, float], inputs: Array, mask: Array | None, weights: LstmWeights, cell: Array, hidden: Array
) -> tuple[Array, Array, Array]:
    """Run one layer of both directions.

    Args:
        clips: of cells and of hidden states; 0 = none.
        inputs: [directions, words, batch, features], in the dtype of the products.
        mask: bool [words, batch, 1], or None.
        weights: float32.
        cell: float32 [directions, batch, cells], before the first word.
        hidden: float32 [directions, batch, hidden], before the first word.

    Returns:
        Hidden states [directions, words, batch, hidden] in the inputs' dtype, and the last cell and hidden state.
    """
    return _read(False, clips, inputs, mask, weights, cell, hidden)[0]


def _forward(
    clips: tuple[float, float], inputs: Array, mask: Array | None, weights: LstmWeights, cell: Array, hidden: Array
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


def _product(left: Array, right: Array | None) -> Array:
    """Return left · right, at least in float32; None is no factor."""
    if right is None:
        return left.astype(jnp.promote_types(left.dtype, jnp.float32))
    return jnp.matmul(left, right, preferred_element_type=jnp.promote_types(left.dtype, jnp.float32))


# Not `vmap`, which would make these slices gathers and scatters: arrays are [words, batch, …], or both directions' with
# an axis in front.
def _at(array: Array, time: Any) -> Array:
    return jax.lax.dynamic_index_in_dim(array, time, axis=array.ndim - 3, keepdims=False)


def _put(array: Array, values: Array, time: Any, first_column: int = 0) -> Array:
    values = jnp.expand_dims(values.astype(array.dtype), -3)
    return jax.lax.dynamic_update_slice(array, values, (*[0] * (array.ndim - 3), time, 0, first_column))


def _halved(weights: LstmWeights, dtype: Any) -> LstmWeights:
    """Return the weights in the dtype of the products, those of σ's gates for half of σ's argument (see `_sigmoid`)."""
    cells = weights.bias.shape[-1] // GATES
    halves = jnp.repeat(jnp.array([0.5, 1.0, 0.5, 0.5], weights.bias.dtype), cells)
    forget = jnp.repeat(jnp.array([0.0, 0.0, FORGET_BIAS, 0.0], weights.bias.dtype), cells)
    read, last = (weights.input_kernel * halves).astype(dtype), (weights.hidden_kernel * halves).astype(dtype)
    projection = jax.tree.map(lambda kernel: kernel.astype(dtype), weights.projection)
    return LstmWeights(read, last, (weights.bias + forget) * halves, projection)


def _sigmoid(squashed: Array) -> Array:
    """Return σ(x) from tanh(x / 2): all gates are one tanh."""
    return 0.5 * squashed + 0.5


def _read(keep: bool, clips: tuple[float, float], inputs: Array, mask: Array | None, *start: Any) -> Any:
    """Return outputs and state, and what the backward pass needs of each part of `_split`; `start` as in `lstm_layer`.

    That is squashed gates, cells (the first one is that before the first word) and what was projected; None if nothing.
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


def _begin(keep: bool, rows: Array, halved: LstmWeights, cell: Array, hidden: Array) -> Any:
    """Return the carry before the first word."""
    *both, words, batch, _ = rows.shape
    gates = _product(_flat(rows), halved.input_kernel).astype(rows.dtype)
    kept = gates.reshape(*both, words, batch, -1), None, None
    if keep:
        cells = _put(jax.lax.empty((*both, words + 1, batch, cell.shape[-1]), cell.dtype), cell, 0)
        projects = halved.projection is not None
        kept = kept[0], cells, jax.lax.empty((*both, words, batch, cell.shape[-1]), rows.dtype) if projects else None
    return cell, hidden, jax.lax.empty((*both, words, batch, hidden.shape[-1]), rows.dtype), kept


def _step(clips: tuple[float, float], mask: Array | None, time: Any, weights: LstmWeights, carry: Any) -> Any:
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
        gates, cells = _put(gates, squashed, time), _put(cells, cell, time + 1)
        exposed = jax.tree.map(lambda array: _put(array, shown, time), exposed)
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
    d_projected = None if kept[2] is None else jax.lax.empty(d_outputs.shape, d_outputs.dtype)
    return d_cell, d_hidden, kept[0][..., -1, :, :], kept[0], d_projected


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
    d_projected = jax.tree.map(lambda array: _put(array, d_product, time), d_projected)
    return d_cell, d_hidden, _at(gates, jnp.maximum(time - 1, 0)), gates, d_projected


def _sigmoid_slope(squashed: Array) -> Array:
    """Return σ'(x) from tanh(x / 2)."""
    return 0.25 * (1.0 - squashed * squashed)


def _end_back(part: Any, kept: Any, carry: Any) -> tuple[Array, LstmWeights, Array, Array]:
    """Return the gradients: of inputs and weights from all words at once, and of the state."""
    rows, hidden, outputs, turned, _ = part
    d_cell, d_hidden, _, d_gates, d_projected = carry
    size = rows.shape[-1]
    before = jnp.concatenate([jnp.expand_dims(hidden, -3), outputs[..., :-1, :, :]], axis=-3)
    # The narrow factors are transposed, and before the products: these are slower with the transposition inside.
    inputs = jnp.swapaxes(_flat(jnp.concatenate([rows, before], axis=-1)), -1, -2)
    projected = jax.tree.map(lambda array: jnp.swapaxes(_flat(array), -1, -2), d_projected)
    inputs, projected = jax.lax.optimization_barrier((inputs, projected))
    d_gates = _flat(d_gates)
    kernels = _product(inputs, d_gates)
    bias = _product(jnp.ones((*d_gates.shape[:-2], 1, d_gates.shape[-2]), rows.dtype), d_gates)[..., 0, :]
    projection = None if projected is None else jnp.swapaxes(_product(projected, _flat(kept[2])), -1, -2)
    d_rows = _product(d_gates, turned.input_kernel).astype(rows.dtype).reshape(rows.shape)
    return d_rows, LstmWeights(kernels[..., :size, :], kernels[..., size:, :], bias, projection), d_cell, d_hidden


def _flat(array: Array) -> Array:
    """Return [words, batch, …] as [words · batch, …]."""
    *both, words, batch, size = array.shape
    return array.reshape(*both, words * batch, size)


lstm_layer.defvjp(_forward, _backward)
