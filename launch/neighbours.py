r"""List the contexts in which a word means the same: those whose vector is nearest, in ELMo or BERT.

    python -m launch.neighbours --checkpoint=run:runs/base-2 --corpus_text=sentences.txt --word=stick \
        --context="He threw the stick." --context="I stick to my opinion." --picture=stick.png
    python -m launch.neighbours --checkpoint=elmo:DIR --corpus_text=sentences.txt --word=stick --num_queries=3

The text has a sentence a line, plain or .gz. Without --context the most central context is asked for, and the ones that
stand best for what is unlike it. The picture has the vectors' two principal components, coloured by the nearest query.
"""

import json
import sys

from absl import app, flags, logging

from bert_jax.config import parse_flags
from bert_jax.inference.features import FeatureExtractor, load
from bert_jax.inference.layer_choice import COMBINATIONS, LayerChoice
from bert_jax.inference.neighbours import Search, Senses, find_senses
from bert_jax.reports.senses_plot import draw_senses, write_senses_plot
from bert_jax.tasks.text_lines import count_lines, read_lines

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "run:DIR[@STEP|@best], elmo:DIR, hf:DIR, hf:OWNER/NAME@REVISION, google:PREFIX.", required=True
)
_TEXT = flags.DEFINE_string("corpus_text", None, "A file with a sentence a line, .gz too.", required=True)
_WORD = flags.DEFINE_string("word", None, "The word; capitals are ignored.", required=True)
_CONTEXT = flags.DEFINE_multi_string("context", [], "A sentence with the word, to ask for; may be repeated.")
_LAYERS = flags.DEFINE_string("layers", "-1", "The layer, 0 is the input; or several, to be combined.")
_COMBINE = flags.DEFINE_enum(
    "combine",
    "concat",
    [name for name in COMBINATIONS if name not in ("none", "mix")],
    "What becomes of several layers.",
)
_TOP_K = flags.DEFINE_integer("top_k", 5, "Contexts to list for each that is asked for.")
_NUM_QUERIES = flags.DEFINE_integer("num_queries", Search.num_queries, "Without --context: how many to choose.")
_MAX_CONTEXTS = flags.DEFINE_integer("max_contexts", Search.max_contexts, "Of the text; what comes behind is not read.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Rows a forward pass.")
_PICTURE = flags.DEFINE_string("picture", "", "A PNG to write.")
_FORMAT = flags.DEFINE_enum("format", "text", ["text", "json"], "Text for people, or one JSON object a query.")


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}; a sentence is --context='…'")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # orbax warns of a file that it does not need
    try:
        if _TOP_K.value < 1:
            raise ValueError(f"--top_k is {_TOP_K.value}; it takes 1 or more")
        search = Search(_MAX_CONTEXTS.value, _NUM_QUERIES.value)
        count_lines(_TEXT.value)  # what is wrong with the text is said before the model is loaded
        encoder = load(_CHECKPOINT.value)
        choice = LayerChoice.parse(_LAYERS.value, encoder.num_outputs, _COMBINE.value)
        extractor = FeatureExtractor(encoder, choice, batch_size=_BATCH_SIZE.value)
        senses = find_senses(extractor, enumerate(read_lines(_TEXT.value), 1), _WORD.value, _CONTEXT.value, search)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"neighbours: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if senses.num_in_text == search.max_contexts:
        print(f"the first {search.max_contexts:,} contexts; --max_contexts reads more", file=sys.stderr)
    show = _as_json if _FORMAT.value == "json" else _as_text
    for query in senses.queries:
        print(show(senses, query))
    if _PICTURE.value:
        _draw(senses)
    return 0


def _as_text(senses: Senses, query: int) -> str:
    occurrence = senses.occurrences[query]
    where = f"line {occurrence.line}" if occurrence.line else "given"
    lines = [f"{occurrence.text(10)}   ({where})"]
    for neighbour in senses.neighbours(query, _TOP_K.value):
        lines.append(
            f"  {neighbour.similarity:.3f}  {neighbour.occurrence.text()}   (line {neighbour.occurrence.line})"
        )
    return "\n".join(lines)


def _as_json(senses: Senses, query: int) -> str:
    def plain(number: int | None, words: list[str], position: int) -> dict[str, object]:
        return {"line": number or None, "position": position, "words": words}

    asked = senses.occurrences[query]
    found = [
        {"similarity": round(similarity, 6), **plain(each.line, list(each.words), each.position)}
        for each, similarity in senses.neighbours(query, _TOP_K.value)
    ]
    value = {"query": plain(asked.line, list(asked.words), asked.position), "neighbours": found}
    return json.dumps(value, ensure_ascii=False)


def _draw(senses: Senses) -> None:
    points, shares = senses.plane()
    texts = [occurrence.text(5) for occurrence in senses.occurrences]
    title = f"{_WORD.value}: {senses.num_in_text:,} contexts, layer {_LAYERS.value}"
    write_senses_plot(_PICTURE.value, draw_senses(title, points, shares, senses.groups(), texts, senses.queries))
    print(f"wrote {_PICTURE.value}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
