"""What JAX_COMPILATION_CACHE_DIR promises: a run that is started again compiles nothing."""

import json
import os
import subprocess
import sys

import pytest

from tests.faults.runs import ROOT
from tests.training.runs import FLAGS, make_corpus

COUNT = """
import collections, json, runpy, sys
import jax
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.split("/")[-1]]))
try:
    runpy.run_module("launch.pretrain", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(counts))
"""


def count(corpus, workdir, cache, num_steps):
    """Train to num_steps in a process of its own; return what it said and JAX's events."""
    done = subprocess.run(
        [
            sys.executable, "-c", COUNT, *FLAGS, f"--workdir={workdir}", f"--config.train.num_steps={num_steps}",
            f"--config.data.corpus={corpus}", "--config.data.instances=nsp-32",
            "--config.model.max_position_embeddings=32",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
        env={
            **os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.entry
@pytest.mark.slow
def test_a_restart_compiles_nothing(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    said, first = count(corpus, tmp_path / "run", tmp_path / "cache", 10)
    assert first["cache_misses"] > 0
    assert "first step" in said
    said, again = count(corpus, tmp_path / "run", tmp_path / "cache", 20)
    assert again.get("cache_misses", 0) == 0
    assert again["cache_hits"] > 0
    assert "first step" in said
