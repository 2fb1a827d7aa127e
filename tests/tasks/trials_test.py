import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from bert_jax.tasks import finetuning, grids
from bert_jax.tasks import trials as trials_module
from bert_jax.tasks.trials import TrialRunner, check_inputs, plan, run_trials
from bert_jax.training.run import run
from tests.tasks.tiny_tasks import make_config, write_files, write_model

RATES, SEEDS = (3e-3, 1e-3), (0, 1, 2, 3)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trials")
    files = write_files("text_table", directory / "files")
    overrides = {"num_epochs": 2, "eval.times_per_epoch": 0}
    return make_config("text_table", write_model(directory / "hf"), files, **overrides)


def grid(add):
    for rate in RATES:
        for seed in SEEDS:
            add(**{"optim.peak_learning_rate": rate, "seed": seed})


def run_all(trials, **options):
    options = {"trials_per_device": 1, "say": lambda line: None} | options
    return {trial.trial_id: result for trial, result in run_trials(trials, **options)}


@pytest.fixture(scope="module")
def alone(config):
    """Return the results of trials that ran one after the other."""
    return run_all(plan(config, grid))


def test_a_trial_is_what_finetune_makes_of_its_config(config, alone, tmp_path):
    trial = plan(config, grid)[5]
    assert run(finetuning.make_job(finetuning.prepare(trial.values)), tmp_path / "run") == 0
    row = json.loads((tmp_path / "run" / "result.json").read_text())["last"]
    assert row == pytest.approx(alone[trial.trial_id]["last"], abs=1e-5)
    assert alone[trial.trial_id]["seed"] == trial.overrides["seed"]


def test_seeds_and_rates_matter(alone):
    losses = [result["last"]["loss"] for result in alone.values()]
    assert len({round(loss, 6) for loss in losses}) == len(losses) == len(RATES) * len(SEEDS)


@pytest.mark.slow
def test_trials_of_one_device_at_once_come_out_as_alone(config, alone):
    together = run_all(plan(config, grid), trials_per_device=3)
    check_equal(together, alone)


@pytest.mark.multidevice
def test_trials_of_eight_devices_come_out_as_alone(config):
    trials, said = plan(config, grid), []
    together = run_all(trials, say=said.append)
    assert sum(line.startswith("trials") for line in said) == 1, "all eight at once"
    prepared = finetuning.prepare(trials[0].values)
    lone = TrialRunner(prepared, 1, jax.local_devices()[:1])
    check_equal(together, {trial.trial_id: lone.run([trial], said.append)[0] for trial in trials})


@pytest.mark.multidevice
def test_trials_do_not_communicate(config):
    trials = plan(config, grid)
    runner = TrialRunner(finetuning.prepare(trials[0].values), 1, jax.local_devices())
    configs = [runner._config(trials[0])] * runner.capacity
    arguments = (runner._initial(configs), runner._batch(configs, 0), runner._hyper(configs))
    text = runner._step.lower(*arguments).compile().as_text()
    assert "fusion" in text
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for trial_id, result in found.items():
        assert result["last"] == pytest.approx(expected[trial_id]["last"], abs=1e-5)


def test_a_sweep_compiles_once_a_shape(config):
    config = config.copy_and_resolve_references()
    config.data.max_buckets = 2
    trials = plan(config, lambda add: grids.product(add, (8,), RATES, (1, 2), 2))
    prepared = finetuning.prepare(trials[0].values)
    runner = TrialRunner(prepared, 1, jax.local_devices()[:1])
    for trial in trials:
        runner.run([trial], lambda line: None)
    assert len({trial.group() for trial in trials}) == 1
    # The first call's state comes from the initialisation and may be laid out otherwise.
    assert runner._step._cache_size() <= 1 + len(prepared.schedule.buckets)


def test_a_failed_trial_is_marked_and_harms_no_other(config, alone):
    def with_a_bad_one(add):
        add(**{"optim.peak_learning_rate": RATES[0], "seed": 0})
        add(**{"optim.peak_learning_rate": 1e30, "seed": 0})

    trials = plan(config, with_a_bad_one)
    results = run_all(trials, trials_per_device=2)
    good, bad = (results[trial.trial_id] for trial in trials)
    assert good.get("failed") == alone[trials[0].trial_id].get("failed")
    assert good["last"] == pytest.approx(alone[trials[0].trial_id]["last"], abs=1e-5)
    assert "is not finite" in bad["failed"]


def test_a_step_that_is_skipped_is_no_failure(config, monkeypatch):
    """The second batch has no finite loss."""
    made, collate = iter(range(1, 1_000)), trials_module.collate

    def spoiled(rows, numbers, length):
        batch = collate(rows, numbers, length)
        return batch | {"row_weights": batch["row_weights"] * np.float32(np.nan if next(made) == 2 else 1)}

    monkeypatch.setattr(trials_module, "collate", spoiled)
    failed = {}
    for reaction in ("skip", "stop"):
        made = iter(range(1, 1_000))
        [result] = run_all(
            plan(config, lambda add, reaction=reaction: add(**{"train.on_nonfinite": reaction}))
        ).values()
        failed[reaction] = result.get("failed", "")
    assert "is not finite" not in failed["skip"]
    assert "a metric is not a number" not in failed["skip"]
    assert failed["stop"] == "the loss of step 2 is not finite"


def test_results_of_other_rows_or_parameters_are_refused(config, tmp_path):
    config = config.copy_and_resolve_references()
    table = tmp_path / "table.csv"
    lines = Path(config.data.train).read_text().splitlines(keepends=True)
    table.write_text("".join(lines))
    config.data.train = config.data.dev = str(table)
    first, second = plan(config, grid)[:2]
    before = {"inputs": finetuning.prepare(first.values).fingerprint}
    check_inputs([(first, before), (second, before)], read_files=True)
    table.write_text("".join(lines[:-1]))
    check_inputs([(first, before), (second, before)], read_files=False)
    with pytest.raises(
        ValueError, match=rf"trials {first.trial_id}, {second.trial_id} are of other rows or parameters"
    ):
        check_inputs([(first, before), (second, before)], read_files=True)
    after = finetuning.prepare(first.values)
    done = [(first, before), (second, {"inputs": after.fingerprint})]
    with pytest.raises(ValueError, match=rf"of trials {second.trial_id} are .* than {first.trial_id}; use another"):
        check_inputs(done, read_files=False)
    params = after.weights.params | {"pooler/bias": after.weights.params["pooler/bias"] + 1}
    other = dataclasses.replace(after, weights=dataclasses.replace(after.weights, params=params))
    assert other.fingerprint != after.fingerprint


def test_a_plan_has_each_trial_once(config):
    def twice(add):
        grid(add)
        grid(add)

    trials = plan(config, twice)
    assert len(trials) == len({trial.trial_id for trial in trials}) == len(RATES) * len(SEEDS)
    config = config.copy_and_resolve_references()
    config.eval.batch_size, config.train.log_every_steps = 4, 7
    assert [trial.trial_id for trial in plan(config, grid)] == [trial.trial_id for trial in trials]
    for name, value in (("num_epochs", 3), ("train.microbatches", 2), ("train.on_nonfinite", "skip")):
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict({name: value})
        assert not {trial.trial_id for trial in plan(other, grid)} & {trial.trial_id for trial in trials}


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (lambda add: add(**{"optim.rate": 1.0}), r"add\(\{'optim.rate': 1.0\}\) does not fit the config"),
        (lambda add: None, "the sweep adds no trial"),
    ],
)
def test_a_bad_sweep_is_said(config, sweep, message):
    with pytest.raises(ValueError, match=message):
        plan(config, sweep)


def test_published_grids_have_their_sizes():
    counts = {}
    for name, fill in grids.GRIDS.items():
        added = []
        fill(lambda added=added, **overrides: added.append(overrides), 3)
        counts[name] = len({tuple(sorted(overrides.items())) for overrides in added})
    assert counts == {"paper": 2 * 3 * 3 * 3, "small": 5 * 4 * 3, "seeds": 3}
    assert np.isclose(added[0]["seed"], 0)
