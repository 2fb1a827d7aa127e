"""What is said of steps, with a compiler that is made up."""

import json
from typing import Any

import pytest

from bert_jax.tpu import compile_check
from bert_jax.tpu.step_program import Memory, OutOfMemoryError, StepProgram
from bert_jax.tpu.step_shape import step_shape
from bert_jax.tpu.topologies import parse_topology
from configs import bert
from tests.tpu.programs import PRODUCT, PRODUCT_FLOPS

AVAILABLE = 1e6
ROWS = {"full": 600, "dots": 200, "none": 40}  # of a device, that fit


@pytest.fixture(autouse=True)
def _compiler(monkeypatch):
    """A step's memory grows with the rows of a device, faster where less is computed again."""

    def compile_step(shape, topology):
        rows = shape.batch_size // topology.num_devices
        used = AVAILABLE * rows / ROWS[shape.facts["remat"]]
        if used > AVAILABLE:
            raise OutOfMemoryError(f"the step takes {used:.0f}", used, AVAILABLE)
        return StepProgram(PRODUCT, Memory(int(used), AVAILABLE, donated=300, state=300), 1.0, 2.0)

    monkeypatch.setattr(compile_check, "compile_step", compile_step)
    monkeypatch.setattr(compile_check, "available_bytes", lambda topology: AVAILABLE)


def shape_of(rows, **changes):
    config: Any = bert.get_config("size=tiny,recipe=fast")
    config.data.batch_size = rows
    config.train.update(changes)
    return step_shape(config)


@pytest.mark.parametrize(("name", "devices_per_chip"), [("v5e-8", 1), ("v3-8", 2)])
def test_the_largest_batch_of_each_policy_is_that_of_a_chip_with_all_its_devices(name, devices_per_chip):
    topology, said = parse_topology(name), []
    found = compile_check.find_batches(shape_of(64, microbatches=2), topology, 8, said.append)
    assert {policy: best.rows for policy, best in found.items()} == ROWS
    assert f"remat none, {ROWS['none']} rows a device: 0.00 GiB, fits" in said
    assert f"remat none, {ROWS['none'] + 8} rows a device: the step takes 1200000" in said
    plain = json.loads(json.dumps(compile_check.batches_as_json(found, topology)))
    assert {policy: one["rows_per_chip"] for policy, one in plain.items()} == {
        policy: rows * devices_per_chip for policy, rows in ROWS.items()
    }
    assert plain["dots"]["refused_rows"] == 208
    full, _, none = compile_check.describe_batches(found, topology).splitlines()
    assert full.startswith(
        f"remat full: {600 * devices_per_chip} rows a chip (600 a device; 608 a device are refused; "
    )
    assert none.endswith(f"; {len(found['none'].attempts)} compilations)")


def test_a_step_that_fits_is_described_with_all_its_figures():
    result = compile_check.check(shape_of(32), parse_topology("v5e-1"))
    json.dumps(result)
    assert result["program_flops"] == PRODUCT_FLOPS
    lines = compile_check.describe({**result, "config": "configs/bert.py:size=tiny"}).splitlines()
    assert lines[0].startswith(
        "configs/bert.py:size=tiny on v5e-1: 1 chips, 32 rows of 128 tokens, 32 a chip; bfloat16"
    )
    for line, begins in zip(
        lines[1:], ("fits: ", "donated: ", "collectives: none", "FLOPs", "bytes", "roofline"), strict=False
    ):
        assert line.startswith(begins)
    assert lines[-1] == "compiled in 2 s"


def test_a_step_that_does_not_fit_is_answered_by_what_to_change():
    result = compile_check.check(shape_of(8 * 64), parse_topology("v5e-8"))
    assert (result["fits"], result["hbm_used_bytes"]) == (False, 1_600_000)
    for change in (
        "config.model.remat=dots or full",
        "config.train.microbatches=2",
        "config.mesh.fsdp=-1",
        "find_batch",
    ):
        assert change in result["advice"]
    assert "does not fit" in compile_check.describe({**result, "config": "x"})
