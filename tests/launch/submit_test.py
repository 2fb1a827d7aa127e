import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def submit(*arguments, **environment):
    command = [sys.executable, "-m", "launch.submit", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.entry
@pytest.mark.parametrize(
    ("route", "runs"), [("skypilot", "sky jobs launch"), ("gke", "kubectl apply -f build/cloud/base-1.yaml")]
)
def test_a_dry_run_prints_file_and_command_and_writes_nothing(route, runs):
    done = submit(
        f"--route={route}", "--topology=v5e-16", "--corpus=gs://b/corpus", "--workdir=gs://b/runs/Base_1", "--image=i",
        "--dry_run", "--", "--config=configs/bert.py:size=base,phase=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"# would run: {runs}" in done.stdout
    filled = yaml.safe_load(done.stdout)
    assert "--config=configs/bert.py:size=base,phase=1" in str(filled)
    assert not (ROOT / "build" / "cloud" / "base-1.yaml").exists()


@pytest.mark.entry
def test_without_its_tool_a_route_says_what_to_install(tmp_path):
    done = submit(
        "--route=gke", "--topology=v5e-16", "--corpus=gs://b/corpus", "--workdir=gs://b/runs/base-1", "--image=i", "--",
        "--config=configs/bert.py:size=base,phase=1", PATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("submit: kubectl is not on the PATH; docs/tpu.md says how to install it")


@pytest.mark.entry
def test_a_corpus_that_is_not_in_a_bucket_is_refused():
    done = submit("--corpus=data/wiki", "--workdir=gs://b/runs/x", "--dry_run", "--", "--config=configs/bert.py")
    assert done.returncode == 1
    assert done.stderr == (
        "submit: --corpus is 'data/wiki', which hosts in the cloud cannot reach; use gs://my-bucket/corpus\n"
    )


@pytest.mark.entry
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/bert.py:size=bas"], "pretrain: size is 'bas'; accepted: "),
        (
            ["--config=configs/bert.py", "--config.seed", "1", "--config.optm.name=x"],
            "pretrain: config has no key 'optm'; accepted: ",
        ),
    ],
)
def test_a_config_that_pretraining_would_refuse_is_refused_before_anything_is_submitted(arguments, message):
    done = submit("--corpus=gs://b/corpus", "--workdir=gs://b/runs/x", "--dry_run", "--", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(message)
