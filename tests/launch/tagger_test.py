import json

import pytest

from tests.launch.programs import run_launcher
from tests.tasks.tiny_tasks import write_files, write_model


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tagger")
    values = write_files("ner", directory / "ner") | {"features.checkpoint": write_model(directory / "hf")}
    return [
        "--config=configs/tagger.py:preset=smoke",
        *(f"--config.{name}={value}" for name, value in values.items()),
        f"--workdir={directory / 'runs'}",
    ]


@pytest.mark.slow
@pytest.mark.entry
def test_a_seed_more_trains_that_one_only(flags):
    first = run_launcher("tagger", *flags)
    assert first.returncode == 0, first.stderr
    more = run_launcher("tagger", *flags, "--seeds=2")
    assert more.returncode == 0, more.stderr
    assert "seed 0" not in more.stderr
    assert "of 2 seeds" in more.stdout
    workdir = flags[-1].partition("=")[2]
    with open(f"{workdir}/trials/seed1.json", encoding="utf-8") as file:
        assert json.load(file)["overrides"] == {"seed": 1}
    changed = run_launcher("tagger", *flags, "--config.model.cells=9")
    assert changed.returncode == 1
    assert "is of another config" in changed.stderr
