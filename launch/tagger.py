"""Train a tagger on frozen vectors of words: `python -m launch.tagger --config=configs/tagger.py --seeds=3`.

Computes the vectors once, trains once a seed, and leaves <workdir>/trials/seed<N>.json. A seed that has its file is not
trained again, so the same command goes on, and more --seeds train the new ones only.
"""

import json
import statistics
import sys
from typing import Any

from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

from bert_jax.config import build, choose, differences, parse_flags, to_plain
from bert_jax.inference.feature_tagging import BEST_METRIC, TaggerTrainer, TaggingConfig
from bert_jax.training import workdir
from bert_jax.training.checkpoint import CheckpointError
from bert_jax.training.workdir import WorkdirInUseError

CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: configs/tagger.py:preset=NAME")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "The directory of the results; default runs/<config>-<args>-<overrides>."
)
SEEDS = flags.DEFINE_integer("seeds", 1, "Trainings, of the seeds from 0.", lower_bound=1)


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; config values are set by --config.key=value")
    if CONFIG.value is None:
        raise app.UsageError("--config is missing; such as --config=configs/tagger.py")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)
    try:
        choose("config.family", CONFIG.value.get("family", ""), ("tagger",))
        return train(directory())
    except (ValueError, FileNotFoundError, CheckpointError, WorkdirInUseError) as error:
        print(f"tagger: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tagger: interrupted; the same command goes on with the seeds that are left", file=sys.stderr)
        return 130


def train(path: epath.Path) -> int:
    """Train the seeds that are left, and print the scores of all."""
    results = path / "trials"
    results.mkdir(parents=True, exist_ok=True)
    with workdir.take_lock(path):
        files = [results / f"seed{seed}.json" for seed in range(SEEDS.value)]
        left = [seed for seed, file in enumerate(files) if not file.exists()]
        for file in set(files) - {files[seed] for seed in left}:
            changed = differences(json.loads(file.read_text(encoding="utf-8"))["config"], plain_config())
            if changed:
                raise ValueError(f"{file} is of another config: {changed}; give another --workdir")
        if left:
            trainer = TaggerTrainer(CONFIG.value, say)
            for seed in left:
                temporary = files[seed].with_suffix(".tmp")
                temporary.write_text(json.dumps(trainer.run(seed), indent=2) + "\n", encoding="utf-8")
                temporary.replace(files[seed])
    scores = [json.loads(file.read_text(encoding="utf-8"))["last"][BEST_METRIC] for file in files]
    spread = f" ± {100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    print(f"dev {BEST_METRIC} {100 * statistics.fmean(scores):.2f}{spread} % of {len(scores)} seeds")
    return 0


def plain_config() -> dict[str, Any]:
    """Return the config as a result's file has it."""
    return json.loads(json.dumps(to_plain(build(TaggingConfig, to_plain(CONFIG.value)))))


def directory() -> epath.Path:
    """Return the directory of the results."""
    if WORKDIR.value:
        return epath.Path(WORKDIR.value)
    holder = flags.FLAGS["config"]
    file, _, arg = config_flags.get_config_filename(holder).partition(":")
    return epath.Path(workdir.default_path(file, arg, config_flags.get_override_values(holder)))


def say(line: str) -> None:
    """Write a line for the user."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
