import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax.training.optimizers import OptimizerConfig, make_optimizer, warmup_linear

RATE, DECAY, BETA1, BETA2, EPSILON = 1e-2, 0.1, 0.9, 0.999, 1e-6


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    return {
        "embeddings": {"word_embeddings": rng.normal(size=(5, 3)), "layer_norm": {"scale": rng.normal(size=3)}},
        "layers": {"attention": {"kernel": rng.normal(size=(2, 3, 3)), "bias": rng.normal(size=(2, 3))}},
    }


def gradients_of(params, seed, scale=0.05):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: scale * rng.normal(size=p.shape), params)


def run(name, params, steps=3, scale=0.05, **options):
    optimizer = make_optimizer(OptimizerConfig(name, RATE, 0, DECAY, BETA1, BETA2, EPSILON, **options))
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    state = optimizer.init(params)
    for step in range(steps):
        gradients = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradients_of(params, step, scale))
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradients)))
        updates, state = optimizer.update(
            gradients, state, params, learning_rate=RATE, weight_decay=DECAY, gradient_norm=norm
        )
        params = jax.tree.map(jnp.add, params, updates)
    return params


def numpy_run(params, steps=3, scale=0.05, corrected=False, clip=1.0):
    """optimization.py, leaf by leaf, in float64."""
    params = jax.tree.map(np.array, params)
    moments = jax.tree.map(lambda p: (np.zeros_like(p), np.zeros_like(p)), params)
    for step in range(steps):
        gradients = gradients_of(params, step, scale)
        norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(gradients)))
        factor = clip / max(norm, clip)

        def update(path, p, g, moment, factor=factor, step=step):
            m, v = moment
            m[:] = BETA1 * m + (1 - BETA1) * g * factor
            v[:] = BETA2 * v + (1 - BETA2) * (g * factor) ** 2
            m_hat, v_hat = m, v
            if corrected:
                m_hat, v_hat = m / (1 - BETA1 ** (step + 1)), v / (1 - BETA2 ** (step + 1))
            direction = m_hat / (np.sqrt(v_hat) + EPSILON)
            if not any(word in jax.tree_util.keystr(path) for word in ("layer_norm", "bias")):
                direction = direction + DECAY * p
            return p - RATE * direction

        params = jax.tree_util.tree_map_with_path(
            update, params, gradients, moments, is_leaf=lambda x: isinstance(x, np.ndarray)
        )
    return params


def assert_trees_close(actual, expected, rtol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), actual, expected)


def test_adamw_bert_has_no_bias_correction_and_decays_by_name(params):
    assert_trees_close(run("adamw_bert", params), numpy_run(params))


def test_adamw_corrects_the_bias(params):
    assert_trees_close(run("adamw", params), numpy_run(params, corrected=True))


def test_gradients_are_clipped_by_their_global_norm(params):
    clipped = run("adamw_bert", params, scale=50.0)
    assert_trees_close(clipped, numpy_run(params, scale=50.0))
    assert_trees_close(run("adamw_bert", params, scale=50.0, clip_norm=0.0), numpy_run(params, scale=50.0, clip=1e9))
    assert not np.allclose(
        clipped["layers"]["attention"]["bias"], run("adamw_bert", params)["layers"]["attention"]["bias"]
    )


def test_lamb_scales_each_stacked_layer_as_if_it_stood_alone(params):
    whole = run("lamb", params, steps=2, clip_norm=0.0)
    rng_params = params["layers"]["attention"]["kernel"]
    for layer in range(2):
        # The same layer as a tensor of its own, with the same gradients.
        optimizer = make_optimizer(OptimizerConfig("lamb", RATE, 0, DECAY, BETA1, BETA2, EPSILON, 0.0))
        single = {"kernel": jnp.asarray(rng_params[layer], jnp.float32)}
        state = optimizer.init(single)
        for step in range(2):
            gradient = gradients_of(params, step)["layers"]["attention"]["kernel"][layer]
            updates, state = optimizer.update(
                {"kernel": jnp.asarray(gradient, jnp.float32)},
                state,
                single,
                learning_rate=RATE,
                weight_decay=DECAY,
                gradient_norm=1.0,
            )
            single = jax.tree.map(jnp.add, single, updates)
        np.testing.assert_allclose(whole["layers"]["attention"]["kernel"][layer], single["kernel"], rtol=1e-5)


def test_lamb_moves_a_decayed_tensor_by_its_norm_and_others_as_adam(params):
    moved = run("lamb", params, steps=1)
    words = params["embeddings"]["word_embeddings"]
    step = np.linalg.norm(moved["embeddings"]["word_embeddings"] - words)
    np.testing.assert_allclose(step, RATE * np.linalg.norm(words), rtol=1e-4)
    adam = run("adamw", params, steps=1)
    assert_trees_close(moved["layers"]["attention"]["bias"], adam["layers"]["attention"]["bias"])


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.0), (5, 0.5), (9, 0.9), (10, 0.9), (50, 0.5), (100, 0.0), (200, 0.0)],
)
def test_warmup_is_linear_and_decay_counts_from_step_0(step, rate):
    # optimization.py: decay is not shifted behind warm-up, so the rate jumps from 0.9 to 1 - 10/100 there.
    found = warmup_linear(jnp.int32(step), jnp.float32(1.0), jnp.int32(10), jnp.int32(100))
    np.testing.assert_allclose(found, rate, atol=1e-6)


def test_without_warmup_the_first_update_has_the_peak_rate():
    assert warmup_linear(jnp.int32(0), jnp.float32(0.3), jnp.int32(0), jnp.int32(100)) == np.float32(0.3)


def test_an_unknown_optimizer_names_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'adamw'"):
        OptimizerConfig(name="adam")


@pytest.mark.parametrize(
    "setting",
    [{"beta1": 1.0}, {"beta2": -0.1}, {"epsilon": 0.0}, {"peak_learning_rate": float("nan")}, {"clip_norm": -1.0}],
)
def test_numbers_that_cannot_be_trained_with_are_refused(setting):
    [name] = setting
    with pytest.raises(ValueError, match=rf"config\.optim\.{name} is"):
        OptimizerConfig(**setting)


def is_decayed(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not any(word in jax.tree_util.keystr(path) for word in ("layer_norm", "bias")), params
    )


def test_adamw_is_that_of_optax(params):
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(RATE, BETA1, BETA2, EPSILON, weight_decay=DECAY, mask=is_decayed),
    )
    expected = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    state = theirs.init(expected)
    for step in range(3):
        gradients = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradients_of(params, step))
        updates, state = theirs.update(gradients, state, expected)
        expected = optax.apply_updates(expected, updates)
    assert_trees_close(run("adamw", params), expected)
