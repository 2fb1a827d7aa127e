"""The training step of a config, lowered and compiled for a topology: no arrays, no corpus, no TPU."""

import dataclasses
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from bert_jax.config import build, choose
from bert_jax.input.masking import MaskingConfig
from bert_jax.models.bert import VOCAB_SIZES, BertConfig
from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.tpu.topologies import Topology, devices
from bert_jax.training import sharding, throughput
from bert_jax.training.benchmark import random_batch, row_shape
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig, check_batch_size, make_mesh
from bert_jax.training.optimizers import OptimizerConfig, make_optimizer
from bert_jax.training.state import abstract_state, hyper_values
from bert_jax.training.step import lower_train_step, make_train_step

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
FAMILIES = ("bert",)


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
class StepShape:
    """What the program of a step follows from.

    Attributes:
        model, optim, train, masking, mesh: sections of the config.
        next_sentence: see ObjectiveConfig.
        next_sentence_weight: likewise.
        batch_size: global rows a step.
        sequence_length: tokens a row.
        packed: whether a row has several sequences.
    """

    model: BertConfig
    optim: OptimizerConfig
    train: TrainConfig
    masking: MaskingConfig
    mesh: MeshConfig
    next_sentence: bool
    next_sentence_weight: float
    batch_size: int
    sequence_length: int
    packed: bool

    @property
    def row_flops(self) -> throughput.RowFlops:
        """Return a row's FLOPs by the published formula."""
        predictions = self.masking.max_predictions_per_row
        return throughput.bert_row_flops(self.model, self.sequence_length, predictions)


@dataclasses.dataclass(frozen=True)
class Memory:
    """A device's memory, in bytes.

    Attributes:
        used: arguments, results that are not donated arguments, temporaries and code.
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


def step_shape(config: Any) -> StepShape:
    """Read what matters to the step from a config of configs/bert.py; a vocabulary of 0 becomes the uncased release's.

    Raises:
        ValueError: another family, or a value that cannot be.
    """
    choose("config.family", config.get("family", "bert"), FAMILIES)
    config.model.vocab_size = config.model.vocab_size or VOCAB_SIZES["uncased"]
    length, packed = row_shape(config.data.instances)
    return StepShape(
        model=build(BertConfig, config.model, "config.model"),
        optim=build(OptimizerConfig, config.optim, "config.optim"),
        train=build(TrainConfig, config.train, "config.train"),
        masking=build(MaskingConfig, config.masking, "config.masking"),
        mesh=build(MeshConfig, config.mesh, "config.mesh"),
        next_sentence=config.objective.next_sentence,
        next_sentence_weight=config.objective.next_sentence_weight,
        batch_size=config.data.batch_size,
        sequence_length=length,
        packed=packed,
    )


def compile_step(shape: StepShape, topology: Topology) -> StepProgram:
    """Compile the step that `launch.pretrain` runs.

    Raises:
        OutOfMemoryError: it does not fit; the message says by how much.
        ValueError: a batch or mesh that the topology does not divide, or no libtpu.
    """
    mesh = make_mesh(shape.mesh, devices(topology))
    check_batch_size("config.data.batch_size", shape.batch_size, mesh, shape.train.microbatches)
    objective = MaskedLmObjective(shape.model, shape.next_sentence, shape.next_sentence_weight)
    optimizer = make_optimizer(shape.optim)
    state = abstract_state(objective, optimizer, shape.batch_size, mesh)
    predictions = shape.masking.max_predictions_per_row
    row = random_batch(1, shape.sequence_length, predictions, shape.model.vocab_size, packed=shape.packed)
    rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((shape.batch_size, *array.shape[1:]), array.dtype, sharding=rows)
        for name, array in row.items()
    }
    values = hyper_values(shape.optim, shape.train.num_steps, 0)
    hyper = jax.tree.map(lambda value: jax.ShapeDtypeStruct((), value.dtype, sharding=whole), values)
    step = make_train_step(objective, optimizer, shape.train.microbatches, shape.train.on_nonfinite)

    available = available_bytes(topology)
    started = time.perf_counter()
    lowered = lower_train_step(step, state, batch, hyper, mesh)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = used_bytes(str(error))
        raise OutOfMemoryError(
            f"the step takes {_gib(used)} of a device's {_gib(available)}", used, available
        ) from None
    seconds = time.perf_counter() - started
    analysis = compiled.memory_analysis()
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    used = analysis.argument_size_in_bytes + outputs + analysis.temp_size_in_bytes
    used += analysis.generated_code_size_in_bytes
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
