"""Time one training step on made-up tokens: what `launch.benchmark train` prints."""

import re
import time
from typing import Any

import jax
import numpy as np

from bert_jax.config import build, to_plain
from bert_jax.corpus.instances import InstanceConfig
from bert_jax.input.masking import MaskingConfig
from bert_jax.input.placement import place_batch
from bert_jax.models.bert import VOCAB_SIZES, BertConfig
from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig, check_batch_size, make_mesh
from bert_jax.training.optimizers import OptimizerConfig, make_optimizer
from bert_jax.training.state import Hyper, TrainState, abstract_state, make_hyper, make_state, state_shardings
from bert_jax.training.step import TrainStep, compile_train_step, make_train_step
from bert_jax.training.throughput import Throughput, bert_row_flops, peak_flops

_PACKED_SEQUENCES = InstanceConfig("packed").max_sequences_per_row  # places for sequences in a packed row


def random_batch(
    batch_size: int, sequence_length: int, num_predictions: int, vocab_size: int, *, packed: bool = False, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return a batch of uniformly random tokens without padding, `num_predictions` of each row masked.

    A packed row holds two sequences of half its length, and has places for as many as a packed corpus has.
    """
    generator = np.random.default_rng(seed)
    shape = (batch_size, sequence_length)
    input_ids = generator.integers(5, vocab_size, shape, dtype=np.int32)
    order = np.argsort(generator.random(shape), axis=1)
    positions = np.sort(order[:, :num_predictions], axis=1).astype(np.int32)
    starts = np.zeros((batch_size, _PACKED_SEQUENCES if packed else 1), np.int32)
    weights = np.zeros(starts.shape, np.float32)
    weights[:, : 1 + packed] = 1.0
    sequence_ids, position_ids = (
        np.ones(shape, np.int32),
        np.tile(np.arange(sequence_length, dtype=np.int32), (batch_size, 1)),
    )
    if packed:
        half = sequence_length // 2
        starts[:, 1], sequence_ids[:, half:] = half, 2
        position_ids[:, half:] -= half
    return {
        "input_ids": input_ids,
        "input_mask": np.ones(shape, np.int32),
        "segment_ids": np.zeros(shape, np.int32),
        "position_ids": position_ids,
        "sequence_ids": sequence_ids,
        "sequence_starts": starts,
        "masked_lm_positions": positions,
        "masked_lm_ids": np.take_along_axis(input_ids, positions, axis=1),
        "masked_lm_weights": np.ones((batch_size, num_predictions), np.float32),
        "next_sentence_labels": generator.integers(0, 2, starts.shape, dtype=np.int32),
        "next_sentence_weights": weights,
    }


def row_shape(instances: str) -> tuple[int, bool]:
    """Return the length of a row and whether it is packed, from an instance set's name.

    Raises:
        ValueError: the name does not say; no corpus is read here.
    """
    match = re.fullmatch(r"[a-z]+-(\d+)(-packed)?", instances)
    if match is None:
        raise ValueError(
            f"config.data.instances is {instances!r}; the rows' shape is read from it: use a name such as "
            "nsp-128 or nsp-512-packed"
        )
    return int(match[1]), match[2] is not None


def measure_train_step(
    config: Any, batch_size: int, warmup_steps: int, timed_steps: int, peak_flops_per_device: float = 0.0
) -> dict[str, Any]:
    """Time the step that `launch.pretrain` would run with this config, each step on its own.

    Args:
        config: of `configs/bert.py`; a vocabulary size of 0 (the corpus') becomes that of the uncased release.
        batch_size: rows a step, over all devices.
        warmup_steps: untimed, behind the compilation.
        timed_steps: 1 or more; the median counts.
        peak_flops_per_device: FLOP/s to take MFU against, for devices without a known peak; 0 = the table's.

    Returns:
        Seconds, rates, and everything that the figure depends on.
    """
    config.model.vocab_size = config.model.vocab_size or VOCAB_SIZES["uncased"]
    model = build(BertConfig, config.model, "config.model")
    optim = build(OptimizerConfig, config.optim, "config.optim")
    train = build(TrainConfig, config.train, "config.train")
    predictions = build(MaskingConfig, config.masking, "config.masking").max_predictions_per_row
    sequence_length, packed = row_shape(config.data.instances)
    mesh = make_mesh(build(MeshConfig, config.mesh, "config.mesh"))
    check_batch_size("--batch_size", batch_size, mesh, train.microbatches)

    objective, optimizer = MaskedLmObjective(model, config.objective.next_sentence), make_optimizer(optim)
    abstract = abstract_state(objective, optimizer, batch_size, mesh)
    make = lambda: make_state(objective.init(config.seed), optimizer, {})  # noqa: E731
    state = jax.jit(make, out_shardings=state_shardings(abstract))()
    hyper = make_hyper(optim, train.num_steps, config.seed, mesh)
    step = make_train_step(objective, optimizer, train.microbatches, train.on_nonfinite)
    rows = random_batch(batch_size, sequence_length, predictions, model.vocab_size, packed=packed)
    batch = place_batch(rows, mesh)
    seconds = time_steps(compile_train_step(step, abstract, mesh), state, batch, hyper, 1 + warmup_steps + timed_steps)

    device = jax.devices()[0]
    peak = peak_flops(device.device_kind, peak_flops_per_device)
    row = bert_row_flops(model, sequence_length, predictions)
    timed = seconds[-timed_steps:]
    rates = Throughput(row, batch_size, peak * mesh.size if peak else None)
    measured = rates.rates(1, float(np.median(timed)), float(batch_size * sequence_length))
    return {
        **{name.removeprefix("perf/"): value for name, value in measured.items()},
        "min_seconds_per_step": min(timed),
        "first_step_seconds": seconds[0],  # compilation included
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "packed": packed,
        "max_predictions_per_row": predictions,
        "microbatches": train.microbatches,
        **to_plain(model),
        "vocab_size": model.padded_vocab_size,
        "optimizer": optim.name,
        "clip_norm": optim.clip_norm,
        "device_kind": device.device_kind,
        "num_devices": mesh.size,
        "jax": jax.__version__,
    }


def time_steps(step: TrainStep, state: TrainState, batch: Any, hyper: Hyper, num_steps: int) -> list[float]:
    """Return the seconds of each of `num_steps` steps on one batch; the first one compiles."""
    seconds = []
    for _ in range(num_steps):
        started = time.perf_counter()
        state, metrics = step(state, batch, hyper)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - started)
        if float(metrics["nonfinite"][0]):
            raise ValueError("the benchmark's loss is not finite; a step that does not train is not worth timing")
    return seconds
