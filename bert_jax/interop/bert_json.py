"""bert_config.json and Hugging Face's config.json, which share their names, ↔ `BertConfig`.

Source: google-research/bert `modeling.py` (BertConfig); Hugging Face's `configuration_bert.py`.
Differs: a missing type_vocab_size is an error, because the code's default of 16 fits no released model.
"""

import dataclasses
from pathlib import Path
from typing import Any

from bert_jax.interop.checkpoint_files import existing, read_json
from bert_jax.models.bert import BertConfig

SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size",
)  # fmt: skip
_SETTINGS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps")
# "gelu" is erf in Hugging Face's code and in the release whose training it was; Google's later code has tanh.
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
# What would make another model of the same tensors.
_FIXED = {"model_type": "bert", "position_embedding_type": "absolute", "is_decoder": False, "tie_word_embeddings": True}


def read(path: Path) -> tuple[BertConfig, dict[str, Any]]:
    """Return the model's config, and the file's values for what else they say.

    Keys of other libraries are passed over (pooler_fc_size, directionality, use_cache …).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, a missing size, or a model that is not BERT.
    """
    values = read_json(existing(path, "it has the model's sizes; name it by --bert_config"))
    missing = [name for name in SIZES if name not in values]
    if missing:
        raise ValueError(f"{path} does not say {', '.join(missing)}; add the sizes of the model's tensors")
    for name, accepted in _FIXED.items():
        if values.get(name, accepted) not in (accepted, None):
            raise ValueError(f"{path} has {name} {values[name]!r}; BERT has {accepted!r}, nothing else is read")
    act = values.get("hidden_act", "gelu")
    if act not in _ACTIVATIONS:
        raise ValueError(f"{path} has hidden_act {act!r}; accepted: {', '.join(_ACTIVATIONS)}")
    given = {name: values[name] for name in (*SIZES, *_SETTINGS) if name in values}
    return BertConfig(**given, hidden_act=_ACTIVATIONS[act]), values


def write(config: BertConfig, more: dict[str, Any]) -> dict[str, Any]:
    """Return Hugging Face's config.json of a model, with `more` of its keys.

    Raises:
        ValueError: a left-to-right model, whose pooler reads another token than theirs.
    """
    if config.causal:
        raise ValueError("the model is left-to-right (model.causal); Hugging Face's BERT would read it both ways")
    act = {"gelu": "gelu", "gelu_tanh": "gelu_new"}[config.hidden_act]
    sizes = {name: value for name, value in dataclasses.asdict(config).items() if name in (*SIZES, *_SETTINGS)}
    return {"model_type": "bert", **more, **sizes, "hidden_act": act}
