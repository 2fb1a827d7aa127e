"""Record the training loss of finished runs of one config, for `config.train.reference_curve`.

python -m launch.record_curve --run=runs/a --run=runs/b --output=configs/curves/bert-demo.json
"""

import json
import re
import sys
from pathlib import Path

from absl import app, flags
from etils import epath

from bert_jax.config import differences, parse_flags
from bert_jax.training.metrics import FILE, read_rows
from bert_jax.training.reference_curve import record, recorded_run

RUNS = flags.DEFINE_multi_string("run", None, "The --workdir of a finished run; give several seeds.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The curve's file.", required=True)
CONFIG = flags.DEFINE_string("from_config", "", "What the runs were started with, to be kept in the file.")

_MAY_DIFFER = re.compile(r"seed$|data\.corpus$|model\.vocab_size$|eval\.|mesh\.|train\.(save|keep|reference|on_)")


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    try:
        check_same_config(RUNS.value)
        path = Path(OUTPUT.value)
        curve = record(
            path.stem, CONFIG.value, [recorded_run(run, read_rows(epath.Path(run) / FILE)) for run in RUNS.value]
        )
    except (ValueError, FileNotFoundError) as error:
        print(f"record_curve: {error}", file=sys.stderr)
        return 1
    points = ",\n    ".join(json.dumps(point) for point in curve.pop("points"))
    head = json.dumps(curve, indent=2).removesuffix("\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head},\n  "points": [\n    {points}\n  ]\n}}\n', encoding="utf-8")
    print(f"{path}: {curve['runs']} runs")
    return 0


def check_same_config(runs: list[str]) -> None:
    """Refuse runs that differ in more than their seed, their text and how they were logged.

    Raises:
        ValueError: they do.
        FileNotFoundError: one is not a run's directory.
    """
    first, *others = (json.loads((epath.Path(run) / "config.json").read_text()) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        found = [name for name in differences(first, other) if not _MAY_DIFFER.match(name)]
        if found:
            raise ValueError(f"{run} is a run of another config than {runs[0]}: {', '.join(found)} differ")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
