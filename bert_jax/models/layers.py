"""The pieces that every block of a Transformer is made of: dense layer, layer normalisation, GELU, dropout.

Source: google-research/bert `modeling.py` (layer_norm_and_dropout, gelu, create_initializer).
Differs: random numbers are a hash of (seed, index of the element), not a stream of bits. So a dropout mask does not
depend on how the array is sharded, need not be stored for the backward pass, and its integer arithmetic melts into
the neighbouring element-wise kernel; and a model's initialisation compiles three times faster than with threefry.
"""

import functools
import math
import typing
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.spmd import logical_to_mesh_axes
from jaxtyping import Array, Float, UInt32

# The finalizer of MurmurHash3 (public domain, Austin Appleby): every input bit moves every output bit.
_MULTIPLIER_1 = np.uint32(0x85EBCA6B)
_MULTIPLIER_2 = np.uint32(0xC2B2AE35)
_TRUNCATION = 2.0  # standard deviations, tf.truncated_normal_initializer
_GOLDEN_RATIO = np.uint32(0x9E3779B9)  # 2^32 / 1.618…: keeps neighbouring numbers apart before mixing


def truncated_normal(stddev: float) -> nn.initializers.Initializer:
    """Return TensorFlow's truncated normal: N(0, stddev²) with draws beyond 2 stddev repeated.

    The standard deviation of what comes out is 0.88 stddev, as in the released models.
    """

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        # The inverse of the distribution function, on uniform numbers.
        inside = math.erf(_TRUNCATION / math.sqrt(2.0))
        draws = jax.lax.erf_inv(_uniform_draws(key, shape) * np.float32(inside))
        return (draws * np.float32(stddev * math.sqrt(2.0))).astype(dtype)

    return init


def normal(stddev: float) -> nn.initializers.Initializer:
    """Return N(0, stddev²), whole: as `tf.random_normal_initializer`."""

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        draws = jax.lax.erf_inv(_uniform_draws(key, shape))
        return (draws * np.float32(stddev * math.sqrt(2.0))).astype(dtype)

    return init


def uniform(limit: float) -> nn.initializers.Initializer:
    """Return the uniform distribution over (-limit, limit)."""

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return (_uniform_draws(key, shape) * np.float32(limit)).astype(dtype)

    return init


def _uniform_draws(key: Any, shape: tuple[int, ...]) -> Array:
    """Return the middles of cells of (-1, 1), 2^23 of them, drawn by hash."""
    seed = jnp.uint32(0)
    for word in jax.random.key_data(key).ravel():
        seed = fold_seed(seed, word)
    cells = (random_bits(shape, seed) >> 9).astype(jnp.float32)
    return (cells + 0.5) * np.float32(2.0**-22) - 1.0


def sinusoids(stddev: float) -> nn.initializers.Initializer:
    """Return the sines and cosines of Vaswani et al. 2017 §3.5 over [positions, features], of this standard deviation.

    As initial values of learned position embeddings they give attention one rule for "the token before" at every
    place, where independent random vectors have to be brought into relation pair by pair.
    """

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        del key
        positions, features = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
        angles = positions / 10_000.0 ** (2 * (features // 2) / shape[1])
        waves = np.where(features % 2 == 0, np.sin(angles), np.cos(angles))
        return jnp.asarray(stddev * math.sqrt(2.0) * waves, dtype)

    return init


def with_axes(init: nn.initializers.Initializer, *axes: str | None) -> nn.initializers.Initializer:
    """Return an initializer whose parameter carries logical axis names; None where an axis is never sharded."""
    # Linen types the boxed initializer by its box, but `param` hands out what is in it.
    return typing.cast(nn.initializers.Initializer, nn.with_logical_partitioning(init, axes))


class Dense(nn.Module):
    """Multiply the last axes of the input with a kernel and add a bias.

    Parameters are float32; the product is computed in `dtype`.

    Attributes:
        features: sizes of the output axes.
        axes: logical names of the kernel's axes, input axes first; None where an axis is never sharded.
        initializer_range: standard deviation of the kernel's truncated normal; biases start at 0.
        dtype: of the computation and of the result.
        kernel_init: None is that truncated normal.
    """

    features: tuple[int, ...]
    axes: tuple[str | None, ...]
    initializer_range: float
    dtype: Any
    kernel_init: nn.initializers.Initializer | None = None

    @nn.compact
    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return inputs · kernel + bias; the number of contracted axes is len(axes) - len(features)."""
        contracted = len(self.axes) - len(self.features)
        shape = (*inputs.shape[-contracted:], *self.features)
        init = with_axes(self.kernel_init or truncated_normal(self.initializer_range), *self.axes)
        zeros = with_axes(nn.initializers.zeros_init(), *self.axes[contracted:])
        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = self.param("bias", zeros, self.features, jnp.float32)
        # One plain matrix product of all rows, whatever the number of axes.
        outer, width = inputs.shape[:-contracted], math.prod(self.features)
        rows = inputs.astype(self.dtype).reshape(math.prod(outer), -1)
        outputs = affine(rows, kernel.reshape(rows.shape[1], width), bias.reshape(width))
        return outputs.reshape(*outer, *self.features)


def on_cpu() -> bool:
    """Return whether what is traced now is for CPUs.

    The devices are those of the mesh, which a program may be compiled for on a machine that has none of them.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return (device.platform if device else jax.default_backend()) == "cpu"


@jax.custom_vjp
def affine(rows: Array, kernel: Array, bias: Array) -> Array:
    """Return rows · kernel + bias, computed in the rows' dtype; the parameters' gradients are float32."""
    return (_product(rows, kernel.astype(rows.dtype), 0) + bias.astype(rows.dtype)).astype(rows.dtype)


def _product(rows: Array, kernel: Array, axis: int) -> Array:
    """Return the sums over the rows' last axis and that axis of the kernel; on CPUs as float32.

    With float32 as the result, XLA multiplies bfloat16 by the processor's own instructions where it has them
    (AVX512-BF16: 340 GFLOP/s on two cores where float32 had 180, 2026-11); any other way it converts to float32 first.
    """
    wide = jnp.float32 if on_cpu() else None
    return jax.lax.dot_general(rows, kernel, (((1,), (axis,)), ((), ())), preferred_element_type=wide)


def _affine_forward(rows: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    return affine(rows, kernel, bias), (rows, kernel)


def _affine_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    # Written out because XLA's CPU back end is slower with what autodiff makes of it: BERT-mini's feed-forward
    # sub-layer, 4096 rows, forward and backward, took 123 ms of processor time, this 97 (2 cores under load, 2026-11).
    rows, kernel = residuals
    if on_cpu() and rows.shape[1] > gradient.shape[1]:
        # A product with a transposed factor costs a transposed copy of it: copy the narrow one. Without the barrier
        # XLA swaps the factors back. On TPUs this would have the kernel and its moments copied twice a step, to be
        # transposed and back.
        kernel_gradient = jnp.matmul(_transposed(gradient), rows, preferred_element_type=jnp.float32)
        kernel_gradient = jax.lax.optimization_barrier(kernel_gradient).T
    else:
        kernel_gradient = jnp.matmul(_transposed(rows), gradient, preferred_element_type=jnp.float32)
    rows_gradient = _product(gradient, kernel.astype(rows.dtype), 1).astype(rows.dtype)
    return rows_gradient, kernel_gradient, sum_rows(gradient)


def _transposed(rows: Array) -> Array:
    if not on_cpu() or rows.dtype == jnp.float32:
        return rows.T
    # XLA's CPU back end multiplies bfloat16 as such only if the factor lies in memory row by row: the barrier makes
    # it copy, the flat shape makes it forget that it was a transposition.
    return jax.lax.optimization_barrier(rows.T.reshape(-1)).reshape(rows.shape[::-1])


affine.defvjp(_affine_forward, _affine_backward)


def sum_rows(rows: Float[Array, "rows columns"]) -> Float[Array, " columns"]:
    """Return the float32 sum over the leading axis, as a product with ones.

    XLA's CPU reduction over the leading axis of [640, 30522] took 129 ms, the product 6 (2 cores under load, 2026-11).
    """
    return jnp.matmul(jnp.ones(rows.shape[:1], rows.dtype), rows, preferred_element_type=jnp.float32)


class LayerNorm(nn.Module):
    """Normalise the last axis to mean 0 and variance 1, then scale and shift it.

    Mean and variance are taken in float32 whatever the dtype of the input, which is also the output's dtype.
    """

    epsilon: float

    @nn.compact
    def __call__(self, inputs: Float[Array, "*rows embed"]) -> Float[Array, "*rows embed"]:
        """Return the normalised input."""
        size = inputs.shape[-1:]
        scale = self.param("scale", with_axes(nn.initializers.ones_init(), "embed"), size, jnp.float32)
        bias = self.param("bias", with_axes(nn.initializers.zeros_init(), "embed"), size, jnp.float32)
        return _layer_norm(inputs, scale, bias, self.epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(inputs: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    return _normalised_and_moments(inputs, scale, bias, epsilon)[0]


def _normalised_and_moments(inputs: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    # bfloat16 keeps 8 bits of mantissa: a mean over 768 of them would be off in the second digit.
    wide = inputs.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    centred = wide - mean
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + epsilon)
    return (centred * inverse * scale + bias).astype(inputs.dtype), mean, inverse


def _layer_norm_forward(inputs: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, tuple[Array, ...]]:
    normalised, mean, inverse = _normalised_and_moments(inputs, scale, bias, epsilon)
    # The input alone is kept, where autodiff keeps three float32 arrays of its size; barrier: as in GELU.
    return normalised, (jax.lax.optimization_barrier(inputs), mean, inverse, scale)


def _layer_norm_backward(epsilon: float, residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    del epsilon  # it is in `inverse`
    inputs, mean, inverse, scale = residuals
    normalised, wide = (inputs.astype(jnp.float32) - mean) * inverse, gradient.astype(jnp.float32)
    rows = tuple(range(inputs.ndim - 1))
    scaled = wide * scale
    along = jnp.mean(scaled * normalised, axis=-1, keepdims=True)
    d_inputs = inverse * (scaled - jnp.mean(scaled, axis=-1, keepdims=True) - normalised * along)
    return d_inputs.astype(inputs.dtype), jnp.sum(wide * normalised, axis=rows), jnp.sum(wide, axis=rows)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def gelu(inputs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x · Φ(x) with the exact normal distribution function (erf), as in the original release of BERT.

    The backward pass recomputes erf from the input, so that one array is kept and not three.
    """
    return _gelu_and_slope(inputs)[0]


def gelu_tanh(inputs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return GELU's tanh approximation, to which google-research/bert changed in February 2019 (bee6030)."""
    return jax.nn.gelu(inputs.astype(jnp.float32), approximate=True).astype(inputs.dtype)


def _gelu_and_slope(inputs: Array) -> tuple[Array, Array]:
    wide = inputs.astype(jnp.float32)  # bfloat16 would lose the tails of erf; it costs nothing inside one kernel
    cumulative = 0.5 * (1.0 + jax.lax.erf(wide * np.float32(math.sqrt(0.5))))
    density = jnp.exp(-0.5 * wide * wide) * np.float32(1.0 / math.sqrt(2.0 * math.pi))
    return (wide * cumulative).astype(inputs.dtype), cumulative + wide * density


def _gelu_forward(inputs: Array) -> tuple[Array, Array]:
    # The barrier keeps the input in its dtype: XLA drops a rounding to bfloat16 where it can, and would keep float32.
    return gelu(inputs), jax.lax.optimization_barrier(inputs)


def _gelu_backward(inputs: Array, gradient: Array) -> tuple[Array]:
    return ((gradient.astype(jnp.float32) * _gelu_and_slope(inputs)[1]).astype(inputs.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)

ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh}


def fold_seed(seed: UInt32[Array, ""], number: int | UInt32[Array, ""]) -> UInt32[Array, ""]:
    """Return a new seed for the `number`-th user of a seed (a step, a layer, a site), as `jax.random.fold_in` does.

    Args:
        seed: any uint32.
        number: 0 to 2^32 - 1; different numbers give unrelated seeds.
    """
    number = jnp.asarray(number, jnp.uint32)
    return _mix(seed ^ _mix(number * _GOLDEN_RATIO + _GOLDEN_RATIO))


def dropout(inputs: Float[Array, "..."], rate: float, seed: UInt32[Array, ""] | None) -> Float[Array, "..."]:
    """Zero each element with probability `rate` and divide the others by 1 - rate.

    Args:
        inputs: at least one axis; the mask of an element depends on its global index and the seed only.
        rate: 0 ≤ rate < 1, exact to 2^-32.
        seed: one for each use; None returns the input (evaluation).
    """
    if seed is None or rate == 0.0:
        return inputs
    if not 0.0 < rate < 1.0:
        raise ValueError(f"dropout rate is {rate}; it takes 0 ≤ rate < 1")
    return _masked(inputs, rate, seed)


def random_bits(shape: tuple[int, ...], seed: Any) -> UInt32[Array, "..."]:
    """Return uint32 hashes of (seed, index); use the high bits, the low ones are mixed less.

    Args:
        shape: at least one axis; less than 2^32 elements behind the leading one.
        seed: any uint32.
    """
    # Two keys a row (index of the leading axis): a 32-bit index over the whole array would wrap for attention
    # probabilities of a large batch, and with one key some rows' streams would be shifted copies of each other.
    rows = jax.lax.iota(jnp.uint32, shape[0]).reshape(shape[0], *(1,) * (len(shape) - 1))
    first = _mix(rows * _GOLDEN_RATIO + seed)
    second = _mix(rows ^ _mix(seed))
    index = jnp.zeros((1,) * len(shape), jnp.uint32)
    for axis in range(1, len(shape)):
        stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    bits = index + first
    bits = (bits ^ (bits >> 16)) * _MULTIPLIER_1 + second
    return (bits ^ (bits >> 15)) * _MULTIPLIER_2  # a last xor would touch the low bits only


def _mix(bits: Array) -> Array:
    bits = (bits ^ (bits >> 16)) * _MULTIPLIER_1
    bits = (bits ^ (bits >> 13)) * _MULTIPLIER_2
    return bits ^ (bits >> 16)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _masked(inputs: Array, rate: float, seed: Any) -> Array:
    # The factor stays float32: in bfloat16 1/0.9 would be 1.1094, a bias of 0.16 % at every site.
    kept = inputs.astype(jnp.float32) * np.float32(1.0 / (1.0 - rate))
    keep = random_bits(inputs.shape, seed) >= np.uint32(round(rate * 2**32))
    return jnp.where(keep, kept, 0.0).astype(inputs.dtype)


def _masked_forward(inputs: Array, rate: float, seed: Any) -> tuple[Array, Any]:
    return _masked(inputs, rate, seed), seed


def _masked_backward(rate: float, seed: Any, gradient: Array) -> tuple[Array, None]:
    # Dropout is linear: its transpose is itself, with the mask made again instead of stored.
    return _masked(gradient, rate, seed), None


_masked.defvjp(_masked_forward, _masked_backward)


def dividing_axes(name: str, size: int, mesh: jax.sharding.AbstractMesh) -> tuple[str, ...]:
    """Return the mesh axes that split a logical axis of this size; none where they do not divide it."""
    (axes,) = logical_to_mesh_axes((name,)) or ((),)
    axes = (axes,) if isinstance(axes, str) else axes or ()
    return axes if size % math.prod(mesh.shape[axis] for axis in axes) == 0 else ()
