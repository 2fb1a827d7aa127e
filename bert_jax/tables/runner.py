"""Runs units as programs of their own, one after the other; a signal stops the one that runs, which saves itself."""

import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, Any

from bert_jax.tables.plan import Plan, Record, read_record, write_record
from bert_jax.tables.unit import LOG, OUTPUT, RUN, Unit
from bert_jax.training.preemption import EXIT_CODE
from bert_jax.training.workdir import WorkdirInUseError, take_lock

_POLL_SECONDS = 0.2
_SAY_SECONDS = 60.0  # between two lines about a unit that runs


class Runner:
    """Runs units of a plan. Use it as a context, in which Ctrl-C and SIGTERM are passed on to the unit that runs.

    Attributes:
        stopped: whether such a signal came; no further unit should begin.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        """Run nothing yet.

        Args:
            plan: with the units.
            say: takes lines for the user.
        """
        self.stopped = False
        self._plan = plan
        self._say = say
        self._process: subprocess.Popen[Any] | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "Runner":
        """Install the handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the former handlers."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def run_all(self) -> None:
        """Run every unit that is not done, in order.

        One that cannot run, fails or is run by another process does not keep the others.
        """
        units = self._plan.units
        failed_before = {unit.name for unit in units if self._plan.status(unit).state == "failed"}
        for number, unit in enumerate(units, 1):
            state = self._plan.status(unit).state
            if self.stopped:
                return
            # A unit that failed in an earlier call is tried again, now that its reason may be gone.
            if state == "done" or (state == "failed" and unit.name not in failed_before):
                continue
            prefix, waits_for = f"[{number}/{len(units)}] ", self._plan.unfinished_needs(unit)
            if waits_for:
                self._say(f"{prefix}{unit.name}: not run, since {', '.join(waits_for)} is not done")
                continue
            try:
                self.run(unit, prefix)
            except WorkdirInUseError as error:
                self._say(f"{prefix}{unit.name}: left to whoever runs it: {error}")

    def run(self, unit: Unit, prefix: str = "") -> Record:
        """Run one unit, unless another process has done so by now, and return what became of it.

        Args:
            unit: whose needs are done.
            prefix: of the lines about it.

        Raises:
            WorkdirInUseError: another process runs it.
        """
        directory = unit.directory(self._plan.table)
        directory.mkdir(parents=True, exist_ok=True)
        lock = take_lock(directory)
        try:
            before = read_record(directory)
            if before is not None and self._plan.status(unit).state == "done":
                return before
            if unit.begins_anew:
                shutil.rmtree(directory / RUN, ignore_errors=True)
            self._say(f"{prefix}{unit.name}: begins, log {directory / LOG}")
            started = time.monotonic()
            code = self._wait(unit, directory, prefix)
            seconds = time.monotonic() - started
            # Whoever ended a unit that was asked to stop, it is no failure.
            stopped = code == EXIT_CODE or (self.stopped and code != 0)
            state = "done" if code == 0 else "stopped" if stopped else "failed"
            record = Record(
                state=state,
                command=tuple(unit.command(self._plan.table)),
                restarts=unit.restarts,
                seconds=round(seconds + (before.seconds if before else 0.0), 1),
                reason=_reason(directory / LOG, code) if state == "failed" else "",
                finished=time.strftime("%Y-%m-%d %H:%M:%S"),
            )
            write_record(directory, record)
        finally:
            lock.close()
        self.stopped |= stopped
        self._say(f"{prefix}{unit.name}: {state} after {seconds:,.0f} s{record.reason and ': ' + record.reason}")
        return record

    def _wait(self, unit: Unit, directory: Path, prefix: str) -> int:
        """Run a unit's command to its end and return its exit code."""
        command = [sys.executable, *unit.command(self._plan.table)]
        with (directory / LOG).open("a", encoding="utf-8") as log, (directory / OUTPUT).open("wb") as output:
            log.write(f"$ {shlex.join(['python', *command[1:]])}\n")
            log.flush()
            return self._watch(command, log, output, f"{prefix}{unit.name}")

    def _watch(self, command: list[str], log: IO[str], output: IO[bytes], title: str) -> int:
        if self.stopped:  # between the decision to run it and now
            return EXIT_CODE
        # A session of its own: Ctrl-C reaches it through us alone, once.
        process = subprocess.Popen(command, stdout=output, stderr=log, start_new_session=True)
        self._process = process
        if self.stopped:  # while it was started
            process.terminate()
        said = time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                if time.monotonic() - said > _SAY_SECONDS:
                    said = time.monotonic()
                    self._say(f"{title}: {last_line(Path(log.name))}")
        finally:
            self._process = None
        return process.returncode

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._process is not None:
            # The second one is meant: what was saved last is kept.
            self._process.send_signal(signal.SIGKILL if self.stopped else signal.SIGTERM)
        self.stopped = True


def last_line(path: Path) -> str:
    """Return the last line of a log that says something, "" if there is none."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _reason(log: Path, code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    return last_line(log) or f"exit code {code}"
