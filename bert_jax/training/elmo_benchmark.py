"""Time ELMo's training step on made-up words, and its LSTM stacks alone: `launch.benchmark elmo` and `lstm`."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import build, to_plain
from bert_jax.corpus.characters import CharacterIds
from bert_jax.input.placement import place_batch
from bert_jax.models.elmo import ElmoConfig
from bert_jax.models.lstm import DIRECTIONS
from bert_jax.models.recurrent import LstmStacks, RecurrentConfig, zero_state
from bert_jax.objectives.bidirectional_lm import BidirectionalLmConfig, BidirectionalLmObjective
from bert_jax.training.benchmark import time_steps
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig, make_mesh
from bert_jax.training.optimizers import OptimizerConfig, make_optimizer
from bert_jax.training.sharding import unbox
from bert_jax.training.state import abstract_state, make_hyper, make_state, state_shardings
from bert_jax.training.step import compile_train_step, make_train_step

_VOCAB_SIZE = 30_000  # for a config that takes the corpus'
_ZIPF_WORDS = 200_000  # with as many, a third of the places of 64 × 20 words hold distinct ones, as in Wikipedia


def zipf_batch(
    batch_size: int, unroll_steps: int, vocab_size: int, max_characters: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return a batch as `input.streams` makes them, of words whose chances are as 1 / rank; rare ones are longer.

    Both directions read the same text. Words beyond the vocabulary are predicted as its word 0.
    """
    chances = 1.0 / np.arange(1, _ZIPF_WORDS + 1)
    shape = (batch_size, unroll_steps + 2)
    ranks = np.random.default_rng(seed).choice(_ZIPF_WORDS, shape, p=chances / chances.sum())
    order = np.stack([ranks, ranks[:, ::-1]])  # as each direction reads
    read, targets = order[:, :, :-2], order[:, :, 1:-1].astype(np.int32)
    targets = np.where(targets < vocab_size, targets, 0)
    words, places = np.unique(read, return_inverse=True)
    table = np.zeros((1, 1 + read.size, max_characters), np.int32)
    spelled = [np.base_repr(rank + 1, 3) for rank in words.tolist()]  # 1 to 12 characters
    table[0, 1 : 1 + len(words)] = CharacterIds(max_characters).encode_words(spelled)
    forward, backward = (1 + places.reshape(read.shape)).astype(np.int32)
    return {
        "char_ids": table,
        "word_index": forward,
        "word_index_reverse": backward,
        "target_ids": targets[0],
        "target_ids_reverse": targets[1],
        "target_weights": np.ones((batch_size, unroll_steps), np.float32),
    }


def measure_elmo_step(
    config: Any, batch_size: int, unroll_steps: int, warmup_steps: int, timed_steps: int
) -> dict[str, Any]:
    """Time the whole training step of a config of configs/elmo.py on one device.

    Args:
        config: a vocabulary size of 0, the corpus', becomes 30,000.
        batch_size: lanes.
        unroll_steps: words a window.
        warmup_steps: untimed, behind the compilation.
        timed_steps: 1 or more; the median counts.

    Raises:
        ValueError: microbatches or more than one device, for which words would be dealt otherwise.
    """
    config.objective.vocab_size = config.objective.vocab_size or _VOCAB_SIZE
    model = build(ElmoConfig, config.model, "config.model")
    softmax = build(BidirectionalLmConfig, config.objective, "config.objective")
    optim, train = (
        build(OptimizerConfig, config.optim, "config.optim"),
        build(TrainConfig, config.train, "config.train"),
    )
    mesh = make_mesh(build(MeshConfig, config.mesh, "config.mesh"))
    if mesh.size > 1 or train.microbatches > 1:
        raise ValueError(
            f"got {mesh.size} devices and config.train.microbatches={train.microbatches}; ELMo's step is timed on one "
            "device and in one part: use --config.train.microbatches=1, and CUDA_VISIBLE_DEVICES=0 or its like"
        )
    objective, optimizer = BidirectionalLmObjective(model, softmax), make_optimizer(optim)
    abstract = abstract_state(objective, optimizer, batch_size, mesh)
    make = lambda: make_state(objective.init(config.seed), optimizer, objective.init_carry(batch_size))  # noqa: E731
    state = jax.jit(make, out_shardings=state_shardings(abstract))()
    step = make_train_step(objective, optimizer, train.microbatches, train.on_nonfinite)
    rows = zipf_batch(batch_size, unroll_steps, softmax.vocab_size, model.max_characters_per_token)
    hyper = make_hyper(optim, train.num_steps, config.seed, mesh)
    compiled = compile_train_step(step, abstract, mesh)
    seconds = time_steps(compiled, state, place_batch(rows, mesh), hyper, 1 + warmup_steps + timed_steps)
    return {
        **_summary(seconds, timed_steps, batch_size, unroll_steps),
        "words": f"made up, Zipf's law over {_ZIPF_WORDS}",
        "distinct_words": int(rows["word_index"].max(initial=int(rows["word_index_reverse"].max()))),
        **to_plain(model),
        "vocab_size": softmax.vocab_size,
        "softmax": f"sampled, {softmax.num_negatives} negatives" if softmax.num_negatives else "full",
        "distinct_fraction": softmax.distinct_fraction,
        "optimizer": optim.name,
        "clip_norm": optim.clip_norm,
        "device_kind": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def measure_lstm_stacks(
    config: RecurrentConfig, batch_size: int, unroll_steps: int, warmup_steps: int, timed_steps: int
) -> dict[str, Any]:
    """Time the forward and backward pass of ELMo's two LSTM stacks: every layer's output in the loss, no softmax.

    Args:
        config: sizes and dtype; dropout is left out.
        batch_size: rows, on one device.
        unroll_steps: words a row.
        warmup_steps: untimed, behind the compilation.
        timed_steps: 1 or more; the median counts.
    """
    stacks, state = LstmStacks(config), zero_state(config, batch_size)
    shape = (DIRECTIONS, batch_size, unroll_steps, config.projection_dim)
    inputs = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))
    params = unbox(jax.jit(stacks.init)(jax.random.key(0), inputs, state))

    def loss(params: Any) -> jax.Array:
        outputs: Any = stacks.apply(params, inputs, state)
        return jnp.square(outputs[0].astype(jnp.float32)).mean()

    step = jax.jit(jax.grad(loss))
    seconds = []
    for _ in range(1 + warmup_steps + timed_steps):
        started = time.perf_counter()
        jax.block_until_ready(step(params))
        seconds.append(time.perf_counter() - started)
    return {
        **_summary(seconds, timed_steps, batch_size, unroll_steps),
        **{name: value for name, value in to_plain(config).items() if name != "dropout"},
        "device_kind": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def _summary(seconds: list[float], timed_steps: int, batch_size: int, unroll_steps: int) -> dict[str, Any]:
    """Return what the timed steps, the last of them all, say."""
    timed = seconds[-timed_steps:]
    median = float(np.median(timed))
    return {
        "seconds_per_step": median,
        "min_seconds_per_step": min(timed),
        "tokens_per_second": batch_size * unroll_steps / median,
        "first_step_seconds": seconds[0],  # compilation included
        "batch_size": batch_size,
        "unroll_steps": unroll_steps,
    }
