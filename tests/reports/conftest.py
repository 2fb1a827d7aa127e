"""What the trials of a made-up sweep over MRPC leave behind."""

import json

import pytest


@pytest.fixture
def trial():
    """The function that returns a trial's result; its last f1 is None where it failed."""

    def make(trial_id, batch_size, rate, seed, f1, **changes):
        overrides = {"data.batch_size": batch_size, "optim.peak_learning_rate": rate, "seed": seed}
        result = {"trial": trial_id, "overrides": overrides, "task": "mrpc", "best_metric": "f1"}
        result["last"] = {"f1": f1, "accuracy": None if f1 is None else f1 - 0.05, "loss": 0.5}
        result["best"] = {"step": 1, "f1": 0.999}
        return result | {"peak_learning_rate": rate} | changes

    return make


@pytest.fixture
def sweep_directory(tmp_path):
    """The function that writes results where a sweep has them."""

    def write(results):
        (tmp_path / "trials").mkdir()
        for result in results:
            (tmp_path / "trials" / f"{result['trial']}.json").write_text(json.dumps(result))
        return tmp_path

    return write
