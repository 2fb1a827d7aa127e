"""ELMo pretraining: two LSTM language models over words as characters, one reading forward and one backward.

Run:      python -m launch.pretrain --config=configs/elmo.py:size=small,preset=laptop --workdir=runs/elmo-small
          python -m launch.pretrain --config=configs/elmo.py:size=original --workdir=runs/elmo
Hardware: preset=laptop: 2 CPU cores; preset=one_gpu: one H200; preset=paper: the paper had 3 GTX 1080
Time:     size=small,preset=laptop --config.train.num_steps=2500: 98 min, beside other work
          original: not measured yet (the paper: about two weeks for 10 epochs)
Expect:   that, after 3.2M words of Wikipedia: held-out perplexity 197, the mean of both directions; word frequencies
          777, 5-grams 193 (docs/results.md)
          original: not measured yet (bilm-tf's README: perplexity 39.7, likewise a mean, on the 1B Word benchmark)
Source:   Peters et al. 2018 §3.4; allenai/bilm-tf bin/train_elmo.py and training.py

Recipes:
  paper  Adagrad with a constant rate, dropout 0.1, float32.
  fast   What one would run today: corrected AdamW with warm-up and decay, bfloat16.
The corpus is data/wiki_books with a set of windows, which is made, or added to a corpus that is there, by
configs/corpus.py:name=wiki_books,sets=stream-20 — unless --config.data.corpus says otherwise.

bilm-tf takes the gradient of the loss times the 20 unrolled steps, clips it to a norm of 10 and begins Adagrad's sums
with 1. Adagrad's update is the same for the loss itself, a norm of 10 / 20 and sums that begin with 1 / 20²: so the
loss that is logged here is nats a word.
"""

from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from bert_jax.models.character_cnn import RELEASED_FILTERS
from bert_jax.models.elmo import NAMED_SIZES, named_size

RECIPES = ("paper", "fast")
PRESETS = ("paper", "one_gpu", "laptop", "smoke")
_UNROLL = 20  # words a window; bin/train_elmo.py


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of a pretraining run; see the head of this file."""
    options: Any = parse_arg(
        arg,
        size="original",  # small, medium or original
        recipe="paper",  # of RECIPES
        preset="paper",  # of PRESETS: how long, and on what
    )
    choose("size", options.size, NAMED_SIZES)
    choose("recipe", options.recipe, RECIPES)
    choose("preset", options.preset, PRESETS)
    config: Any = _paper(options.size)
    if options.recipe == "fast":
        _make_fast(config)
    {"paper": lambda _: None, "one_gpu": _fit_one_gpu, "laptop": _fit_laptop, "smoke": _make_smoke}[options.preset](
        config
    )
    return config


def _paper(size: str) -> ConfigDict:
    return ConfigDict(
        {
            "family": "elmo",  # whose config this is; the launchers dispatch on it
            "seed": 0,  # of parameters, data order, dropout and negatives
            "init_from": "",  # address run:DIR[@step|@best] or elmo:DIR to take parameters from
            "model": {
                **named_size(size),  # dim, projection_dim, n_highway: options.json's names
                "n_layers": 2,  # LSTMs of a direction
                "n_characters": 262,  # rows of the character table, the mask's among them
                "max_characters_per_token": 50,  # a word's ids, its marks among them
                "character_dim": 16,  # of a character's embedding
                "filters": RELEASED_FILTERS,  # pairs: width in characters, number; 2,048 in all
                "activation": "relu",  # behind the filters' maximum
                "cell_clip": 3.0,  # ± this; 0: none
                "proj_clip": 3.0,  # ± this; 0: none
                "use_skip_connections": True,  # layers behind the first add their input
                "dropout": 0.1,  # of every layer's input and of the last output
                "dtype": "float32",  # of the products; parameters, cells and gates are float32 always
            },
            "objective": {
                "vocab_size": 0,  # words that are predicted; 0: the instance set's
                "num_negatives": 8192,  # words of the sampled softmax beside the right one; 0: the whole vocabulary
                "distinct_fraction": 0.3,  # room for distinct words, of all places; English: 26 % in 384 lanes
            },
            "data": {
                "corpus": "data/wiki_books",  # directory that launch.prepare made
                "instances": f"stream-{_UNROLL}",  # set of windows in it
                "batch_size": 384,  # lanes; bin/train_elmo.py: 128 on each of 3 GPUs
                "num_threads": 2,  # that prefetch, a process
                "prefetch_batches": 8,  # made ahead
            },
            "optim": {
                "name": "adagrad",  # training.py; or adamw, adamw_bert, lamb
                "peak_learning_rate": 0.2,  # training.py
                "schedule": "constant",  # training.py; or linear, to 0 at the last step
                "warmup_steps": 0,  # training.py
                "weight_decay": 0.0,  # adagrad has none
                "beta1": 0.9,  # of adamw and lamb only, as are the next two
                "beta2": 0.999,
                "epsilon": 1e-8,
                "clip_norm": 10.0 / _UNROLL,  # all_clip_norm_val; see the head of this file
                "initial_accumulator": 1.0 / _UNROLL**2,  # of adagrad only; see the head of this file
            },
            "train": {
                "num_steps": 1_000_000,  # updates; 10 epochs of 768,648,884 tokens in batches of 384 · 20
                "microbatches": 1,  # parts a batch is computed in, one after the other
                "log_every_steps": 100,  # updates a row of metrics.jsonl
                "save_every_steps": 5_000,  # updates
                "keep_checkpoints": 3,  # newest; the best by evaluation loss is kept besides
                "on_nonfinite": "stop",  # or skip: leave out updates with a loss or gradient that is not finite
                "reference_curve": "",  # file of configs/curves to show beside the loss; empty: none
            },
            "eval": {
                "every_steps": 10_000,  # updates; 0: after the last one only
                "max_rows": 20_000,  # windows of the validation split; 0: all
                "batch_size": 128,  # lanes, each begun without state
            },
            "mesh": {
                "data": -1,  # copies of the parameters; -1: the devices that are left
                "fsdp": 1,  # parts of parameters and optimizer state
                "tensor": 1,  # parts of every layer
            },
        },
        convert_dict=True,
    )


def _make_fast(config: Any) -> None:
    config.model.dtype = "bfloat16"
    config.optim.name = "adamw"
    config.optim.schedule = "linear"
    config.optim.peak_learning_rate = 1e-3  # not tuned yet
    config.optim.warmup_steps = 1_000
    config.optim.beta2 = 0.98
    config.optim.weight_decay = 0.01
    config.optim.clip_norm = 1.0


def _fit_one_gpu(config: Any) -> None:
    # As many updates as 25 minutes hold at 100,000 tokens a second, which is asked for and not measured yet.
    config.model.dtype = "bfloat16"
    config.data.batch_size = 512
    config.objective.distinct_fraction = 0.27
    config.train.num_steps = int(25 * 60 * 100_000 / (512 * _UNROLL))
    config.train.save_every_steps = config.eval.every_steps = config.train.num_steps // 5
    config.optim.warmup_steps = min(config.optim.warmup_steps, config.train.num_steps // 10)


def _fit_laptop(config: Any) -> None:
    config.model.dtype = "float32"
    config.data.batch_size = config.eval.batch_size = 64
    config.objective.num_negatives = 2_048  # of some ten thousand words
    config.objective.distinct_fraction = 0.42  # of Wikipedia and books 37 ± 3 % in 64 lanes, 33 % in 128
    config.train.num_steps = 5_000
    config.optim.warmup_steps = min(config.optim.warmup_steps, 250)
    config.train.log_every_steps = 20
    config.train.save_every_steps = config.eval.every_steps = 500
    config.eval.max_rows = 2_000


def _make_smoke(config: Any) -> None:
    config.model.dtype = "float32"
    config.data.batch_size = config.eval.batch_size = 8
    config.objective.num_negatives = 64
    config.objective.distinct_fraction = 0.7
    config.optim.warmup_steps = min(config.optim.warmup_steps, 5)
    config.train.num_steps = 20
    config.train.log_every_steps = 5
    config.train.save_every_steps = config.eval.every_steps = 10
    config.eval.max_rows = 64
