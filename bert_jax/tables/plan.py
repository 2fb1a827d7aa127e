"""A plan: the units of a table in the order in which they can run, and where each of them stands."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bert_jax.config import choose, to_plain
from bert_jax.reports.results_table import NOT_RUN
from bert_jax.tables.unit import RECORD, Unit


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of a unit; `unit.json` in its directory.

    Attributes:
        state: "done", "failed" or "stopped" (asked to stop; the same command goes on).
        command: behind `python`.
        restarts: of the unit then.
        seconds: that its commands ran, all of them together.
        reason: why it failed, "" otherwise.
        finished: date and time.
    """

    state: str
    command: tuple[str, ...]
    restarts: int
    seconds: float
    reason: str
    finished: str


@dataclasses.dataclass(frozen=True)
class Status:
    """Where a unit stands.

    Attributes:
        state: "done", "failed", "stopped", "not run", or "blocked": a unit that it needs has failed.
        reason: of a failed or blocked one.
        seconds: that it has run.
    """

    state: str
    reason: str = ""
    seconds: float = 0.0

    @property
    def missing(self) -> str:
        """What a cell says that has no value, "" if the unit is done."""
        if self.state == "done":
            return ""
        return f"{self.state}: {self.reason}" if self.reason else NOT_RUN


@dataclasses.dataclass(frozen=True)
class Plan:
    """Units and the directory of their table.

    Attributes:
        units: what each needs stands before it.
        table: the directory.
    """

    units: tuple[Unit, ...]
    table: Path

    @classmethod
    def of(cls, wanted: Iterable[Unit], table: Path) -> "Plan":
        """Return the plan of some units and all that they need, each once."""
        found: dict[str, Unit] = {}
        for unit in _with_needs(wanted):
            known = found.setdefault(unit.name, unit)
            assert known.key == unit.key, f"two units are named {unit.name}"
        return cls(tuple(found.values()), table)

    def unit(self, name: str) -> Unit:
        """Return a unit by its name.

        Raises:
            ValueError: there is none.
        """
        names = [unit.name for unit in self.units]
        return self.units[names.index(choose("--unit", name, names))]

    def status(self, unit: Unit) -> Status:
        """Return where a unit stands."""
        record = read_record(unit.directory(self.table))
        if record is not None and record.state == "done" and record.restarts >= unit.restarts:
            return Status("done", seconds=record.seconds)
        for need in unit.needs:
            below = self.status(need)
            if below.state in ("failed", "blocked"):
                return Status("blocked", f"{need.name} failed" if below.state == "failed" else below.reason)
        if record is None or record.state == "done":  # done, with fewer restarts
            return Status(NOT_RUN)
        return Status(record.state, record.reason, record.seconds)

    def unfinished_needs(self, unit: Unit) -> list[str]:
        """Return the names of the units that must run before this one can."""
        return [need.name for need in unit.needs if self.status(need).state != "done"]


def read_record(directory: Path) -> Record | None:
    """Return what became of the unit of a directory; None if nothing is known."""
    path = directory / RECORD
    if not path.exists():
        return None
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    values["command"] = tuple(values["command"])
    return Record(**values)


def write_record(directory: Path, record: Record) -> None:
    """Write `unit.json` by rename."""
    temporary = directory / f"{RECORD}.tmp"
    temporary.write_text(json.dumps(to_plain(record), indent=2) + "\n", encoding="utf-8")
    temporary.replace(directory / RECORD)


def _with_needs(units: Iterable[Unit]) -> Iterator[Unit]:
    for unit in units:
        yield from _with_needs(unit.needs)
        yield unit
