"""A tagger on frozen vectors: a BiLSTM learns named entities from the vectors of any BERT or ELMo.

Run:      python -m launch.tagger --config=configs/tagger.py --config.features.checkpoint=hf:DIR \
              --config.features.layers=-4,-3,-2,-1 --config.features.combine=concat \
              --config.data.train=eng.train --config.data.dev=eng.testa --seeds=5 --workdir=runs/tagger
Hardware: any; 2 CPU cores for the measured row, one accelerator for BERT-Base and CoNLL-2003
Time:     preset=laptop on WNUT 2017 with all-MiniLM-L6 (6 layers of 384), three restarts: 3 to 8 min
Expect:   that, last four layers side by side: dev F1 51.3 ± 0.7, test 39.1 ± 0.4 (docs/results.md)
          BERT-Base cased on CoNLL-2003, last four layers side by side: dev F1 96.1 (Table 7); not measured yet
Source:   Devlin et al. 2019 §5.3 and Table 7: a BiLSTM of two layers of 768 before the classifier, no CRF

preset=laptop has one layer of 200. What the paper does not say is marked so.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from bert_jax.config import choose, parse_arg

PRESETS = ("paper", "laptop", "smoke")


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of a tagger; see the head of this file."""
    options: Any = parse_arg(
        arg,
        preset="paper",  # of PRESETS
    )
    preset = choose("preset", options.preset, PRESETS)
    cells, layers = {"paper": (768, 2), "laptop": (200, 1), "smoke": (8, 1)}[preset]
    return ConfigDict(
        {
            "family": "tagger",
            "num_epochs": {"paper": 30, "laptop": 15, "smoke": 1}[preset],  # not in the paper
            "warmup_fraction": 0.05,  # of the steps; not in the paper
            "features": {
                "checkpoint": "",  # address: run:DIR[@STEP|@best], hf:DIR, google:PREFIX, elmo:DIR
                "layers": "-1",  # numbers from 0 (what goes into the first layer), all, or word_embeddings
                "combine": "none",  # a learned mixture of several; or concat
                "pooling": "first",  # piece of a word; §5.3
                "document_context": True,  # of a BERT, where the file has documents; §5.3
                "max_seq_length": 0,  # of a BERT's rows; 0: as the model takes
                "dtype": "float32",  # that vectors are kept in; or float16, for large files and many layers
            },
            "model": {
                "cells": cells,  # of each direction; §5.3
                "layers": layers,  # §5.3
                "dropout": 0.5,  # of the BiLSTM's inputs and outputs; not in the paper
            },
            "data": {
                "train": "",  # a file in CoNLL columns, UTF-8; .gz too
                "dev": "",  # likewise; its F1 is the score
                "test": placeholder(str),  # likewise, scored too; None: there is none
                "batch_size": 32,  # sentences a step; not in the paper
                "max_buckets": 6,  # lengths that sentences are padded to, each compiled once
                "max_train_sentences": 16 if preset == "smoke" else 0,  # the first so many; 0: all
            },
            "optim": {
                "name": "adamw",
                "peak_learning_rate": 1e-3,  # not in the paper; falls to 0
                "weight_decay": 0.0,
                "beta1": 0.9,
                "beta2": 0.999,
                "epsilon": 1e-8,
                "clip_norm": 5.0,  # global gradient norm; not in the paper
            },
        },
        convert_dict=True,
    )
