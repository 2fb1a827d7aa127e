"""Checkpoints: what is saved, when it counts as saved, and how it comes back. Orbax is known to this file only.

    checkpoints/<step>/params        the model's parameters alone, so that tools load nothing else
    checkpoints/<step>/train_state   step, optimizer, carry, skipped steps
    checkpoints/<step>/meta          JSON: format version, step, checksums, open metric window, data fingerprint, …

A step counts when its directory was committed on disk (renamed into place), never because a save was started. Arrays
are stored with their global shapes, so a checkpoint comes back on another mesh and another number of processes.
"""

import contextlib
import dataclasses
import json
import math
import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from bert_jax.config import choose, fingerprint, first_names
from bert_jax.corpus.remote import is_object_store
from bert_jax.training.best import best_step, rank
from bert_jax.training.checksums import changed, checksums, other_names
from bert_jax.training.damage import (
    DAMAGED,
    DELETED,
    OTHER_MODEL,
    TRY_AGAIN,
    CheckpointError,
    DamagedCheckpointError,
    disk_error,
    is_passing,
    not_restored,
    withdraw,
)
from bert_jax.training.state import TrainState

FORMAT_VERSION = 1
ITEMS = ("params", "train_state", "meta")
DIRECTORY = "checkpoints"
SAVE_TIMEOUT_SECONDS = 600  # after which processes no longer wait for one whose save failed
_DIGEST = "digest"  # of all else that a meta says
_IN_BUCKETS = "(in a bucket: deletes it)"
_WITHOUT_META = (
    f"copy its directory again, or resume from the one before with --fall_back, which sets it aside {_IN_BUCKETS}"
)
RUN = "run"  # scheme of the addresses of runs
SCHEMES = (RUN, "hf", "google", "elmo")  # see `addresses.py`


class Checkpoints:
    """The checkpoints of one run. Every process makes one and calls its methods at the same steps."""

    def __init__(self, workdir: str | os.PathLike[str], max_to_keep: int) -> None:
        """Open `<workdir>/checkpoints`; remains of saves that were interrupted are removed.

        Args:
            workdir: the run's directory, local or gs://.
            max_to_keep: newest checkpoints to keep, 1 or more; the best by evaluation is kept besides.
        """
        if max_to_keep < 1:
            raise ValueError(f"config.train.keep_checkpoints is {max_to_keep}; keep 1 or more")
        self._directory = _absolute(workdir) / DIRECTORY
        self._max_to_keep = max_to_keep
        self._ranks = {step: _rank_on_disk(workdir, step) for step in committed_steps(workdir)}
        if jax.process_index() == 0:
            for doomed in self._directory.glob(f"*{DELETED}"):
                doomed.rmtree()
        self._manager = ocp.CheckpointManager(
            self._directory,
            item_names=ITEMS,
            options=ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=True,
                # Else a directory that cannot be made is told after 20 minutes, for which the writers wait for it.
                async_options=ocp.AsyncOptions(SAVE_TIMEOUT_SECONDS, create_directories_asynchronously=False),
            ),
        )
        self._saving: int | None = None
        self._failures = 0  # in a row
        self._message: str | None = None  # of a failure that was not told yet

    def latest_step(self) -> int | None:
        """Return the newest step that is committed on disk."""
        return resumable_step(self._directory.parent)

    def step_before(self, step: int) -> int | None:
        """Return the newest step before this one that is committed on disk."""
        return max((each for each in committed_steps(self._directory.parent) if each < step), default=None)

    def read_meta(self, step: int) -> dict[str, Any]:
        """Return the meta of a committed step; see `read_meta` below for the errors."""
        return read_meta(self._directory.parent, step)

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
        """Copy the state off the devices and write it in the background; an earlier save is waited for.

        A save that fails is told by `failure`, and the run of one process goes on until the next one.

        Raises:
            CheckpointError: the save before has failed, and this one as well; with several processes: either of them.
            NotFiniteError: nothing was written.
        """
        self._settle()
        self._delete_old()
        items = _items(state)
        sums = {name: checksums(item) for name, item in items.items()}
        meta = {"format_version": FORMAT_VERSION, "step": step, "checksums": sums, **meta}
        args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        args |= {"meta": ocp.args.JsonSave(_sealed(meta))}
        self._ranks[step] = rank(meta)
        attempts = 2 if self._failures else 1  # of a failure orbax may tell again, at the next save
        for attempt in range(attempts):
            try:
                self._manager.save(step, args=ocp.args.Composite(**args), force=True)
                self._saving = step
                return
            except Exception as error:
                if attempt == attempts - 1:
                    self._note_failure(error)

    def amend(self, step: int, changes: dict[str, Any]) -> None:
        """Change the meta of a committed step, as when its evaluation was made up for."""
        meta = self.read_meta(step) | changes
        self._ranks[step] = rank(meta)
        if jax.process_index() == 0:
            path = _meta_path(self._directory.parent, step)
            temporary = path.with_name(f"{path.name}.tmp")
            temporary.write_text(json.dumps(_sealed(meta)))
            temporary.replace(path)

    def failure(self) -> str | None:
        """Return what failed, once for each save; None when nothing did or the last is still being written."""
        if not self._manager.is_saving_in_progress():
            self._settle()
        message, self._message = self._message, None
        return message

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Return the state and the meta of a step, placed as `abstract` says.

        Raises:
            CheckpointError: damaged (`DamagedCheckpointError`), of another format or model, too large for the devices,
                or out of reach.
        """
        directory = self._directory / str(step)
        meta, items = read_meta(self._directory.parent, step), _items(abstract)
        saved = meta.get("checksums", {})  # those of the first versions have none
        if differ := [f"{name} {what}" for name in saved for what in other_names(items[name], saved[name])]:
            raise CheckpointError(f"{directory} does not fit the model: {'; '.join(differ)}; {OTHER_MODEL}")
        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(item) for name, item in items.items()})
        try:
            found = self._manager.restore(step, args=args)
        except Exception as error:
            raise not_restored(directory, error, self._way_out(step)) from error
        if names := [f"{name}/{array}" for name in saved for array in changed(found[name], saved[name])]:
            listed, way_out = first_names(names), self._way_out(step)
            raise DamagedCheckpointError(f"{directory} is not what was saved: {listed}; {way_out}")
        return TrainState(params=found["params"], **found["train_state"]), meta

    def set_aside(self, step: int) -> epath.Path | None:
        """Take a damaged step out of those that count; returns its new name as `withdraw` does."""
        where = withdraw(self._directory / str(step), DAMAGED)
        self._manager.reload()
        return where

    def wait(self) -> None:
        """Wait until the last save is on disk.

        Raises:
            CheckpointError: it failed.
        """
        self._settle()
        self._delete_old()
        if self._failures:
            raise CheckpointError(f"{self._directory} lacks the last step: {self._message or 'its save failed'}")

    def close(self) -> None:
        """Free what saving needs; call `wait` before, to learn about failures."""
        with contextlib.suppress(Exception):  # of a save whose failure was told
            self._manager.close()

    def _way_out(self, step: int) -> str:
        """Return what to do about a checkpoint that is damaged."""
        older = self.step_before(step)
        if older is None:
            return "there is no older step: copy it again, or begin again in another --workdir"
        return (
            f"copy it again, or resume from step {older} with --fall_back, which sets step {step} aside {_IN_BUCKETS}"
        )

    def _settle(self) -> None:
        """Wait for the background part of a save, and note how it ended."""
        if self._saving is None:
            return
        try:
            self._saving = None
            self._manager.wait_until_finished()
            self._failures = 0
        except Exception as error:
            self._note_failure(error)

    def _delete_old(self) -> None:
        """Delete all but the newest and the best of what is on disk.

        Orbax' own deletion, killed half-way, leaves a directory that looks whole; so a directory is renamed first.
        """
        if jax.process_index() != 0:
            return
        try:
            steps = committed_steps(self._directory.parent)
            best = best_step({step: self._ranks.get(step, math.inf) for step in steps})
            for step in {*steps[: -self._max_to_keep]} - {best}:
                directory = self._directory / str(step)
                (withdraw(directory, DELETED) or directory).rmtree()
        except Exception as error:  # the disk's or the bucket's, and no reason to save nothing more
            self._message = self._message or f"an old checkpoint was not deleted ({type(error).__name__}: {error})"

    def _note_failure(self, raised: Exception) -> None:
        error, self._failures = disk_error(raised), self._failures + 1
        self._message = f"a checkpoint was not written ({type(error).__name__}: {error})"
        if self._failures > 1 or jax.process_count() > 1:  # which lost count of each other's barriers in orbax
            what = "two checkpoints in a row were" if self._failures > 1 else "a checkpoint was"
            raise CheckpointError(
                f"{what} not written to {self._directory} ({error}); free some space there or correct its permissions, "
                "then run the same command again"
            ) from error


def committed_steps(workdir: str | os.PathLike[str]) -> list[int]:
    """Return the steps whose checkpoints are whole on disk, ascending."""
    directory = epath.Path(workdir) / DIRECTORY
    if not directory.exists():
        return []
    return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(directory))


def resumable_step(workdir: str | os.PathLike[str]) -> int | None:
    """Return the newest step that a run can be resumed from; None when nothing was saved.

    Raises:
        ValueError: the checkpoint has parameters only, as a converted one.
    """
    step = max(committed_steps(workdir), default=None)
    if step is not None and not (epath.Path(workdir) / DIRECTORY / str(step) / "train_state").exists():
        raise ValueError(
            f"{workdir} has parameters only, no optimizer state, and cannot be resumed; start from it in another "
            f"--workdir by --config.init_from=run:{workdir}"
        )
    return step


def read_meta(workdir: str | os.PathLike[str], step: int) -> dict[str, Any]:
    """Return the meta of a committed step.

    Raises:
        DamagedCheckpointError: it is missing, or not what was written.
        CheckpointError: it is out of reach, or of a format that this code does not read.
    """
    path = _meta_path(workdir, step)
    try:
        meta = json.loads(path.read_text())
        version, digest = meta.get("format_version"), meta.pop(_DIGEST, None)
    except Exception as error:  # a bucket's are of any type
        if is_passing(error):
            raise CheckpointError(f"{path} cannot be read ({error}); {TRY_AGAIN}") from error
        raise DamagedCheckpointError(f"{path} cannot be read ({error}); {_WITHOUT_META}") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this code reads {FORMAT_VERSION}; "
            "use the version of the code that wrote it (run.json names the commit)"
        )
    if digest not in (None, fingerprint(meta)):  # the first ones have none
        raise DamagedCheckpointError(f"{path} is not what was saved; {_WITHOUT_META}")
    return meta


def split(address: str) -> tuple[str, str]:
    """Return the scheme of an address and what stands behind it.

    Raises:
        ValueError: not an address.
    """
    scheme, _, place = address.partition(":")
    if not place:
        raise ValueError(
            f"{address!r} is not an address; use run:DIR[@STEP|@best], hf:DIR, hf:OWNER/NAME@REVISION, "
            "google:PREFIX or elmo:DIR"
        )
    return choose(f"the scheme of {address!r}", scheme, SCHEMES), place


@dataclasses.dataclass(frozen=True)
class Address:
    """A checkpoint of a run: `run:DIR`, `run:DIR@STEP` or `run:DIR@best`, resolved to what is on disk."""

    workdir: epath.Path
    step: int


def resolve(address: str | Address) -> Address:
    """Find the checkpoint that an address names; without a step, the newest.

    What belongs together (config, parameters) is to be loaded by one resolved address: a run that goes on has another
    newest step a moment later.

    Raises:
        ValueError: not an address of a run.
        FileNotFoundError: no such run, or no such step; with the steps there are.
    """
    if isinstance(address, Address):
        return address
    scheme, rest = split(address)
    if scheme != RUN:
        raise ValueError(
            f"{address!r} is not the address of a run; use run:DIR, run:DIR@STEP or run:DIR@best "
            "(launch.convert makes runs of other systems' checkpoints)"
        )
    directory, at, which = rest.rpartition("@")
    if not at or _absolute(rest).exists():  # the @ of a directory's name
        directory, at, which = rest, "", ""
    workdir = _absolute(directory)
    steps = committed_steps(workdir)
    if not steps:
        raise FileNotFoundError(f"{address!r}: {workdir} has no checkpoint; is it the --workdir of a run?")
    if not at:
        return Address(workdir, steps[-1])
    if which == "best":
        best = best_step({step: rank(read_meta(workdir, step)) for step in steps})
        if best is None:
            raise FileNotFoundError(f"{address!r}: no checkpoint of the run was evaluated; its steps are {steps}")
        return Address(workdir, best)
    if not which.isdigit() or int(which) not in steps:
        raise FileNotFoundError(f"{address!r}: there is no step {which!r}; use @best or one of {steps}")
    return Address(workdir, int(which))


def load_params(address: str | Address, shardings: Any = None, item: str = "params") -> Any:
    """Return the parameters of a checkpoint.

    Args:
        address: `run:DIR[@step|@best]`, or what `resolve` made of it.
        shardings: one for all parameters or a tree of them; default: whole on the first local device.
        item: "params", or "train_state" for what else was saved.
    """
    found = resolve(address)
    path = found.workdir / DIRECTORY / str(found.step) / item
    if shardings is None:
        shardings = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(path).item_metadata.tree
        if isinstance(shardings, jax.sharding.Sharding):
            shardings = jax.tree.map(lambda _: shardings, stored)
        abstract = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), stored, shardings
        )
        params = checkpointer.restore(path, abstract)
    if names := changed(params, read_meta(found.workdir, found.step).get("checksums", {}).get(item)):
        raise DamagedCheckpointError(f"{path} is not what was saved: {first_names(names)}; use another step")
    return params


def save_params(workdir: str | os.PathLike[str], params: Any) -> None:
    """Write parameters alone, as the checkpoint of step 0: to be `init_from`, never resumed."""
    meta = {"format_version": FORMAT_VERSION, "step": 0, "checksums": {"params": checksums(params)}}
    items = ocp.args.Composite(params=ocp.args.StandardSave(params), meta=ocp.args.JsonSave(_sealed(meta)))
    with ocp.CheckpointManager(_absolute(workdir) / DIRECTORY, item_names=("params", "meta")) as manager:
        manager.save(0, args=items, force=True)


def load_config(address: str | Address) -> dict[str, Any]:
    """Return the plain config (config.json) of the run that an address names."""
    return json.loads((resolve(address).workdir / "config.json").read_text())


def _items(state: TrainState) -> dict[str, Any]:
    """Return what is saved of a state, by the items of a checkpoint; likewise of its shapes."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {"params": fields.pop("params"), "train_state": fields}


def _sealed(meta: dict[str, Any]) -> dict[str, Any]:
    return meta | {_DIGEST: fingerprint(meta)}


def _rank_on_disk(workdir: str | os.PathLike[str], step: int) -> float:
    try:
        return rank(read_meta(workdir, step))
    except DamagedCheckpointError:  # said when it is to be restored
        return math.inf


def _meta_path(workdir: str | os.PathLike[str], step: int) -> epath.Path:
    return epath.Path(workdir) / DIRECTORY / str(step) / "meta" / "metadata"


def _absolute(path: str | os.PathLike[str]) -> epath.Path:
    """Return a path that orbax takes: it refuses relative ones; etils would make a local path of a gs:// one."""
    return epath.Path(path) if is_object_store(path) else epath.Path(os.path.abspath(path))
