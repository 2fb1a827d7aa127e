"""A compiled program's text (HLO) as data: computations, their instructions, and the arrays those read and write."""

import dataclasses
import functools
import math
import re

_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\](\{[^{}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_HBM, _HOST = 0, 5  # memory spaces; the others are on the chip


@dataclasses.dataclass(frozen=True)
class Array:
    """An array's type, as one device holds it.

    Attributes:
        dtype: HLO's name.
        dims: its shape.
        memory_space: 0 is HBM; 1 the chip's vector memory, and other numbers smaller ones on the chip; 5 the host.
    """

    dtype: str
    dims: tuple[int, ...]
    memory_space: int = _HBM

    @property
    def num_bytes(self) -> int:
        """Return its size without padding to tiles."""
        bits = re.match(r"[a-z]+?(\d+)", self.dtype)
        if self.dtype == "pred":
            return math.prod(self.dims)
        return math.prod(self.dims) * int(bits[1]) // 8 if bits else 0

    @property
    def in_hbm(self) -> bool:
        """Return whether reading or writing it goes through the chip's main memory."""
        return self.memory_space == _HBM


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: unique in the computation.
        opcode: such as "fusion".
        arrays: what it returns; a tuple's leaves in order.
        operands: names of instructions.
        arguments: the text between its parentheses: the operands, a constant's value, a parameter's number.
        attributes: the text behind them.
        is_root: whether the computation returns it.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool = False

    def attribute(self, pattern: str) -> str:
        """Return the first group of a pattern in the attributes, "" if it is not there."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else ""

    @property
    def called(self) -> list[str]:
        """Return the computations that it runs, a loop's condition and reductions' operators aside."""
        kinds = "calls|body|true_computation|false_computation"
        if self.opcode in ("call", "call-start"):  # others apply an operator to each pair of numbers
            kinds += "|to_apply"
        names = re.findall(rf"(?:{kinds})=%?([\w.\-]+)", self.attributes)
        branches = self.attribute(r"branch_computations=\{([^}]*)\}")
        return names + re.findall(r"%?([\w.\-]+)", branches)


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions, in the order in which they run."""

    name: str
    instructions: tuple[Instruction, ...]

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Return the instructions by name."""
        return {instruction.name: instruction for instruction in self.instructions}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Return who reads each instruction."""
        users: dict[str, list[Instruction]] = {instruction.name: [] for instruction in self.instructions}
        for instruction in self.instructions:
            for operand in dict.fromkeys(instruction.operands):
                users.setdefault(operand, []).append(instruction)
        return users

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Return the parameters by their number."""
        return {int(one.arguments): one for one in self.instructions if one.opcode == "parameter"}

    @property
    def root(self) -> Instruction:
        """Return what the computation returns."""
        return next((one for one in self.instructions if one.is_root), self.instructions[-1])


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled module: computations by name, and the one that runs first."""

    computations: dict[str, Computation]
    entry: str


def parse_program(text: str) -> Program:
    """Read the text of a compiled module, as `Compiled.as_text()` gives it.

    Raises:
        ValueError: it has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, name, instructions = "", "", []
    for line in text.splitlines():
        if line.startswith("}"):  # behind it may stand on which core it runs: }, execution_thread="sparsecore"
            computations[name] = Computation(name, tuple(instructions))
            continue
        header = _HEADER.match(line)
        if header:
            name, instructions = header[2], []
            entry = name if header[1] else entry
            continue
        instruction = _parse_instruction(line)
        if instruction is not None:
            instructions.append(instruction)
    if not entry:
        raise ValueError("the text has no ENTRY computation; give the whole text of one compiled module")
    return Program(computations, entry)


def _parse_instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    rest = line[match.end() :]
    type_end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opening = rest.find("(", type_end)
    if opening < 0:
        return None
    closing = _closing(rest, opening)
    arguments = rest[opening + 1 : closing]
    return Instruction(
        name=match[2],
        opcode=rest[type_end:opening].strip(),
        arrays=_parse_arrays(rest[:type_end]),
        operands=tuple(re.findall(r"%([\w.\-]+)", arguments)),
        arguments=arguments,
        attributes=rest[closing + 1 :],
        is_root=bool(match[1]),
    )


def _parse_arrays(text: str) -> tuple[Array, ...]:
    arrays = []
    for dtype, dims, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout)
        shape = tuple(int(size) for size in dims.split(",")) if dims else ()
        arrays.append(Array(dtype, shape, int(space[1]) if space else _HBM))
    return tuple(arrays)


def _closing(text: str, opening: int) -> int:
    """Return where the parenthesis that opens at `opening` closes."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"a parenthesis is never closed in {text[:200]!r}")
