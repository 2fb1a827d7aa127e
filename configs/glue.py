"""GLUE and SICK fine-tuning: one layer on a pretrained BERT, all parameters trained.

Run:      python -m launch.finetune --config=configs/glue.py:task=mrpc --config.init_from=hf:DIR \
              --config.data.directory=glue_data
          python -m launch.sweep --config=configs/glue.py:task=mrpc --config.init_from=hf:DIR
Hardware: any; 2 CPU cores for the measured rows, one accelerator for BERT-Base
Time:     docs/results.md has what was measured; the paper: an hour at most on one Cloud TPU
Expect:   from all-MiniLM-L6 (6 layers of 384), 3 epochs, rate 5e-5: docs/results.md, with its spread over 3 seeds
          BERT-Base on MRPC: 84 to 88 % from run to run (google-research/bert README); not measured yet
Source:   Devlin et al. 2019 §4.1 and A.3; Table 1

Recipes:
  paper  Adam without bias correction (as released), dropout 0.1 everywhere.
  fast   Corrected AdamW, which small sets need (Mosbach et al. 2021), and no attention dropout.
The directory has the official folders (CoLA, MRPC, …), or is tfds:glue/TASK. task=ax is predicted with a run of mnli.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from bert_jax.tasks.glue import GLUE_TASKS
from configs.finetuning import RECIPES, finetuning


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of one fine-tuning run; see the head of this file."""
    options: Any = parse_arg(
        arg,
        task="mrpc",  # of bert_jax.tasks.glue.GLUE_TASKS
        recipe="paper",  # of RECIPES
    )
    choose("task", options.task, GLUE_TASKS)
    choose("recipe", options.recipe, RECIPES)
    config = finetuning("glue", options.recipe)
    config.data = ConfigDict(
        {
            "task": options.task,
            "directory": "glue_data",  # with the official folders, or tfds:glue/TASK
            "batch_size": 32,  # rows a step; A.3
            "max_seq_length": 128,  # word pieces a row; run_classifier.py
            "max_buckets": 6,  # lengths that rows are padded to, each compiled once
            "max_train_rows": 0,  # the first so many; 0: all
        }
    )
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add the paper's grid, three seeds each: batch 16 and 32, rate 5e-5, 3e-5 and 2e-5, 2 to 4 epochs (A.3)."""
    for batch_size in (16, 32):
        for rate in (5e-5, 3e-5, 2e-5):
            for epochs in (2, 3, 4):
                for seed in range(3):
                    add(
                        **{
                            "data.batch_size": batch_size,
                            "optim.peak_learning_rate": rate,
                            "num_epochs": epochs,
                            "seed": seed,
                        }
                    )
