"""What the tables' presets have in common: how long to pretrain and fine-tune, and on what.

paper     The papers' own schedules, for TPU pods: 900,000 steps of 256 rows of 128 tokens and 100,000 of 512.
one_gpu   The published sizes, cut so that the six of Table 6 are meant to fit into 30 minutes of one H200, in bfloat16.
laptop    Two CPU cores: narrow models on short rows.
smoke     Does it run at all? Seconds.
"""

from typing import Any

PRESETS = ("paper", "one_gpu", "laptop", "smoke")


def pretraining(preset: str) -> dict[str, Any]:
    """Return config.pretraining."""
    values = {
        "recipe": "paper",  # of configs/bert.py
        "preset": preset,  # of configs/bert.py
        "corpus": "data/wiki_books",  # directory that launch.prepare made
        "instances": "nsp-128",  # its set of rows
        "batch_size": 256,  # rows a step; A.2
        "num_steps": 900_000,  # A.2: 90 % of the steps at 128 tokens
        "warmup_steps": 10_000,  # A.2
        "predictions": 20,  # masked positions a row
        "vocab_size": 30_522,  # pieces that --plan reckons with where the corpus is not there yet
        "eval_rows": 10_000,  # of the validation split, that the perplexity is of; 0: all
        "instances_2": "nsp-512",  # of the second phase; "": there is none
        "num_steps_2": 100_000,  # A.2: the last 10 %
        "warmup_steps_2": 10_000,  # configs/bert.py: each phase has its own
        "predictions_2": 77,
        "seeds": 1,  # pretrainings of each model; fine-tuning begins from the first
        "more": "",  # further flags of launch.pretrain
    }
    if preset == "paper":
        return values
    # Short trainings learn order sooner with recipe=small (configs/bert.py), whatever the width.
    values |= {"recipe": "small", "instances_2": "", "num_steps_2": 0, "warmup_steps_2": 0}
    changes = {
        # 2,500 · 256 · 128 = 82M tokens a size: 12 minutes for the six by 40 % MFU, which is assumed
        "one_gpu": {"num_steps": 2_500, "warmup_steps": 250, "eval_rows": 2_000},
        # 4,000 · 64 · 64 = 16M tokens a size
        "laptop": {
            "instances": "nsp-64", "batch_size": 64, "num_steps": 4_000, "warmup_steps": 250, "predictions": 10,
            "vocab_size": 8_192, "eval_rows": 2_000,
            "more": "--config.model.scan_unroll=8",  # no loop over layers, which CPUs take long for
        },
        "smoke": {
            "corpus": "data/python_docs", "instances": "nsp-64", "batch_size": 8, "num_steps": 4, "warmup_steps": 1,
            "predictions": 10, "eval_rows": 16,
        },
    }  # fmt: skip
    return values | changes[preset]


def finetuning(preset: str, tasks: tuple[str, ...]) -> dict[str, Any]:
    """Return config.finetuning."""
    values = {
        "tasks": tasks,  # columns, of bert_jax.tables.finetuning.TASKS
        "restarts": 5,  # Table 6: the mean of 5
        "recipe": "paper",  # of configs/glue.py
        "num_epochs": 3,  # A.3
        "batch_size": 32,  # A.3: 16 or 32
        "peak_learning_rate": 5e-5,  # of A.3's 5e-5, 3e-5, 2e-5; the paper does not say which one each size had
        "max_seq_length": 128,  # run_classifier.py
        "max_buckets": 8,  # lengths that rows are padded to
        "glue": "glue_data",  # directory of GLUE's files
        "sick": "",  # directory of SICK's; "": as glue
        "squad_train": "train-v1.1.json",
        "squad_dev": "dev-v1.1.json",
        "ner_train": "eng.train",  # CoNLL-2003
        "ner_dev": "eng.testa",
        "ner_test": "",
        "max_train_rows": 0,  # of a task of GLUE, the first so many; 0: all
        "trials_per_device": 1,  # restarts that a device trains at once
        "more": "",  # further flags of launch.sweep
    }
    changes = {
        "paper": {},
        "one_gpu": {"recipe": "fast", "restarts": 3, "max_buckets": 4, "max_train_rows": 10_000, "trials_per_device": 3,
                    "more": "--config.model.dtype=bfloat16"},
        "laptop": {"recipe": "fast", "restarts": 3, "max_buckets": 3, "max_train_rows": 5_000, "max_seq_length": 64,
                   "peak_learning_rate": 3e-4},  # narrow models take more: the grid of the 24 smaller BERTs
        "smoke": {"recipe": "fast", "restarts": 1, "num_epochs": 1, "batch_size": 8, "max_buckets": 1,
                  "max_seq_length": 32, "max_train_rows": 16},
    }  # fmt: skip
    return values | changes[preset]


def tagging(preset: str) -> dict[str, Any]:
    """Return config.tagging: taggers on frozen vectors, of CoNLL-2003, preset=laptop and smoke of WNUT 2017."""
    wnut = preset in ("laptop", "smoke")
    cells, layers, num_epochs = {"laptop": (200, 1, 15), "smoke": (8, 1, 1)}.get(preset, (768, 2, 30))
    return {
        "preset": {"one_gpu": "paper"}.get(preset, preset),  # of configs/tagger.py
        "restarts": {"paper": 5, "smoke": 1}.get(preset, 3),  # Table 7: the mean of 5
        "train": "wnut17/wnut17train.conll" if wnut else "eng.train",  # files in CoNLL columns
        "dev": "wnut17/emerging.dev.conll" if wnut else "eng.testa",
        "test": "wnut17/emerging.test.annotated" if wnut else "",  # scored too; "": there is none
        "words": 62_730 if wnut else 203_621,  # of the training file, for the cost
        "cells": cells,  # of each direction of the BiLSTM; §5.3: 768
        "layers": layers,  # §5.3: 2
        "num_epochs": num_epochs,  # not in the paper
        "more": "",  # further flags of launch.tagger
    }


def elmo(preset: str) -> dict[str, Any]:
    """Return config.elmo: its pretraining."""
    small = preset in ("laptop", "smoke")
    values = {
        "size": "small" if small else "original",  # of configs/elmo.py
        "recipe": "paper",  # of configs/elmo.py
        "preset": preset,  # of configs/elmo.py
        "corpus": "data/wiki_books",  # directory that launch.prepare made
        "instances": "stream-20",  # its windows of words
        "batch_size": 384,  # lanes; bin/train_elmo.py
        "num_negatives": 8_192,  # words of the sampled softmax
        "num_steps": 1_000_000,  # 10 epochs of the 1B Word benchmark
        "eval_rows": 20_000,  # windows
        "more": "",  # further flags of launch.pretrain
    }
    changes = {
        "paper": {},
        "one_gpu": {"batch_size": 512, "num_steps": 7_000},  # configs/elmo.py: 12 minutes at 100,000 words a second
        # As many steps as let feature_layers.py end within an hour.
        "laptop": {"batch_size": 64, "num_negatives": 2_048, "num_steps": 800, "eval_rows": 1_000},
        "smoke": {"batch_size": 8, "num_negatives": 16, "num_steps": 4, "eval_rows": 16},
    }
    return values | changes[preset]


def estimate(preset: str) -> dict[str, Any]:
    """Return config.estimate: what `--plan` reckons hours with. Utilizations are assumed."""
    values = {
        "device": "TPU v5e",  # of bert_jax.training.throughput.PEAK_FLOPS, or any name with flops_per_second
        "num_devices": 16,
        "mfu": 0.4,  # of the peak
        "flops_per_second": 0.0,  # of all devices, in place of the above; 0: by them
        "seconds_per_unit": 120.0,  # beside training: starting, reading, compiling, evaluating
    }
    changes = {
        "paper": {},
        "one_gpu": {"device": "H200", "num_devices": 1, "seconds_per_unit": 30.0},
        # Sustained on two cores by models of 128 to 256 (docs/performance.md has up to 300 for large products).
        "laptop": {"device": "2 CPU cores", "num_devices": 1, "flops_per_second": 150e9, "seconds_per_unit": 20.0},
        "smoke": {"device": "2 CPU cores", "num_devices": 1, "flops_per_second": 150e9, "seconds_per_unit": 8.0},
    }
    return values | changes[preset]
