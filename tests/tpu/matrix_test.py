import pytest

from bert_jax.tpu import matrix
from bert_jax.tpu.step_shape import step_shape
from launch.compile_check import CELLS, cell_config

RESULT = {
    "config": "configs/bert.py:size=mini",
    "topology": "v5e-8",
    "rows_per_chip": 64.0,
    "sequence_length": 128,
    "remat": "none",
    "dtype": "bfloat16",
    "versions": {"jax": "1"},
    "fits": True,
    "hbm_used_bytes": 2**30,
    "hbm_available_bytes": 16 * 2**30,
    "hbm_bytes": 2e9,
    "bytes_accessed": 3e9,
    "arithmetic_intensity": 101.4,
    "roofline": {"seconds_per_step": 0.0125, "limited_by": "memory", "mfu": 0.256, "tokens_per_second": 1_280_000.0},
}
CELL = matrix.Cell("configs/bert.py:size=mini", "v5e-8", 64)


def test_a_cell_is_compiled_once_for_each_set_of_versions(tmp_path):
    compiled = []

    def check(cell):
        compiled.append(cell)
        return {**RESULT, "rows_per_chip": float(cell.rows_per_chip), "versions": versions}

    path, more = tmp_path / "tpu.jsonl", matrix.Cell(CELL.config, CELL.topology, 32)
    versions = {"jax": "1"}
    matrix.fill([CELL], path, versions, check)
    found = matrix.fill([more, CELL], path, versions, check)
    assert compiled == [CELL, more]
    assert [result["rows_per_chip"] for result in found] == [32, 64]
    versions = {"jax": "2"}
    matrix.fill([CELL], path, versions, check)
    assert compiled == [CELL, more, CELL]
    assert len(path.read_text().splitlines()) == 1  # results of other versions are not kept
    assert not path.with_suffix(".tmp").exists()


def test_slices_and_changes_make_other_cells():
    two = matrix.Cell(CELL.config, "v5e-8", 64, num_slices=2)
    assert CELL.holds(RESULT)
    assert not two.holds(RESULT)
    assert two.holds({**RESULT, "topology": two.slices.name})
    changed = matrix.Cell(f"{CELL.config} --config.model.attention=splash", "v5e-8", 64)
    assert not changed.holds(RESULT)
    config = cell_config(changed)
    assert (config.model.attention, config.data.batch_size) == ("splash", 512)


def test_the_documented_cells_are_different_steps_of_configs_and_topologies():
    steps = {(cell.config, cell.slices.name, step_shape(cell_config(cell)).batch_size) for cell in CELLS}
    assert len(steps) == len(CELLS) > 15
    assert max(batch_size for *_, batch_size in steps) == 8 * 256


def test_the_table_stands_between_its_marks(tmp_path):
    document = tmp_path / "tpu.md"
    document.write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n")
    refused = {**RESULT, "fits": False, "hbm_used_bytes": None}
    matrix.write_table(document, matrix.table([RESULT, refused]))
    lines = document.read_text().splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == ("before", matrix.BEGIN, matrix.END, "after")
    row = "| `size=mini`, 64 × 128 | v5e-8 | none, bfloat16 | 1.00 of 16.00 | 2.0 (3.0) | 101 | 12.5 | memory | 26% "
    assert lines[4] == row + "| 10,000 |"
    assert "does not fit" in lines[5]
    document.write_text("nothing")
    with pytest.raises(ValueError, match="no place"):
        matrix.write_table(document, "")
