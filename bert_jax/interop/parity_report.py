"""What became of every tensor of a conversion: its name here and there, the missing ones, those left over."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple


class Match(NamedTuple):
    """A parameter and the tensors that hold it elsewhere.

    Attributes:
        ours: name here.
        our_shape: with the leading axis of layers.
        theirs: name there; `{0..11}` stands for the layers.
        their_shape: of one layer.
        transposed: whether the matrix is [out, in] there.
    """

    ours: str
    our_shape: tuple[int, ...]
    theirs: str
    their_shape: tuple[int, ...]
    transposed: bool


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """The names of a conversion.

    Attributes:
        matches: in the order of the model.
        missing: tensors of encoder, pooler and pretraining heads that are not there.
        extra: tensors that are there and have no place.
        notes: what else the user should know.
    """

    matches: tuple[Match, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        """Our scalars."""
        return sum(math.prod(match.our_shape) for match in self.matches)

    def with_notes(self, *notes: str) -> "ParityReport":
        """Return the report with more notes."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def spelled(self, spell: Callable[[str], str]) -> "ParityReport":
        """Return the report with other names for their tensors."""
        matches = tuple(match._replace(theirs=spell(match.theirs)) for match in self.matches)
        return dataclasses.replace(self, matches=matches, missing=tuple(map(spell, self.missing)))

    def lines(self) -> list[str]:
        """Return the report for people: a line a parameter, then what is missing, left over and worth knowing."""
        width = max((len(match.ours) for match in self.matches), default=0)
        lines = []
        for match in self.matches:
            layout = ", [out, in]" if match.transposed else ""
            here = f"{match.ours:{width}} {_shape(match.our_shape):16}"
            lines.append(f"{here} {match.theirs} {_shape(match.their_shape)}{layout}")
        lines.append(f"{len(self.matches)} parameters, {self.num_parameters:,} numbers")
        lines += [f"missing: {name}" for name in self.missing]
        lines += [f"left over: {name}" for name in self.extra]
        return [*lines, *self.notes]


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
