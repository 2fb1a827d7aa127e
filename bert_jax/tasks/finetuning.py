"""Fine-tuning: a task and a checkpoint become a job; what does not fit is said here, before anything is written."""

import dataclasses
import functools
import hashlib
import math
from typing import Any

import numpy as np

from bert_jax.config import build, choose, to_plain
from bert_jax.input.placement import local_rows
from bert_jax.interop import name_map
from bert_jax.interop.weights import Weights
from bert_jax.models.bert import BertConfig
from bert_jax.objectives.downstream import DownstreamObjective
from bert_jax.tasks.batches import Schedule, train_batches
from bert_jax.tasks.families import FAMILIES
from bert_jax.tasks.held_out import HeldOutRunner, make_evaluate
from bert_jax.tasks.results import write_result
from bert_jax.tasks.task import EncodedRows, Task
from bert_jax.training import addresses, throughput
from bert_jax.training.best import BestBy
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig, check_batch_size, make_mesh
from bert_jax.training.optimizers import OptimizerConfig
from bert_jax.training.run import Job

MAY_MISS = ("heads", "pooler")  # what a checkpoint need not have, by first names


@dataclasses.dataclass(frozen=True)
class FinetuneEval:
    """When to evaluate.

    Attributes:
        times_per_epoch: 0 = only after the last step.
        batch_size: rows at a time.
        patience_evaluations: end the run after so many evaluations without a better one; 0 = never.
    """

    times_per_epoch: int = 1
    batch_size: int = 64
    patience_evaluations: int = 0

    def __post_init__(self) -> None:
        """Refuse negative numbers."""
        for name, lowest in (("times_per_epoch", 0), ("batch_size", 1), ("patience_evaluations", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"config.eval.{name} is {getattr(self, name)}; use {lowest} or more")
        if self.patience_evaluations and not self.times_per_epoch:
            raise ValueError(
                f"config.eval.patience_evaluations is {self.patience_evaluations}, but times_per_epoch 0 evaluates "
                "after the last step only; use times_per_epoch of 1 or more"
            )


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """The sections of configs/glue.py and its like, resolved.

    Attributes:
        family: whose config.data it is; the launchers dispatch on it.
        seed: of the new head, the order of rows and dropout.
        init_from: address of the checkpoint to begin with.
        num_epochs: times that every row is trained on.
        warmup_fraction: of the steps.
        model: the checkpoint's, with the config's changes.
        data: the family's.
        optim, train, eval, mesh: see their classes.
        bilstm_cells: of each direction of a new BiLSTM between encoder and classifier; 0 = none.
    """

    family: str
    seed: int
    init_from: str
    num_epochs: int
    warmup_fraction: float
    model: BertConfig
    data: Any
    optim: OptimizerConfig
    train: TrainConfig
    eval: FinetuneEval
    mesh: MeshConfig
    bilstm_cells: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.num_epochs < 1:
            raise ValueError(f"config.num_epochs is {self.num_epochs}; use 1 or more")
        if self.bilstm_cells < 0:
            raise ValueError(f"config.bilstm_cells is {self.bilstm_cells}; use 0 (none) or more")
        if not 0.0 <= self.warmup_fraction < 1.0:
            raise ValueError(f"config.warmup_fraction is {self.warmup_fraction}; use 0 ≤ fraction < 1")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A config with its task read and its checkpoint's sizes known.

    Attributes:
        config: resolved.
        task: encoded with the checkpoint's vocabulary.
        schedule: of its training rows.
        weights: the checkpoint.
        leave_out: modules of the checkpoint that are not taken: a classifier of other labels, or of another kind.
    """

    config: FinetuneConfig
    task: Task
    schedule: Schedule
    weights: Weights
    leave_out: tuple[str, ...]

    @property
    def objective(self) -> DownstreamObjective:
        """What to optimize."""
        return DownstreamObjective(self.config.model, self.task.head, self.task.outputs, self.config.bilstm_cells)

    @functools.cached_property
    def rows_fingerprint(self) -> str:
        """8 hex digits of the rows to train on and to score."""
        return rows_fingerprint(self.task.train, *(part.rows for part in self.task.held_out.values()))

    @functools.cached_property
    def fingerprint(self) -> str:
        """8 hex digits of all that was read: these rows, and the checkpoint's parameters."""
        digest = hashlib.sha256(self.rows_fingerprint.encode())
        for name, values in sorted(self.weights.params.items()):
            digest.update(f"{name} {values.dtype.name} {values.shape} ".encode())
            digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()[:8]


def prepare(section: Any) -> Prepared:
    """Read the checkpoint's sizes and the task's rows, and resolve the config with them.

    Args:
        section: a config file's values.

    Raises:
        ValueError: an unknown key, a value out of range, rows that do not fit the model.
        FileNotFoundError: the checkpoint or the data are not there.
    """
    values = to_plain(section)
    if not values["init_from"]:
        raise ValueError(
            "config.init_from is empty: fine-tuning begins with a checkpoint; use --config.init_from=hf:DIR, "
            "run:DIR or google:PREFIX"
        )
    family = FAMILIES[choose("config.family", values["family"], FAMILIES)]
    data = build(family.data, values["data"], "config.data")
    weights, _ = addresses.load(values["init_from"])
    model = build(BertConfig, to_plain(weights.config) | values["model"], "config.model")
    if data.max_seq_length > model.max_position_embeddings:
        raise ValueError(
            f"config.data.max_seq_length is {data.max_seq_length} and {values['init_from']} has "
            f"{model.max_position_embeddings} position embeddings; use that many or fewer"
        )
    task = family.make_task(data, weights.tokenizer, weights.labels)
    schedule = Schedule(task.train.lengths, data.batch_size, data.max_buckets)
    config = resolve(values | {"model": model, "data": data}, schedule.steps_per_epoch)
    return Prepared(config, task, schedule, weights, () if has_head_of(weights, task) else ("heads/classifier",))


def has_head_of(weights: Weights, task: Task) -> bool:
    """Return whether a checkpoint's classifier is one of the task's kind and labels."""
    bias = weights.params.get("heads/classifier/bias", ())
    return (weights.task_head, weights.labels, len(bias)) == (task.head, task.labels, task.outputs)


def resolve(values: dict[str, Any], steps_per_epoch: int) -> FinetuneConfig:
    """Return the config of plain values, epochs and fractions turned into steps."""
    num_steps = values["num_epochs"] * steps_per_epoch
    times = values["eval"].get("times_per_epoch", FinetuneEval.times_per_epoch)
    every = evaluation_steps(times, steps_per_epoch)
    train = {"save_every_steps": every} | values["train"] | {"num_steps": max(1, num_steps)}
    optim = values["optim"] | {"warmup_steps": round(values["warmup_fraction"] * num_steps)}
    return build(FinetuneConfig, values | {"train": train, "optim": optim})


def make_job(prepared: Prepared) -> Job:
    """Check that everything fits, and return what `run` takes.

    Raises:
        ValueError: what does not fit, and what to change.
    """
    config, task, schedule = prepared.config, prepared.task, prepared.schedule
    mesh = make_mesh(config.mesh)
    check_batch_size("config.data.batch_size", config.data.batch_size, mesh, config.train.microbatches)
    check_batch_size("config.eval.batch_size", config.eval.batch_size, mesh)
    rows = local_rows(config.data.batch_size, mesh)
    tokens = schedule.tokens_per_epoch // (schedule.steps_per_epoch * config.data.batch_size)
    buckets = ", ".join(f"{len(bucket.rows):,} of {bucket.length}" for bucket in schedule.buckets)
    real = int(task.train.lengths.sum())
    runner = HeldOutRunner(prepared.objective, config.eval.batch_size, config.data.max_buckets, mesh)
    return Job(
        config=config,
        objective=prepared.objective,
        optim=config.optim,
        train=config.train,
        eval_every_steps=evaluation_steps(config.eval.times_per_epoch, schedule.steps_per_epoch),
        batch_size=config.data.batch_size,
        seed=config.seed,
        init_from=config.init_from,
        may_miss=MAY_MISS,
        leave_out=prepared.leave_out,
        params=name_map.nest(prepared.weights.params),
        mesh=mesh,
        batches=lambda first: train_batches(task.train, schedule, config.seed, first, rows),
        evaluate=make_evaluate(runner, task.held_out),
        data_fingerprint=prepared.rows_fingerprint,
        row=throughput.bert_row_flops(config.model, tokens, 0),
        tokenizer=prepared.weights.tokenizer,
        best_by=BestBy(f"eval/{task.best_metric}", higher_is_better=True),
        patience_evaluations=config.eval.patience_evaluations,
        on_complete=lambda workdir: write_result(workdir, config, task),
        to_go_on="",  # more epochs are another schedule of the learning rate
        facts={"task": task.name, "head": task.head, "labels": list(task.labels), **task.facts},
        notes=(
            *task.notes,
            f"{task.name}: {len(task.train):,} rows to train on, padded to buckets ({buckets} tokens): "
            f"{real / max(1, schedule.tokens_per_epoch):.0%} of the positions are real",
        ),
    )


def evaluation_steps(times_per_epoch: int, steps_per_epoch: int) -> int:
    """Return after how many steps to evaluate each time; 0 = only after the last."""
    return max(1, math.ceil(steps_per_epoch / times_per_epoch)) if times_per_epoch else 0


def rows_fingerprint(*sets: EncodedRows) -> str:
    """Return 8 hex digits that depend on every token and target of some rows, not on the machine's byte order."""
    digest = hashlib.sha256()
    for rows in sets:
        targets = ((name, [values]) for name, values in rows.targets.items())
        ragged = (("input_ids", rows.input_ids), ("segment_ids", rows.segment_ids), *rows.token_targets.items())
        for name, arrays in (*ragged, *targets):
            lengths = np.array([len(array) for array in arrays], np.int64)
            values = np.concatenate(arrays) if len(arrays) else lengths
            digest.update(f"{name} {values.dtype.name} {len(lengths)} ".encode())
            for part in (lengths, values):
                digest.update(part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()[:8]
