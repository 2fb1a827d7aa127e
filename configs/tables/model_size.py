"""The effect of model size: held-out perplexity and dev scores of six sizes, beside BERT's Table 6.

Run:      python -m launch.table --config=configs/tables/model_size.py:preset=laptop --plan
          python -m launch.table --config=configs/tables/model_size.py:preset=laptop --config.finetuning.glue=GLUE
          python -m launch.table --config=configs/tables/model_size.py --unit=pretrain-12-768-12
          python -m launch.table --config=configs/tables/model_size.py --config.checkpoints=12-768-12=hf:DIR
Hardware: preset=laptop: 2 CPU cores; one_gpu: one H200; paper: TPU pods
Time:     preset=laptop: 76 minutes, a unit a core, beside other work; others not run, --plan estimates them
Expect:   preset=laptop: perplexity 99, 94, 88, 81, 68, 66 from 1-48-3 to 8-64-4 (token frequencies: 1,096), SST-2 62 to
          70 %; docs/results.md has all; the paper's values stand in the table
Source:   Devlin et al. 2019, Table 6 and §5.2

The corpus is data/wiki_books with the set nsp-128 (paper: nsp-512 too; laptop: nsp-64 and a vocabulary of 8,192):
  python -m launch.prepare \
      --config=configs/corpus.py:name=wiki_books,wikipedia=WIKI,books=BOOKS,vocab_size=8192,sets=nsp-64
(with --corpus=data/small_wiki_books, and --config.pretraining.corpus here, if data/wiki_books has another vocabulary).
preset=laptop has the paper's six shapes, scaled down: layers by 3, widths by 16, heads by 4 (one for 3), so that the
largest is 8-64-4; equal tokens a size; SICK in MNLI's place, SST-2's first 5,000 rows, texts cut to 64 pieces.
"""

from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from bert_jax.tables.published import TABLE_6
from configs.tables.presets import PRESETS, estimate, finetuning, pretraining

_SCALED = ("1-48-3", "2-48-1", "2-48-3", "4-48-3", "4-64-4", "8-64-4")
# 25M tokens of narrow models. One rate for all sizes, as in the paper: behind a long warm-up eight layers take it too
# (docs/results.md).
_LONGER = {
    "num_steps": 6_000,
    "warmup_steps": 2_000,
    "more": "--config.model.scan_unroll=8 --config.optim.peak_learning_rate=4e-3",
}
_REMARKS = {
    "paper": (),
    "one_gpu": (
        "Models saw some 80 million tokens, where the paper's saw some 40 billion: the order of sizes may show, the "
        "paper's values cannot.",
    ),
    "laptop": (
        "Sizes are the paper's scaled down: layers by 3, widths by 16, heads by 4 (one for the paper's three); each "
        "stands beside the paper's size of its place.",
        "Models saw 25 million tokens, where the paper's saw some 40 billion: a difference from the paper's values "
        "says nothing about either.",
        "SICK stands in MNLI's place: three classes too, and 4,500 rows in place of 392,702.",
    ),
    "smoke": ("A test of the commands; its values mean nothing.",),
}


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of the table; see the head of this file."""
    options: Any = parse_arg(
        arg,
        preset="paper",  # of PRESETS
    )
    preset = choose("preset", options.preset, PRESETS)
    sizes = {"laptop": _SCALED, "smoke": ("1-16-2", "2-16-2")}.get(preset, tuple(TABLE_6))
    tasks = {"paper": ("mnli", "mrpc", "sst2"), "smoke": ("mrpc",)}.get(preset, ("sick", "mrpc", "sst2"))
    return ConfigDict(
        {
            "table": "model_size",  # of bert_jax.tables.kinds.TABLES
            "name": "model_size",  # of the table's directory
            "preset": preset,  # that the values below are of
            "title": "The effect of model size",
            "sizes": sizes,  # rows: layers-hidden-heads
            "published": "table_6",  # values to stand beside
            # row=published row, with commas between; rows that are not named stand beside their own size
            "stands_for": ",".join(f"{row}={paper}" for row, paper in zip(sizes, TABLE_6, strict=False) if row != paper)
            if preset == "laptop"
            else "",
            "checkpoints": "",  # row=ADDRESS, with commas between: a checkpoint in place of pretraining
            "remarks": _REMARKS[preset],  # below the table
            "pretraining": pretraining(preset) | (_LONGER if preset == "laptop" else {}),
            "finetuning": finetuning(preset, tasks),
            "estimate": estimate(preset),
        },
        convert_dict=True,
    )
