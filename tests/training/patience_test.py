import json

import pytest

from bert_jax.training.best import BestBy
from bert_jax.training.patience import Patience

BY_F1 = BestBy("eval/f1", higher_is_better=True)


def after(values, evaluations=2, stored=None, best_by=BY_F1):
    patience = Patience(evaluations, best_by, stored)
    for value in values:
        patience.add({best_by.metric: value})
    return patience


@pytest.mark.parametrize(
    ("values", "exhausted"),
    [
        ([], False),
        ([0.1, 0.2, 0.2], False),
        ([0.1, 0.2, 0.2, 0.2], True),  # as good is not better
        ([0.1, 0.2, 0.1, 0.3, 0.3], False),  # a better one begins the count anew
        ([0.1, float("nan"), float("nan")], True),
        ([0.1, float("nan"), 0.3, 0.2], False),  # what is not a number hides no better one
    ],
)
def test_patience_ends_after_so_many_evaluations_without_a_better_one(values, exhausted):
    assert after(values).exhausted == exhausted
    assert not after(values, evaluations=0).exhausted


def test_a_loss_is_better_when_it_is_lower():
    assert not after([3.0, 2.0, 1.0], best_by=BestBy()).exhausted
    assert after([1.0, 2.0, 3.0], best_by=BestBy()).exhausted


def test_the_count_goes_on_from_a_checkpoint():
    stored = json.loads(json.dumps(after([0.2, 0.1]).to_plain()))
    assert not after([], stored=stored).exhausted
    assert after([0.1], stored=stored).exhausted
    assert json.loads(json.dumps(after([]).to_plain())) == {"best": None, "passed": 0}
