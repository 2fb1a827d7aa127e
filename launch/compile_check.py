"""Compile a training step for a TPU slice, without a TPU: does it fit, what does it move, how fast could it be at best.

    python -m launch.compile_check --config=configs/bert.py:size=large,phase=2 --topology=v5e-256

Needs the libtpu package (x86 Linux; `make tpu-check` makes an environment with it), no corpus and no accelerator.
Exit codes: 0 it fits, 1 an error, 2 it does not fit. What is counted, and how, is in docs/tpu.md.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from bert_jax.config import parse_flags
from bert_jax.tpu.matrix import Cell
from bert_jax.training.damage import CheckpointError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Whose step: FILE.py:arg=value,… of configs/.")
_TOPOLOGY = flags.DEFINE_string("topology", "v5e-8", "An accelerator type (v5e-256) or a shape in chips (v5e:16x16).")
_NUM_SLICES = flags.DEFINE_integer("num_slices", 1, "Slices of that topology, joined by the data-centre network.")
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object.")
_FIND_BATCH = flags.DEFINE_bool("find_batch", False, "Find the most rows a chip that fit, with each remat policy.")
_BATCH_STEP = flags.DEFINE_integer("batch_step", 8, "find_batch: exact to so many rows a device.")
_MATRIX = flags.DEFINE_string(
    "matrix", "", "Check every documented config on its topology instead, and write the table into this document."
)
flags.DEFINE_alias("find-batch", "find_batch")

DOES_NOT_FIT = 2
# The table in docs/tpu.md.
FAST = "configs/bert.py:size=base,phase=1,recipe=fast"
LARGE = "configs/bert.py:size=large,phase=2,recipe=fast"
CELLS = (
    Cell("configs/bert.py:size=base,phase=1", "v5e-16", 16),
    Cell("configs/bert.py:size=base,phase=2", "v5e-16", 16),
    Cell("configs/bert.py:size=large,phase=1", "v5e-64", 4),
    Cell("configs/bert.py:size=large,phase=2", "v5e-64", 4),
    Cell("configs/bert.py:size=large,phase=2", "v5e-256", 1),
    Cell("configs/bert.py:size=base,phase=1", "v5e-8", 64),
    Cell(FAST, "v5e-8", 64),
    Cell(FAST, "v5e-8", 64, num_slices=2),
    *(Cell(FAST, topology, 64) for topology in ("v3-8", "v4-16", "v5p-16", "v6e-8", "tpu7x-16")),
    Cell(LARGE, "v5e-256", 8),
    Cell(f"{LARGE} --config.model.attention=splash", "v5e-256", 8),
    Cell(LARGE, "v6e-256", 8),
    Cell("configs/elmo.py:size=original,recipe=fast", "v5e-8", 64),
    Cell("configs/glue.py:task=mrpc,recipe=fast", "v5e-1", 32),
    Cell("configs/text_table.py:recipe=fast", "v5e-1", 32),
    Cell("configs/ner.py:recipe=fast", "v5e-1", 32),
    Cell("configs/squad.py:recipe=fast", "v5e-1", 32),
    Cell("configs/multiple_choice.py:recipe=fast", "v5e-1", 16),
    Cell("configs/bert.py:size=base,phase=2", "v5e-1", 256),
)


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; config values are set by --config.key=value")
    try:
        if _MATRIX.value:
            return _write_matrix()
        return _check()
    except (ValueError, FileNotFoundError, CheckpointError) as error:
        print(f"compile_check: {error}", file=sys.stderr)
        return 1


def _check() -> int:
    # The topology goes first: a wrong name is said before anything is loaded.
    from bert_jax.tpu.topologies import parse_topology

    topology = parse_topology(_TOPOLOGY.value, _NUM_SLICES.value)
    if _CONFIG.value is None:
        raise ValueError("--config is missing; such as --config=configs/bert.py:size=base,phase=1")
    from bert_jax.tpu import compile_check
    from bert_jax.tpu.step_shape import step_shape

    name = config_flags.get_config_filename(flags.FLAGS["config"])
    shape = step_shape(_CONFIG.value)
    if _FIND_BATCH.value:
        found = compile_check.find_batches(
            shape, topology, _BATCH_STEP.value, lambda line: print(line, file=sys.stderr)
        )
        plain = {"config": name, "topology": topology.name, "batches": compile_check.batches_as_json(found, topology)}
        print(json.dumps(plain) if _JSON.value else compile_check.describe_batches(found, topology))
        return 0
    result = {**compile_check.check(shape, topology), "config": name}
    print(json.dumps(result) if _JSON.value else compile_check.describe(result))
    return 0 if result["fits"] else DOES_NOT_FIT


def _write_matrix() -> int:
    from bert_jax.tpu import compile_check, matrix
    from bert_jax.tpu.step_shape import step_shape

    def check(cell: Cell) -> dict[str, Any]:
        config: Any = cell_config(cell)
        result = {**compile_check.check(step_shape(config), cell.slices), "config": cell.config}
        print(compile_check.describe(result), end="\n\n", flush=True)
        return result

    document = Path(_MATRIX.value)
    results = matrix.fill(CELLS, document.parent / "results" / "tpu.jsonl", compile_check.versions(), check)
    matrix.write_table(document, matrix.table(results))
    return 0


def cell_config(cell: Cell) -> Any:
    """Return the config of a cell of the table."""
    name, *changes = cell.config.split(" --config.")
    file, _, arguments = name.partition(":")
    config: Any = importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(arguments)
    config.update_from_flattened_dict(dict(change.split("=") for change in changes))
    config.data.batch_size = cell.rows_per_chip * cell.slices.num_chips
    return config


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
