"""Tags of words that mark entities: any of the usual schemes → IOB2, and IOB2 → spans.

IOB2 starts every entity with B-. IOB1 (the original CoNLL-2003 files) writes I- and keeps B- for an entity that
touches one of its own type. BIOES and BIOLU mark last words (E-, L-) and single ones (S-, U-) too.
Source: conlleval (Erik Tjong Kim Sang). Its reading of a stray I- tag, an entity begins, is the conversion here, so one
rule reads IOB1, IOB2 and a mixture of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

OUTSIDE = "O"
_AS_IOB = {"B": "B", "I": "I", "S": "B", "U": "B", "E": "I", "L": "I"}
ACCEPTED_TAGS = "O, B-TYPE and I-TYPE (IOB1 or IOB2), and E-, S-, L-, U-TYPE (BIOES, BIOLU)"


class Entity(NamedTuple):
    """Words `start` up to `stop` of a sentence are an entity."""

    type: str
    start: int
    stop: int


def is_tag(text: str) -> bool:
    """Return whether a text is O, or a prefix, a hyphen and a type."""
    return text == OUTSIDE or (len(text) > 2 and text[0] in _AS_IOB and text[1] == "-")


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Return the IOB2 tags of a sentence's tags of any accepted scheme."""
    converted: list[str] = []
    before = OUTSIDE  # the type of the entity that the word before is in
    for tag in tags:
        kind = tag[2:]
        prefix = _AS_IOB[tag[0]] if tag != OUTSIDE else OUTSIDE
        if prefix == "I" and before != kind:
            prefix = "B"
        converted.append(tag if prefix == OUTSIDE else f"{prefix}-{kind}")
        before = OUTSIDE if prefix == OUTSIDE else kind
        if tag[0] in "SUEL":  # it was the entity's last word
            before = OUTSIDE
    return converted


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of a sentence's tags of any accepted scheme, in order."""
    found: list[Entity] = []
    for index, tag in enumerate(to_iob2(tags)):
        if tag[0] == "B":
            found.append(Entity(tag[2:], index, index + 1))
        elif tag[0] == "I":
            found[-1] = found[-1]._replace(stop=index + 1)
    return found
