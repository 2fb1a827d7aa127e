import pytest

from bert_jax.tpu.chips import CHIPS
from bert_jax.tpu.costs import Collective, Costs
from bert_jax.tpu.roofline import roofline

V5E = CHIPS["v5e"]


@pytest.mark.parametrize(
    ("flops", "hbm_bytes", "sent", "limit"),
    [(197e12, 10**9, 1, "compute"), (1e12, 819 * 10**9, 1, "memory"), (1e12, 10**9, 200 * 10**9, "interconnect")],
)
def test_the_longest_part_is_the_bound(flops, hbm_bytes, sent, limit):
    costs = Costs(flops, hbm_bytes, hbm_bytes, (Collective("collective-permute", sent, 2),))
    bounds = roofline(costs, flops / 2, V5E)
    assert bounds.limited_by == limit
    assert bounds.seconds == pytest.approx(1.0)
    assert bounds.mfu_bound == pytest.approx(flops / 2 / 197e12)


def test_a_core_has_its_share_of_a_chip():
    assert roofline(Costs(flops=1e12), 1e12, CHIPS["tpu7x"]).compute_seconds == pytest.approx(1e12 / 1153.5e12)


def test_a_rate_that_is_not_published_is_left_out():
    bounds = roofline(Costs(1e12, 1, 1, (Collective("all-reduce", 10**15, 4),)), 1e12, CHIPS["v3"])
    assert bounds.interconnect_seconds is None
    assert bounds.limited_by == "compute"
