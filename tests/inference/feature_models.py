"""A random tiny BERT and a random tiny ELMo, as sources of features."""

import jax
import numpy as np

from bert_jax.inference.bert_features import BertFeatures
from bert_jax.inference.elmo_features import ElmoFeatures
from bert_jax.interop import allennlp
from bert_jax.models.elmo import Elmo
from bert_jax.training.sharding import unbox
from tests.tasks.tiny_tasks import tiny_weights
from tests.word_streams import tiny_elmo


def tiny_elmo_params():
    config = tiny_elmo()
    shapes = unbox(jax.eval_shape(Elmo(config).init, jax.random.key(0), np.zeros((1, 1, 50), np.int32)))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)
    params["character_cnn"]["embedding"][0] = 0.0
    return config, params


def elmo_features():
    return ElmoFeatures(*tiny_elmo_params())


def write_elmo(directory):
    """Write the tiny ELMo as bilm-tf does; return its address."""
    allennlp.write(directory, *tiny_elmo_params())
    return f"elmo:{directory}"


def bert_features(**settings):
    return BertFeatures(tiny_weights(), **settings)
