"""A run's directory: one run at a time writes there, and only with the config that it was started with.

It holds config.json, run.json, metrics.jsonl, tokenizer/, checkpoints/, TensorBoard's events and, at the end of a
task, result.json; `lock` is there to be locked, in a bucket by a lease (`lease.py`).
"""

import dataclasses
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import IO, Any

import jax
from etils import epath

from bert_jax.config import build, differences, fingerprint, to_plain
from bert_jax.corpus.remote import is_object_store
from bert_jax.training.lease import Lease, WorkdirInUseError

# What may change between the runs of one directory: how long, how often, where, and on which machines.
MAY_DIFFER = re.compile(
    r"train\.(num_steps|log_every_steps|save_every_steps|keep_checkpoints|on_nonfinite|reference_curve)$"
    r"|eval\.(every_steps|batch_size)$|mesh\.|data\.(corpus|directory|train|dev|test|num_threads|prefetch_batches)$|init_from$"
)
VERSIONS_OF = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "array-record", "numpy")


class Workdir:
    """An open, locked directory. Every process has one; process 0 alone writes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Create the directory and take its lock, which ends with the process, however that ends.

        Raises:
            ValueError: the directory holds something else than a run; nothing was written there.
            WorkdirInUseError: another process has the lock, on this machine or, for gs://, on any.
        """
        self.path = epath.Path(path)
        stored = self._stored_config()
        if stored is not None and "train" not in stored:
            raise ValueError(
                f"{self.path}/config.json is not a training run's (a corpus has one too); give --workdir a directory "
                "of its own"
            )
        self.is_writer = jax.process_index() == 0
        self._lock: IO[str] | Lease | None = None
        if self.is_writer:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path)

    def changes(self, config: Any) -> dict[str, tuple[Any, Any]]:
        """Hold the config against the one that the run was started with; for a directory that has checkpoints.

        Args:
            config: resolved. If it is a dataclass, a setting that is younger than the run has its default there.

        Returns:
            `{name: (old, new)}` of the differences that are allowed.

        Raises:
            ValueError: a difference that would make another run of it, or no config to compare with.
        """
        stored = self._stored_config()
        if stored is None:
            raise ValueError(f"{self.path} has checkpoints, but no config.json to resume with; use another --workdir")
        if dataclasses.is_dataclass(config):
            stored = to_plain(build(type(config), stored, f"{self.path}/config.json: config"))
        changed = differences(_as_json(stored), _as_json(to_plain(config)))
        refused = {name: values for name, values in changed.items() if not MAY_DIFFER.match(name)}
        if refused:
            lines = [f"  config.{name} was {old!r}, is {new!r}" for name, (old, new) in refused.items()]
            raise ValueError(
                f"{self.path} holds a run with another config:\n" + "\n".join(lines) + "\nUse the old values to "
                "resume it (the number of steps, the intervals, the mesh and paths may differ), or another "
                "--workdir for a new run"
            )
        return changed

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file by rename, in process 0."""
        if not self.is_writer:
            return
        temporary = self.path / f"{name}.tmp"
        temporary.write_text(json.dumps(value, indent=2) + "\n")
        temporary.replace(self.path / name)

    def copy_tokenizer(self, directory: str | os.PathLike[str]) -> None:
        """Copy what is needed to encode text, so that the run is whole without its corpus."""
        if not self.is_writer:
            return
        target = self.path / "tokenizer"
        target.mkdir(parents=True, exist_ok=True)
        for source in epath.Path(directory).iterdir():
            if source.is_file():
                (target / source.name).write_bytes(source.read_bytes())

    def check_lock(self) -> None:
        """Make sure, before something is written that counts, that the directory is still this run's.

        Raises:
            LeaseLostError: it is in a bucket, and another run has taken it over.
        """
        if isinstance(self._lock, Lease):
            self._lock.check()

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _stored_config(self) -> dict[str, Any] | None:
        path = self.path / "config.json"
        return json.loads(path.read_text()) if path.exists() else None


def default_path(config_file: str, arg: str | None, overrides: dict[str, Any]) -> Path:
    """Return `runs/<config>-<args>-<8 hex of the overrides>`.

    Args:
        config_file: `configs/bert.py`.
        arg: what stood behind the colon; None or "" when nothing did.
        overrides: the `--config.key=value` flags.
    """
    parts = [Path(config_file).stem, *([re.sub(r"[^\w.=,-]+", "_", arg)] if arg else []), fingerprint(overrides)]
    return Path("runs") / "-".join(parts)


def describe_environment() -> dict[str, Any]:
    """Return the machine, the library versions and the git commit, for run.json."""
    devices = jax.devices()
    return {
        "device_kind": devices[0].device_kind,
        "platform": devices[0].platform,
        "devices": len(devices),
        "processes": jax.process_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """Return the commit of the code, with `+changes` if tracked files differ from it; None outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*command: str) -> str:
        root = Path(__file__).resolve().parent
        done = subprocess.run([git, *command], cwd=root, capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip()

    commit = ask("rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if ask("status", "--porcelain", "--untracked-files=no") else "")


def _as_json(plain: Any) -> Any:
    """Return what comes back from a JSON file."""
    return json.loads(json.dumps(plain))


def take_lock(path: os.PathLike[str]) -> IO[str] | Lease:
    """Lock `<path>/lock` as long as what is returned is open: a file, or the lease of a directory in a bucket.

    Raises:
        WorkdirInUseError: another process has the lock.
    """
    if is_object_store(path):
        return Lease(path)
    # flock, not a file that exists: the kernel frees it when the process ends, kill -9 included.
    lock = open(Path(path) / "lock", "a+", encoding="utf-8")  # noqa: SIM115 - held until close()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise WorkdirInUseError(
            f"{path} is in use by {holder}; wait for it or end it (what it saved is kept), or use another --workdir"
        ) from None
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()
    return lock
