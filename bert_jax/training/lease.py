"""The lease of a directory in a bucket: what `flock` is to a directory on a disk.

    <workdir>/lock/00000007.json     who owns the directory, when that was said last, whether it was given back

Nothing can be locked in a bucket, but an object can be created on condition that it is absent. Whoever creates the
next number owns the directory: the highest number counts, and numbers never come back. The owner says every
HEARTBEAT_SECONDS that it lives. An owner that has been silent for EXPIRES_SECONDS is taken for dead.

fsspec, which epath stands on, and not epath: that neither creates exclusively nor reads past a cached listing. On gs://
creating is atomic (gcsfs sends ifGenerationMatch=0). Limits: an owner that was stopped for longer than
EXPIRES_SECONDS and goes on learns within HEARTBEAT_SECONDS that another one took over; until then both may write, and a
save that was under way is finished. A newcomer whose clock is EXPIRES_SECONDS ahead takes a living owner for dead. A
store that cannot create exclusively leaves two contenders of the same moment undecided until the first heartbeat.
"""

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
import uuid
from typing import Any

import fsspec

HEARTBEAT_SECONDS = 15.0
EXPIRES_SECONDS = 90.0
_POLL_SECONDS = 3.0  # between two looks at an owner that may be dead
_NAME = re.compile(r"(\d{8})\.json$")


class WorkdirInUseError(RuntimeError):
    """Another process has the lock of the directory."""


class LeaseLostError(WorkdirInUseError):
    """Another process has taken the lease that this one held."""


class Lease:
    """A directory in a bucket, owned by this process until `close`."""

    def __init__(self, path: str | os.PathLike[str], clock: Any = time) -> None:
        """Take the lease, and renew it in the background from then on.

        An owner that spoke within EXPIRES_SECONDS is watched: one that speaks again lives, one that does not is dead.

        Args:
            path: of the directory, gs:// or the like.
            clock: has `time`, `monotonic` and `sleep`.

        Raises:
            WorkdirInUseError: another process owns the directory; after HEARTBEAT_SECONDS at most.
        """
        self._path, self._clock = os.fspath(path), clock
        self._store, directory = fsspec.core.url_to_fs(self._path)
        self._directory = f"{directory}/lock"
        self._owner = f"process {os.getpid()} on {socket.gethostname()}"
        self._id = uuid.uuid4().hex
        self._taken_by: str | None = None
        self._renewing = threading.Lock()
        self._renewed = clock.monotonic()
        self._number = self._wait_until_free()
        self._create()
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def check(self) -> None:
        """Make sure that the directory is still this process'.

        Raises:
            LeaseLostError: it is not, or nobody could be told for EXPIRES_SECONDS that this process lives.
        """
        reason = self._taken_by
        if reason is None and self._clock.monotonic() - self._renewed > EXPIRES_SECONDS:
            try:
                self.renew()
                reason = self._taken_by
            except Exception as error:
                reason = f"it could not be renewed for {EXPIRES_SECONDS:.0f} s ({type(error).__name__}: {error})"
        if reason is not None:
            raise LeaseLostError(
                f"the lease of {self._path} is lost: {reason}. No more is begun there, what was saved before is "
                "kept; end the other run and start this one again, or use another --workdir"
            )

    def renew(self) -> None:
        """Say that this process lives, unless another one owns the directory by now."""
        with self._renewing:
            if self._taken_by is not None:
                return
            before = self._clock.monotonic()
            _, note = self._newest()
            if note is None or note["id"] != self._id:
                self._taken_by = f"{note['owner']} owns it now" if note else f"{self._directory} was removed"
                return
            self._store.pipe_file(self._file(self._number), self._note())
            self._renewed = before

    def close(self) -> None:
        """Give the directory back; what the bucket does not hear of is told by the silence."""
        self._stop.set()
        self._heart.join()
        with contextlib.suppress(Exception):
            _, note = self._newest()
            if note and note["id"] == self._id:
                self._store.pipe_file(self._file(self._number), self._note(released=True))

    def _wait_until_free(self) -> int:
        """Return the number that is the next to be created."""
        watched: Any = None
        since = 0.0
        while True:
            number, note = self._newest()
            age = self._clock.time() - note["renewed"] if note else 0.0
            if note is None or note["released"] or age > EXPIRES_SECONDS:
                return number + 1
            if watched is None:
                watched, since = note, self._clock.monotonic()
                sys.stderr.write(f"{self._in_use(note)}: waiting to see whether it lives\n")
            elif note != watched:
                raise WorkdirInUseError(f"{self._in_use(note)}; {self._advice()}")
            elif self._clock.monotonic() - since > EXPIRES_SECONDS:  # dead, and its clock was ahead of this one
                return number + 1
            self._clock.sleep(_POLL_SECONDS)

    def _create(self) -> None:
        try:
            self._store.pipe_file(self._file(self._number), self._note(), mode="create")
        except FileExistsError:
            note = self._read(self._number)
            if note["id"] != self._id:  # else a request that was sent twice, as its first answer was lost
                raise WorkdirInUseError(f"{self._in_use(note)}; {self._advice()}") from None
        for number in self._numbers():
            if number < self._number:
                with contextlib.suppress(FileNotFoundError):
                    self._store.rm_file(self._file(number))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            # A bucket that is out of reach for a while is no loss; `check` knows how long it has been.
            with contextlib.suppress(Exception):
                self.renew()

    def _newest(self) -> tuple[int, dict[str, Any] | None]:
        """Return the highest number and its note; 0 and None where nobody ever was."""
        while numbers := self._numbers():
            with contextlib.suppress(FileNotFoundError):  # removed by an owner of a higher number
                return max(numbers), self._read(max(numbers))
        return 0, None

    def _numbers(self) -> list[int]:
        self._store.invalidate_cache(self._directory)
        try:
            names = self._store.ls(self._directory, detail=False)
        except FileNotFoundError:
            return []
        return [int(found[1]) for found in map(_NAME.search, names) if found]

    def _read(self, number: int) -> dict[str, Any]:
        return json.loads(self._store.cat_file(self._file(number)))

    def _file(self, number: int) -> str:
        return f"{self._directory}/{number:08d}.json"

    def _note(self, released: bool = False) -> bytes:
        note = {"owner": self._owner, "id": self._id, "renewed": self._clock.time(), "released": released}
        return json.dumps(note).encode()

    def _in_use(self, note: dict[str, Any]) -> str:
        age = max(0.0, self._clock.time() - note["renewed"])
        return f"{self._path} is in use by {note['owner']}, which said so {age:.0f} s ago"

    def _advice(self) -> str:
        return (
            f"wait for it or end it (what it saved is kept; {EXPIRES_SECONDS:.0f} s after its end, however that comes, "
            "the directory is free), or use another --workdir"
        )
