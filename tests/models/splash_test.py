"""The TPU kernel, interpreted on the CPU, beside the reference."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

from bert_jax.models.attention import attention_mask, dot_product_attention
from bert_jax.models.splash import token_groups
from bert_jax.training import sharding
from bert_jax.training.mesh import MeshConfig, make_mesh

LENGTH = 128
PACKED = np.repeat([[1, 2, 3, 0], [1, 1, 1, 2]], LENGTH // 4, axis=1)
PADDED = np.repeat([[1, 1, 1, 0], [1, 0, 0, 0]], LENGTH // 4, axis=1)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    make = functools.partial(splash_attention_kernel.make_splash_mha, interpret=True)
    monkeypatch.setattr(splash_attention_kernel, "make_splash_mha", make)


def outputs_and_gradients(implementation, sequence_ids, packed, mesh=None, batch=2, heads=2):
    """Return the outputs of real tokens and the gradients of a loss that reads these alone."""
    generator = np.random.default_rng(0)
    shape = (batch, sequence_ids.shape[1], heads, 8)
    query, key, value, weights = (jnp.asarray(generator.normal(size=shape), jnp.float32) for _ in range(4))
    sequence_ids = jnp.asarray(sequence_ids)[:batch]
    mask = attention_mask((sequence_ids > 0).astype(jnp.int32), sequence_ids, packed)
    real = (sequence_ids > 0)[:, :, None, None]

    def loss(query, key, value):
        outputs = dot_product_attention(query, key, value, mask, implementation, 0.0, None)
        outputs = jnp.where(real, outputs, 0.0)
        return jnp.sum(outputs * weights), outputs

    step = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    with sharding.on_mesh(mesh) if mesh else contextlib.nullcontext():
        (_, outputs), gradients = step(query, key, value)
    return outputs, *gradients


@pytest.mark.parametrize(("sequence_ids", "packed"), [(PACKED, True), (PADDED, False)], ids=["packed", "padded"])
def test_the_kernel_agrees_with_the_reference_forward_and_backward(sequence_ids, packed):
    found = outputs_and_gradients("splash", sequence_ids, packed)
    expected = outputs_and_gradients("xla", sequence_ids, packed)
    for fused, plain in zip(found, expected, strict=True):
        assert np.abs(plain).max() > 0.1
        np.testing.assert_allclose(fused, plain, atol=2e-5)


@pytest.mark.slow
def test_several_blocks_agree_too():
    sequence_ids = np.repeat([[1, 1, 2, 2, 2, 0]], LENGTH // 2, axis=1)  # 384 tokens: three blocks of 128
    found = outputs_and_gradients("splash", sequence_ids, True, batch=1)
    for fused, plain in zip(found, outputs_and_gradients("xla", sequence_ids, True, batch=1), strict=True):
        np.testing.assert_allclose(fused, plain, atol=2e-5)


@pytest.mark.multidevice
@pytest.mark.parametrize("heads", [2, 3])
def test_every_device_of_a_mesh_runs_it_on_its_rows_and_heads(heads):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))  # which divides two heads, not three
    sequence_ids = np.concatenate([PACKED, PACKED])
    found = outputs_and_gradients("splash", sequence_ids, True, mesh, batch=4, heads=heads)
    expected = outputs_and_gradients("xla", sequence_ids, True, batch=4, heads=heads)
    for fused, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(fused, plain, atol=2e-5)


def test_groups_are_the_sequences_of_a_row():
    sequence_ids = jnp.asarray([[1, 1, 2, 3, 3, 0, 0]])
    real = (sequence_ids > 0).astype(jnp.int32)
    np.testing.assert_array_equal(token_groups(attention_mask(real, sequence_ids, True)), [[0, 0, 2, 3, 3, 5, 5]])
    np.testing.assert_array_equal(token_groups(attention_mask(real, sequence_ids, False)), real)


@pytest.mark.slow
def test_rows_that_no_block_divides_are_filled_up():
    found = outputs_and_gradients("splash", PACKED[:, 16:-16], True)
    for fused, plain in zip(found, outputs_and_gradients("xla", PACKED[:, 16:-16], True), strict=True):
        np.testing.assert_allclose(fused, plain, atol=2e-5)
