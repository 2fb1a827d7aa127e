import json

import pytest

from launch.record_curve import check_same_config


def runs(tmp_path, *configs):
    for number, config in enumerate(configs):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "config.json").write_text(json.dumps(config))
    return [str(tmp_path / f"{number}") for number in range(len(configs))]


def test_seeds_of_one_config_may_be_joined(tmp_path):
    check_same_config(runs(tmp_path, *({"seed": seed, "optim": {"beta1": 0.9}} for seed in range(3))))


def test_runs_of_two_configs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"1 is a run of another config than .*0: optim\.beta1 differ"):
        check_same_config(runs(tmp_path, {"optim": {"beta1": 0.9}}, {"optim": {"beta1": 0.8}}))


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        check_same_config([str(tmp_path / "nowhere")])
