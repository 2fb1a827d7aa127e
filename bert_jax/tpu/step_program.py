"""The training step of a config, lowered and compiled for a topology: no arrays, no corpus, no TPU."""

import dataclasses
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from bert_jax.input.placement import num_row_shards
from bert_jax.tpu.step_shape import StepShape
from bert_jax.tpu.topologies import Topology, devices
from bert_jax.training import sharding
from bert_jax.training.mesh import check_batch_size, make_mesh
from bert_jax.training.optimizers import make_optimizer
from bert_jax.training.state import abstract_state, hyper_values
from bert_jax.training.step import lower_train_step, make_train_step

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class OutOfMemoryError(ValueError):
    """The step does not fit in a device's memory.

    Attributes:
        used_bytes: that it would take; None where the compiler does not say.
        available_bytes: that a device has.
    """

    def __init__(self, message: str, used_bytes: float | None, available_bytes: float) -> None:
        super().__init__(message)
        self.used_bytes, self.available_bytes = used_bytes, available_bytes


@dataclasses.dataclass(frozen=True)
class Memory:
    """A device's memory, in bytes.

    Attributes:
        used: at the program's peak, and its code.
        available: that the compiler gives to a program.
        donated: of arguments whose memory results take over.
        state: of the train state, one device's part.
    """

    used: int
    available: float
    donated: int
    state: int


@dataclasses.dataclass(frozen=True)
class StepProgram:
    """A compiled step.

    Attributes:
        text: its HLO, of one device.
        memory: what it takes.
        compiler_flops: by XLA's cost analysis, which counts loops once.
        compile_seconds: tracing included.
    """

    text: str
    memory: Memory
    compiler_flops: float
    compile_seconds: float


def compile_step(shape: StepShape, topology: Topology) -> StepProgram:
    """Compile the step that `launch.pretrain` or `launch.finetune` runs.

    Raises:
        OutOfMemoryError: it does not fit; the message says by how much.
        ValueError: a batch or mesh that the topology does not divide, no libtpu, or what else the compiler refuses.
    """
    mesh = make_mesh(shape.mesh, devices(topology))
    check_batch_size("config.data.batch_size", shape.batch_size, mesh, shape.train.microbatches)
    optimizer = make_optimizer(shape.optim)
    state = abstract_state(shape.objective, optimizer, shape.batch_size, mesh)
    rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=rows)
        for name, array in shape.batch(num_row_shards(mesh)).items()
    }
    values = hyper_values(shape.optim, shape.train.num_steps, 0)
    hyper = jax.tree.map(lambda value: jax.ShapeDtypeStruct((), value.dtype, sharding=whole), values)
    step = make_train_step(shape.objective, optimizer, shape.train.microbatches, shape.train.on_nonfinite)

    available = available_bytes(topology)
    started = time.perf_counter()
    lowered = lower_train_step(step, state, batch, hyper, mesh)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise ValueError(f"libtpu did not compile the step: {str(error).splitlines()[0]}") from error
        used = used_bytes(str(error))
        raise OutOfMemoryError(
            f"the step takes {_gib(used)} of a device's {_gib(available)}", used, available
        ) from None
    seconds = time.perf_counter() - started
    analysis = compiled.memory_analysis()
    # Not arguments + temporaries, of which some take the place of others: 1,376 rows of BERT-Base with full remat take
    # 14.0 GiB so, and fit into 15.75; their sum is 17.6.
    used = analysis.peak_memory_in_bytes + analysis.generated_code_size_in_bytes
    state_bytes = sum(_bytes_on_a_device(leaf) for leaf in jax.tree.leaves(state))
    memory = Memory(used, available, analysis.alias_size_in_bytes, state_bytes)
    return StepProgram(compiled.as_text(), memory, compiled.cost_analysis().get("flops", 0.0), seconds)


def available_bytes(topology: Topology) -> float:
    """Return the memory that the compiler gives to a program on one device: it says so when it refuses one."""
    where = SingleDeviceSharding(devices(topology)[0])
    too_much = jax.ShapeDtypeStruct((2**40,), jnp.uint8, sharding=where)
    try:
        jax.jit(lambda x: x + 1).lower(too_much).compile()
    except jax.errors.JaxRuntimeError as error:
        found = re.search(r"exceeds available HBM \(([\d.]+)([KMGT]?)\)", str(error))
        if found:
            return float(found[1]) * _UNITS[found[2]]
        raise
    raise AssertionError("no chip has a TiB")


def used_bytes(message: str) -> float | None:
    """Return what a program would have taken, from the compiler's refusal; None if it does not say.

    Two wordings are known: "Used 20.72G of 15.75G hbm" and "the total memory required … (20.72G) exceeds".
    """
    found = re.search(r"Used ([\d.]+)([KMGT]?) of", message) or re.search(r"\(([\d.]+)([KMGT]?)\) exceeds", message)
    return float(found[1]) * _UNITS[found[2]] if found else None


def _bytes_on_a_device(leaf: Any) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape)
    size = leaf.dtype.itemsize
    for side in shape:
        size *= side
    return size


def _gib(size: float | None) -> str:
    return "more than the memory" if size is None else f"{size / 2**30:.2f} GiB"
