"""Progress of preparing a corpus on the terminal."""

import time
from typing import Any

import tqdm


class Progress:
    """One bar at a time; silent when it is not enabled.

    Attributes:
        num_bytes: bytes of clean text so far, for the rate.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.num_bytes = 0
        self._started = time.perf_counter()
        self._bar: Any = None

    def start(self, what: str, total: int, unit: str) -> None:
        """Begin a bar of `total` units; bytes of input get a rate in MB/s and a time that is left."""
        self.close()
        self._started = time.perf_counter()
        self.num_bytes = 0
        self._bar = tqdm.tqdm(
            desc=f"{what:10}",
            total=total,
            unit=unit,
            unit_scale=unit == "B",
            disable=not (self.enabled and total),
            mininterval=0.5,
        )

    def add(self, amount: int) -> None:
        """Advance the bar."""
        self._bar.update(amount)

    def to(self, position: int) -> None:
        """Advance the bar to a position."""
        self._bar.update(position - self._bar.n)
        seconds = max(time.perf_counter() - self._started, 1e-9)
        self._bar.set_postfix_str(f"{self.num_bytes / 1e6 / seconds:.1f} MB/s of clean text", refresh=False)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
