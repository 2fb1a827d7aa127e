import math

from bert_jax.training.best import best_step


def test_the_best_step_has_the_lowest_finite_loss():
    assert best_step({1: 3.0, 2: 2.0, 3: 2.0, 4: math.inf}) == 2
    assert best_step({1: math.inf}) is None
