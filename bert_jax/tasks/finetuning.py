"""Fine-tuning: a task and a checkpoint become a job; what does not fit is said here, before anything is written."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import build, fingerprint, to_plain
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.input.placement import local_rows, place_batch
from bert_jax.models.bert import BertConfig
from bert_jax.objectives.downstream import DownstreamObjective
from bert_jax.tasks.batches import Schedule, held_out_batches, train_batches
from bert_jax.tasks.results import write_result
from bert_jax.tasks.task import EncodedRows, HeldOut, Outputs, Task, TaskData
from bert_jax.training import addresses, sharding, throughput
from bert_jax.training.checkpoint import BestBy
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig, check_batch_size, make_mesh
from bert_jax.training.metrics import evaluation_row
from bert_jax.training.optimizers import OptimizerConfig
from bert_jax.training.run import Job
from bert_jax.training.state import Batch, Metrics

INPUTS = {"input_ids", "input_mask", "segment_ids", "row_weights"}  # what rows have without answers

# (config.data, the checkpoint's vocabulary, the checkpoint's labels) → the task
MakeTask = Callable[[Any, WordPiece, tuple[str, ...]], Task]


@dataclasses.dataclass(frozen=True)
class Family:
    """Tasks that one config file describes.

    Attributes:
        data: the dataclass of its config.data.
        make_task: reads and encodes.
    """

    data: type[TaskData]
    make_task: MakeTask


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

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.num_epochs < 1:
            raise ValueError(f"config.num_epochs is {self.num_epochs}; use 1 or more")
        if not 0.0 <= self.warmup_fraction < 1.0:
            raise ValueError(f"config.warmup_fraction is {self.warmup_fraction}; use 0 ≤ fraction < 1")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A config with its task read and its checkpoint's sizes known.

    Attributes:
        config: resolved.
        task: encoded with the checkpoint's vocabulary.
        schedule: of its training rows.
        tokenizer: the checkpoint's.
        keeps_classifier: whether the checkpoint's classifier has the task's labels, and is trained on.
    """

    config: FinetuneConfig
    task: Task
    schedule: Schedule
    tokenizer: WordPiece
    keeps_classifier: bool

    @property
    def objective(self) -> DownstreamObjective:
        """What to optimize."""
        return DownstreamObjective(self.config.model, self.task.head, self.task.outputs)


def prepare(section: Any, families: Mapping[str, Family]) -> Prepared:
    """Read the checkpoint's sizes and the task's rows, and resolve the config with them.

    Args:
        section: a config file's values.
        families: by config.family.

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
    family = families[values["family"]]
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
    config = _resolve(values | {"model": model, "data": data}, schedule.steps_per_epoch)
    keeps = weights.labels == task.labels and weights.has("heads/classifier") and bool(task.labels)
    return Prepared(config, task, schedule, weights.tokenizer, keeps or task.head == "span")


def _resolve(values: dict[str, Any], steps_per_epoch: int) -> FinetuneConfig:
    """Turn epochs and fractions into steps."""
    num_steps = values["num_epochs"] * steps_per_epoch
    times = values["eval"].get("times_per_epoch", FinetuneEval.times_per_epoch)
    every = max(1, math.ceil(steps_per_epoch / times)) if times else 0
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
        eval_every_steps=evaluation_steps(config, schedule.steps_per_epoch),
        batch_size=config.data.batch_size,
        seed=config.seed,
        init_from=config.init_from,
        may_miss=("heads", "pooler"),
        leave_out=() if prepared.keeps_classifier else ("heads/classifier",),
        mesh=mesh,
        batches=lambda first: train_batches(task.train, schedule, config.seed, first, rows),
        evaluate=make_evaluate(runner, task.held_out),
        data_fingerprint=rows_fingerprint(task.train),
        row=throughput.bert_row_flops(config.model, tokens, 0),
        tokenizer=prepared.tokenizer,
        best_by=BestBy(f"eval/{task.best_metric}", higher_is_better=True),
        patience_evaluations=config.eval.patience_evaluations,
        on_complete=lambda workdir: write_result(workdir, config, task),
        facts={"task": task.name, "head": task.head, "labels": list(task.labels), **task.facts},
        notes=(
            *task.notes,
            f"{task.name}: {len(task.train):,} rows to train on, padded to buckets ({buckets} tokens): "
            f"{real / max(1, schedule.tokens_per_epoch):.0%} of the positions are real",
        ),
    )


def evaluation_steps(config: FinetuneConfig, steps_per_epoch: int) -> int:
    """Return after how many steps to evaluate each time; 0 = only after the last."""
    times = config.eval.times_per_epoch
    return max(1, math.ceil(steps_per_epoch / times)) if times else 0


def rows_fingerprint(rows: EncodedRows) -> str:
    """Return hex digits that depend on every token and target."""
    parts = [rows.input_ids, rows.segment_ids, *rows.token_targets.values(), [*rows.targets.values()]]
    return fingerprint([[fingerprint(np.concatenate(arrays).tolist()) for arrays in parts if len(arrays)]])


@dataclasses.dataclass(frozen=True)
class HeldOutRunner:
    """Runs a model over rows of any lengths.

    Attributes:
        objective: with the model.
        batch_size: rows at a time.
        max_buckets: lengths that rows are padded to, at most.
        mesh: the devices.
    """

    objective: DownstreamObjective
    batch_size: int
    max_buckets: int
    mesh: Mesh

    @functools.cached_property
    def _step(self) -> Callable[[Any, Batch], tuple[dict[str, jax.Array], Metrics]]:
        def step(params: Any, batch: Batch) -> tuple[dict[str, jax.Array], Metrics]:
            if set(batch) <= INPUTS:  # rows without answers
                return self.objective.outputs_of(params, batch), {}
            _, metrics, _ = self.objective.loss(params, {}, batch, self.objective.normalizers(batch), None)
            return self.objective.outputs_of(params, batch), metrics

        return jax.jit(step, out_shardings=sharding.replicated(self.mesh))

    def run(
        self, params: Any, rows: EncodedRows, interrupted: Callable[[], bool] = lambda: False
    ) -> tuple[Outputs, dict[str, float]] | None:
        """Return the head's outputs of all rows, in their order, and the mean metrics; None if it was broken off."""
        collected: dict[str, list[Any]] = {}
        sums: dict[str, tuple[float, float]] = {}
        local = local_rows(self.batch_size, self.mesh)
        for numbers, batch in held_out_batches(rows, self.batch_size, self.max_buckets, local):
            if interrupted():
                return None
            with sharding.on_mesh(self.mesh):
                outputs, metrics = jax.device_get(self._step(params, place_batch(batch, self.mesh)))
            for name, (total, count) in metrics.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + float(total), before[1] + float(count))
            for name, values in outputs.items():
                store = collected.setdefault(name, [None] * len(rows))
                for number, value in zip(numbers, values, strict=True):
                    if number >= 0:
                        store[number] = value
        row = evaluation_row(sums)
        if self.objective.head in ("sentences", "choices"):
            return {name: np.stack(values) for name, values in collected.items()}, row
        # One for each token: padding off.
        lengths = [len(ids) for ids in rows.input_ids]
        cut = {
            name: [value[:length] for value, length in zip(values, lengths, strict=True)]
            for name, values in collected.items()
        }
        return cut, row


def make_evaluate(runner: HeldOutRunner, held_out: Mapping[str, HeldOut]) -> Callable[..., dict[str, float] | None]:
    """Return (parameters, whether to break off) → the `eval/` row of all splits, None if it was broken off.

    The first split's metrics are `eval/accuracy`, another's `eval/mismatched/accuracy`.
    """

    def run_evaluation(params: Any, interrupted: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        row: dict[str, float] = {}
        for number, (split, part) in enumerate(held_out.items()):
            found = runner.run(params, part.rows, interrupted)
            if found is None:
                return None
            outputs, means = found
            prefix = f"eval/{split}/" if number else "eval/"
            row |= {f"{prefix}{name}": value for name, value in part.score(outputs).items()}
            row[f"{prefix}loss"] = means["eval/task_loss"]
        return row

    return run_evaluation
