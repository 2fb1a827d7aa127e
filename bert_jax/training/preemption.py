"""SIGTERM and Ctrl-C: finish the step, save, and leave with a code of its own.

One process has its own handler. Several processes agree, through JAX's coordination service, on one moment at which all
of them save; JAX catches SIGTERM there, on whichever host it arrives.
"""

import signal
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # sysexits.h EX_TEMPFAIL: run the same command again


class Preemption:
    """Knows whether the run was asked to stop. Use it as a context; leaving restores the former handlers."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._requested = False
        self._checks = 0  # on which several processes agree; all of them make the same ones
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "Preemption":
        """Install the handlers (one process only)."""
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the former handlers."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def requested(self) -> bool:
        """Return whether to stop; all processes, which ask equally often, learn it at the same time."""
        if jax.process_count() > 1 and not self._requested:
            self._checks += 1
            self._requested = multihost_utils.reached_preemption_sync_point(self._checks)
        return self._requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._requested = True
        if number == signal.SIGINT:  # a second Ctrl-C is meant
            signal.signal(signal.SIGINT, self._former[signal.SIGINT])
