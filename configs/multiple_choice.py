"""Multiple choice: the right ending of several, as in SWAG and CODAH.

Run:      python -m launch.finetune --config=configs/multiple_choice.py --config.init_from=hf:DIR \
              --config.data.train=swag/train.csv --config.data.dev=swag/val.csv
          python -m launch.finetune --config=configs/multiple_choice.py:preset=smoke --config.init_from=hf:DIR \
              --config.data.train=swag/val.csv --config.data.dev=swag/val.csv
Hardware: one accelerator for BERT-Base; 2 CPU cores for small models
Time:     not measured yet
Expect:   SWAG: BERT-Base 81.6 % of dev, BERT-Large 86.6 % (Table 4); not measured yet
Source:   Devlin et al. 2019 §4.4 and Table 4

Files are .csv with SWAG's columns, .tsv with CODAH's, or JSON lines with a context and its choices; .gz too.
preset=smoke takes the first 64 rows once. Recipes: see configs/glue.py.
"""

import itertools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from configs.finetuning import PRESETS, RECIPES, SMOKE_ROWS, finetuning


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of one fine-tuning run; see the head of this file."""
    options: Any = parse_arg(
        arg,
        recipe="paper",  # of RECIPES
        preset="paper",  # of PRESETS
    )
    choose("recipe", options.recipe, RECIPES)
    choose("preset", options.preset, PRESETS)
    smoke = options.preset == "smoke"
    config = finetuning("multiple_choice", options.recipe)
    config.num_epochs = 1 if smoke else 3  # §4.4
    config.optim.peak_learning_rate = 2e-5  # §4.4
    config.data = ConfigDict(
        {
            "train": "",  # a .csv, .tsv or .jsonl file of choices; .gz too
            "dev": "",  # likewise; its accuracy chooses the best checkpoint
            "batch_size": 16,  # rows a step, each of all its choices; §4.4
            "max_seq_length": 128,  # word pieces of a context with a choice; the paper does not say
            "max_buckets": 6,  # lengths that rows are padded to, each compiled once
            "max_train_rows": SMOKE_ROWS if smoke else 0,  # the first so many rows; 0: all
        }
    )
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add the paper's rates, three seeds each (A.3)."""
    for rate, seed in itertools.product((5e-5, 3e-5, 2e-5), range(3)):
        add(**{"optim.peak_learning_rate": rate, "seed": seed})
