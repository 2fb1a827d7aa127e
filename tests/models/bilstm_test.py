import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models.bilstm import BiLstm, ends
from bert_jax.training import sharding
from bert_jax.training.mesh import MeshConfig, make_mesh


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(inputs, input_kernel, hidden_kernel, bias):
    """Read [words, features]; gates in the order input, candidate, forget (with a bias of 1 more), output."""
    hidden = state = np.zeros(len(hidden_kernel))
    outputs = []
    for word in inputs:
        i, g, f, o = np.split(word @ input_kernel + hidden @ hidden_kernel + bias, 4)
        state = sigmoid(f + 1) * state + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(state)
        outputs.append(hidden)
    return np.array(outputs)


@pytest.fixture(scope="module")
def setup():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 5, 3)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
    model = BiLstm(4, layers=2)
    params = model.init(jax.random.key(0), jnp.asarray(inputs), jnp.asarray(mask))["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), params)
    return model, params, inputs, mask


def apply(model, params, inputs, mask):
    return np.asarray(model.apply({"params": params}, jnp.asarray(inputs), jnp.asarray(mask)))


def test_it_equals_two_lstms_a_layer_in_numpy(setup):
    model, params, inputs, mask = setup
    outputs = apply(model, params, inputs, mask)
    for row, length in zip(range(2), mask.sum(axis=1), strict=True):
        hidden = inputs[row, :length]
        for layer in range(2):
            weights = [np.asarray(params[f"{name}_{layer}"]) for name in ("input_kernel", "hidden_kernel", "bias")]
            forward = numpy_lstm(hidden, *(each[0] for each in weights))
            backward = numpy_lstm(hidden[::-1], *(each[1] for each in weights))[::-1]
            hidden = np.concatenate([forward, backward], axis=1)
        np.testing.assert_allclose(outputs[row, :length], hidden, atol=1e-5)


def test_no_word_sees_padding(setup):
    model, params, inputs, mask = setup
    changed = inputs.copy()
    changed[1, 3:] = 99.0
    outputs, others = apply(model, params, inputs, mask), apply(model, params, changed, mask)
    np.testing.assert_array_equal(outputs[1, :3], others[1, :3])


def test_ends_are_what_each_direction_read_last(setup):
    model, params, inputs, mask = setup
    outputs = apply(model, params, inputs, mask)
    read = np.asarray(ends(jnp.asarray(outputs), jnp.asarray(mask)))
    np.testing.assert_array_equal(read[1], np.concatenate([outputs[1, 2, :4], outputs[1, 0, 4:]]))


def test_hidden_kernels_begin_orthogonal_gate_by_gate():
    params = BiLstm(4).init(jax.random.key(0), jnp.zeros((1, 2, 3)), jnp.ones((1, 2), jnp.int32))["params"]
    kernels = np.asarray(params["hidden_kernel_0"]).reshape(2, 4, 4, 4).swapaxes(1, 2).reshape(8, 4, 4)
    for kernel in kernels:
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(4), atol=1e-5)
    assert len(np.unique(kernels[:, 0, 0])) == 8  # each its own
    assert not np.asarray(params["bias_0"]).any()
    assert np.asarray(params["input_kernel_0"]).std() == pytest.approx(3**-0.5, rel=0.2)


@pytest.mark.multidevice
@pytest.mark.parametrize("batch", [8, 3], ids=["divided", "not divided"])
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_several_devices_have_the_outputs_and_gradients_of_one(shape, batch):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(batch, 5, 3)), jnp.float32)
    mask = jnp.asarray(np.arange(5) < rng.integers(1, 6, batch)[:, None], jnp.int32)
    model = BiLstm(4, layers=2)
    params = model.init(jax.random.key(0), inputs, mask)["params"]

    def loss(params, inputs, mask):
        outputs = model.apply({"params": params}, inputs, mask)
        return jnp.square(outputs * mask[..., None]).sum(), outputs

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, expected), wanted = run(params, inputs, mask)
    mesh = make_mesh(MeshConfig(*shape))
    rows = sharding.batch_sharding(mesh) if batch == 8 else sharding.replicated(mesh)
    with sharding.on_mesh(mesh):
        (_, outputs), found = run(params, *jax.device_put((inputs, mask), rows))
    real = np.asarray(mask) > 0
    np.testing.assert_allclose(np.asarray(outputs)[real], np.asarray(expected)[real], atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)
