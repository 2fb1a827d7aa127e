"""What a compiled program computes, moves and sends, on one device, read from its HLO.

Loops count as often as they turn, where XLA's own `cost_analysis` counts their bodies once. FLOPs are those of matrix
products and convolutions (on a TPU the first are written as the second), what Pallas kernels declare, and those of
attention kernels, which declare nothing. Bytes are
operands and results, without padding to tiles: `bytes_accessed` all of them, `hbm_bytes` those that lie in the chip's
main memory; what the compiler holds in on-chip memory from one instruction to the next is in the first only. Of an
operand that is sliced or gathered from, what is read counts.

Differs from XLA's cost analysis: that counts elementwise FLOPs too, loops once, and operands on the chip as bytes.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Callable

from bert_jax.tpu.hlo import Array, Computation, Instruction, Program

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "add-dependency",
}  # fmt: skip
_FREE_TARGETS = ("ConcatBitcast", "AllocateBuffer", "AssumeGatherIndicesInBound", "Sharding")  # of custom calls
_RUNS_OTHERS = {"while", "call", "call-start", "conditional", "async-start"}
# JAX's attention kernels declare nothing. Their products of [queries, keys] and head_dim: scores and context; backward
# the scores again, and what reaches probabilities, values, keys and queries.
_SPLASH_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dkv": 5}
_PARTIAL = {"dynamic-slice", "slice", "gather"}  # read as much of their first operand as they return


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices.

    Attributes:
        kind: of COLLECTIVES.
        num_bytes: of the whole value, as the group has it before or after.
        group_size: devices that take part.
        times: how often a step does it.
        shapes: of what it returns, such as "f32[30592,768]".
    """

    kind: str
    num_bytes: int
    group_size: int
    times: int = 1
    shapes: tuple[str, ...] = ()

    @property
    def sent_bytes(self) -> float:
        """Return the least that one device sends, over all times."""
        share = (self.group_size - 1) / self.group_size
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return factor * self.num_bytes * self.times


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a computation takes on one device; see the head of this file.

    Attributes:
        flops: of matrix products.
        bytes_accessed: operands and results.
        hbm_bytes: those in the chip's main memory.
        collectives: in the order of the program.
        between_slices_bytes: that the device sends to other slices, over the data-centre network.
        kernels: calls of Pallas kernels.
    """

    flops: float = 0.0
    bytes_accessed: int = 0
    hbm_bytes: int = 0
    collectives: tuple[Collective, ...] = ()
    between_slices_bytes: int = 0
    kernels: int = 0

    def __add__(self, other: "Costs") -> "Costs":
        """Return the costs of one after the other."""
        return Costs(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(Costs)))

    def times(self, count: int) -> "Costs":
        """Return the costs of so many turns of a loop."""
        again = tuple(dataclasses.replace(one, times=one.times * count) for one in self.collectives)
        return Costs(
            self.flops * count,
            self.bytes_accessed * count,
            self.hbm_bytes * count,
            again,
            self.between_slices_bytes * count,
            self.kernels * count,
        )

    @property
    def sent_bytes(self) -> float:
        """Return the least that one device sends."""
        return sum((one.sent_bytes for one in self.collectives), 0.0)

    def by_kind(self) -> dict[str, dict[str, int]]:
        """Return, for each kind of collective, how many a step has and the bytes of their values."""
        count: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for one in self.collectives:
            count[one.kind] += one.times
            total[one.kind] += one.times * one.num_bytes
        return {kind: {"count": count[kind], "bytes": total[kind]} for kind in COLLECTIVES if count[kind]}


def program_costs(program: Program) -> Costs:
    """Return what one run of a program takes on one device.

    Raises:
        ValueError: a loop whose number of turns the text does not say, or a collective's group; a part is missing.
    """
    done: dict[str, Costs] = {}

    def costs(name: str) -> Costs:
        if name not in done:
            if name not in program.computations:
                raise ValueError(f"the program calls {name}, which its text lacks; give the whole text of one module")
            computation, total = program.computations[name], Costs()
            for instruction in computation.instructions:
                total += _instruction_costs(program, computation, instruction, costs)
            done[name] = total
        return done[name]

    return costs(program.entry)


def _instruction_costs(
    program: Program, computation: Computation, instruction: Instruction, costs: Callable[[str], Costs]
) -> Costs:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith(("-done", "-update")):
        return Costs()
    inside = Costs()
    for name in instruction.called:
        inside += costs(name)
    if opcode == "while":
        return inside.times(trip_count(program, computation, instruction))
    if opcode in _RUNS_OTHERS:
        return inside
    collectives = inside.collectives + _collectives(computation, instruction)
    if opcode == "custom-call" and instruction.attribute(r'custom_call_target="(\w+)"') in _FREE_TARGETS:
        return Costs()
    moved = _moved(program, computation, instruction)
    leaves = opcode == "send" and "megascale" in instruction.attributes  # the runtime that joins slices
    kernel = int('custom_call_target="tpu_custom_call"' in instruction.attributes)
    return Costs(
        flops=inside.flops + _flops(computation, instruction),
        bytes_accessed=sum(size for size, _ in moved),
        hbm_bytes=sum(size for size, in_hbm in moved if in_hbm),
        collectives=collectives,
        between_slices_bytes=inside.between_slices_bytes + (instruction.arrays[0].num_bytes if leaves else 0),
        kernels=inside.kernels + kernel,
    )


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int:
    """Return how often a `while` turns: what the compiler noted, else the constant that its counter from 0 is under.

    Raises:
        ValueError: neither is there.
    """
    noted = loop.attribute(r'known_trip_count"?[:=]\{"?n"?[:=]"?(\d+)')
    if noted:
        return int(noted)
    condition = program.computations[loop.attribute(r"condition=%?([\w.\-]+)")]
    test = condition.root
    limits = [
        int(operand.arguments)
        for operand in (condition.by_name.get(name) for name in test.operands)
        if operand is not None and operand.opcode == "constant"
    ]
    if test.opcode == "compare" and "direction=LT" in test.attributes and len(limits) == 1:
        return limits[0]
    raise ValueError(
        f"the number of turns of loop {loop.name} in {computation.name} is not in the program (its condition "
        f"{condition.name} is no comparison with a constant); unroll it: config.model.scan_unroll = number of layers"
    )


def _moved(program: Program, computation: Computation, instruction: Instruction) -> list[tuple[int, bool]]:
    """Return (bytes, whether in HBM) of each operand and result of one instruction."""
    opcode, results = instruction.opcode, instruction.arrays
    operands = [
        computation.by_name[name] for name in dict.fromkeys(instruction.operands) if name in computation.by_name
    ]
    if opcode == "fusion":
        return _moved_by_fusion(program, computation, instruction)
    if opcode == "copy-start":  # (to, from, context)
        return [(array.num_bytes, array.in_hbm) for array in results[:2]]
    if opcode == "slice-start":  # ((from), to, context)
        return [(results[-2].num_bytes, array.in_hbm) for array in (results[0], results[-2])]
    if opcode in ("dynamic-update-slice", "scatter"):  # in place: the update is read and written
        updates = [array for one in operands[1:] for array in one.arrays]
        return [(2 * array.num_bytes, array.in_hbm) for array in updates]
    if opcode.endswith("-start"):  # a collective's operands are among its results
        results = results[len(operands) :] or results
    written = [(array.num_bytes, array.in_hbm) for array in results]
    if opcode in _PARTIAL:
        size = sum(array.num_bytes for array in results)
        return [*written, *((size, array.in_hbm) for array in operands[0].arrays)]
    return written + [(array.num_bytes, array.in_hbm) for one in operands for array in one.arrays]


def _moved_by_fusion(program: Program, computation: Computation, fusion: Instruction) -> list[tuple[int, bool]]:
    inner = _fused(program, fusion)
    moved: list[tuple[int, bool]] = []
    for number, name in enumerate(fusion.operands):
        outer, parameter = computation.by_name.get(name), inner.parameters.get(number)
        if outer is None or parameter is None:
            continue
        size = sum(array.num_bytes for array in outer.arrays)
        read = min(size, _bytes_read(program, inner, parameter))
        moved.append((read, all(array.in_hbm for array in outer.arrays)))
    roots = [inner.by_name[name] for name in inner.root.operands] if inner.root.opcode == "tuple" else [inner.root]
    for root, array in zip(roots, fusion.arrays, strict=False):
        moved.append((_bytes_written(program, inner, root, array), array.in_hbm))
    return moved


def _bytes_read(program: Program, computation: Computation, value: Instruction) -> int:
    """Return how much of a value a fused computation reads; a value that is updated in place is not read."""
    size = sum(array.num_bytes for array in value.arrays)
    read = 0
    for user in computation.users.get(value.name, []):
        first = user.operands and user.operands[0] == value.name
        inner = _fused(program, user) if user.opcode == "fusion" else None
        if user.opcode == "bitcast" or (inner is not None and _passes_on(inner)):
            read += _bytes_read(program, computation, user)
        elif inner is not None:
            numbers = [number for number, name in enumerate(user.operands) if name == value.name]
            read += sum(_bytes_read(program, inner, inner.parameters[number]) for number in numbers)
        elif user.opcode in _PARTIAL and first:
            read += sum(array.num_bytes for array in user.arrays)
        elif not (user.opcode in ("dynamic-update-slice", "scatter") and first):
            return size
        if read >= size:
            return size
    return read


def _fused(program: Program, fusion: Instruction) -> Computation:
    return program.computations[fusion.attribute(r"calls=%?([\w.\-]+)")]


def _passes_on(inner: Computation) -> bool:
    """Return whether a fusion inside another one merely gives its operand another layout, tiles included."""
    value = inner.root
    while value.opcode in ("bitcast", "copy"):
        value = inner.by_name[value.operands[0]]
    return value.opcode == "parameter"


def _bytes_written(program: Program, computation: Computation, root: Instruction, array: Array) -> int:
    """Return how much of a fusion's result is written: of an update in place the update alone."""
    while root.opcode == "bitcast" or (root.opcode == "fusion" and _passes_on(_fused(program, root))):
        root = computation.by_name[root.operands[0]]
    if root.opcode == "dynamic-update-slice" and len(root.operands) > 1:
        update = computation.by_name.get(root.operands[1])
        if update is not None:
            return sum(one.num_bytes for one in update.arrays)
    return array.num_bytes


def _collectives(computation: Computation, instruction: Instruction) -> tuple[Collective, ...]:
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return ()
    operands = [computation.by_name[name] for name in instruction.operands if name in computation.by_name]
    given = sum(array.num_bytes for one in operands for array in one.arrays)
    arrays = instruction.arrays
    if instruction.opcode.endswith("-start") and kind in ("all-gather", "collective-permute"):
        arrays = arrays[len(operands) : 2 * len(operands)]  # (operands, results, context)
    returned = sum(array.num_bytes for array in arrays)
    shapes = tuple(f"{array.dtype}[{','.join(map(str, array.dims))}]" for array in arrays)
    return (Collective(kind, max(given, returned), _group_size(instruction), 1, shapes),)


def _group_size(instruction: Instruction) -> int:
    """Return how many devices one group has, in each of the ways in which HLO writes groups; 2 for a permutation.

    Raises:
        ValueError: they are written in another way.
    """
    if instruction.opcode.startswith("collective-permute"):
        return 2
    groups = instruction.attribute(r"replica_groups=\{\{([\d,]+)\}")
    if groups:
        return len(groups.split(","))
    iota = instruction.attribute(r"replica_groups=\[\d+,(\d+)\]")
    if iota:
        return int(iota)
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, ?device_ids=\((?:[^()]|\([^()]*\))*\))? ?\{([^}]*)\}",
        instruction.attributes,
    )
    if mesh:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    raise ValueError(f"the devices of {instruction.name} are not understood: {instruction.attributes[:200]}")


def _flops(computation: Computation, instruction: Instruction) -> float:
    if instruction.opcode == "custom-call":
        for name, products in _SPLASH_PRODUCTS.items():
            if instruction.name.startswith(name):
                query, key = (computation.by_name[one].arrays[0] for one in instruction.operands[2:4])
                return 2.0 * products * math.prod(query.dims) * key.dims[-2]
        declared = instruction.attribute(r'"cost_estimate":\{[^}]*"flops":"?(\d+)')
        return float(declared or 0)
    if instruction.opcode not in ("dot", "convolution"):
        return 0.0
    left, right = (computation.by_name[name].arrays[0] for name in instruction.operands[:2])
    result = instruction.arrays[0]
    if instruction.opcode == "dot":
        contracted = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}")
        return 2.0 * math.prod(result.dims) * math.prod(left.dims[int(dim)] for dim in contracted.split(",") if dim)
    return _convolution_flops(instruction, left, right, result)


def _convolution_flops(instruction: Instruction, left: Array, right: Array, result: Array) -> float:
    """Return 2 · products that are not with padding: batched matrix products come as dilated windows, mostly zeros."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels is not None, instruction.attributes[:200]
    window = instruction.attribute(r"window=\{([^}]*)\}")
    sizes = {name: values.split("x") for name, values in re.findall(r"(\w+)=([\d_x\-]+)", window)}
    groups = int(instruction.attribute(r"batch_group_count=(\d+)") or 1)
    total = 2.0 * left.dims[labels[1].index("b")] / groups
    total *= result.dims[labels[3].index("f")] * right.dims[labels[2].index("i")]
    for place, size in enumerate(sizes.get("size", [])):
        low = sizes["pad"][place].split("_")[0] if "pad" in sizes else "0"
        total *= _valid_products(
            size=int(size),
            given=left.dims[labels[1].index(str(place))],
            returned=result.dims[labels[3].index(str(place))],
            stride=int(sizes["stride"][place]) if "stride" in sizes else 1,
            low=int(low),
            lhs_dilation=int(sizes["lhs_dilate"][place]) if "lhs_dilate" in sizes else 1,
            rhs_dilation=int(sizes["rhs_dilate"][place]) if "rhs_dilate" in sizes else 1,
        )
    return total


@functools.lru_cache(maxsize=1024)
def _valid_products(
    *, size: int, given: int, returned: int, stride: int, low: int, lhs_dilation: int, rhs_dilation: int
) -> int:
    """Return, along one dimension, how many pairs of a window's place and a result meet an element that is given."""
    length = (given - 1) * lhs_dilation + 1
    places = (at * stride + inside * rhs_dilation - low for at in range(returned) for inside in range(size))
    return sum(0 <= place < length and place % lhs_dilation == 0 for place in places)
