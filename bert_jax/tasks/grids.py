"""The published grids of fine-tuning, and seeds alone."""

import itertools
from collections.abc import Callable, Sequence

Add = Callable[..., None]


def paper(add: Add, seeds: int) -> None:
    """Add Devlin et al. 2019 A.3: batch 16 and 32, rate 5e-5, 3e-5 and 2e-5, 2 to 4 epochs."""
    product(add, (16, 32), (5e-5, 3e-5, 2e-5), (2, 3, 4), seeds)


def small(add: Add, seeds: int) -> None:
    """Add the grid of the 24 smaller BERTs (google-research/bert README, March 2020): 4 epochs."""
    product(add, (8, 16, 32, 64, 128), (3e-4, 1e-4, 5e-5, 3e-5), (4,), seeds)


def seeds_only(add: Add, seeds: int) -> None:
    """Add the config as it stands, once a seed."""
    for seed in range(seeds):
        add(seed=seed)


def product(add: Add, batch_sizes: Sequence[int], rates: Sequence[float], epochs: Sequence[int], seeds: int) -> None:
    """Add every combination; trials that can share compiled steps follow each other."""
    for batch_size, num_epochs, rate, seed in itertools.product(batch_sizes, epochs, rates, range(seeds)):
        values = {"data.batch_size": batch_size, "num_epochs": num_epochs, "optim.peak_learning_rate": rate}
        add(**values, seed=seed)


GRIDS: dict[str, Callable[[Add, int], None]] = {"paper": paper, "small": small, "seeds": seeds_only}
