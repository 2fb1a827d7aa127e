"""Optimizers as the authors of BERT and ELMo wrote them, and LAMB; small pure functions in optax' form.

Source: google-research/bert `optimization.py` (AdamWeightDecayOptimizer, create_optimizer); Kingma & Ba 2015 for the
bias correction; You et al. 2020 (LAMB), Algorithm 2; Duchi et al. 2011 and TensorFlow 1's AdagradOptimizer,
which has no epsilon and begins with a sum above 0.
Differs: hyper-parameters that a sweep varies are arrays given at update time, so trials share one compiled step; the
gradient norm is computed once, outside, and the clip factor is folded into the moments' update (one pass over memory
less). LAMB's trust ratio is taken per layer of the stacked `layers` axis, as it was when layers were single tensors.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from bert_jax.config import choose

# optimization.py: exclude_from_weight_decay. The MLM output's bias matches as well; embeddings are decayed.
NOT_DECAYED = re.compile("LayerNorm|layer_norm|bias")
STACKED = "layers"  # parameters below a module of this name have the layers on their leading axis


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """What one run optimizes with; rate, warm-up and weight decay become arrays (`state.Hyper`).

    Attributes:
        name: "adamw_bert" (no bias correction), "adamw" (corrected), "lamb" or "adagrad", which has no weight decay.
        peak_learning_rate: reached after warm-up if decay did not count from step 0; 0 or more.
        schedule: "linear" falls to 0 at the last step; "constant" stays at the peak behind warm-up.
        warmup_steps: 0 or more.
        weight_decay: decoupled; not on names that match `NOT_DECAYED`.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        epsilon: added to the root of the second moment; more than 0.
        clip_norm: largest global gradient norm; 0 = no clipping.
        initial_accumulator: what adagrad's sums of squares begin with; more than 0.
    """

    name: str = "adamw_bert"
    peak_learning_rate: float = 1e-4
    warmup_steps: int = 10_000
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    clip_norm: float = 1.0
    schedule: str = "linear"
    initial_accumulator: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no optimizer takes."""
        choose("config.optim.name", self.name, ("adamw_bert", "adamw", "lamb", "adagrad"))
        choose("config.optim.schedule", self.schedule, ("linear", "constant"))
        for name, lowest in (("peak_learning_rate", 0.0), ("warmup_steps", 0), ("weight_decay", 0.0), ("clip_norm", 0)):
            if not lowest <= getattr(self, name) < math.inf:  # nor NaN
                raise ValueError(f"config.optim.{name} is {getattr(self, name)}; use {lowest} or more")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"config.optim.{name} is {getattr(self, name)}; use a number in [0, 1)")
        for name in ("epsilon", "initial_accumulator"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"config.optim.{name} is {getattr(self, name)}; use a number above 0, such as 1e-6")
        if self.name == "adagrad" and self.weight_decay:
            raise ValueError(f"config.optim.weight_decay is {self.weight_decay}; adagrad has none, use 0")


def check_warmup(config: OptimizerConfig, num_steps: int) -> None:
    """Refuse a warm-up that no step follows."""
    if config.warmup_steps >= num_steps:
        raise ValueError(
            f"config.optim.warmup_steps is {config.warmup_steps} of config.train.num_steps {num_steps}, so the "
            "learning rate would only rise; use fewer, a tenth of the steps or less"
        )


def warmup_linear(
    step: Int[Array, ""], peak: Float[Array, ""], warmup_steps: Int[Array, ""], total_steps: Int[Array, ""]
) -> Float[Array, ""]:
    """Return the learning rate of the update that follows `step` updates.

    Linear decay to 0 at `total_steps` (none for a `total_steps` of 0), counted from step 0; during warm-up
    peak · step / warmup_steps instead, so the first update has rate 0 and the rate falls a little where warm-up ends.
    Source: optimization.py, create_optimizer.
    """
    step, warmup, total = (jnp.asarray(x, jnp.float32) for x in (step, warmup_steps, total_steps))
    decayed = peak * (1.0 - jnp.minimum(step, total) / jnp.maximum(total, 1.0))  # at 0: the peak
    return jnp.where(step < warmup, peak * step / jnp.maximum(warmup, 1.0), decayed)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer that the config names.

    Its `update` takes three scalar arrays by name besides gradients, state and parameters: `learning_rate`,
    `weight_decay` and `gradient_norm`, the gradients' global norm.
    """
    if config.name == "adagrad":
        return _adagrad(config)

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros))

    def update(updates: Any, state: Any, params: Any = None, **hyper: Any) -> tuple[Any, optax.ScaleByAdamState]:
        gradients, scale = updates, _clip_factor(config.clip_norm, hyper["gradient_norm"])
        count = state.count + 1
        beta1, beta2 = config.beta1, config.beta2
        mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * (scale * g), state.mu, gradients)
        nu = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * jnp.square(scale * g), state.nu, gradients)
        mu_factor = nu_factor = jnp.float32(1.0)
        if config.name != "adamw_bert":
            mu_factor = 1 / (1 - beta1 ** count.astype(jnp.float32))
            nu_factor = 1 / (1 - beta2 ** count.astype(jnp.float32))

        def leaf(path: Any, m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            name = parameter_name(path)
            decayed = NOT_DECAYED.search(name) is None
            direction = (m * mu_factor) / (jnp.sqrt(v * nu_factor) + config.epsilon)
            if decayed:
                direction = direction + hyper["weight_decay"] * p
            if config.name == "lamb" and decayed:
                direction = direction * trust_ratio(p, direction, stacked=is_stacked(name))
            return -hyper["learning_rate"] * direction

        return jax.tree_util.tree_map_with_path(leaf, mu, nu, params), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def _adagrad(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Return Adagrad: each element's rate is divided by the root of the sum of its squared gradients."""

    def init(params: Any) -> optax.ScaleByRssState:
        return optax.ScaleByRssState(
            jax.tree.map(lambda p: jnp.full(p.shape, config.initial_accumulator, jnp.float32), params)
        )

    def update(updates: Any, state: Any, params: Any = None, **hyper: Any) -> tuple[Any, optax.ScaleByRssState]:
        del params
        scale = _clip_factor(config.clip_norm, hyper["gradient_norm"])
        sums = jax.tree.map(lambda s, g: s + jnp.square(scale * g), state.sum_of_squares, updates)
        rate = hyper["learning_rate"]
        steps = jax.tree.map(lambda s, g: -rate * (scale * g) * jax.lax.rsqrt(s), sums, updates)
        return steps, optax.ScaleByRssState(sums)

    return optax.GradientTransformationExtraArgs(init, update)


def _clip_factor(clip_norm: float, gradient_norm: Any) -> Any:
    """Return what gradients are multiplied with so that their global norm is `clip_norm` at the most; 0 = no limit."""
    return clip_norm / jnp.maximum(gradient_norm, clip_norm) if clip_norm else jnp.float32(1.0)


def parameter_name(path: Any) -> str:
    """Return `layers/attention/query/kernel` for a path of `tree_map_with_path`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_stacked(name: str) -> bool:
    """Return whether a parameter holds all layers on its leading axis."""
    return STACKED in name.split("/")


def trust_ratio(param: jax.Array, update: jax.Array, *, stacked: bool) -> jax.Array:
    """Return ‖param‖ / ‖update‖ (1 where either is 0), one for each layer of a stacked parameter.

    The result broadcasts against `param`. Source: You et al. 2020, Algorithm 2 with φ(z) = z.
    """
    axes = tuple(range(1, param.ndim)) if stacked else None
    param_norm = jnp.sqrt(jnp.sum(jnp.square(param), axes, keepdims=stacked))
    update_norm = jnp.sqrt(jnp.sum(jnp.square(update), axes, keepdims=stacked))
    usable = (param_norm > 0) & (update_norm > 0)
    return jnp.where(usable, param_norm / jnp.where(usable, update_norm, 1.0), 1.0)
