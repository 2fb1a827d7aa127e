from typing import Any

import pytest

from bert_jax.tpu import compile_check
from bert_jax.tpu.step_program import OutOfMemoryError, used_bytes
from bert_jax.tpu.step_shape import step_shape
from bert_jax.tpu.topologies import parse_topology
from configs import bert


@pytest.mark.parametrize(
    ("message", "used"),
    [
        ("Ran out of memory in memory space hbm. Used 20.72G of 15.75G hbm. Exceeded hbm capacity by 4.97G.", 20.72),
        ("total memory required for HLO temporaries (512.00G) exceeds available HBM (15.75G).", 512),
        ("Ran out of memory.", None),
    ],
)
def test_refusals_say_how_much_was_asked_for(message, used):
    found = used_bytes(message)
    assert found == (used and pytest.approx(used * 2**30))


@pytest.mark.parametrize(
    ("remat", "batch_size", "expected"),
    [
        ("none", 512, "remat=dots or full"),
        ("dots", 512, "remat=full"),
        ("full", 512, "microbatches=4"),
        ("full", 8, "fsdp"),
    ],
)
def test_advice_gives_values(remat, batch_size, expected):
    config: Any = bert.get_config("size=base,phase=2")
    config.model.remat, config.data.batch_size = remat, batch_size
    topology = parse_topology("v5e-8")
    error = OutOfMemoryError("", 50.0, 15.75)
    found = compile_check.advice(step_shape(config), topology, error)
    assert expected in found
    assert ("microbatches" in found) == (batch_size > 8)
