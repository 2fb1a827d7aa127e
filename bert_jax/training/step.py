"""One training step: gradients of the objective over the microbatches of a global batch, then one update.

Shares of the loss add up to the loss of the whole batch (the objective divides by totals of the global batch), so
accumulating gradients and splitting rows over devices are both exact, whatever the rows' weights.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bert_jax.config import choose
from bert_jax.models.layers import fold_seed
from bert_jax.training import sharding, throughput
from bert_jax.training.optimizers import warmup_linear
from bert_jax.training.state import Batch, Hyper, Metrics, Objective, TrainState, state_shardings

ON_NONFINITE = ("stop", "skip")
TrainStep = Callable[[TrainState, Batch, Hyper], tuple[TrainState, Metrics]]


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    microbatches: int = 1,
    on_nonfinite: str = "stop",
) -> TrainStep:
    """Return `step(state, batch, hyper) -> (state, metrics)`, a pure function to be jitted with the state donated.

    Metrics are (sum, count) pairs: the objective's, and `loss`, `gradient_norm` (before clipping), `learning_rate`,
    `real_tokens`, `nonfinite` (1 for a step whose loss or gradient norm is not finite; its other sums are 0).

    Args:
        objective: what to optimize.
        optimizer: from `make_optimizer`.
        microbatches: parts that a batch is computed in, one after the other; it divides the batch size.
        on_nonfinite: "skip" leaves parameters, optimizer and carry as they were and counts the step; "stop" applies
            the update and leaves it to the loop to stop, which saves the selection's pass over memory.
    """
    choose("config.train.on_nonfinite", on_nonfinite, ON_NONFINITE)

    def step(state: TrainState, batch: Batch, hyper: Hyper) -> tuple[TrainState, Metrics]:
        seed = fold_seed(hyper.seed, state.step.astype(jnp.uint32))
        gradients, loss, metrics, carry = _accumulate(objective, microbatches, state, batch, seed)
        gradient_norm = optax.tree.norm(gradients)
        learning_rate = warmup_linear(state.step, hyper.peak_learning_rate, hyper.warmup_steps, hyper.total_steps)
        updates, opt_state = optimizer.update(
            gradients,
            state.opt_state,
            state.params,
            learning_rate=learning_rate,
            weight_decay=hyper.weight_decay,
            gradient_norm=gradient_norm,
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
        new = dataclasses.replace(
            state, params=optax.apply_updates(state.params, updates), opt_state=opt_state, carry=carry
        )
        if on_nonfinite == "skip":
            new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
            new = dataclasses.replace(new, skipped_steps=state.skipped_steps + ~finite)
        new = dataclasses.replace(new, step=state.step + 1)
        one = jnp.ones(())
        metrics = metrics | {"loss": (loss, one), "gradient_norm": (gradient_norm, one)}
        metrics = jax.tree.map(lambda value: jnp.where(finite, value, 0.0), metrics)
        metrics["learning_rate"] = (learning_rate, one)
        metrics["real_tokens"] = (throughput.count_real_tokens(batch), one)
        metrics["nonfinite"] = ((~finite).astype(jnp.float32), one)
        return new, metrics

    return step


def compile_train_step(step: TrainStep, abstract: TrainState, mesh: Mesh) -> TrainStep:
    """Jit a step for a mesh: the state keeps its shardings and is donated, metrics are whole on every device."""
    jitted = _jit(step, abstract, mesh)

    def call(state: TrainState, batch: Batch, hyper: Hyper) -> tuple[TrainState, Metrics]:
        with sharding.on_mesh(mesh):
            return jitted(state, batch, hyper)

    return call


def lower_train_step(step: TrainStep, abstract: TrainState, batch: Any, hyper: Any, mesh: Mesh) -> Any:
    """Return the same program as `compile_train_step` jits, traced for shapes alone (`jax.stages.Lowered`).

    Args:
        step: from `make_train_step`.
        abstract: the state's placed shapes.
        batch: the batch's, and `hyper` the hyper-parameters'.
        hyper: see batch.
        mesh: of any devices, those of a topology included.
    """
    with sharding.on_mesh(mesh):
        return _jit(step, abstract, mesh).lower(abstract, batch, hyper)


def _jit(step: TrainStep, abstract: TrainState, mesh: Mesh) -> Any:
    out_shardings = (state_shardings(abstract), sharding.replicated(mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=out_shardings)


def split_rows(tree: Any, microbatches: int) -> Any:
    """Turn [rows, …] into [microbatches, rows / microbatches, …]; microbatch i takes rows i, i + microbatches, ….

    With the rows in contiguous parts on the devices, each device's part is split in place: nothing moves between
    devices, and the microbatches are the same on any number of devices. `join_rows` is the inverse.

        [r0 r1 r2 r3 | r4 r5 r6 r7] on two devices, 2 microbatches → [r0 r2 | r4 r6], [r1 r3 | r5 r7]
    """

    def split(x: Any) -> jax.Array:
        # [rows / microbatches, microbatches, …] → [microbatches, rows / microbatches, …]
        return jnp.moveaxis(x.reshape(x.shape[0] // microbatches, microbatches, *x.shape[1:]), 1, 0)

    return jax.tree.map(split, tree)


def join_rows(tree: Any) -> Any:
    """Turn [microbatches, rows / microbatches, …] back into [rows, …]."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), tree)


def _accumulate(
    objective: Objective, microbatches: int, state: TrainState, batch: Batch, seed: jax.Array
) -> tuple[Any, jax.Array, Metrics, Any]:
    """Return gradients, loss and metrics of the whole batch, and the new carry."""
    normalizers = objective.normalizers(batch)

    def share(params: Any, carry: Any, rows: Batch, index: jax.Array | int) -> tuple[jax.Array, tuple[Metrics, Any]]:
        loss, metrics, carry = objective.loss(params, carry, rows, normalizers, fold_seed(seed, index))
        return loss, (metrics, carry)

    share_and_gradients = jax.value_and_grad(share, has_aux=True)
    if microbatches == 1:
        (loss, (metrics, carry)), gradients = share_and_gradients(state.params, state.carry, batch, 0)
        return gradients, loss, metrics, carry

    def add(total: Any, part: tuple[jax.Array, Batch, Any]) -> tuple[Any, Any]:
        index, rows, carry = part
        (loss, (metrics, carry)), gradients = share_and_gradients(state.params, carry, rows, index)
        return jax.tree.map(jnp.add, total, (gradients, loss, metrics)), carry

    numbers = jnp.arange(microbatches, dtype=jnp.uint32)
    parts = (numbers, split_rows(batch, microbatches), split_rows(state.carry, microbatches))
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(lambda part: share_and_gradients(state.params, part[2], part[1], part[0]), first)
    (loss, (metrics, _)), gradients = shapes
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (gradients, loss, metrics))
    (gradients, loss, metrics), carry = jax.lax.scan(add, zeros, parts)
    return gradients, loss, metrics, join_rows(carry)
