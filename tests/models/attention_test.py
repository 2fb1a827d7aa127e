import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from bert_jax.models.attention import SelfAttention, attention_mask, dot_product_attention


def random_heads(seed=0, batch=2, length=6, heads=3, head_dim=4):
    rng = np.random.default_rng(seed)
    query, key, value = (jnp.asarray(rng.normal(size=(batch, length, heads, head_dim)), jnp.float32) for _ in range(3))
    return query, key, value


def numpy_attention(query, key, value, mask):
    """One query at a time, over the keys that it may see only, in float64."""
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    batch, length, heads, head_dim = query.shape
    mask = np.broadcast_to(mask, (batch, 1, length, length))
    outputs = np.zeros_like(query)
    for b, q, h in np.ndindex(batch, length, heads):
        seen = mask[b, 0, q]
        scores = key[b, seen, h] @ query[b, q, h] / np.sqrt(head_dim)
        weights = np.exp(scores - scores.max())
        outputs[b, q, h] = weights / weights.sum() @ value[b, seen, h]
    return outputs


def attend(query, key, value, mask, rate=0.0, seed=None):
    return dot_product_attention(query, key, value, mask, "xla", rate, seed)


def test_attention_matches_numpy():
    heads = random_heads()
    input_mask = jnp.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    mask = attention_mask(input_mask, input_mask, packed=False)
    np.testing.assert_allclose(attend(*heads, mask), numpy_attention(*heads, mask), atol=1e-6)


def test_packed_attention_matches_numpy():
    heads = random_heads()
    sequence_ids = jnp.array([[1, 1, 2, 2, 2, 3], [1, 1, 1, 2, 0, 0]])
    mask = attention_mask(jnp.minimum(sequence_ids, 1), sequence_ids, packed=True)
    assert mask.shape == (2, 1, 6, 6)
    np.testing.assert_allclose(attend(*heads, mask), numpy_attention(*heads, mask), atol=1e-6)


def test_gradients_match_finite_differences():
    heads = random_heads(batch=1, length=4, heads=2, head_dim=3)
    sequence_ids = jnp.array([[1, 1, 1, 2]])
    mask = attention_mask(sequence_ids, sequence_ids, packed=True)
    check_grads(jax.jit(lambda q, k, v: attend(q, k, v, mask)), heads, order=1, modes=("rev",), rtol=1e-2)


def test_gradients_with_dropout_match_finite_differences():
    heads = random_heads(batch=1, length=4, heads=2, head_dim=3)
    mask = jnp.ones((1, 1, 1, 4), bool)

    def function(query, key, value):
        return attend(query, key, value, mask, 0.4, jnp.uint32(1))

    assert np.abs(function(*heads) - attend(*heads, mask)).max() > 0.1
    check_grads(jax.jit(function), heads, order=1, modes=("rev",), rtol=1e-2)


def test_bfloat16_gradients_are_those_of_float32_rounded():
    heads = random_heads(length=16, head_dim=8)
    mask = jnp.ones((2, 1, 1, 16), bool)

    def gradients(dtype):
        loss = lambda q, k, v: attend(q, k, v, mask, 0.1, jnp.uint32(2)).astype(jnp.float32).var()  # noqa: E731
        return jax.grad(loss, (0, 1, 2))(*(x.astype(dtype) for x in heads))

    for narrow, wide in zip(gradients(jnp.bfloat16), gradients(jnp.float32), strict=True):
        assert narrow.dtype == jnp.bfloat16
        np.testing.assert_allclose(narrow.astype(jnp.float32), wide, atol=0.03 * float(jnp.abs(wide).max()))


def test_backward_pass_keeps_one_array_of_queries_times_keys():
    heads = random_heads()
    mask = jnp.ones((2, 1, 1, 6), bool)
    _, backward = jax.vjp(lambda q, k, v: attend(q, k, v, mask, 0.1, jnp.uint32(2)), *heads)
    kept = [leaf.shape for leaf in jax.tree.leaves(backward) if leaf.shape[-2:] == (6, 6)]
    assert kept == [(2, 3, 6, 6)]


def test_attention_dropout_drops_probabilities():
    # Values of a single 1 show the probabilities themselves: uniform ones, dropped or scaled by 1 / (1 - rate).
    length = 64
    zeros = jnp.zeros((2, length, 2, length))
    values = jnp.broadcast_to(jnp.eye(length)[None, :, None, :], zeros.shape)
    outputs = np.asarray(attend(zeros, zeros, values, jnp.ones((2, 1, 1, length), bool), 0.1, jnp.uint32(0)))
    dropped = outputs == 0
    assert dropped.mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / outputs.size))
    np.testing.assert_allclose(outputs[~dropped], 1 / length / 0.9, rtol=1e-5)


def test_queries_that_see_nothing_give_numbers():
    heads = random_heads()
    mask = jnp.zeros((2, 1, 1, 6), bool)
    values, gradients = jax.value_and_grad(lambda q, k, v: attend(q, k, v, mask).sum(), (0, 1, 2))(*heads)
    assert np.isfinite(values)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_bfloat16_scores_are_float32():
    # Scores of 256.5 and 256 are one and the same in bfloat16; softmax must still tell them apart.
    query = jnp.array([16.0, 0.125, 0, 0], jnp.bfloat16).reshape(1, 1, 1, 4) * 2
    key = jnp.array([[16.0, 4.0, 0, 0], [16.0, 0, 0, 0]], jnp.bfloat16).reshape(1, 2, 1, 4)
    value = jnp.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0]], jnp.bfloat16).reshape(1, 2, 1, 4)
    query = jnp.broadcast_to(query, key.shape)
    outputs = attend(query, key, value, jnp.ones((1, 1, 1, 2), bool))
    assert outputs.dtype == jnp.bfloat16
    expected = 1 / (1 + np.exp(-0.5))
    np.testing.assert_allclose(np.asarray(outputs[0, 0, 0, :2], np.float32), [expected, 1 - expected], atol=0.004)


def test_cudnn_refuses_float32():
    heads = random_heads()
    with pytest.raises(ValueError, match=r'got float32; it takes bfloat16: set model.dtype to "bfloat16"'):
        dot_product_attention(*heads, jnp.ones((2, 1, 1, 6), bool), "cudnn", 0.0, None)


def test_cudnn_gets_a_whole_mask(monkeypatch):
    # cuDNN refuses a mask with one row for all queries, which unpacked rows have.
    masks = []
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda query, *_, mask, **__: masks.append(mask) or query)
    mask = jnp.asarray([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]], bool)[:, None, None, :]
    query, key, value = (array.astype(jnp.bfloat16) for array in random_heads())
    dot_product_attention(query, key, value, mask, "cudnn", 0.0, None)
    np.testing.assert_array_equal(masks[0], np.broadcast_to(mask, (2, 1, 6, 6)))


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("packed", [False, True])
def test_cudnn_agrees_with_xla(packed):
    heads = random_heads(batch=2, length=128, heads=2, head_dim=64)
    query, key, value = (array.astype(jnp.bfloat16) for array in heads)
    sequence_ids = jnp.repeat(jnp.asarray([[1, 2], [1, 0]]), 64, axis=1)
    mask = attention_mask((sequence_ids > 0).astype(jnp.int32), sequence_ids, packed)
    fused, plain = (dot_product_attention(query, key, value, mask, name, 0.0, None) for name in ("cudnn", "xla"))
    real = np.asarray(sequence_ids > 0)
    np.testing.assert_allclose(np.asarray(fused, np.float32)[real], np.asarray(plain, np.float32)[real], atol=0.02)


def test_heads_are_contiguous_parts_of_the_hidden_size():
    # Google's kernel [embed, embed] reshapes to [embed, heads, head_dim]: head 0 is made of the first columns.
    module = SelfAttention(2, 3, "xla", 0.0, 0.02, "normal", jnp.float32)
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 6)), jnp.float32)
    mask = jnp.ones((1, 1, 1, 4), bool)
    shapes = jax.eval_shape(module.init, jax.random.key(0), hidden, hidden, mask, None)["params"]
    assert shapes["query"]["kernel"].value.shape == (6, 2, 3)
    assert shapes["output"]["kernel"].value.shape == (2, 3, 6)
