"""Ask a pretrained model for the words behind [MASK], or whether one sentence follows another.

    python -m launch.fill_mask --checkpoint=run:runs/demo --text="Return a new [MASK] object."
    python -m launch.fill_mask --checkpoint=run:runs/demo@best --pair="It was late. ||| We went home."
    python -m launch.fill_mask --checkpoint=run:runs/demo --format=json < lines.txt > answers.jsonl

Without --text and --pair each line of the standard input is a text or a pair.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from absl import app, flags, logging

from bert_jax.config import parse_flags
from bert_jax.inference.fill_mask import Answer, MaskFiller, Query

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "run:DIR[@STEP|@best], hf:DIR, hf:OWNER/NAME@REVISION or google:PREFIX.", required=True
)
_TEXT = flags.DEFINE_multi_string("text", [], "A text with one [MASK] or more; may be repeated.")
_PAIR = flags.DEFINE_multi_string("pair", [], "'A ||| B': does B follow A? May hold [MASK]; may be repeated.")
_TOP_K = flags.DEFINE_integer("top_k", 5, "Candidates for each [MASK].")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Texts a forward pass.")
_FORMAT = flags.DEFINE_enum("format", "text", ["text", "json"], "Text for people, or one JSON object a line.")


def main(argv: list[str]) -> None:
    """Answer what the flags or the standard input ask."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}; a text is --text='… [MASK] …'")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # orbax warns of a file that it does not need
    show = as_json if _FORMAT.value == "json" else as_text
    try:
        # Someone who types waits for each answer.
        typed = not (_TEXT.value or _PAIR.value) and sys.stdin.isatty()
        filler = MaskFiller.load(_CHECKPOINT.value, _TOP_K.value, 1 if typed else _BATCH_SIZE.value)
        if typed:
            print("A text with [MASK], or 'A ||| B', and Enter; Control-D ends.", file=sys.stderr)
        for answer in filler.answers(_queries()):
            print(show(answer), flush=True)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"fill_mask: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _queries() -> Iterator[Query]:
    if _TEXT.value or _PAIR.value:
        yield from map(Query, _TEXT.value)
        yield from map(Query.parse, _PAIR.value)
        return
    for number, line in enumerate(sys.stdin, start=1):
        if line.strip():
            yield Query.parse(line, origin=f"line {number}: ")


def as_text(answer: Answer) -> str:
    """Return the best filling, then the candidates of each mask with their probabilities."""
    lines = [answer.filled]
    if answer.is_next is not None:
        lines.append(f"  B follows A: {answer.is_next:.1%}")
    for number, candidates in enumerate(answer.masks, start=1):
        name = f"[MASK] {number}" if len(answer.masks) > 1 else "[MASK]"
        lines.append(f"  {name}: " + "  ".join(f"{each.token} {each.probability:.1%}" for each in candidates))
    return "\n".join(lines)


def as_json(answer: Answer) -> str:
    """Return one JSON object."""
    query = answer.query
    value: dict[str, Any] = {"text": query.text}
    if query.text_b is not None:
        value = {"text_a": query.text, "text_b": query.text_b, "is_next": answer.is_next}
    value["filled"] = answer.filled
    value["masks"] = [[each._asdict() for each in candidates] for candidates in answer.masks]
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
