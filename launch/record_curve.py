"""Record the training loss of finished runs of one config, for `config.train.reference_curve`.

python -m launch.record_curve --run=runs/a --run=runs/b --output=configs/curves/bert-demo.json
"""

import json
import sys
from pathlib import Path

from absl import app, flags
from etils import epath

from bert_jax.training.metrics import FILE, read_rows
from bert_jax.training.reference_curve import record, recorded_run

RUNS = flags.DEFINE_multi_string("run", None, "The --workdir of a finished run; give several seeds.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The curve's file.", required=True)
CONFIG = flags.DEFINE_string("from_config", "", "What the runs were started with, to be kept in the file.")


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    try:
        path = Path(OUTPUT.value)
        curve = record(
            path.stem, CONFIG.value, [recorded_run(run, read_rows(epath.Path(run) / FILE)) for run in RUNS.value]
        )
    except ValueError as error:
        print(f"record_curve: {error}", file=sys.stderr)
        return 1
    points = ",\n    ".join(json.dumps(point) for point in curve.pop("points"))
    head = json.dumps(curve, indent=2).removesuffix("\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head},\n  "points": [\n    {points}\n  ]\n}}\n', encoding="utf-8")
    print(f"{path}: {curve['runs']} runs")
    return 0


if __name__ == "__main__":
    app.run(main)
