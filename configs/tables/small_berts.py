"""The 24 smaller BERTs: 2 to 12 layers by 128 to 768 wide, held-out perplexity and dev scores on GLUE.

Run:      python -m launch.table --config=configs/tables/small_berts.py --plan
          python -m launch.table --config=configs/tables/small_berts.py:preset=one_gpu --config.finetuning.glue=GLUE
          python -m launch.table --config=configs/tables/small_berts.py --config.checkpoints=2-128-2=hf:DIR
Hardware: preset=laptop: 2 CPU cores, four sizes; one_gpu: one H200; paper: TPU pods
Time:     not run yet; --plan estimates it for the device of config.estimate
Expect:   not run yet; GLUE test scores of four sizes are published and stand beside dev scores
Source:   google-research/bert README, 11 March 2020; Turc et al. 2019

They were trained by the README's sweep, the best of batch 8 to 128 and rates 3e-4 to 3e-5, 4 epochs; here each has one
setting, config.finetuning. preset=one_gpu has the four with a name (tiny, mini, small, medium), laptop these a quarter
as wide.
"""

from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from configs.tables.presets import PRESETS, estimate, finetuning, pretraining

SIZES = tuple(f"{layers}-{hidden}-{hidden // 64}" for layers in (2, 4, 6, 8, 10, 12) for hidden in (128, 256, 512, 768))
TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
_SCALED = {"2-32-2": "2-128-2", "4-64-4": "4-256-4", "4-128-8": "4-512-8", "8-128-8": "8-512-8"}


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of the table; see the head of this file."""
    options: Any = parse_arg(
        arg,
        preset="paper",  # of PRESETS
    )
    preset = choose("preset", options.preset, PRESETS)
    sizes = {"laptop": tuple(_SCALED), "one_gpu": tuple(_SCALED.values()), "smoke": ("1-16-2",)}.get(preset, SIZES)
    tasks = {"paper": TASKS, "smoke": ("mrpc",)}.get(preset, ("cola", "sst2", "mrpc", "stsb", "rte"))
    stands_for = ",".join(f"{row}={paper}" for row, paper in _SCALED.items()) if preset == "laptop" else ""
    config: Any = ConfigDict(
        {
            "table": "model_size",  # of bert_jax.tables.kinds.TABLES
            "name": "small_berts",  # of the table's directory
            "preset": preset,  # that the values below are of
            "title": "The smaller BERTs",
            "sizes": sizes,  # rows: layers-hidden-heads
            "published": "small_berts",  # values to stand beside
            "stands_for": stands_for,  # row=published row, with commas between
            "checkpoints": "",  # row=ADDRESS, with commas between: a checkpoint in place of pretraining
            "remarks": (),  # below the table
            "pretraining": pretraining(preset),
            "finetuning": finetuning(preset, tasks),
            "estimate": estimate(preset),
        },
        convert_dict=True,
    )
    if preset != "smoke":
        config.finetuning.num_epochs = 4  # README
        config.finetuning.peak_learning_rate = 3e-4 if preset == "laptop" else 1e-4  # of README's 3e-4 to 3e-5
    return config
