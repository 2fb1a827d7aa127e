import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.interop.weights import check_finite


def test_parameters_that_are_not_finite_are_refused_by_name():
    params = {"a": np.ones(3), "b": np.array([1], np.int32), "c": jnp.ones(2, jnp.bfloat16)}
    check_finite("run:x", params)
    bad = {"d": np.array([1, np.nan]), "e": jnp.array([jnp.inf], jnp.bfloat16)}
    with pytest.raises(ValueError, match=r"^run:x has numbers that are not finite in d, e; take another checkpoint"):
        check_finite("run:x", params | bad)
    with pytest.raises(ValueError, match="in 0, 1, 2, 3, 4 and 2 more;"):
        check_finite("run:x", {str(number): np.array(np.nan) for number in range(7)})
