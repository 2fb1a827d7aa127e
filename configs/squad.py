"""SQuAD 1.1 and 2.0: the span of a passage that answers a question, or that there is none.

Run:      python -m launch.finetune --config=configs/squad.py --config.init_from=hf:DIR \
              --config.data.train=train-v1.1.json --config.data.dev=dev-v1.1.json
          python -m launch.finetune --config=configs/squad.py:version=2 --config.init_from=hf:DIR \
              --config.data.train=train-v2.0.json --config.data.dev=dev-v2.0.json
          python -m launch.finetune --config=configs/squad.py:preset=smoke --config.init_from=hf:DIR \
              --config.data.train=dev-v1.1.json --config.data.dev=dev-v1.1.json
Hardware: one accelerator for BERT-Base; 2 CPU cores for small models and the measured rows
Time:     one epoch of 7,938 questions (squadshifts_new_wiki) from all-MiniLM-L6 (6 layers of 384): 18 min, beside other
          work; the paper: about 30 minutes on one Cloud TPU
Expect:   that, with recipe=fast: 1.1 dev EM 17.0, F1 28.0 (1 seed; docs/results.md); not measured yet:
          1.1 dev: BERT-Base EM 80.8, F1 88.5 (Table 2); 2.0 dev: BERT-Large EM 78.7, F1 81.9 (Table 3)
Source:   Devlin et al. 2019 §4.2, §4.3; google-research/bert run_squad.py for the windows

Versions:
  1  Rate 5e-5, batch 32, 3 epochs (§4.2). Questions that have no answer are left out.
  2  Rate 5e-5, batch 48, 2 epochs (§4.3). There may be no answer.
preset=smoke takes the first 64 windows once. Files are .json or .json.gz. Recipes: see configs/glue.py.
"""

import itertools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from configs.finetuning import PRESETS, RECIPES, SMOKE_ROWS, finetuning

VERSIONS = ("1", "2")


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of one fine-tuning run; see the head of this file."""
    options: Any = parse_arg(
        arg,
        version="1",  # of VERSIONS
        recipe="paper",  # of RECIPES
        preset="paper",  # of PRESETS
    )
    choose("version", options.version, VERSIONS)
    choose("recipe", options.recipe, RECIPES)
    choose("preset", options.preset, PRESETS)
    version_2, smoke = options.version == "2", options.preset == "smoke"
    config = finetuning("squad", options.recipe)
    config.num_epochs = 1 if smoke else 2 if version_2 else 3  # §4.2, §4.3
    config.data = ConfigDict(
        {
            "train": "",  # a JSON file of the official layout; .gz too
            "dev": "",  # likewise; its F1 chooses the best checkpoint
            "version_2": version_2,  # questions may have no answer; False leaves these out
            "batch_size": 48 if version_2 else 32,  # windows a step; §4.2, §4.3
            "max_seq_length": 384,  # word pieces a window; run_squad.py
            "doc_stride": 128,  # word pieces from one window of a passage to the next; run_squad.py
            "max_query_length": 64,  # word pieces of a question; run_squad.py
            "max_answer_length": 30,  # word pieces of a predicted answer; run_squad.py
            "n_best": 20,  # starts and ends that are combined; run_squad.py
            "null_score_diff_threshold": 0.0,  # no answer if its score is above the best one's by more; run_squad.py
            "max_buckets": 8,  # lengths that windows are padded to, each compiled once
            "max_train_rows": SMOKE_ROWS if smoke else 0,  # the first so many windows; 0: all
        }
    )
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add the paper's rates, three seeds each (A.3)."""
    for rate, seed in itertools.product((5e-5, 3e-5, 2e-5), range(3)):
        add(**{"optim.peak_learning_rate": rate, "seed": seed})
