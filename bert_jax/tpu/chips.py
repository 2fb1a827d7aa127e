"""What a TPU chip can do, by generation: the peaks that a step is held against.

Source: Google Cloud's pages of each generation (docs.cloud.google.com/tpu/docs/v3, v4, v5e, v5p, v6e, tpu7x). A chip's
interconnect rate is what all its links send together: half of the page's bidirectional figure (v5p, tpu7x), or the
pod's all-reduce bandwidth divided by its chips (v4, v5e, v6e). The page of v3 gives none.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation of chips.

    Attributes:
        generation: Google's short name, before the hyphen of an accelerator type.
        flops_per_second: peak, bfloat16.
        hbm_bytes_per_second: to and from memory.
        link_bytes_per_second: that a chip sends to its neighbours over all links together; None = not published.
        devices_per_chip: JAX devices, which share the chip's rates.
        units_per_chip: what an accelerator type counts: v5e-8 has 8 chips, v4-8 has 8 cores on 4 chips.
        dimensions: of the torus that the links make.
        max_chips: of a slice.
        skipped_chips: powers of two below the maximum that are not offered by name.
        chip_config: libtpu's name for how a chip's cores make devices; "" = its own choice.
    """

    generation: str
    flops_per_second: float
    hbm_bytes_per_second: float
    link_bytes_per_second: float | None
    devices_per_chip: int
    units_per_chip: int
    dimensions: int
    max_chips: int
    skipped_chips: tuple[int, ...] = ()
    chip_config: str = ""


CHIPS = {
    chip.generation: chip
    for chip in (
        Chip("v3", 123e12, 900e9, None, 2, 2, 2, 1024, (1, 2, 8)),
        Chip("v4", 275e12, 1200e9, 268e9, 1, 2, 3, 4096, (1, 2), "megacore"),
        Chip("v5e", 197e12, 819e9, 200e9, 1, 1, 2, 256, (2,)),
        Chip("v5p", 459e12, 2765e9, 600e9, 1, 2, 3, 4096, (1, 2)),
        Chip("v6e", 918e12, 1600e9, 400e9, 1, 1, 2, 256, (2,)),
        Chip("tpu7x", 2307e12, 7380e9, 600e9, 2, 2, 3, 8192, (1, 2)),
    )
}
