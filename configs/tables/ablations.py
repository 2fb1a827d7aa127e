"""Pretraining tasks: without next sentences, and left to right; beside BERT's Table 5.

Run:      python -m launch.table --config=configs/tables/ablations.py --plan
          python -m launch.table --config=configs/tables/ablations.py:preset=laptop --config.finetuning.glue=GLUE
Hardware: preset=laptop: 2 CPU cores; one_gpu: one H200; paper: TPU pods
Time:     not run yet; --plan estimates it for the device of config.estimate
Expect:   not run yet; the paper's values stand in the table
Source:   Devlin et al. 2019, Table 5 and §5.1

Rows (all on the same instances, as the paper's are on the same data):
  base               masked words and next sentences
  no_nsp             masked words alone
  ltr_no_nsp         every token predicts the next one and sees only what is to its left, in fine-tuning too
  ltr_no_nsp_bilstm  the same checkpoint, fine-tuned with a new BiLSTM on top
A left-to-right [CLS] sees nothing, so sentences are read from their last token; the paper does not say what it did.
"""

from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from configs.tables.presets import PRESETS, estimate, finetuning, pretraining, tagging


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of the table; see the head of this file."""
    options: Any = parse_arg(
        arg,
        preset="paper",  # of PRESETS
    )
    preset = choose("preset", options.preset, PRESETS)
    size, cells = {"laptop": ("4-128-4", 128), "smoke": ("1-16-2", 4)}.get(preset, ("12-768-12", 768))
    columns = {"paper": ("mnli", "qnli", "mrpc", "sst2", "squad"), "smoke": ("mrpc",)}.get(
        preset, ("sick", "rte", "mrpc", "sst2")
    )
    remarks = {
        "one_gpu": ("SICK and RTE stand in the places of MNLI and QNLI.",),
        "laptop": ("SICK and RTE stand in the places of MNLI and QNLI; the model is far smaller than the paper's.",),
    }.get(preset, ())
    return ConfigDict(
        {
            "table": "variants",  # of bert_jax.tables.kinds.TABLES
            "name": "ablations",  # of the table's directory
            "preset": preset,  # that the values below are of
            "title": "Pretraining tasks",
            "size": size,  # of every row: layers-hidden-heads
            "rows": ("base", "no_nsp", "ltr_no_nsp", "ltr_no_nsp_bilstm"),
            "published": "ablations",  # values to stand beside
            "columns": columns,  # of bert_jax.tables.finetuning.TASKS, or ner_features
            "data": "",  # directory that the files of config.tagging are in, for ner, ner_features; "": as they stand
            "bilstm_cells": cells,  # of each direction; not in the paper
            "remarks": remarks,  # below the table
            "pretraining": pretraining(preset),
            "finetuning": finetuning(preset, ()),
            "tagging": tagging(preset),
            "estimate": estimate(preset),
        },
        convert_dict=True,
    )
