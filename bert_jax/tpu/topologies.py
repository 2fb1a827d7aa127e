"""Names of TPU slices → shapes → the devices that a program is compiled for; no TPU is needed.

`v5e-256` is an accelerator type, `v5e:16x16` the same as a shape in chips. Devices come from the libtpu package, which
compiles for any topology on an x86 Linux machine.
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from bert_jax.tpu.chips import CHIPS, Chip


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or several slices of equal shape.

    Attributes:
        chip: the generation.
        shape: chips along each dimension of a slice's torus.
        num_slices: that the data-centre network connects.
    """

    chip: Chip
    shape: tuple[int, ...]
    num_slices: int = 1

    @property
    def name(self) -> str:
        """Return the accelerator type, or the shape where that has no type; slices in front, as `2 × v5e-16`."""
        units = math.prod(self.shape) * self.chip.units_per_chip
        by_type = f"{self.chip.generation}-{units}"
        one = by_type if accelerator_types(self.chip).get(by_type) == self.shape else self.shape_name
        return one if self.num_slices == 1 else f"{self.num_slices} × {one}"

    @property
    def shape_name(self) -> str:
        """Return libtpu's name of a slice, such as `v5e:4x4`."""
        return f"{self.chip.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def num_chips(self) -> int:
        """Return the chips of all slices."""
        return math.prod(self.shape) * self.num_slices

    @property
    def num_devices(self) -> int:
        """Return the JAX devices of all slices."""
        return self.num_chips * self.chip.devices_per_chip


def accelerator_types(chip: Chip) -> dict[str, tuple[int, ...]]:
    """Return the types of a generation with their shapes: each power of two, as near to a cube as it goes."""
    types = {}
    for exponent in range(chip.max_chips.bit_length()):
        if 2**exponent not in chip.skipped_chips:
            types[f"{chip.generation}-{2**exponent * chip.units_per_chip}"] = _shape(exponent, chip.dimensions)
    return types


def _shape(exponent: int, dimensions: int) -> tuple[int, ...]:
    """Return 2**exponent chips as a torus, short sides first; 4 chips in three dimensions are 2 × 2 × 1."""
    sides = tuple(2 ** ((exponent + place) // dimensions) for place in range(dimensions))
    return tuple(sorted(sides, reverse=True)) if exponent < dimensions else sides


def parse_topology(name: str, num_slices: int = 1) -> Topology:
    """Return the topology that an accelerator type (`v5e-256`) or a shape (`v5e:16x16`) names.

    Raises:
        ValueError: an unknown generation, type or shape; the message has those that are accepted.
    """
    match = re.fullmatch(r"(\w+?)([-:])(\d+(?:x\d+)*)", name)
    chip = CHIPS.get(match[1]) if match else None
    if match is None or chip is None:
        raise ValueError(
            f"topology is {name!r}; accepted: an accelerator type such as v5e-8, or a shape in chips such as v5e:2x4, "
            f"of the generations {', '.join(CHIPS)}"
        )
    if num_slices < 1:
        raise ValueError(f"num_slices is {num_slices}; it takes 1 or more")
    types = accelerator_types(chip)
    if match[2] == "-":
        if name not in types:
            raise ValueError(f"topology is {name!r}; accepted of {chip.generation}: {', '.join(types)}, or a shape")
        return Topology(chip, types[name], num_slices)
    shape = tuple(int(side) for side in match[3].split("x"))
    whole_hosts = math.prod(shape) == 1 or all(side % 2 == 0 for side in shape[:2])
    if len(shape) != chip.dimensions or not whole_hosts or math.prod(shape) > chip.max_chips:
        raise ValueError(
            f"topology is {name!r}; a slice of {chip.generation} has {chip.dimensions} sides, the first two even (a "
            f"host has 2 × 2 chips; one chip alone is all ones), and at most {chip.max_chips} chips, such as "
            f"{', '.join(':'.join((chip.generation, 'x'.join(map(str, shape)))) for shape in list(types.values())[:4])}"
        )
    return Topology(chip, shape, num_slices)


def devices(topology: Topology) -> list[Any]:
    """Return the devices of a topology, to make a mesh of; JAX itself runs on the CPU.

    Raises:
        ValueError: libtpu is not installed, or refuses the shape.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            'compiling for a TPU takes the libtpu package (x86 Linux): use the environment of "make tpu-check", '
            'or pip install ".[tpu]"'
        )
    # libtpu reads these when it is loaded: no metadata server is asked, and several processes may compile at once.
    for variable, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "true"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_WORKER_ID", "0"),
        ("TPU_STDERR_LOG_LEVEL", "3"),
        ("TPU_MIN_LOG_LEVEL", "3"),
    ):
        os.environ.setdefault(variable, value)
    import jax
    from jax.experimental.topologies import get_topology_desc

    jax.config.update("jax_platforms", "cpu")
    options: dict[str, Any] = {}
    if topology.chip.chip_config:
        options["chip_config_name"] = topology.chip.chip_config
    if math.prod(topology.shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if topology.num_slices > 1:
        options["num_slices"] = topology.num_slices
    try:
        return list(get_topology_desc(platform="tpu", topology_name=topology.shape_name, **options).devices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"libtpu does not know the topology {topology.shape_name}: {error}") from error
