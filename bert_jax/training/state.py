"""What a training step reads and writes: the state that is saved, and the hyper-parameters that a sweep varies."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from bert_jax.training import sharding
from bert_jax.training.optimizers import OptimizerConfig

Batch = dict[str, jax.Array]
Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name → (sum, count)


@runtime_checkable  # the tests execute annotations
class Objective(Protocol):
    """What one training step optimizes; `objectives/` has them, and the loop knows nothing else about a model."""

    def init(self, seed: Any) -> Any:
        """Return fresh parameters, a function of the seed alone."""
        ...

    def abstract_params(self) -> Any:
        """Return the parameters' shapes, boxed with their logical axis names."""
        ...

    def init_carry(self, batch_size: int) -> Any:
        """Return what passes from batch to batch: arrays with a leading batch axis, or an empty tree."""
        ...

    def normalizers(self, batch: Batch) -> dict[str, jax.Array]:
        """Return the weight totals of a whole global batch, without a forward pass."""
        ...

    def loss(
        self, params: Any, carry: Any, microbatch: Batch, normalizers: dict[str, jax.Array], dropout_seed: Any
    ) -> tuple[jax.Array, Metrics, Any]:
        """Return this microbatch's share of the loss, its metrics and the new carry; no dropout for seed None."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that changes from step to step.

    Attributes:
        step: int32 scalar, updates done, skipped ones included; also the number of the next batch.
        params: the model's parameters, float32.
        opt_state: the optimizer's.
        carry: the objective's, rows on the leading axis; empty for BERT.
        skipped_steps: int32 scalar, updates not applied because the loss or a gradient was not finite.
    """

    # Arrays, or anything that stands for them in a tree of this shape: shapes, shardings, axis names.
    step: Any
    params: Any
    opt_state: Any
    carry: Any
    skipped_steps: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hyper:
    """What a sweep may vary without compiling again; scalars, or with a leading trials axis under `vmap`.

    Attributes:
        peak_learning_rate: float32.
        warmup_steps: int32.
        total_steps: int32, where the learning rate reaches 0; 0 where it does not fall.
        weight_decay: float32.
        seed: uint32, of dropout.
    """

    peak_learning_rate: Any
    warmup_steps: Any
    total_steps: Any
    weight_decay: Any
    seed: Any


def hyper_values(config: OptimizerConfig, total_steps: int, seed: int) -> Hyper:
    """Return the hyper-parameters of one run, numpy scalars."""
    return Hyper(
        peak_learning_rate=np.float32(config.peak_learning_rate),
        warmup_steps=np.int32(config.warmup_steps),
        total_steps=np.int32(total_steps if config.schedule == "linear" else 0),
        weight_decay=np.float32(config.weight_decay),
        seed=np.uint32(seed % 2**32),
    )


def make_hyper(config: OptimizerConfig, total_steps: int, seed: int, mesh: Mesh) -> Hyper:
    """Return the hyper-parameters of one run, on every device of the mesh."""
    return jax.device_put(hyper_values(config, total_steps, seed), sharding.replicated(mesh))


def make_state(params: Any, optimizer: optax.GradientTransformationExtraArgs, carry: Any) -> TrainState:
    """Return the state before the first step."""
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), carry, jnp.zeros((), jnp.int32))


def fresh_carry(objective: Objective, batch_size: int, mesh: Mesh) -> Any:
    """Return what the first batch of a stream is given, sharded as the rows of a batch."""
    with sharding.on_mesh(mesh):
        return jax.jit(lambda: objective.init_carry(batch_size), out_shardings=sharding.batch_sharding(mesh))()


def abstract_state(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    batch_size: int,
    mesh: Mesh,
    undivided: list[str] | None = None,
) -> TrainState:
    """Return the state's shapes, types and shardings (`jax.ShapeDtypeStruct` leaves); no memory is allocated.

    The optimizer's moments are sharded as their parameters, the carry as the rows of a batch.
    """
    boxed = jax.eval_shape(
        lambda params: make_state(params, optimizer, objective.init_carry(batch_size)), objective.abstract_params()
    )
    notes: list[str] = [] if undivided is None else undivided
    shardings = dataclasses.replace(
        sharding.boxed_shardings(boxed, mesh),
        params=sharding.boxed_shardings(boxed.params, mesh, notes),
        carry=jax.tree.map(lambda _: sharding.batch_sharding(mesh), boxed.carry),
    )

    def place(leaf: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(place, sharding.unbox(boxed), shardings)


def state_shardings(abstract: Any) -> Any:
    """Return the shardings of a tree of placed shapes."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)
