"""One training run from its parts: directory, mesh, state, compiled step, loop, and what is recorded about it."""

import contextlib
import dataclasses
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from bert_jax.config import to_plain
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.input.placement import place_batch
from bert_jax.training import throughput
from bert_jax.training.best import BestBy
from bert_jax.training.checkpoint import Checkpoints, resumable_step
from bert_jax.training.initialize import Source, initialize
from bert_jax.training.loop import Session, Trace, TrainConfig, train
from bert_jax.training.metrics import MetricWindow, Progress, Reporter
from bert_jax.training.optimizers import OptimizerConfig, make_optimizer, parameter_name
from bert_jax.training.patience import Patience
from bert_jax.training.preemption import EXIT_CODE, Preemption
from bert_jax.training.processes import sharing_fate
from bert_jax.training.reference_curve import ReferenceCurve
from bert_jax.training.state import Batch, Hyper, Metrics, Objective, TrainState, abstract_state, make_hyper
from bert_jax.training.step import TrainStep, compile_train_step, make_train_step
from bert_jax.training.workdir import Workdir, describe_environment

HostBatches = Generator[dict[str, np.ndarray], None, None]


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What belongs to a start of a run and not to its config; command-line flags.

    Attributes:
        profile_steps: `FIRST:LAST`, the steps to trace; "" = none.
        peak_flops_per_device: FLOP/s to take MFU against, for devices without a known peak; 0 = the table's.
        fall_back: where the newest checkpoint is damaged, resume from the newest one that is not.
    """

    profile_steps: str = ""
    peak_flops_per_device: float = 0.0
    fall_back: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
    """What one run trains. Whoever makes one has checked its data at the door.

    Attributes:
        config: resolved; goes to config.json.
        objective: to optimize.
        optim: how.
        train: how long and how often.
        eval_every_steps: 0 = only after the last step.
        batch_size: global rows a step.
        seed: of parameters, dropout and data.
        init_from: address of a checkpoint, "" for none.
        may_miss: see `initialize.Source`.
        mesh: the devices.
        batches: from a step on, this process' rows of every batch.
        evaluate: (parameters, whether to break off) → the `eval/` row, None if it was broken off; None: there is
            nothing to evaluate on.
        row: FLOPs and tokens of a row.
        data_fingerprint: of the training data's content; a run is not resumed on other data.
        tokenizer: to write into the workdir, or a directory to copy there; None = there is none.
        best_by: the evaluation's metric that the best checkpoint has.
        leave_out, params: see `initialize.Source`.
        patience_evaluations: end after so many evaluations without a better one; 0 = never.
        on_complete: called with the workdir when the last step is done, as for result.json.
        to_go_on: what to do where all steps are done, for the user; "" = nothing.
        facts: more for run.json.
        notes: lines for the user.
    """

    config: Any
    objective: Objective
    optim: OptimizerConfig
    train: TrainConfig
    eval_every_steps: int
    batch_size: int
    seed: int
    init_from: str
    may_miss: tuple[str, ...]
    mesh: Mesh
    batches: Callable[[int], HostBatches]
    evaluate: Callable[[Any, Callable[[], bool]], dict[str, float] | None] | None
    row: throughput.RowFlops
    data_fingerprint: str
    tokenizer: WordPiece | epath.Path | None = None
    best_by: BestBy = dataclasses.field(default_factory=BestBy)
    leave_out: tuple[str, ...] = ()
    params: Any = None
    patience_evaluations: int = 0
    on_complete: Callable[[Workdir], None] | None = None
    to_go_on: str = "raise config.train.num_steps to go on"
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def run(job: Job, path: str | os.PathLike[str], options: RunOptions | None = None) -> int:
    """Train a job in a directory, from where that directory stands, and return the process' exit code.

    Returns:
        0 when the last step was done, `preemption.EXIT_CODE` when the run was asked to stop and has saved.

    Raises:
        ValueError: the directory holds another run, or the job does not fit.
        WorkdirInUseError: another run is writing there, or, in a bucket, has taken over.
        CheckpointError: checkpoints cannot be written or read.
        NonFiniteError: the loss or a gradient was not finite.
    """
    started, options = time.perf_counter(), options or RunOptions()
    trace = Trace.parse(options.profile_steps, epath.Path(path) / "profile")
    curve = ReferenceCurve.load(job.train.reference_curve) if job.train.reference_curve else None
    with contextlib.closing(Workdir(path)) as workdir:
        # What was never saved may begin anew with any config.
        changed = {} if resumable_step(workdir.path) is None else workdir.changes(job.config)
        with contextlib.closing(Checkpoints(workdir.path, job.train.keep_checkpoints)) as checkpoints, sharing_fate():
            optimizer, notes = make_optimizer(job.optim), list[str]()
            abstract = abstract_state(job.objective, optimizer, job.batch_size, job.mesh, notes)
            source = Source(
                init_from=job.init_from,
                may_miss=job.may_miss,
                tokenizer=job.tokenizer if isinstance(job.tokenizer, epath.Path) else None,
                seed=job.seed,
                batch_size=job.batch_size,
                data_fingerprint=job.data_fingerprint,
                leave_out=job.leave_out,
                params=job.params,
                fall_back=options.fall_back,
            )
            start = initialize(job.objective, optimizer, abstract, checkpoints, source, job.mesh)
            # Nothing was written so far: a start that is refused leaves the directory as it was.
            workdir.write_json("config.json", to_plain(job.config))
            if job.tokenizer is not None:
                _write_tokenizer(workdir, job.tokenizer)
            changes = [f"config.{name} was {old!r}, is now {new!r}" for name, (old, new) in changed.items()]
            for line in (f"{workdir.path}: {start.description}", *changes, *job.notes, *dict.fromkeys(notes)):
                Progress().say(line)
            peak = throughput.peak_flops(jax.devices()[0].device_kind, options.peak_flops_per_device)
            rates = throughput.Throughput(job.row, job.batch_size, peak and peak * job.mesh.size)
            workdir.write_json("run.json", describe(job, abstract, rates))
            evaluate = job.evaluate
            session = Session(
                evaluate=evaluate and (lambda state, interrupted: evaluate(state.params, interrupted)),
                eval_every_steps=job.eval_every_steps,
                checkpoints=checkpoints,
                data_fingerprint=job.data_fingerprint,
                reporter=Reporter(
                    workdir.path, job.train.num_steps, rates, curve, start.step, start.evaluation_pending
                ),
                before_writing=workdir.check_lock,
                first_step=start.step,
                window=MetricWindow(start.meta.get("window")),
                evaluation_pending=start.evaluation_pending,
                best_by=job.best_by,
                patience=Patience(job.patience_evaluations, job.best_by, start.meta.get("patience")),
                trace=trace,
            )
            step = make_train_step(job.objective, optimizer, job.train.microbatches, job.train.on_nonfinite)
            compiled = _say_when_first(compile_train_step(step, abstract, job.mesh), started)
            code = _train(job, workdir.path, start.state, compiled, session)
            if code == 0 and job.on_complete is not None:
                workdir.check_lock()
                job.on_complete(workdir)
            return code


def describe(job: Job, abstract: TrainState, rates: throughput.Throughput) -> dict[str, Any]:
    """Return what run.json says."""
    sizes = {
        parameter_name(path): math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract.params)
    }
    return {
        "parameters": {
            "total": sum(sizes.values()),
            "embedding": sum(size for name, size in sizes.items() if name.split("/")[0] == "embeddings"),
        },
        "flops_per_token": rates.row.per_token,
        "flops_formula": rates.row.formula,
        "tokens_per_row": rates.row.tokens,
        "batch_size": rates.batch_size,
        "peak_flops": rates.peak,
        "mesh": dict(job.mesh.shape),
        **describe_environment(),
        "command": sys.argv,
        **job.facts,
    }


def _say_when_first(step: TrainStep, started: float) -> TrainStep:
    """Return the step; its first call, which compiles (or reads the compilation cache), says how long that took."""
    calls = itertools.count()

    def call(state: TrainState, batch: Batch, hyper: Hyper) -> tuple[TrainState, Metrics]:
        if next(calls):
            return step(state, batch, hyper)
        before = time.perf_counter()
        result = step(state, batch, hyper)
        now = time.perf_counter()
        Progress().say(f"first step {now - started:.1f} s after the start, {now - before:.1f} s of it compiled or read")
        return result

    return call


def _write_tokenizer(workdir: Workdir, tokenizer: WordPiece | epath.Path) -> None:
    if isinstance(tokenizer, epath.Path):
        workdir.copy_tokenizer(tokenizer)
        return
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save(directory)
        workdir.copy_tokenizer(directory)


def _train(job: Job, workdir: epath.Path, state: TrainState, step: TrainStep, session: Session) -> int:
    ended = session.first_step >= job.train.num_steps or session.patience.exhausted
    if ended and not session.evaluation_pending:
        done = f"{session.first_step:,} of {job.train.num_steps:,} steps are done"
        more = _early(session.first_step, job, session.patience) or (job.to_go_on and f"; {job.to_go_on}")
        session.reporter.say(f"the run is complete: {done}{more}")
        session.reporter.close()
        return 0
    hyper = make_hyper(job.optim, job.train.num_steps, job.seed, job.mesh)
    with contextlib.closing(job.batches(session.first_step)) as host_batches, Preemption() as preemption:
        session.interrupted = preemption.requested
        placed: Iterator[Batch] = (place_batch(batch, job.mesh) for batch in host_batches)
        try:
            state, complete = train(state, step, placed, hyper, job.train, session)
        finally:
            session.reporter.close()
    if complete:
        done = int(state.step)
        early = _early(done, job, session.patience)
        session.reporter.say(f"done: {done:,} steps{early}, checkpoint run:{workdir}")
    else:
        end = "stopped and saved; the same command resumes the run"
        session.reporter.say(end if int(state.step) else "stopped before the first step, with nothing to save")
    return 0 if complete else EXIT_CODE


def _early(step: int, job: Job, patience: Patience) -> str:
    if step >= job.train.num_steps or not patience.exhausted:
        return ""
    return f", ended early by {patience.evaluations} evaluations without a better one"
