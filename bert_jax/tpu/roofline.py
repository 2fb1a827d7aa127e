"""The least time that a step can take on a chip: the longest of its computing, its memory and its links.

A bound, not a forecast: each part is taken at its peak, all of them at once, and what the vector unit does (dropout,
GELU, softmax) is not in it at all. Nor is what several slices send each other over the data-centre network.
"""

import dataclasses

from bert_jax.tpu.chips import Chip
from bert_jax.tpu.costs import Costs


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Bounds of one step.

    Attributes:
        compute_seconds: matrix products at the peak rate, recomputed ones included.
        memory_seconds: HBM's bytes at its peak rate.
        interconnect_seconds: what one device must send, over all links; None = the rate is not published.
        mfu_bound: the formula's FLOPs (no recomputation) in the longest of the three, over the peak rate.
    """

    compute_seconds: float
    memory_seconds: float
    interconnect_seconds: float | None
    mfu_bound: float

    @property
    def seconds(self) -> float:
        """Return the bound on the step's time."""
        return max(self.parts.values())

    @property
    def limited_by(self) -> str:
        """Return which part is the longest: compute, memory or interconnect."""
        return max(self.parts, key=lambda name: self.parts[name])

    @property
    def parts(self) -> dict[str, float]:
        """Return the seconds of the parts that are known."""
        known = {"compute": self.compute_seconds, "memory": self.memory_seconds}
        if self.interconnect_seconds is not None:
            known["interconnect"] = self.interconnect_seconds
        return known


def roofline(costs: Costs, formula_flops: float, chip: Chip) -> Roofline:
    """Return the bounds of a step.

    Args:
        costs: of one device.
        formula_flops: of the model's step by the published formula, one device's part.
        chip: its generation.
    """
    peak = chip.flops_per_second / chip.devices_per_chip
    links = chip.link_bytes_per_second
    compute = costs.flops / peak
    memory = costs.hbm_bytes / (chip.hbm_bytes_per_second / chip.devices_per_chip)
    interconnect = None if links is None else costs.sent_bytes / (links / chip.devices_per_chip)
    longest = max(compute, memory, interconnect or 0.0)
    return Roofline(compute, memory, interconnect, formula_flops / peak / longest)
