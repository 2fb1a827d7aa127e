"""What the routes to Cloud TPU are given; in `make cloud-check` also read by SkyPilot's and JobSet's own parsers."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from bert_jax.tpu import cloud
from bert_jax.tpu.chips import CHIPS
from bert_jax.tpu.topologies import parse_topology

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "launch" / "cloud").glob("*.yaml")}
JOB = cloud.CloudJob(
    "base-1",
    "gs://b/corpus",
    "gs://b/runs/base-1",
    ("--config=configs/bert.py:size=base", "--config.seed=1"),
    "image:1",
)
ENVIRONMENT = {"CORPUS": JOB.corpus, "WORKDIR": JOB.workdir, "ARGUMENTS": " ".join(JOB.arguments)}
SKYPILOT = [parse_topology(name) for name in ("v3-8", "v4-16", "v5e-1", "v5e-256", "v5p-8", "v6e-8")]
GKE = [parse_topology(name) for name in ("v4-16", "v5e-1", "v5p-128", "v6e-8", "tpu7x-128")]
GKE.append(parse_topology("v5e-256", 2))


def task(topology):
    return cloud.fill_skypilot(TEMPLATES["pretrain"], topology, JOB)


def trial(topology):
    envs = {"DATA": "gs://b/in", "RESULTS": "gs://b/out", "SWEEP": "runs/x", "COMMAND": "python -m launch.sweep --help"}
    return cloud.fill_trial(TEMPLATES["sweep"], topology, "x-0", True, envs)


def test_a_skypilot_task_has_the_slice_and_its_runtime():
    filled = task(parse_topology("v6e-8"))
    assert filled["resources"]["accelerators"] == "tpu-v6e-8"
    assert filled["resources"]["accelerator_args"] == {"runtime_version": "v2-alpha-tpuv6e"}
    assert filled["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert filled["envs"] == ENVIRONMENT
    assert TEMPLATES["pretrain"]["envs"] != ENVIRONMENT  # a copy was filled


@pytest.mark.parametrize(
    ("name", "slices", "hosts", "chips", "topology"),
    [
        ("v5e-1", 1, 1, 1, "1x1"),
        ("v5e-8", 1, 2, 4, "2x4"),
        ("v5e-256", 2, 64, 4, "16x16"),
        ("tpu7x-128", 1, 16, 4, "4x4x4"),
    ],
)
def test_a_jobset_has_a_pod_for_each_host(name, slices, hosts, chips, topology):
    filled = cloud.fill_jobset(TEMPLATES["jobset"], parse_topology(name, slices), JOB)
    (replicated,) = filled["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    assert (replicated["replicas"], job["parallelism"], job["completions"]) == (slices, hosts, hosts)
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": str(chips)}
    assert {one["name"]: one["value"] for one in container["env"]} == ENVIRONMENT
    assert filled["metadata"]["annotations"] == {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }


def test_spot_is_asked_for_and_tolerated_or_neither():
    reserved = cloud.CloudJob(**{**vars(JOB), "spot": False})
    for job in (JOB, reserved):
        filled = cloud.fill_jobset(TEMPLATES["jobset"], parse_topology("v5e-16"), job)
        pod = filled["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        assert ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == ("tolerations" in pod) == job.spot


def test_every_generation_has_a_route():
    assert cloud.NAMES.keys() == CHIPS.keys()
    assert all(names.accelerator or names.gke for names in cloud.NAMES.values())


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (lambda: task(parse_topology("v5e-8", 2)), "--route=gke"),
        (lambda: task(parse_topology("tpu7x-8")), "--route=gke"),
        (lambda: task(parse_topology("v5e:2x8")), "v5e:2x8 is not the shape"),
        (lambda: trial(parse_topology("v5e-16")), "one host.* at most 8 chips"),
        (lambda: trial(parse_topology("v4-16")), "one host.* at most 4 chips"),
        (lambda: cloud.fill_jobset(TEMPLATES["jobset"], parse_topology("v3-8"), JOB), "--route=skypilot"),
        (lambda: cloud.CloudJob("7", "gs://b/c", "gs://b/w", ("--config=x",)), "'7'; .* give another --name"),
        (lambda: cloud.CloudJob("a-", "gs://b/c", "gs://b/w", ("--config=x",)), "no hyphen last"),
        (lambda: cloud.CloudJob("a" * 41, "gs://b/c", "gs://b/w", ("--config=x",)), "up to 40"),
        (lambda: cloud.CloudJob("a", "corpus", "gs://b/w", ("--config=x",)), "gs://my-bucket/corpus"),
        (lambda: cloud.CloudJob("a", "gs://b/c", "gs://BUCKET/w", ("--config=x",)), "workdir"),
        (lambda: cloud.CloudJob("a", "gs://b/c", "gs://b/w", ("--config.seed=1",)), "--config="),
        (lambda: cloud.CloudJob("a", "gs://b/c", "gs://b/w", ("--config=x", "--workdir=y")), "leave it out"),
        (lambda: cloud.CloudJob("a", "gs://b/c", "gs://b/w", ("--config=x", "--a=b c")), "spaces"),
    ],
)
def test_what_cannot_run_is_refused_with_what_to_do(fill, said):
    with pytest.raises(ValueError, match=said):
        fill()


def test_scripts_are_bash(tmp_path):
    scripts = [TEMPLATES[name][part] for name in ("pretrain", "sweep") for part in ("setup", "run")]
    jobset = TEMPLATES["jobset"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    for script in [*scripts, *jobset["containers"][0]["args"]]:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


GCLOUD = """#!/bin/bash
set -e
shift
case "$1" in
  cp) cat > "$3" ;;
  rsync) mkdir -p "$4" && cp -r "$3/." "$4/" ;;
esac
"""


@pytest.mark.parametrize(
    ("command", "place", "status", "left"),
    [
        ("ls runs/x >runs/x/seen", "", 0, {"begun.txt", "earlier", "seen"}),
        ("touch runs/x/traceback; exit 3", "", 3, {"begun.txt", "earlier", "traceback"}),
        ("touch runs/x/trained", "/missing", 1, {"earlier"}),  # no permission to write there
    ],
)
def test_a_trial_keeps_what_others_finished_and_what_a_failed_one_left(tmp_path, command, place, status, left):
    results, tool = tmp_path / "results", tmp_path / "bin" / "gcloud"
    results.mkdir()
    (results / "earlier").touch()
    tool.parent.mkdir()
    tool.write_text(GCLOUD)
    tool.chmod(0o755)
    names = {"HOME": str(tmp_path), "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    names |= {"RESULTS": f"{results}{place}", "SWEEP": "runs/x", "COMMAND": command}
    script = ["bash", "-c", TEMPLATES["sweep"]["run"]]
    done = subprocess.run(script, cwd=tmp_path, env=names, capture_output=True, check=False)
    assert done.returncode == status
    assert {path.name for path in results.iterdir()} == left


def _parse_elsewhere(code, objects):
    python = os.environ.get("BERT_JAX_CLOUD_PYTHON")
    if not python:
        pytest.skip("`make cloud-check` has SkyPilot and JobSet's schema")
    done = subprocess.run(
        [python, "-c", code],
        input=json.dumps(objects),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


READ_TASKS = """
import json, sys, sky
tasks = [sky.Task.from_yaml_config(one) for one in json.load(sys.stdin)]
resources = [next(iter(task.resources)) for task in tasks]
print(json.dumps([[list(one.accelerators), one.use_spot, one.accelerator_args] for one in resources]))
"""
READ_JOBSETS = """
import json, sys
from kubeflow_trainer_api.models import jobset_v1alpha2_job_set as schema
def extra(given, read, path=""):
    if isinstance(given, dict) and isinstance(read, dict):
        return [name for key in given for name in
                ([f"{path}.{key}"] if key not in read else extra(given[key], read[key], f"{path}.{key}"))]
    if isinstance(given, list) and isinstance(read, list):
        return [name for a, b in zip(given, read) for name in extra(a, b, path + "[]")]
    return [] if str(given) == str(read) else [f"{path}: {given} became {read}"]
unknown = []
for one in json.load(sys.stdin):
    read = schema.JobsetV1alpha2JobSet.from_dict(one)
    unknown += extra(one, json.loads(read.to_json()))
print(json.dumps(unknown))
"""


@pytest.mark.cloud
def test_skypilot_reads_every_task():
    topologies = [*SKYPILOT, parse_topology("v5e-1")]
    found = _parse_elsewhere(READ_TASKS, [*map(task, SKYPILOT), trial(topologies[-1])])
    assert [accelerators for accelerators, _, _ in found] == [
        [f"tpu-{cloud.accelerator_type(topology)}"] for topology in topologies
    ]
    assert all(spot for _, spot, _ in found)


@pytest.mark.cloud
def test_skypilot_refuses_what_is_misspelled():
    broken = task(SKYPILOT[0])
    broken["resources"]["accelerator"] = "tpu-v3-8"
    with pytest.raises(AssertionError, match="accelerator"):
        _parse_elsewhere(READ_TASKS, [broken])


@pytest.mark.cloud
def test_jobsets_hold_nothing_that_their_schema_does_not_know():
    filled = [cloud.fill_jobset(TEMPLATES["jobset"], topology, JOB) for topology in GKE]
    assert _parse_elsewhere(READ_JOBSETS, [TEMPLATES["jobset"], *filled]) == []
    filled[0]["spec"]["failurePolicy"]["maxRestart"] = 3
    assert _parse_elsewhere(READ_JOBSETS, filled[:1]) == [".spec.failurePolicy.maxRestart"]
