"""Trials of a sweep: fine-tuning runs that go through one compiled step together, one or several on each device.

Learning rate, weight decay, warm-up, number of steps and seed are arrays of that step (`training.state.Hyper`), and the
schedule of buckets is the same for all seeds: a sweep compiles once for each batch shape, not for each trial. Trials
lie along a mesh axis of their own and never communicate, so each comes out as if it had run alone.

A trial scores its last epoch, the paper's protocol; nothing but its result is kept.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.config import fingerprint, first_names, to_plain
from bert_jax.interop import name_map
from bert_jax.interop.weights import check_finite
from bert_jax.tasks import finetuning
from bert_jax.tasks.batches import collate, held_out_batches
from bert_jax.tasks.finetuning import FinetuneConfig, Prepared
from bert_jax.tasks.held_out import Collector, make_held_out_step, prefixes
from bert_jax.tasks.results import make_result
from bert_jax.training.evaluation import fetched
from bert_jax.training.initialize import merge_params, without_modules
from bert_jax.training.optimizers import make_optimizer, parameter_name
from bert_jax.training.state import TrainState, hyper_values, make_state
from bert_jax.training.step import make_train_step

AXIS = "trials"
# What trials of one compiled step may differ in; the batch size decides the shapes.
SHARED = ("seed", "num_epochs", "warmup_fraction", "optim.peak_learning_rate", "optim.weight_decay")
# Sections that do not change a trial's result, but for these keys of config.train.
_INCIDENTAL = ("mesh", "train", "eval")
_DECISIVE = ("microbatches", "on_nonfinite")
LOG_EVERY_STEPS = 20  # metrics are fetched so often, all at once


@dataclasses.dataclass(frozen=True)
class Trial:
    """One fine-tuning run of a sweep.

    Attributes:
        trial_id: 8 hex digits of all in the config that decides its result; of what files hold, the result has some.
        overrides: of the sweep's config, by dotted names.
        values: the config with them, plain.
    """

    trial_id: str
    overrides: Mapping[str, Any]
    values: Mapping[str, Any]

    def group(self) -> str:
        """Return what trials that share compiled steps have in common."""
        values = to_plain(self.values)
        for name in SHARED:
            *sections, key = name.split(".")
            functools.reduce(lambda section, part: section[part], sections, values).pop(key)
        return fingerprint(values)


def plan(config: Any, sweep: Callable[[Callable[..., None]], None]) -> list[Trial]:
    """Return the trials of a sweep, in their order; one that was added twice is there once.

    Args:
        config: a ConfigDict.
        sweep: a config file's `sweep(add)`; `add(**overrides)` is one trial.

    Raises:
        ValueError: an override of a key that the config has not, or no trial at all.
    """
    trials: dict[str, Trial] = {}

    def add(**overrides: Any) -> None:
        changed = config.copy_and_resolve_references()
        changed.lock()  # an unknown key is an error
        try:
            changed.update_from_flattened_dict(overrides)
        except (KeyError, TypeError) as error:
            raise ValueError(f"sweep: add({overrides}) does not fit the config: {error}") from error
        values = to_plain(changed)
        decisive = {key: value for key, value in values.items() if key not in _INCIDENTAL}
        decisive["train"] = {key: values["train"].get(key) for key in _DECISIVE}
        trial_id = fingerprint(decisive)
        trials.setdefault(trial_id, Trial(trial_id, overrides, values))

    sweep(add)
    if not trials:
        raise ValueError("the sweep adds no trial; call add(**overrides) at least once")
    return list(trials.values())


def check_inputs(done: Iterable[tuple[Trial, Mapping[str, Any]]], *, read_files: bool) -> None:
    """Refuse results that are of other rows or of another checkpoint than their like.

    Args:
        done: trials with their results.
        read_files: also than the files hold now, which takes the time of reading them.

    Raises:
        ValueError: there are such results; it names trials and says what to do.
    """
    groups: dict[str, list[tuple[Trial, Any]]] = {}
    for trial, result in done:
        groups.setdefault(trial.group(), []).append((trial, result.get("inputs")))
    for group in groups.values():
        values, expected = group[0][0].values, group[0][1]
        if read_files:
            expected = finetuning.prepare(values).fingerprint
        if others := [trial.trial_id for trial, inputs in group if inputs != expected]:
            than = f"{values['init_from']} and the data's files hold now" if read_files else f"{group[0][0].trial_id}"
            raise ValueError(
                f"the results of trials {first_names(others)} are of other rows or parameters than {than}; "
                "use another --workdir, or delete trials/<id>.json of those that are to be run again"
            )


def run_trials(
    trials: Sequence[Trial],
    trials_per_device: int,
    say: Callable[[str], None],
) -> Iterator[tuple[Trial, dict[str, Any]]]:
    """Run trials, as many at once as the devices hold, and yield each with its result as it is known.

    Args:
        trials: of `plan`; those that share compiled steps are run together, in the order given.
        trials_per_device: that a device holds at once.
        say: takes lines for the user.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.group(), []).append(trial)
    done = 0
    for group in groups.values():
        prepared = finetuning.prepare(group[0].values)
        for line in prepared.task.notes if not done else ():
            say(line)
        runner = TrialRunner(prepared, trials_per_device, jax.local_devices())
        for num_epochs in dict.fromkeys(trial.values["num_epochs"] for trial in group):
            same = [trial for trial in group if trial.values["num_epochs"] == num_epochs]
            for first in range(0, len(same), runner.capacity):
                wave = same[first : first + runner.capacity]
                say(f"trials {done + 1}–{done + len(wave)} of {len(trials)}: {', '.join(map(describe, wave))}")
                yield from zip(wave, runner.run(wave, say), strict=True)
                done += len(wave)


def describe(trial: Trial) -> str:
    """Return a trial's overrides in short."""
    values = [f"{name.split('.')[-1]} {value}" for name, value in trial.overrides.items()]
    return f"{trial.trial_id} ({', '.join(values)})"


class TrialRunner:
    """Runs waves of trials of one task, batch size and model.

    Attributes:
        capacity: trials at once.
    """

    def __init__(self, prepared: Prepared, trials_per_device: int, devices: Sequence[Any]) -> None:
        """Compile nothing yet.

        Args:
            prepared: of any of the trials.
            trials_per_device: 1 or more.
            devices: of this process.
        """
        self.capacity = trials_per_device * len(devices)
        self._prepared = prepared
        self._mesh = Mesh(np.array(devices), (AXIS,))
        self._apart, self._whole = (NamedSharding(self._mesh, spec) for spec in (PartitionSpec(AXIS), PartitionSpec()))
        config, objective = prepared.config, prepared.objective
        self._optimizer = make_optimizer(config.optim)
        step = make_train_step(objective, self._optimizer, config.train.microbatches, config.train.on_nonfinite)
        self._step: Any = jax.jit(self._over_trials(step), donate_argnums=0)
        self._init = jax.jit(self._over_trials(self._start, shared=(True, False)))
        self._held_out = jax.jit(self._over_trials(make_held_out_step(objective), shared=(False, True)))

    def run(self, wave: Sequence[Trial], say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Train a wave of trials with as many epochs each, and return their results."""
        prepared = self._prepared
        # Idle places repeat the last trial; what they come to is not looked at.
        filled = [*wave, *[wave[-1]] * (self.capacity - len(wave))]
        configs = [self._config(trial) for trial in filled]
        started = time.perf_counter()
        state, first_bad = self._train(self._initial(configs), configs, say)
        seconds = time.perf_counter() - started
        results = []
        for trial, config, row, bad in zip(wave, configs, self._evaluate(state.params), first_bad, strict=False):
            row["step"] = config.train.num_steps
            # The wave's seconds belong to all its trials.
            result = make_result(config, prepared.task, [row], seconds / len(wave), config.train.num_steps)
            diverged = bad > 0 and config.train.on_nonfinite == "stop"
            failed = f"the loss of step {bad} is not finite" if diverged else degenerate(row)
            result |= {"trial": trial.trial_id, "overrides": dict(trial.overrides), "inputs": prepared.fingerprint}
            results.append(result | ({"failed": failed} if failed else {}))
        return results

    def _initial(self, configs: list[FinetuneConfig]) -> TrainState:
        return self._init(self._loaded, self._put(np.array([config.seed for config in configs], np.uint32)))

    def _batch(self, configs: list[FinetuneConfig], number: int) -> Any:
        """Return the batches of a step, of one shape: the schedule is the same for all seeds."""
        schedule, rows = self._prepared.schedule, self._prepared.task.train
        chosen = [schedule.step(number, config.seed) for config in configs]
        return self._put(_stack([collate(rows, numbers, length) for length, numbers in chosen]))

    def _hyper(self, configs: list[FinetuneConfig]) -> Any:
        return self._put(_stack([hyper_values(c.optim, c.train.num_steps, c.seed) for c in configs]))

    def _config(self, trial: Trial) -> FinetuneConfig:
        prepared = self._prepared
        values = {**trial.values, "model": prepared.config.model, "data": prepared.config.data}
        return finetuning.resolve(values, prepared.schedule.steps_per_epoch)

    def _train(
        self, state: TrainState, configs: list[FinetuneConfig], say: Callable[[str], None]
    ) -> tuple[TrainState, list[int]]:
        """Return the last state, and each trial's first step whose loss was not finite (0: none)."""
        num_steps, hyper = configs[0].train.num_steps, self._hyper(configs)
        first_bad, pending = [0] * len(configs), []
        for number in range(num_steps):
            state, metrics = self._step(state, self._batch(configs, number), hyper)
            pending.append((metrics["loss"][0], metrics["nonfinite"][0]))
            if len(pending) == LOG_EVERY_STEPS or number + 1 == num_steps:
                losses, bad = (np.array(values) for values in zip(*jax.device_get(pending), strict=True))
                for trial in np.flatnonzero(bad.any(axis=0)):
                    step = number + 2 - len(pending) + int(bad[:, trial].argmax())
                    first_bad[trial] = first_bad[trial] or step
                shown = " ".join(f"{loss:.3f}" for loss in losses.mean(axis=0))
                say(f"  step {number + 1:,}/{num_steps:,}  loss {shown}")
                pending.clear()
        return state, first_bad

    def _evaluate(self, params: Any) -> list[dict[str, float]]:
        """Return each trial's `eval/` row."""
        config, held_out = self._prepared.config, self._prepared.task.held_out
        scores: list[dict[str, float]] = [{} for _ in range(self.capacity)]
        for split, prefix in prefixes(held_out).items():
            rows, size = held_out[split].rows, config.eval.batch_size
            collectors = [Collector(self._prepared.task.head, rows) for _ in scores]
            batches = held_out_batches(rows, size, config.data.max_buckets, slice(0, size))
            dispatched = ((n, self._held_out(params, jax.device_put(batch, self._whole))) for n, batch in batches)
            for numbers, found in fetched(dispatched):
                for trial, collector in enumerate(collectors):
                    own = jax.tree.map(lambda values, trial=trial: values[trial], found)
                    collector.add(numbers, *own)
            for row, collector in zip(scores, collectors, strict=True):
                row |= collector.row(held_out[split], prefix)
        return scores

    @functools.cached_property
    def _loaded(self) -> dict[str, Any]:
        """The checkpoint's parameters by name, on every device."""
        weights = self._prepared.weights
        kept = without_modules(name_map.nest(weights.params), self._prepared.leave_out)
        wanted = jax.eval_shape(self._prepared.objective.init, 0)
        names = {parameter_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(wanted)}
        kept = {name: value for name, value in kept.items() if name in names}
        check_finite(f"init_from {self._prepared.config.init_from}", kept)
        return jax.device_put(kept, self._whole)

    def _start(self, loaded: dict[str, Any], seed: jax.Array) -> TrainState:
        objective, address = self._prepared.objective, self._prepared.config.init_from
        params, _ = merge_params(objective.init(seed), loaded, address, finetuning.MAY_MISS)
        return make_state(params, self._optimizer, {})

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, self._apart)

    def _over_trials(self, function: Callable[..., Any], shared: tuple[bool, ...] | None = None) -> Callable[..., Any]:
        """Return the function of trees with a leading axis of trials, which is split over the devices.

        Args:
            function: of one trial.
            shared: for each argument, whether all trials have the same one, without that axis; None: none is.
        """
        per_device = self.capacity // self._mesh.size

        def call(*args: Any) -> Any:
            same = shared or (False,) * len(args)
            specs = tuple(PartitionSpec() if whole else PartitionSpec(AXIS) for whole in same)

            def on_device(*parts: Any) -> Any:
                axes = tuple(None if whole else 0 for whole in same)
                if per_device > 1:
                    return jax.vmap(function, in_axes=axes)(*parts)
                # One trial: plain products, which CPUs do faster than batched ones of one.
                alone = [p if whole else jax.tree.map(lambda x: x[0], p) for p, whole in zip(parts, same, strict=True)]
                return jax.tree.map(lambda x: x[None], function(*alone))

            return jax.shard_map(
                on_device, mesh=self._mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False
            )(*args)

        return call


def degenerate(row: Mapping[str, float]) -> str:
    """Return why a trial that ended well is no use, "" if it is: it predicts one class, or no number at all."""
    if row.get("eval/constant_prediction"):
        return "degenerate: the same prediction for every row"
    if any(math.isnan(value) for value in row.values()):
        return "degenerate: a metric is not a number"
    return ""


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
