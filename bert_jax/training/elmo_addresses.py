"""An ELMo's address → its model in memory: a directory of options.json and weights.hdf5, or a run.

Source: the addresses of `addresses.py`, which reads BERT's.
"""

from typing import Any

import jax

from bert_jax.config import build
from bert_jax.interop import allennlp
from bert_jax.interop.allennlp import ElmoWeights
from bert_jax.models.elmo import ElmoConfig
from bert_jax.training import checkpoint

FAMILY = "elmo"  # config.family of ELMo's runs
SCHEME = "elmo"
MODEL = "elmo"  # the parameters' first name; the softmax has another


def is_elmo(address: str) -> bool:
    """Return whether an address names an ELMo: `elmo:DIR`, or a run of one."""
    scheme, _ = checkpoint.split(address)
    return scheme == SCHEME or (scheme == checkpoint.RUN and checkpoint.load_config(address).get("family") == FAMILY)


def load(address: str) -> ElmoWeights:
    """Return the model of `elmo:DIR` or `run:DIR[@STEP|@best]` in memory, without its softmax.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, or one of something else.
    """
    scheme, place = checkpoint.split(address)
    if scheme == SCHEME:
        return allennlp.read(place)
    found = checkpoint.resolve(address)
    config = build(ElmoConfig, checkpoint.load_config(found)["model"], "config.model")
    params: Any = jax.device_get(checkpoint.load_params(found))
    return ElmoWeights(config, params[MODEL], tuple(sorted(params.keys() - {MODEL})))
