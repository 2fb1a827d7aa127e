import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.input.placement import place_batch
from bert_jax.training.step import join_rows, make_train_step, split_rows
from tests.models.tiny import to_device
from tests.training.tiny import assert_trees_equal, host_batch, largest_difference, make_parts


@pytest.fixture(scope="module")
def parts():
    return make_parts()


@pytest.fixture(scope="module")
def one_step(parts):
    """State and metrics after one update in one piece, without dropout."""
    return parts.step()(parts.state(), place_batch(host_batch(), parts.mesh), parts.hyper)


def test_four_microbatches_equal_one_batch_with_uneven_mask_counts(parts, one_step):
    batch = host_batch()
    per_microbatch = split_rows(batch["masked_lm_weights"], 4).sum(axis=(1, 2))
    assert len(set(per_microbatch.tolist())) > 1
    state, metrics = parts.step(microbatches=4)(parts.state(), place_batch(batch, parts.mesh), parts.hyper)
    whole_state, whole_metrics = one_step
    assert largest_difference(state.opt_state.mu, whole_state.opt_state.mu) <= 1e-6
    assert abs(metrics["loss"][0] - whole_metrics["loss"][0]) <= 1e-6
    for name, (total, count) in whole_metrics.items():
        np.testing.assert_allclose(metrics[name][0], total, rtol=1e-5, err_msg=name)
        assert metrics[name][1] == count, name


def test_the_loss_is_the_weighted_mean_and_the_norm_is_of_the_raw_gradient(parts, one_step):
    batch, metrics = host_batch(), one_step[1]
    objective = parts.objective
    weights = objective.normalizers(batch)
    rows = to_device(batch)
    gradients = jax.jit(jax.grad(lambda params: objective.loss(params, {}, rows, weights, None)[0]))(
        parts.state().params
    )
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradients)))
    np.testing.assert_allclose(metrics["gradient_norm"][0], norm, rtol=1e-5)
    mean = sum(metrics[name][0] / metrics[name][1] for name in ("masked_lm_loss", "next_sentence_loss"))
    np.testing.assert_allclose(metrics["loss"][0], mean, rtol=1e-5)
    assert metrics["real_tokens"][0] == batch["input_mask"].sum()


@pytest.fixture(scope="module")
def skipping(parts):
    return parts.step(on_nonfinite="skip")


@pytest.mark.parametrize("where", ["parameter", "batch"])
def test_skip_leaves_the_state_as_it_was_and_counts(parts, skipping, where):
    state = parts.state()
    kernel = state.params["embeddings"]["word_embeddings"]
    bad = kernel.at[7].set(jnp.nan) if where == "parameter" else kernel
    batch = host_batch()
    if where == "parameter":
        state = dataclasses.replace(state, params=replaced(state.params, bad))
    else:
        batch["masked_lm_weights"] = np.where(batch["masked_lm_weights"], np.float32(np.inf), np.float32(0.0))
    before = jax.device_get(state)
    state, metrics = skipping(state, place_batch(batch, parts.mesh), parts.hyper)
    assert_trees_equal(state.params, before.params)
    assert_trees_equal(state.opt_state, before.opt_state)
    assert (int(state.step), int(state.skipped_steps)) == (1, 1)
    assert metrics["nonfinite"][0] == 1
    assert metrics["masked_lm_loss"] == (0, 0)


def replaced(params, word_embeddings):
    return params | {"embeddings": params["embeddings"] | {"word_embeddings": word_embeddings}}


def test_skip_does_not_change_a_finite_step(parts, skipping, one_step):
    state, _ = skipping(parts.state(), place_batch(host_batch(), parts.mesh), parts.hyper)
    assert_trees_equal(state.params, one_step[0].params)
    assert int(state.skipped_steps) == 0


def test_dropout_changes_with_the_seed_and_the_step():
    parts = make_parts(dropout=0.3)
    step, batch = parts.step(), place_batch(host_batch(), parts.mesh)

    def loss(seed, number):
        state = dataclasses.replace(parts.state(), step=jnp.int32(number))
        hyper = dataclasses.replace(parts.hyper, seed=jnp.uint32(seed))
        return float(step(state, batch, hyper)[1]["loss"][0])

    losses = [loss(0, 0), loss(1, 0), loss(0, 1)]
    assert len(set(losses)) == 3
    assert loss(0, 0) == losses[0]


def test_the_state_is_donated(parts):
    state = parts.state()
    kernel = state.params["embeddings"]["word_embeddings"]
    parts.step()(state, place_batch(host_batch(), parts.mesh), parts.hyper)
    assert kernel.is_deleted()


def test_microbatches_take_every_so_many_rows():
    rows = {"x": np.arange(8)}
    parts = split_rows(rows, 2)
    np.testing.assert_array_equal(parts["x"], [[0, 2, 4, 6], [1, 3, 5, 7]])
    np.testing.assert_array_equal(join_rows(parts)["x"], rows["x"])


def test_an_unknown_answer_to_non_finite_losses_is_refused(parts):
    with pytest.raises(ValueError, match="accepted: stop, skip"):
        make_train_step(parts.objective, parts.optimizer, 1, "ignore")
