import dataclasses
import json
import subprocess
import sys

import pytest

from bert_jax.training import lease
from bert_jax.training.workdir import Workdir, WorkdirInUseError, default_path, describe_environment

CONFIG = {
    "seed": 0,
    "init_from": "",
    "train": {"num_steps": 10, "microbatches": 1},
    "eval": {"every_steps": 5, "max_rows": 0, "batch_size": 8},
    "optim": {"peak_learning_rate": 1e-3},
    "mesh": {"data": -1},
    "data": {"corpus": "data/a", "batch_size": 8},
}


def changed(section, **values):
    return CONFIG | {section: CONFIG[section] | values}


ALLOWED = [
    changed("train", num_steps=20),
    changed("eval", every_steps=2),
    changed("eval", batch_size=16),
    changed("mesh", data=8),
    changed("data", corpus="elsewhere/a"),
]
REFUSED = [
    changed("optim", peak_learning_rate=2e-3),
    changed("data", batch_size=16),
    changed("train", microbatches=2),
    CONFIG | {"seed": 1},
]


@pytest.fixture
def workdir(tmp_path):
    workdir = Workdir(tmp_path / "run")
    workdir.write_json("config.json", CONFIG)
    yield workdir
    workdir.close()


@pytest.mark.parametrize("config", ALLOWED)
def test_steps_intervals_mesh_and_paths_may_differ_on_resuming(workdir, config):
    assert len(workdir.changes(config)) == 1


@pytest.mark.parametrize("config", REFUSED)
def test_any_other_difference_is_refused_and_shown(workdir, config):
    with pytest.raises(ValueError, match=r"was .*, is .*\n.*another --workdir"):
        workdir.changes(config)


@dataclasses.dataclass(frozen=True)
class YoungerConfig:
    """The config of a later version, with a setting more."""

    train: dict
    seed: int = 0
    twist: float = 0.5


def test_a_setting_that_is_younger_than_the_run_was_at_its_default(workdir):
    workdir.write_json("config.json", {"train": {"num_steps": 10}, "seed": 0})
    assert workdir.changes(YoungerConfig({"num_steps": 10})) == {}
    with pytest.raises(ValueError, match=r"config\.twist was 0\.5, is 0\.7"):
        workdir.changes(YoungerConfig({"num_steps": 10}, twist=0.7))


def test_a_directory_of_something_else_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"sources": [], "instances": []}))
    with pytest.raises(ValueError, match="is not a training run's"):
        Workdir(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_checkpoints_without_a_config_are_not_resumed(tmp_path):
    workdir = Workdir(tmp_path)
    with pytest.raises(ValueError, match="has checkpoints, but no config"):
        workdir.changes(CONFIG)
    workdir.close()


def test_a_second_run_is_refused_until_the_first_ends(workdir, tmp_path):
    with pytest.raises(WorkdirInUseError, match=r"in use by process \d+ on"):
        Workdir(tmp_path / "run")
    workdir.close()
    Workdir(tmp_path / "run").close()


def test_kill_9_frees_the_lock(tmp_path):
    code = (
        "import time; from bert_jax.training.workdir import Workdir\n"
        f"workdir = Workdir({str(tmp_path)!r}); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(WorkdirInUseError):
            Workdir(tmp_path)
        process.kill()
        process.wait()
    Workdir(tmp_path).close()


def test_a_directory_in_a_bucket_is_held_by_a_lease(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRES_SECONDS", 0.0)  # the first owner is taken for dead at once
    workdir = Workdir("gs://b/run")
    workdir.write_json("config.json", CONFIG)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    workdir.copy_tokenizer(tmp_path)
    assert workdir.changes(changed("data", corpus="gs://b/corpus")) == {"data.corpus": ("data/a", "gs://b/corpus")}
    workdir.check_lock()
    other = Workdir("gs://b/run")
    with pytest.raises(WorkdirInUseError, match="the lease of gs://b/run is lost"):
        workdir.check_lock()
    other.check_lock()
    workdir.close()
    other.close()
    assert sorted(bucket) == ["b/run/config.json", "b/run/lock/00000002.json", "b/run/tokenizer/vocab.txt"]


def test_the_default_path_names_config_arguments_and_overrides():
    path = default_path("configs/bert.py", "size=base,phase=1", {})
    other = default_path("configs/bert.py", "size=base,phase=1", {"seed": 1})
    assert path.parent.name == "runs"
    assert path.name.startswith("bert-size=base,phase=1-")
    assert len(path.name) == len("bert-size=base,phase=1-") + 8
    assert path != other
    assert default_path("configs/bert.py", "", {}).name.count("-") == 1


def test_the_tokenizer_is_copied(workdir, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("[PAD]\n")
    workdir.copy_tokenizer(tmp_path / "tokenizer")
    assert (workdir.path / "tokenizer" / "vocab.txt").read_text() == "[PAD]\n"


def test_the_environment_says_versions_and_commit():
    facts = describe_environment()
    assert facts["versions"]["jax"]
    assert facts["device_kind"]
    assert "git_commit" in facts
