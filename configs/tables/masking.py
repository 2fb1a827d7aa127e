"""Masks: what the chosen tokens become, and how many are chosen; beside BERT's Table 8.

Run:      python -m launch.table --config=configs/tables/masking.py --plan
          python -m launch.table --config=configs/tables/masking.py:preset=laptop --config.finetuning.glue=GLUE \
              --config.data=NER
          python -m launch.table --config=configs/tables/masking.py --config.rows="('80-10-10','rate-40')"
Hardware: preset=laptop: 2 CPU cores; one_gpu: one H200; paper: TPU pods
Time:     not run yet; --plan estimates it for the device of config.estimate
Expect:   not run yet; the paper's values stand in the table
Source:   Devlin et al. 2019, Table 8 and C.2; the rates are of no table of the paper (Wettig et al. 2023 went to 40 %)

Rows are MASK-SAME-RANDOM, percent of the chosen tokens, or rate-PERCENT of the tokens that are chosen (the paper's 15
is the row 80-10-10). Perplexities of different masks cannot be compared, so there is none.
"""

from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from configs.tables.presets import PRESETS, estimate, finetuning, pretraining, tagging

STRATEGIES = ("80-10-10", "100-0-0", "80-0-20", "80-20-0", "0-20-80", "0-0-100")
RATES = ("rate-10", "rate-20", "rate-30", "rate-40", "rate-50")


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of the table; see the head of this file."""
    options: Any = parse_arg(
        arg,
        preset="paper",  # of PRESETS
    )
    preset = choose("preset", options.preset, PRESETS)
    size = {"laptop": "4-128-4", "smoke": "1-16-2"}.get(preset, "12-768-12")
    rows = {
        "paper": STRATEGIES + RATES,
        "one_gpu": STRATEGIES,
        "laptop": ("80-10-10", "100-0-0", "0-0-100", "rate-40"),
        "smoke": ("100-0-0", "rate-40"),
    }[preset]
    columns = {"paper": ("mnli", "ner", "ner_features"), "smoke": ("mrpc",)}.get(
        preset, ("sick", "ner", "ner_features")
    )
    return ConfigDict(
        {
            "table": "variants",  # of bert_jax.tables.kinds.TABLES
            "name": "masking",  # of the table's directory
            "preset": preset,  # that the values below are of
            "title": "Masks",
            "size": size,  # of every row: layers-hidden-heads
            "rows": rows,
            "published": "masking",  # values to stand beside
            "columns": columns,  # of bert_jax.tables.finetuning.TASKS, or ner_features
            "data": "",  # directory that the files of config.tagging are in, for ner, ner_features; "": as they stand
            "bilstm_cells": 0,  # of rows that have a BiLSTM; none here
            "remarks": () if preset == "paper" else ("SICK stands in MNLI's place.",),  # below the table
            "pretraining": pretraining(preset),
            "finetuning": finetuning(preset, ()),
            "tagging": tagging(preset),
            "estimate": estimate(preset),
        },
        convert_dict=True,
    )
