"""Time the steps of a fine-tuning run: what `launch.benchmark finetune` prints."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from bert_jax.config import to_plain
from bert_jax.input.placement import place_batch
from bert_jax.interop import name_map
from bert_jax.tasks.batches import Batch, collate
from bert_jax.tasks.finetuning import MAY_MISS, Prepared, make_job, prepare
from bert_jax.training.initialize import merge_params, without_modules
from bert_jax.training.optimizers import make_optimizer
from bert_jax.training.run import Job
from bert_jax.training.state import abstract_state, make_hyper, make_state, state_shardings
from bert_jax.training.step import compile_train_step, make_train_step
from bert_jax.training.workdir import describe_environment


def measure_finetuning(section: Any, timed_steps: int, pad_all: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Time the first steps that `launch.finetune` would run with this config, making the batches included.

    Args:
        section: a config file's values.
        timed_steps: from step 0 on, 1 or more; they may go beyond the config's epochs.
        pad_all: time the same steps with the same rows padded to `config.data.max_seq_length` as well.
        say: takes lines for the user.

    Returns:
        Rates and what they depend on; with `pad_all` also the rates of padded rows, under `padded`, and how many times
        as many examples a second the buckets give, `bucketing_speedup`.
    """
    if timed_steps < 1:
        raise ValueError(f"--timed_steps is {timed_steps}; use 1 or more")
    prepared = prepare(section)
    job, config = make_job(prepared), prepared.config
    steps = _Steps(prepared, job)
    figure = steps.measure(timed_steps, 0, say)
    if pad_all:
        figure["padded"] = steps.measure(timed_steps, config.data.max_seq_length, say)
        figure["bucketing_speedup"] = figure["examples_per_second"] / figure["padded"]["examples_per_second"]
    return {
        **figure,
        "task": prepared.task.name,
        "init_from": config.init_from,
        "batch_size": job.batch_size,
        "max_seq_length": config.data.max_seq_length,
        "timed_steps": timed_steps,
        "train_rows": len(prepared.task.train),
        "microbatches": job.train.microbatches,
        **to_plain(config.model),
        "optimizer": job.optim.name,
        "clip_norm": job.optim.clip_norm,
        "num_devices": job.mesh.size,
        **describe_environment(),
    }


class _Steps:
    """The compiled step of a job, and where its run starts."""

    def __init__(self, prepared: Prepared, job: Job) -> None:
        self._prepared, self._job = prepared, job
        optimizer = make_optimizer(job.optim)
        abstract = abstract_state(job.objective, optimizer, job.batch_size, job.mesh)
        step = make_train_step(job.objective, optimizer, job.train.microbatches, job.train.on_nonfinite)
        self._step = compile_train_step(step, abstract, job.mesh)
        self._hyper = make_hyper(job.optim, job.train.num_steps, job.seed, job.mesh)
        loaded = without_modules(name_map.nest(prepared.weights.params), prepared.leave_out)
        params, _ = merge_params(jax.jit(job.objective.init)(job.seed), loaded, job.init_from, MAY_MISS)
        self._params = jax.device_get(params)
        make = lambda params: make_state(params, optimizer, {})  # noqa: E731
        self._make_state = jax.jit(make, out_shardings=state_shardings(abstract))

    def measure(self, timed_steps: int, pad_to: int, say: Callable[[str], None]) -> dict[str, Any]:
        """Return the rates of steps whose rows are padded to `pad_to`; 0: as their buckets are."""
        lengths = [pad_to] if pad_to else [bucket.length for bucket in self._prepared.schedule.buckets]
        compile_seconds = self._compile(lengths)
        shapes = f"lengths ({', '.join(map(str, lengths))} tokens)"
        say(f"{shapes}: {compile_seconds:.1f} s to compile their steps and run each once")
        state, nonfinite, counts = jax.block_until_ready(self._make_state(self._params)), [], np.zeros(3)
        started = time.perf_counter()
        for batch in itertools.islice(self._batches(pad_to), timed_steps):
            counts += batch["row_weights"].sum(), batch["input_mask"].sum(), batch["input_ids"].size
            state, metrics = self._step(state, place_batch(batch, self._job.mesh), self._hyper)
            nonfinite.append(metrics["nonfinite"][0])
        jax.block_until_ready(state)
        seconds = time.perf_counter() - started
        if any(jax.device_get(nonfinite)):
            raise ValueError("the benchmark's loss is not finite; a step that does not train is not worth timing")
        examples, real_tokens, positions = map(float, counts)
        return {
            "examples_per_second": examples / seconds,
            "real_tokens_per_second": real_tokens / seconds,
            "seconds_per_step": seconds / timed_steps,
            "positions_per_real_token": positions / real_tokens,
            "compile_seconds": compile_seconds,  # one step of each length included
            "lengths": lengths,
        }

    def _compile(self, lengths: list[int]) -> float:
        """Run the step of each length on rows of padding; return the seconds."""
        state, filling = self._make_state(self._params), np.full(self._job.batch_size, -1)
        started = time.perf_counter()
        for length in lengths:
            batch = collate(self._prepared.task.train, filling, length)
            state, _ = self._step(state, place_batch(batch, self._job.mesh), self._hyper)
        jax.block_until_ready(state)
        return time.perf_counter() - started

    def _batches(self, pad_to: int) -> Iterator[Batch]:
        """Yield the batches of the run, from its first step on."""
        for number in itertools.count():
            length, rows = self._prepared.schedule.step(number, self._job.seed)
            yield collate(self._prepared.task.train, rows, pad_to or length)
