"""What all objectives have in common: a Linen module's parameters, and the names of what a loss returns."""

from typing import Any

import jax
from flax.core import meta
from jaxtyping import Array, Float, Integer

Metrics = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]  # name → (sum, count)


class LinenObjective:
    """The parameters of a module, as functions; a subclass has the loss."""

    @property
    def model(self) -> Any:
        """The Linen module."""
        raise NotImplementedError

    @property
    def inputs(self) -> tuple[Array, ...]:
        """The module's inputs, of any shapes that it takes: the parameters do not depend on these."""
        raise NotImplementedError

    def init(self, seed: int | Integer[Array, ""]) -> Any:
        """Return new parameters, a tree of plain float32 arrays."""
        return meta.unbox(self._init_boxed(seed))

    def abstract_params(self) -> Any:
        """Return the parameters' shapes, boxed with their logical axis names; allocates nothing."""
        return jax.eval_shape(lambda: self._init_boxed(0))

    def _init_boxed(self, seed: int | Integer[Array, ""]) -> Any:
        return self.model.init(jax.random.key(seed), *self.inputs)["params"]

    def init_carry(self, batch_size: int) -> Any:
        """Return the state carried between batches: none."""
        del batch_size
        return {}
