"""From a topology and a job to the file that SkyPilot or GKE is given; nothing is run here.

Source of the names: SkyPilot's catalogue of GCP, cloud.google.com/tpu/docs/runtimes (runtime versions) and
cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (node selectors).
"""

import copy
import dataclasses
import math
import re
from typing import Any

from bert_jax.tpu.topologies import Topology, accelerator_types

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")  # Kubernetes makes host names of at most 63 characters of it
CHIPS_PER_HOST = 4  # of a slice with several hosts, in all generations


@dataclasses.dataclass(frozen=True)
class CloudNames:
    """What Google calls a generation.

    Attributes:
        accelerator: in front of an accelerator type's number; "" = no TPU VMs, GKE alone.
        runtime: software version of a TPU VM.
        gke: value of the node selector; "" = not on GKE.
        single_host_chips: the most chips of a slice that is one host.
    """

    accelerator: str
    runtime: str
    gke: str
    single_host_chips: int = CHIPS_PER_HOST


NAMES = {
    "v3": CloudNames("v3", "tpu-ubuntu2204-base", ""),
    "v4": CloudNames("v4", "tpu-ubuntu2204-base", "tpu-v4-podslice"),
    "v5e": CloudNames("v5litepod", "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", single_host_chips=8),
    "v5p": CloudNames("v5p", "v2-alpha-tpuv5", "tpu-v5p-slice"),
    "v6e": CloudNames("v6e", "v2-alpha-tpuv6e", "tpu-v6e-slice", single_host_chips=8),
    "tpu7x": CloudNames("", "", "tpu7x"),
}


@dataclasses.dataclass(frozen=True)
class CloudJob:
    """A pretraining run on a slice.

    Attributes:
        name: see `check_name`.
        corpus: gs:// address of a prepared corpus, copied to each host's disk.
        workdir: gs:// address of the run's directory.
        arguments: of launch.pretrain.
        image: of the container; GKE only.
        spot: whether it may be preempted, at a lower price.
    """

    name: str
    corpus: str
    workdir: str
    arguments: tuple[str, ...]
    image: str = ""
    spot: bool = True

    def __post_init__(self) -> None:
        """Refuse what no host of a slice could read or write, and arguments that are set elsewhere."""
        check_name(self.name)
        check_address("corpus", self.corpus)
        check_address("workdir", self.workdir)
        if not any(argument.startswith("--config=") for argument in self.arguments):
            raise ValueError("no --config=… behind `--`; such as -- --config=configs/bert.py:size=base,phase=1")
        for argument in self.arguments:
            if argument.split("=")[0] in ("--workdir", "--config.data.corpus", "--multihost"):
                raise ValueError(f"{argument} stands behind `--`, but is set from --workdir and --corpus; leave it out")
            if argument.split() != [argument]:
                raise ValueError(f"the argument {argument!r} has spaces, which a job's environment cannot hold")


def check_name(name: str) -> None:
    """Refuse a job's name that SkyPilot or Kubernetes would refuse.

    Raises:
        ValueError: it is not 1 to 40 small letters, digits and hyphens, a letter first and no hyphen last.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the job's name is {name!r}; it takes up to 40 small letters, digits and hyphens, a letter first and no "
            "hyphen last: give another --name"
        )


def check_address(flag: str, address: str) -> None:
    """Refuse an address that a host in the cloud cannot reach.

    Raises:
        ValueError: it is not in a bucket.
    """
    if not address.startswith("gs://") or "BUCKET" in address:
        raise ValueError(f"--{flag} is {address!r}, which hosts in the cloud cannot reach; use gs://my-bucket/{flag}")


def accelerator_type(topology: Topology) -> str:
    """Return gcloud's accelerator type of a slice, such as v5litepod-16.

    Raises:
        ValueError: a generation without TPU VMs, or a shape that no type has.
    """
    names = NAMES[topology.chip.generation]
    if not names.accelerator:
        raise ValueError(f"{topology.name} is not offered as TPU VMs; use --route=gke")
    if topology.shape not in accelerator_types(topology.chip).values():
        raise ValueError(f"{topology.name} is not the shape of an accelerator type; use one, or --route=gke")
    return f"{names.accelerator}-{math.prod(topology.shape) * topology.chip.units_per_chip}"


def fill_skypilot(template: dict[str, Any], topology: Topology, job: CloudJob) -> dict[str, Any]:
    """Return launch/cloud/pretrain.yaml's object for this job.

    Raises:
        ValueError: several slices, or a generation without TPU VMs.
    """
    return _fill_task(template, topology, job.name, job.spot, _environment(job))


def fill_trial(
    template: dict[str, Any], topology: Topology, name: str, spot: bool, envs: dict[str, str]
) -> dict[str, Any]:
    """Return launch/cloud/sweep.yaml's object for one trial.

    Raises:
        ValueError: several slices or hosts, or a generation without TPU VMs.
    """
    most = NAMES[topology.chip.generation].single_host_chips
    if topology.num_chips > most:
        raise ValueError(f"a trial runs on one host, topology is {topology.name}; use one of at most {most} chips")
    return _fill_task(template, topology, name, spot, envs)


def _fill_task(
    template: dict[str, Any], topology: Topology, name: str, spot: bool, envs: dict[str, str]
) -> dict[str, Any]:
    if topology.num_slices > 1:
        raise ValueError(f"SkyPilot runs one slice, topology is {topology.name}; use --route=gke for several")
    filled = copy.deepcopy(template)
    assert envs.keys() == filled["envs"].keys(), (envs, filled["envs"])
    filled.update(name=name, envs=envs)
    filled["resources"].update(
        accelerators=f"tpu-{accelerator_type(topology)}",
        accelerator_args={"runtime_version": NAMES[topology.chip.generation].runtime},
        use_spot=spot,
    )
    return filled


def _environment(job: CloudJob) -> dict[str, str]:
    return {"CORPUS": job.corpus, "WORKDIR": job.workdir, "ARGUMENTS": " ".join(job.arguments)}


def fill_jobset(template: dict[str, Any], topology: Topology, job: CloudJob) -> dict[str, Any]:
    """Return launch/cloud/jobset.yaml's object for this job.

    Raises:
        ValueError: a generation that is not on GKE, or no image.
    """
    selector = NAMES[topology.chip.generation].gke
    if not selector:
        raise ValueError(f"{topology.name} is not offered on GKE; use --route=skypilot")
    if not job.image:
        raise ValueError("--image is missing; build one from launch/cloud/Dockerfile and push it")
    filled = copy.deepcopy(template)
    filled["metadata"]["name"] = job.name
    slices = filled["spec"]["replicatedJobs"][0]
    slices["replicas"] = topology.num_slices
    chips = math.prod(topology.shape)
    hosts = max(1, chips // CHIPS_PER_HOST)
    slices["template"]["spec"].update(parallelism=hosts, completions=hosts)
    pod = slices["template"]["spec"]["template"]["spec"]
    pod["nodeSelector"] = {
        "cloud.google.com/gke-tpu-accelerator": selector,
        "cloud.google.com/gke-tpu-topology": "x".join(map(str, topology.shape)),
    }
    if job.spot:
        pod["nodeSelector"]["cloud.google.com/gke-spot"] = "true"
    else:
        del pod["tolerations"]
    container = pod["containers"][0]
    container["image"] = job.image
    container["env"] = [{"name": name, "value": value} for name, value in _environment(job).items()]
    share = {"google.com/tpu": str(chips // hosts)}
    container["resources"] = {"requests": share, "limits": dict(share)}
    return filled
