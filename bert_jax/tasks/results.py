"""result.json: what a fine-tuning run or a trial of a sweep came to; tables read nothing else of it."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.tasks.task import Task
from bert_jax.training.metrics import FILE, read_rows
from bert_jax.training.workdir import Workdir, describe_environment

RESULT = "result.json"


def make_result(
    config: Any, task: Task, evaluations: Sequence[Mapping[str, Any]], seconds: float, steps: int
) -> dict[str, Any]:
    """Return the content of result.json.

    Args:
        config: the run's, resolved.
        task: trained on.
        evaluations: rows of metrics, each with its `step`, in the order of the steps.
        seconds: of the training steps, compiling included.
        steps: that took them; those after the last logged one are not in it.
    """
    key = f"eval/{task.best_metric}"
    best = max(evaluations, key=lambda row: row[key] if math.isfinite(row[key]) else -math.inf)
    return {
        "task": task.name,
        "init_from": config.init_from,
        "seed": config.seed,
        "num_epochs": config.num_epochs,
        "batch_size": config.data.batch_size,
        "peak_learning_rate": config.optim.peak_learning_rate,
        "optimizer": config.optim.name,
        "max_seq_length": config.data.max_seq_length,
        "train_rows": len(task.train),
        "steps": evaluations[-1]["step"],
        "labels": list(task.labels),
        "best_metric": task.best_metric,
        "last": metrics_of(evaluations[-1]),
        "best": {"step": best["step"], **metrics_of(best)},
        "seconds": round(seconds, 2),
        "examples_per_second": round(steps * config.data.batch_size / seconds, 2) if seconds else None,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        **task.facts,
        **describe_environment(),
    }


def metrics_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return an evaluation's metrics without their prefix; None, JSON's null, for those that are not finite."""
    return {
        name.removeprefix("eval/"): value if math.isfinite(value) else None
        for name, value in row.items()
        if name.startswith("eval/")
    }


def write_result(workdir: Workdir, config: Any, task: Task) -> None:
    """Write the result.json of a run that is complete, from its metrics.jsonl; process 0 has both."""
    if not workdir.is_writer:
        return
    rows = read_rows(workdir.path / FILE)
    evaluations = [row for row in rows if f"eval/{task.best_metric}" in row]
    logged = [row for row in rows if "perf/seconds_per_step" in row]
    seconds, before = 0.0, 0
    for row in logged:
        seconds, before = seconds + row["perf/seconds_per_step"] * (row["step"] - before), row["step"]
    result = make_result(config, task, evaluations, seconds, before)
    workdir.write_json(RESULT, result | {"config": dataclasses.asdict(config)})
