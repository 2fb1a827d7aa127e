"""What every fine-tuning config has in common; configs/glue.py and its like add their data."""

from typing import Any

from ml_collections import ConfigDict

RECIPES = ("paper", "fast")
PRESETS = ("paper", "smoke")  # smoke: does it run at all?
SMOKE_ROWS = 64


def finetuning(family: str, recipe: str) -> Any:
    """Return the sections that do not depend on the task.

    Args:
        family: of bert_jax.tasks.families.FAMILIES.
        recipe: of RECIPES; see configs/glue.py.
    """
    fast = recipe == "fast"
    return ConfigDict(
        {
            "family": family,  # whose config this is; the launchers dispatch on it
            "seed": 0,  # of the new head, the order of rows and dropout
            "init_from": "",  # address of the checkpoint: hf:DIR, run:DIR[@STEP|@best], google:PREFIX
            "num_epochs": 3,  # times that every row is trained on; A.3
            "warmup_fraction": 0.1,  # of the steps; run_classifier.py
            "bilstm_cells": 0,  # of each direction of a new BiLSTM before the classifier; 0: none. "+ BiLSTM", Table 5
            "model": {  # changes of the checkpoint's own
                "hidden_dropout_prob": 0.1,  # A.3: as in pretraining
                "attention_probs_dropout_prob": 0.0 if fast else 0.1,  # likewise
                "dtype": "float32",  # of the computation; or bfloat16
                "attention": "xla",  # or cudnn (GPU), splash (TPU), which have no attention dropout
                "remat": "none",  # or dots, full
                "scan_unroll": 12,  # layers a loop iteration: without a loop a step is a fifth faster on a CPU
            },
            "optim": {
                "name": "adamw" if fast else "adamw_bert",
                "peak_learning_rate": 5e-5,  # of A.3's 5e-5, 3e-5, 2e-5
                "weight_decay": 0.01,  # not on LayerNorm and biases; optimization.py
                "beta1": 0.9,
                "beta2": 0.999,
                "epsilon": 1e-6,  # optimization.py
                "clip_norm": 1.0,  # global gradient norm; optimization.py
            },
            "train": {
                "microbatches": 1,  # parts a batch is computed in, one after the other
                "log_every_steps": 20,  # updates a row of metrics.jsonl
                "keep_checkpoints": 1,  # newest; the best by the dev metric is kept besides
                "on_nonfinite": "stop",  # or skip
            },
            "eval": {
                "times_per_epoch": 1,  # 0: after the last step only
                "batch_size": 64,  # rows at a time
                "patience_evaluations": 0,  # end after so many without a better one; 0: never
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},  # as in configs/bert.py
        },
        convert_dict=True,
    )
