"""Whole pretraining runs of ELMo, small enough for tests, on the corpus of `tests.word_streams`."""

from typing import Any

from bert_jax.training.elmo_pretraining import build_config, make_job
from bert_jax.training.run import run
from configs import elmo
from tests.word_streams import NAME, make_stream_corpus

SIZES: dict[str, Any] = {"dim": 6, "projection_dim": 5, "character_dim": 4}
OVERRIDES = {"data.instances": NAME, "objective.num_negatives": 10, **{f"model.{k}": v for k, v in SIZES.items()}}
FLAGS = [
    "--config=configs/elmo.py:size=small,preset=smoke",
    *(f"--config.{name}={value}" for name, value in OVERRIDES.items()),
    "--config.model.filters=((1,3),(2,4))",
]


def make_corpus(directory):
    """Write the corpus of these runs; return its directory."""
    return make_stream_corpus(directory)


def tiny_config(corpus, **overrides):
    """Return the config of 20 steps of 8 lanes, with dropout; logged every 5, evaluated and saved every 10."""
    config: Any = elmo.get_config("size=small,preset=smoke")
    config.data.corpus = str(corpus)
    config.model.filters = ((1, 3), (2, 4))
    config.update_from_flattened_dict({**OVERRIDES, **overrides})
    return config


def pretrain(corpus, workdir, **overrides):
    """Train in this process; return the exit code."""
    return run(make_job(build_config(tiny_config(corpus, **overrides))), workdir)
