"""Several processes as one run: how they join, and how one that cannot go on ends, and the others with it.

Each of them computes a part of every step, so none can go on without the others. A run that lost a process ends, and
the same command resumes it from its last checkpoint, on as many processes as there then are.
"""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator

import jax

HEARTBEAT_TIMEOUT_SECONDS = 100  # jax.distributed's own
_SPOKEN_FOR = (OSError, ValueError, RuntimeError, FloatingPointError)  # errors that say what to do
# XLA's have any type, and begin with a status: "UNKNOWN: Gloo AllGather failed: … Connection reset by peer".
_STATUS = re.compile(r"[A-Z_]+: ")


def join(
    address: str | None, num_processes: int | None, process_id: int | None, heartbeat_timeout_seconds: int
) -> None:
    """Make this process one of several; each of them calls it before anything else of JAX.

    Args:
        address: HOST:PORT of process 0; None, as the next two, where JAX finds it by itself (TPU slices, SLURM).
        num_processes: in all.
        process_id: from 0.
        heartbeat_timeout_seconds: without a sign of life, after which a process counts as lost and the others end.
    """
    if heartbeat_timeout_seconds < 1:
        raise ValueError(f"--heartbeat_timeout_seconds is {heartbeat_timeout_seconds}; use 1 or more")
    jax.distributed.initialize(address, num_processes, process_id, heartbeat_timeout_seconds=heartbeat_timeout_seconds)


@contextlib.contextmanager
def sharing_fate() -> Iterator[None]:
    """End this process at once when an error leaves the context, if it is one of several.

    What is open is not closed: a checkpoint's writer, as Python's own end, would wait for the other processes, which
    wait for this one in a computation. They notice the end of this one by its connections or its heartbeat.
    """
    try:
        yield
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        print(_explain(error), file=sys.stderr)  # noqa: T201 - nobody above is left to say it
        end(1)


def end(code: int) -> int:
    """Return the exit code, in a process alone; one of several ends at once, see `sharing_fate`."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _explain(error: Exception) -> str:
    who = f"process {jax.process_index()} of {jax.process_count()}"
    if _STATUS.match(str(error)):
        return (
            f"{who} cannot go on: {error}\nIf another process has ended, its own last lines say why. What was saved is "
            "kept: start the command again on all processes, of which there may be another number"
        )
    return f"{who}: {error}" if isinstance(error, _SPOKEN_FOR) else f"{who}:\n{traceback.format_exc()}"
