"""Google's TensorFlow 1 checkpoints, pretraining and fine-tuned: PREFIX.{index,data-…}, bert_config.json, vocab.txt.

Source: google-research/bert's released models, run_pretraining.py, run_classifier.py and run_squad.py.
Differs: read only; Hugging Face's format serves to hand models on.
"""

import re
from pathlib import Path

from bert_jax.interop import bert_json, name_map, vocabulary_files
from bert_jax.interop.parity_report import ParityReport
from bert_jax.interop.tensor_bundle import TensorBundle
from bert_jax.interop.weights import Beside, Weights, fit_vocabulary

CONFIG = "bert_config.json"
_OPTIMIZER = re.compile(r"/(adam_[mv]|AdamWeightDecayOptimizer(_1)?|LAMB(_1)?)$|^global_step$|^(bad|good)_steps$")
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def read(prefix: str, beside: Beside | None = None) -> tuple[Weights, ParityReport]:
    """Return the model of a checkpoint, and what became of every variable.

    Args:
        prefix: `DIR/bert_model.ckpt`, or `DIR/model.ckpt-343` of a fine-tuned one.
        beside: where bert_config.json and vocab.txt are, unless in DIR: fine-tuning does not copy them.

    Raises:
        FileNotFoundError: no such checkpoint, config or vocabulary.
        ValueError: not BERT, or not the BERT that the config describes.
    """
    beside = beside or Beside()
    bundle = TensorBundle(prefix)
    if _OBJECT_GRAPH in bundle.entries:
        raise ValueError(
            f"{prefix} was written by TensorFlow 2 (Model Garden), whose variables have other names; give a TensorFlow "
            "1 checkpoint, or the model's Hugging Face directory as hf:DIR"
        )
    directory = Path(prefix).parent
    config, _ = bert_json.read(beside.config or directory / CONFIG)
    tokenizer = vocabulary_files.read(directory, beside)
    config = fit_vocabulary(config, tokenizer.vocab_size)
    names = [name for name in bundle.entries if not _OPTIMIZER.search(name)]
    params, report = name_map.to_ours({name: bundle.read(name) for name in names}, "google", config)
    notes = [vocabulary_files.describe(tokenizer)]
    if len(names) < len(bundle.entries):
        notes.append(f"the optimizer's {len(bundle.entries) - len(names)} variables are not read")
    return Weights(config, params, tokenizer), report.with_notes(*notes)
