import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.entry
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=configs/bert.py:size=mini", "--topology=v5e-3"], "accepted of v5e: v5e-1, v5e-4, v5e-8"),
        (["--topology=v5e-8"], "--config is missing"),
        (["--config=configs/corpus.py:name=python_docs"], "config.family is ''; accepted: bert, elmo, "),
        (["--config=configs/bert.py:size=mini", "--find_batch", "--batch_step=0"], "--batch_step is 0; it takes 1 to"),
    ],
)
def test_mistakes_are_one_line(arguments, said):
    command = [sys.executable, "-m", "launch.compile_check", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
