"""BERT pretraining: masked words and next sentences, in two phases, 128 tokens a row and then 512.

Run:      python -m launch.pretrain --config=configs/bert.py:size=demo --workdir=runs/demo
          python -m launch.pretrain --config=configs/bert.py:size=base,phase=1 --workdir=runs/base-1
          python -m launch.pretrain --config=configs/bert.py:size=base,phase=2 --workdir=runs/base-2 \
              --config.init_from=run:runs/base-1
Hardware: demo and preset=laptop: 2 CPU cores; preset=one_gpu: one H200; preset=paper: 16 TPU v3 chips or more
Time:     demo 3.5 min; preset=one_gpu: cut to 30 min by rates that are assumed, not measured yet
          base and large: not measured yet (the paper: 4 days on 16 and 64 TPU chips)
Expect:   demo: held-out MLM accuracy 34.7 ± 0.6 % (3 seeds), against 4.6 % for always guessing the most frequent token
          base, large: not measured yet (the paper gives perplexities 3.99 and 3.23, in Table 6)
Source:   Devlin et al. 2019 A.2; google-research/bert README, "Pre-training with BERT"

Recipes:
  paper  Post-LN, erf GELU, Adam without bias correction, decay by name, dropout 0.1 everywhere, one pair a row.
  fast   What one would run today: no attention dropout (so that fused attention applies), packed rows, bfloat16,
         corrected AdamW, vocabulary padded to a multiple of 128.
  small  Narrow models in minutes or hours, on batches of some thousand tokens; size=demo has it. Positions begin as
         sinusoids, attention (but the demo's) with what stands nearby, the pairs' loss counts a tenth, no dropout,
         corrected AdamW with a rate that goes by the width.
The corpus is data/wiki_books (configs/corpus.py:name=wiki_books; with sets=nsp-128-packed+nsp-512-packed for
recipe=fast) unless --config.data.corpus says otherwise. Both phases read the same corpus and so the same vocabulary.

Phases: the paper trains one schedule of 1,000,000 steps, 90 % of it at 128 tokens. Here each phase is a run with its
own warm-up and decay, as in the released code, so that phase 2 can be repeated, or begin from any checkpoint:
--config.init_from=run:DIR@STEP takes its parameters only.

Large batches: optimizer=lamb has the batches, rates and steps of You et al. 2020 for BERT-Large (65,536 rows in
phase 1, 32,768 in phase 2; 8,599 steps instead of 1,000,000). On few devices add --config.train.microbatches.
"""

import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from bert_jax.models.bert import VOCAB_SIZES, BertConfig, named_size
from bert_jax.training.throughput import bert_row_flops

RECIPES = ("paper", "fast", "small")
PRESETS = ("paper", "one_gpu", "laptop", "smoke")
OPTIMIZERS = ("adamw_bert", "adamw", "lamb")


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of a pretraining run; see the head of this file."""
    options: Any = parse_arg(
        arg,
        size="base",  # demo, base, large, mini, L2-H128 …, or layers-hidden-heads, such as 3-768-12
        phase=1,  # 1: 128 tokens a row; 2: 512, begun from a run of phase 1
        recipe="paper",  # of RECIPES
        vocab="corpus",  # corpus: its tokenizer's; uncased, cased: the released sizes, which the corpus must have
        preset="paper",  # of PRESETS: how long, and on what
        optimizer="",  # of OPTIMIZERS; empty: adamw_bert for recipe=paper, else adamw
    )
    if options.size != "demo":
        named_size(options.size)  # an error if it is none
    choose("recipe", options.recipe, RECIPES)
    choose("preset", options.preset, PRESETS)
    choose("phase", str(options.phase), ("1", "2"))
    choose("vocab", options.vocab, ("corpus", *VOCAB_SIZES))
    if options.size == "demo":
        options.recipe = "small"
    optimizer = options.optimizer
    options.optimizer = optimizer or ("adamw_bert" if options.recipe == "paper" else "adamw")
    choose("optimizer", options.optimizer, OPTIMIZERS)
    if options.recipe == "small" and optimizer not in ("", "adamw"):
        raise ValueError(f"optimizer is {optimizer!r}; recipe=small is tuned for adamw, the others take any optimizer")
    config: Any = _paper(options)
    if options.recipe == "fast":
        _make_fast(config)
    if options.optimizer == "lamb":
        _make_large_batch(config, options.phase)
    if options.size == "demo":
        _make_demo(config)
    {"paper": lambda _: None, "one_gpu": _fit_one_gpu, "laptop": _fit_laptop, "smoke": _make_smoke}[options.preset](
        config
    )
    if options.preset != "paper":
        config.train.reference_curve = ""  # which was recorded of other batches and steps
    if options.recipe == "small":
        _make_small(config)
        if options.size != "demo":  # whose curve was recorded before
            _begin_nearby(config)
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add one run a size of BERT's Table 6, the effect of model size."""
    for size in ("3-768-12", "6-768-3", "6-768-12", "12-768-12", "12-1024-16", "24-1024-16"):
        add(**{f"model.{name}": value for name, value in named_size(size).items()})


def _paper(options: Any) -> ConfigDict:
    length = 128 if options.phase == 1 else 512
    size = named_size("L2-H128" if options.size == "demo" else options.size)
    return ConfigDict(
        {
            "family": "bert",  # whose config this is; the launchers dispatch on it
            "seed": 0,  # of parameters, data order, masks and dropout
            "init_from": "",  # address run:DIR[@step|@best] to take parameters from; phase 2 needs a run of phase 1
            "model": {
                **size,  # bert_config.json's names
                "vocab_size": VOCAB_SIZES.get(options.vocab, 0),  # word pieces; 0: the corpus tokenizer's
                "max_position_embeddings": 512,  # the longest row
                "type_vocab_size": 2,  # segments
                "hidden_act": "gelu",  # gelu: erf, as first released; gelu_tanh: since bee6030 (February 2019)
                "hidden_dropout_prob": 0.1,  # A.2
                "attention_probs_dropout_prob": 0.1,  # A.2
                "initializer_range": 0.02,  # standard deviation of the truncated normal; modeling.py
                "layer_norm_eps": 1e-12,  # modeling.py
                "dtype": "float32",  # of the computation; parameters are float32 always
                "attention": "xla",  # or cudnn (GPU), splash (TPU), which have no attention dropout
                "remat": "none",  # or dots, full: recompute in the backward pass to save memory
                # layers a loop iteration: without a loop 10 % faster on a CPU, but compile time grows with it
                "scan_unroll": size["num_hidden_layers"] if size["num_hidden_layers"] <= 4 else 1,
                "vocab_size_multiple": 1,  # the embedding table is padded to it
                "attention_init": "normal",  # as released; mimetic: short trainings learn sooner what stands nearby
                "position_init": "normal",  # as released; sinusoids: short trainings learn order much sooner
                "position_initializer_range": 0.0,  # their spread; 0: initializer_range
                "causal": False,  # true: left to right, with masking.unit=next and no next_sentence; Table 5
            },
            "objective": {
                "next_sentence": True,  # false: masked words alone; the corpus may then be pairs=none
                "next_sentence_weight": 1.0,  # of the sentence pairs' loss; A.2: the sum of the two
            },
            "data": {
                "corpus": "data/wiki_books",  # directory that launch.prepare made
                "instances": f"nsp-{length}",  # instance set in it
                "batch_size": 256,  # global rows a step; A.2
                "num_threads": 2,  # that prefetch, a process
                "prefetch_batches": 8,  # made ahead
            },
            "masking": {
                "unit": "token",  # or word (whole words), ngram; next: predict the next token, of a causal model
                "masked_fraction": 0.15,  # of a row's tokens; §3.1
                "mask_token_fraction": 0.8,  # of the chosen: [MASK]; §3.1
                "random_token_fraction": 0.1,  # of the chosen: a random token; §3.1
                "max_predictions_per_row": 20 if length == 128 else 77,  # README: about masked_fraction × length
                "max_ngram_words": 3,  # of unit ngram
            },
            "optim": {
                "name": options.optimizer,  # of OPTIMIZERS
                "peak_learning_rate": 1e-4,  # A.2
                "warmup_steps": 10_000,  # A.2
                "weight_decay": 0.01,  # A.2; not on LayerNorm and biases
                "beta1": 0.9,  # A.2
                "beta2": 0.999,  # A.2
                "epsilon": 1e-6,  # optimization.py
                "clip_norm": 1.0,  # global gradient norm; optimization.py
                "schedule": "linear",  # to 0 at the last step; or constant
                "initial_accumulator": 1.0,  # of adagrad only
            },
            "train": {
                "num_steps": 900_000 if options.phase == 1 else 100_000,  # updates; A.2: 90 % at 128 tokens
                "microbatches": 1,  # parts a batch is computed in, one after the other
                "log_every_steps": 100,  # updates a row of metrics.jsonl
                "save_every_steps": 5_000,  # updates
                "keep_checkpoints": 3,  # newest; the best by evaluation loss is kept besides
                "on_nonfinite": "stop",  # or skip: leave out updates with a loss or gradient that is not finite
                "reference_curve": "",  # file of configs/curves to show beside the loss; empty: none
            },
            "eval": {
                "every_steps": 10_000,  # updates; 0: after the last one only
                "max_rows": 10_000,  # of the validation split; 0: all
                "batch_size": 256,  # global rows
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
    config.model.attention_probs_dropout_prob = 0.0  # fused attention has none
    config.model.dtype = "bfloat16"
    config.model.vocab_size_multiple = 128  # the width of a TPU's matrix unit
    config.data.instances += "-packed"
    config.optim.peak_learning_rate = 2e-4  # not tuned yet
    config.optim.beta2 = 0.98  # RoBERTa (Liu et al. 2019 §3.1), for large batches


def _make_large_batch(config: Any, phase: int) -> None:
    # Batches and steps of You et al. 2020, Table 1 (mixed batches of BERT-Large); rates and warm-up of NVIDIA's
    # DeepLearningExamples for those batches.
    config.data.batch_size = 65_536 if phase == 1 else 32_768
    config.train.num_steps = 7_037 if phase == 1 else 1_562
    config.optim.peak_learning_rate = 6e-3 if phase == 1 else 4e-3
    config.optim.warmup_steps = 2_000 if phase == 1 else 200
    config.train.log_every_steps = 10
    config.train.save_every_steps = config.eval.every_steps = 200


def _make_small(config: Any) -> None:
    # Found on the demo, a change at a time (docs/results.md): held-out accuracy 19 % → 22 % after 1,500 steps, and
    # 35 % instead of 22 % after 4,500.
    hidden_size = config.model.hidden_size
    # 5e-3 was too much at 128, half less good. Below, the rate goes with the spread of the kernels.
    narrower = 128 / hidden_size
    config.optim.peak_learning_rate = 3e-3 * min(narrower, math.sqrt(narrower))
    config.model.initializer_range = 0.02 * math.sqrt(768 / hidden_size)  # the same spread of outputs as in BERT-Base
    if config.model.num_hidden_layers > 2:
        # With the above four and eight layers stay long with which words are frequent beside which (docs/results.md).
        config.optim.peak_learning_rate = 1.2e-3 * min(narrower, 1.0)
        config.model.initializer_range = 0.02
    config.model.position_init = "sinusoids"
    config.model.hidden_dropout_prob = config.model.attention_probs_dropout_prob = 0.0  # too short to overfit
    config.objective.next_sentence_weight = 0.1  # of few pairs a batch the gradient is mostly noise
    config.optim.beta2 = 0.98


def _begin_nearby(config: Any) -> None:
    # Attention that begins with what stands nearby: 1-96-3 has a loss of 5.5 after 800 steps of 64 · 64 tokens, instead
    # of 6.4, and the deeper ones leave the bag of words sooner too (docs/results.md).
    config.model.attention_init = "mimetic"
    config.model.position_initializer_range = 4 * config.model.initializer_range


def _make_demo(config: Any) -> None:
    # Short rows, so many updates, in a few minutes of two cores.
    config.data.corpus = "data/python_docs"
    config.data.instances = "nsp-64"
    config.data.batch_size = config.eval.batch_size = 32
    config.masking.max_predictions_per_row = 10
    config.model.num_attention_heads = 4
    config.optim.warmup_steps = 100
    config.train.num_steps = 4_000
    config.train.reference_curve = "configs/curves/bert-demo.json"
    config.train.log_every_steps = 50
    config.train.save_every_steps = config.eval.every_steps = 1_000
    config.eval.max_rows = 0


def _fit_one_gpu(config: Any) -> None:
    # As many updates as 25 minutes hold, which leaves 5 of a slot of 30 to compiling, evaluating and saving. By what
    # is assumed of an H200 and not measured: 4e14 FLOP/s (5,600 rows of 128 tokens a second for BERT-Base, 1,838 for
    # BERT-Large), and 2.5 million tokens a second at most, which the input must keep up with.
    length = int(config.data.instances.split("-")[1])
    sizes = BertConfig(**config.model.to_dict() | {"vocab_size": config.model.vocab_size or VOCAB_SIZES["uncased"]})
    flops = bert_row_flops(sizes, length, config.masking.max_predictions_per_row).flops
    rows_per_second = min(4e14 / flops, 2.5e6 / length)
    config.model.dtype = "bfloat16"
    config.train.num_steps = int(25 * 60 * rows_per_second / config.data.batch_size)
    config.optim.warmup_steps = config.train.num_steps // 10
    config.train.save_every_steps = config.eval.every_steps = config.train.num_steps // 5
    config.train.log_every_steps = min(100, config.eval.every_steps)
    # Rows at a time: 256, and 64 with more than 12 layers; not measured either.
    rows = 256 if config.model.num_hidden_layers <= 12 else 64
    config.train.microbatches = max(1, config.data.batch_size // rows)


def _fit_laptop(config: Any) -> None:
    config.data.batch_size = config.eval.batch_size = 32
    config.optim.peak_learning_rate = 5e-4  # not tuned yet
    config.optim.warmup_steps = 500
    config.train.num_steps = 10_000
    config.train.log_every_steps = 20
    config.train.save_every_steps = config.eval.every_steps = 500
    config.eval.max_rows = 1_000


def _make_smoke(config: Any) -> None:
    config.data.batch_size = config.eval.batch_size = 8
    config.optim.warmup_steps = 5
    config.train.num_steps = 20
    config.train.log_every_steps = 5
    config.train.save_every_steps = config.eval.every_steps = 10
    config.eval.max_rows = 64
