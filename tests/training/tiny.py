"""A training run small enough for a test: the parts between the model and the loop."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.training.mesh import MeshConfig, make_mesh
from bert_jax.training.optimizers import OptimizerConfig, make_optimizer
from bert_jax.training.state import abstract_state, make_hyper, make_state, state_shardings
from bert_jax.training.step import compile_train_step, make_train_step
from tests.models.tiny import random_params, tiny_batch, tiny_config

LENGTHS = (12, 7, 9, 12, 5, 11, 12, 6)  # 8 rows with 1 to 4 masks each
OPTIM = OptimizerConfig(name="adamw_bert", peak_learning_rate=1e-2, warmup_steps=0)  # the first update counts


@dataclasses.dataclass(eq=False)
class Parts:
    objective: MaskedLmObjective
    optimizer: Any
    mesh: Any
    abstract: Any
    hyper: Any

    def state(self, seed=0):
        params = random_params(self.objective.model, host_batch(), seed)
        make = jax.jit(
            lambda params: make_state(params, self.optimizer, {}), out_shardings=state_shardings(self.abstract)
        )
        return make(params)

    @functools.cache  # noqa: B019 - compiling is what the tests wait for
    def step(self, microbatches=1, on_nonfinite="stop"):
        step = make_train_step(self.objective, self.optimizer, microbatches, on_nonfinite)
        return compile_train_step(step, self.abstract, self.mesh)


def make_parts(mesh: MeshConfig | None = None, dropout=0.0, optim=OPTIM, devices=None, **model):
    model = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, **model}
    objective = MaskedLmObjective(tiny_config(**model))
    optimizer = make_optimizer(optim)
    built = make_mesh(mesh or MeshConfig(), devices or jax.devices()[:1])
    abstract = abstract_state(objective, optimizer, len(LENGTHS), built)
    return Parts(objective, optimizer, built, abstract, make_hyper(optim, 100, 7, built))


def host_batch(seed=0):
    return jax.tree.map(np.asarray, tiny_batch(LENGTHS, seed=seed))


def assert_trees_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(actual), jax.device_get(expected))


def largest_difference(actual, expected):
    """Return the largest absolute difference between two trees of arrays."""
    differences = jax.tree.map(
        lambda a, b: float(np.max(np.abs(a - b))), jax.device_get(actual), jax.device_get(expected)
    )
    return max(jax.tree.leaves(differences))
