"""Whole pretraining runs, small enough for tests, on the corpus of the fixture `tiny_instances`."""

from typing import Any

from etils import epath

from bert_jax.training.metrics import FILE, read_rows
from bert_jax.training.pretraining import build_config, make_job
from bert_jax.training.run import run
from configs import bert
from tests.conftest import write_instances, write_tokenizer

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
FLAGS = ["--config=configs/bert.py:size=L2-H128,preset=smoke", *(f"--config.model.{k}={v}" for k, v in SIZES.items())]


def make_corpus(directory):
    """Write the corpus of the fixture `tiny_instances` for several tests; return its directory."""
    write_tokenizer(directory)
    write_instances(directory, "nsp-32")
    return directory


def tiny_config(corpus, instances="nsp-32", **overrides):
    """Return the config of 20 steps of 8 rows, with dropout; logged every 5, evaluated and saved every 10."""
    config: Any = bert.get_config("size=L2-H128,preset=smoke")
    config.data.corpus, config.data.instances = str(corpus), instances
    config.model.update(SIZES)
    config.model.max_position_embeddings = 32
    config.update_from_flattened_dict(overrides)
    return config


def pretrain(corpus, workdir, **overrides):
    """Train in this process; return the exit code."""
    return run(make_job(build_config(tiny_config(corpus, **overrides))), workdir)


def rows(workdir):
    """Return what metrics.jsonl says, without times and rates."""
    found = read_rows(epath.Path(workdir) / FILE)
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in found]
