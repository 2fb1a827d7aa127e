"""A unit of a table: one command, what it needs, what it costs, and a directory of its own.

A unit is known by its name and by a fingerprint of its command. Commands name other units' directories, which carry
these fingerprints, so a changed command gives new directories to all that depends on it: a result is never taken for
that of another command, and going back to the old one finds the old results.
"""

import dataclasses
import functools
from pathlib import Path

from bert_jax.config import fingerprint

UNITS = "units"  # folder of a table's directory
HERE, ALL = "{here}", "{units}"  # in arguments: the unit's own directory, that of all units
RUN = "run"  # a unit's training run, in its directory
OUTPUT, LOG, RECORD = "output.txt", "log.txt", "unit.json"


@dataclasses.dataclass(frozen=True)
class Unit:
    """One command of a plan.

    Attributes:
        name: unique in the plan, such as "pretrain-6-768-3".
        launcher: "pretrain" is `python -m launch.pretrain`.
        arguments: of the launcher; `{here}` and `{units}` stand for directories.
        needs: units that must be done before.
        restarts: trials that the command trains, as `--seeds`; 0 = it has none. Not part of the fingerprint: with more
            of them the command goes on, and trains the new ones only.
        incidental: further arguments that change no result and no fingerprint.
        begins_anew: whether what an interrupted or failed attempt left is in the way, and is removed.
        flops: of training, by the formulas of `training/throughput.py`; 0 = not known, or little.
    """

    name: str
    launcher: str
    arguments: tuple[str, ...]
    needs: tuple["Unit", ...] = ()
    restarts: int = 0
    incidental: tuple[str, ...] = ()
    begins_anew: bool = False
    flops: float = 0.0

    @functools.cached_property
    def key(self) -> str:
        """Name and fingerprint: the unit's directory."""
        return f"{self.name}-{fingerprint([self.launcher, *self.arguments])}"

    @property
    def run_address(self) -> str:
        """The address of its training run, for other units' arguments."""
        return f"run:{ALL}/{self.key}/{RUN}"

    def directory(self, table: Path) -> Path:
        """Return the unit's directory in that of its table."""
        return table / UNITS / self.key

    def command(self, table: Path) -> list[str]:
        """Return the command behind `python`."""
        places = {HERE: str(self.directory(table)), ALL: str(table / UNITS)}
        arguments = [*self.arguments, *self.incidental, *([f"--seeds={self.restarts}"] if self.restarts else [])]
        for mark, place in places.items():
            arguments = [argument.replace(mark, place) for argument in arguments]
        return ["-m", f"launch.{self.launcher}", *arguments]
