"""Damage to a checkpoint: what counts as such, what merely kept one from being read, and how a step stops to count."""

import contextlib
import itertools
import re

import jax
from etils import epath

from bert_jax.corpus.remote import is_object_store

DELETED = ".deleted"  # suffix of a checkpoint's directory while it is being deleted
DAMAGED = ".damaged"  # suffix of a checkpoint's directory that was set aside
TRY_AGAIN = "that is no damage: correct what it tells (permissions, disk, network, a lost process), then try again"
OTHER_MODEL = (
    "it is of another model: use the config and the code that wrote it (config.json; run.json names the commit), or "
    "another --workdir"
)
_LIBRARIES = ("aiohttp", "gcsfs", "google", "requests", "urllib3")  # whose errors are of the network and of services
# Statuses of a store or of the processes' coordination that say nothing of what was written.
_PASSING = re.compile(r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|PERMISSION_DENIED)\b")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read."""


class DamagedCheckpointError(CheckpointError):
    """What was read is not what was written, or cannot be read."""


def is_passing(error: BaseException | None) -> bool:
    """Return whether an error, or what caused it, says nothing of what was written: reading may succeed another time.

    A missing file is damage. XLA's errors are of devices and of other processes, never of files.
    """
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            return True
        if type(error).__module__.partition(".")[0] in _LIBRARIES and not isinstance(error, FileNotFoundError):
            return True
        if isinstance(error, MemoryError | jax.errors.JaxRuntimeError) or _PASSING.search(str(error)):
            return True
        error = error.__cause__
    return False


def disk_error(error: Exception) -> Exception:
    """Return the disk's or the bucket's own error that an error came of; the error itself where there is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def not_restored(directory: epath.Path, error: Exception, way_out: str) -> CheckpointError:
    """Return the error that says why a step's directory cannot be restored.

    Args:
        directory: the step's.
        error: of orbax.
        way_out: what to do where it is damaged.
    """
    short = re.split(r" \[tensorstore_spec| See full TensorStore", str(error))[0]
    message = f"{directory} cannot be restored ({type(error).__name__}: {short}); "
    if "RESOURCE_EXHAUSTED" in message:
        advice = "the devices have too little memory; free it, or use more of them (config.mesh.fsdp)"
        return CheckpointError(message + advice)
    if "is not compatible with the stored shape" in message:
        return CheckpointError(message + OTHER_MODEL)
    if is_passing(error):
        return CheckpointError(message + TRY_AGAIN)
    return DamagedCheckpointError(message + way_out)


def withdraw(directory: epath.Path, suffix: str) -> epath.Path | None:
    """Let a step's directory not count any more, in one operation, and never in the place of another one.

    Any number of processes may call this at once: one of them renames, the others find nothing left to rename. They do
    not wait for each other, as damage may be seen by one alone, while the others are still in orbax' barrier.

    Returns:
        The new name: `<step><suffix>`, or `<step>.2<suffix>` and so on where that is taken. None where another process
        was first, and on an object store, which cannot rename: there the commit file counts, and orbax deletes a step
        without one at the next start.
    """
    if is_object_store(directory):
        with contextlib.suppress(FileNotFoundError):
            (directory / "commit_success.txt").unlink()
        return None
    name = directory.name
    names = itertools.chain([f"{name}{suffix}"], (f"{name}.{number}{suffix}" for number in itertools.count(2)))
    try:
        while True:
            with contextlib.suppress(FileExistsError):  # of epath, which replaces nothing
                return directory.rename(directory.with_name(next(names)))
    except FileNotFoundError:
        return None
