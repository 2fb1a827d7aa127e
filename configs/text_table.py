"""Your own table: csv, tsv or JSON lines with one text or two, and a class or a score a row.

Run:      python -m launch.finetune --config=configs/text_table.py --config.init_from=hf:DIR \
              --config.data.train=spam.csv
          python -m launch.finetune --config=configs/text_table.py:recipe=fast --config.init_from=hf:DIR \
              --config.data.train=pairs.tsv --config.data.dev=dev.tsv --config.data.score=true
Hardware: any; 2 CPU cores for some thousand rows, one accelerator for BERT-Base
Time:     as a task of configs/glue.py with as many rows
Expect:   depends on the table; result.json has the scores of the rows that are held out
Source:   Devlin et al. 2019 §4.1 and A.3 for the settings

Columns are found by their names (text, sentence1 and sentence2, label, score …) unless the config gives them. Without
a dev file a tenth of the rows is held out, always the same ones. Recipes: see configs/glue.py.
"""

import itertools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from configs.finetuning import RECIPES, finetuning


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of one fine-tuning run; see the head of this file."""
    options: Any = parse_arg(
        arg,
        recipe="paper",  # of RECIPES
    )
    choose("recipe", options.recipe, RECIPES)
    config = finetuning("text_table", options.recipe)
    config.data = ConfigDict(
        {
            "train": "",  # a .csv, .tsv or .jsonl file with a header, UTF-8; .gz too
            "dev": "",  # likewise, to be scored; empty: a part of train is held out
            "dev_fraction": 0.1,  # that part
            "text_column": "",  # of the text, or of the first of two; empty: found by its name
            "second_column": "",  # of the second text; empty: there is none, or found with the first
            "label_column": "",  # empty: found by its name
            "score": False,  # labels are numbers to be predicted, not classes
            "batch_size": 32,  # rows a step; A.3
            "max_seq_length": 128,  # word pieces a row; run_classifier.py
            "max_buckets": 6,  # lengths that rows are padded to, each compiled once
        }
    )
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add the paper's rates for 3 epochs, three seeds each (A.3)."""
    for rate, seed in itertools.product((5e-5, 3e-5, 2e-5), range(3)):
        add(**{"optim.peak_learning_rate": rate, "seed": seed})
