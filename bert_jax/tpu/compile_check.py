"""Does a config's training step fit on a topology, and how fast could it be at best: the numbers, and their text."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bert_jax.config import to_plain
from bert_jax.tpu.batch_search import Attempt, LargestBatch, largest_batch
from bert_jax.tpu.costs import program_costs
from bert_jax.tpu.hlo import parse_program
from bert_jax.tpu.roofline import roofline
from bert_jax.tpu.step_program import OutOfMemoryError, available_bytes, compile_step
from bert_jax.tpu.step_shape import StepShape
from bert_jax.tpu.topologies import Topology

MAX_ROWS = 4096  # a device; a search goes no further
GIB = 2**30


def check(shape: StepShape, topology: Topology) -> dict[str, Any]:
    """Compile the step and return what is known about it; all figures are of one step, and of one chip where they say.

    A step that does not fit has `fits` false, what it takes where the compiler says so, and `advice`.

    Raises:
        ValueError: a batch or mesh that the topology does not divide, or no libtpu.
    """
    facts = {**_facts(shape, topology), "versions": versions()}
    try:
        program = compile_step(shape, topology)
    except OutOfMemoryError as error:
        memory = {"hbm_used_bytes": error.used_bytes, "hbm_available_bytes": error.available_bytes}
        return {**facts, "fits": False, **memory, "advice": advice(shape, topology, error)}
    costs = program_costs(parse_program(program.text))
    devices = topology.num_devices
    formula = shape.row_flops.flops * shape.batch_size / devices
    bounds = roofline(costs, formula, topology.chip)
    tokens = shape.batch_size * shape.sequence_length
    return {
        **facts,
        "fits": True,
        "hbm_used_bytes": program.memory.used,
        "hbm_available_bytes": program.memory.available,
        "donated_bytes": program.memory.donated,
        "state_bytes": program.memory.state,
        "collectives": costs.by_kind(),
        "sent_bytes": costs.sent_bytes,
        "between_slices_bytes": costs.between_slices_bytes,
        "pallas_kernels": costs.kernels,
        "formula_flops": formula,
        "program_flops": costs.flops,
        "compiler_flops": program.compiler_flops,
        "bytes_accessed": costs.bytes_accessed,
        "hbm_bytes": costs.hbm_bytes,
        "arithmetic_intensity": costs.flops / costs.hbm_bytes,
        "roofline": {
            **{f"{name}_seconds": seconds for name, seconds in bounds.parts.items()},
            "seconds_per_step": bounds.seconds,
            "limited_by": bounds.limited_by,
            "mfu": bounds.mfu_bound,
            "tokens_per_second": tokens / bounds.seconds,
        },
        "compile_seconds": program.compile_seconds,
    }


def find_batches(
    shape: StepShape, topology: Topology, step: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, LargestBatch]:
    """Return, for each remat policy, the most rows of a device that fit; exact to `step` rows.

    The batch is laid over all devices without microbatches: with `mesh.tensor` a device holds more rows than its share.

    Raises:
        ValueError: a step that no batch is a multiple of.
    """
    if not 1 <= step <= MAX_ROWS:
        raise ValueError(f"--batch_step is {step}; it takes 1 to {MAX_ROWS} rows")
    available = available_bytes(topology)
    found, first = {}, 64
    for policy in shape.remat_policies:
        whole = dataclasses.replace(shape.with_remat(policy), train=dataclasses.replace(shape.train, microbatches=1))

        def attempt(rows: int, whole: StepShape = whole, policy: str = policy) -> Attempt:
            try:
                program = compile_step(dataclasses.replace(whole, batch_size=rows * topology.num_devices), topology)
            except OutOfMemoryError as error:
                say(f"remat {policy}, {rows} rows a device: {error}")
                return Attempt(rows, error.used_bytes, fits=False)
            say(f"remat {policy}, {rows} rows a device: {program.memory.used / GIB:.2f} GiB, fits")
            return Attempt(rows, float(program.memory.used), fits=True)

        found[policy] = largest_batch(attempt, available, first, step, MAX_ROWS)
        first = max(found[policy].rows, step)
    return found


def advice(shape: StepShape, topology: Topology, error: OutOfMemoryError) -> str:
    """Return what to change for a step that does not fit, with values to give."""
    ways = []
    stronger = shape.remat_policies[: shape.remat_policies.index(shape.facts["remat"])]
    if stronger:
        ways.append(f"recompute more (--config.model.remat={' or '.join(reversed(stronger))})")
    part = shape.batch_size // shape.train.microbatches
    parts = math.ceil(math.log2(max(2.0, (error.used_bytes or 0.0) / error.available_bytes)))
    more = shape.train.microbatches * 2**parts
    if part > topology.num_devices and shape.batch_size % (more * topology.num_devices) == 0:
        ways.append(f"compute the batch in parts (--config.train.microbatches={more})")
    elif part > topology.num_devices:
        ways.append("compute the batch in parts (--config.train.microbatches)")
    if topology.num_devices > 1 and shape.mesh.fsdp == 1:
        ways.append("split parameters and optimizer (--config.mesh.fsdp=-1 --config.mesh.data=1)")
    ways.append("take more chips, or a smaller --config.data.batch_size (--find_batch says how large it may be)")
    return "; ".join(ways)


def describe(result: Mapping[str, Any]) -> str:
    """Return a result of `check` for people."""
    head = (
        f"{result['config']} on {result['topology']}: {result['num_chips']} chips, {result['batch_size']} rows of "
        f"{result['sequence_length']} tokens, {result['rows_per_chip']:g} a chip; {result['dtype']}, "
        f"remat {result['remat']}, mesh {' × '.join(f'{axis} {size}' for axis, size in result['mesh'].items())}"
    )
    available = f"{result['hbm_available_bytes'] / GIB:.2f} GiB of a device"
    if not result["fits"]:
        used = result["hbm_used_bytes"]
        taken = "more than is there" if used is None else f"{used / GIB:.2f} GiB"
        return f"{head}\ndoes not fit: it takes {taken}; available: {available}\nwhat to do: {result['advice']}"
    bounds = result["roofline"]
    sums = ", ".join(
        f"{kind} {total['count']:g} × ({total['bytes'] / 1e6:.1f} MB in all)"
        for kind, total in result["collectives"].items()
    )
    parts = ", ".join(
        f"{name} {bounds[f'{name}_seconds'] * 1e3:.3g} ms"
        for name in ("compute", "memory", "interconnect")
        if f"{name}_seconds" in bounds
    )
    unknown = "" if "interconnect_seconds" in bounds else "; the links' rate is not published, so they are left out"
    slices = ""
    if result["num_slices"] > 1:
        slices = (
            f"; a device sends {result['between_slices_bytes'] / 1e6:.1f} MB to other slices, whose time is left out"
        )
    return "\n".join(
        [
            head,
            f"fits: {result['hbm_used_bytes'] / GIB:.2f} of {available}",
            f"donated: {result['donated_bytes'] / 1e6:.1f} MB of {result['state_bytes'] / 1e6:.1f} MB of train state",
            f"collectives: {sums or 'none'}",
            f"FLOPs a device: formula {result['formula_flops']:.3e}, compiled program {result['program_flops']:.3e} "
            f"(XLA's count, loops once: {result['compiler_flops']:.3e}); Pallas kernels: {result['pallas_kernels']}",
            f"bytes a device: HBM {result['hbm_bytes'] / 1e9:.2f} GB, with on-chip operands "
            f"{result['bytes_accessed'] / 1e9:.2f} GB; {result['arithmetic_intensity']:.0f} FLOPs a byte of HBM",
            f"roofline, a bound and no forecast: {bounds['seconds_per_step'] * 1e3:.3g} ms a step, MFU at most "
            f"{bounds['mfu']:.1%}, limited by {bounds['limited_by']} ({parts}){unknown}{slices}",
            f"compiled in {result['compile_seconds']:.0f} s",
        ]
    )


def describe_batches(found: Mapping[str, LargestBatch], topology: Topology) -> str:
    """Return the results of `find_batches` for people."""
    lines = []
    for policy, best in found.items():
        chip = best.rows * topology.chip.devices_per_chip
        end = f"{best.refused_rows} a device are refused" if best.refused_rows else "the search goes no further"
        lines.append(
            f"remat {policy}: {chip} rows a chip ({best.rows} a device; {end}; {len(best.attempts)} compilations)"
        )
    return "\n".join(lines)


def batches_as_json(found: Mapping[str, LargestBatch], topology: Topology) -> dict[str, Any]:
    """Return the results of `find_batches` as plain values."""
    chips = topology.chip.devices_per_chip
    return {policy: {"rows_per_chip": best.rows * chips, **to_plain(best)} for policy, best in found.items()}


def _facts(shape: StepShape, topology: Topology) -> dict[str, Any]:
    return {
        "config": "",  # the caller's to fill in
        "topology": topology.name,
        "topology_shape": topology.shape_name,
        "num_slices": topology.num_slices,
        "num_chips": topology.num_chips,
        "num_devices": topology.num_devices,
        "batch_size": shape.batch_size,
        "rows_per_chip": shape.batch_size / topology.num_chips,
        "sequence_length": shape.sequence_length,
        "packed": shape.packed,
        "microbatches": shape.train.microbatches,
        "dtype": shape.model.dtype,
        **shape.facts,
        "mesh": to_plain(shape.mesh),
    }


def versions() -> dict[str, str]:
    """Return the versions that a compiled program depends on."""
    found = {}
    for package in ("jax", "jaxlib", "libtpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
