"""Examples of one text or two with a class or a score → a task. What GLUE's tasks and a user's own table share."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.encode import encode_texts
from bert_jax.tasks.scores import score_classes, score_numbers
from bert_jax.tasks.tables import parse_json_lines
from bert_jax.tasks.task import EncodedRows, HeldOut, Outputs, Task


@dataclasses.dataclass(frozen=True, slots=True)
class SentenceExample:
    """A text, or a pair of texts.

    Attributes:
        first: text.
        second: the other one of a pair.
        label: name of the class, or the score; None = not known.
        row_id: of the row in its file.
        where: file and line, for messages.
    """

    first: str
    second: str | None
    label: str | float | None
    row_id: str
    where: str


def make_sentence_task(
    name: str,
    train: Sequence[SentenceExample],
    held_out: Mapping[str, Sequence[SentenceExample]],
    encode: Callable[[Sequence[SentenceExample]], EncodedRows],
    *,
    labels: tuple[str, ...],
    metrics: tuple[str, ...],
    positive: str = "",
    **rest: Any,
) -> Task:
    """Encode examples and say how they are scored.

    Args:
        name: of the task.
        train: examples to train on.
        held_out: by split.
        encode: examples → rows; `encode_examples` with its other arguments given.
        labels: names of the classes; () = the labels are scores.
        metrics: of `tasks/scores.py`; the first chooses the best checkpoint.
        positive: the class that `f1` is of.
        **rest: of the Task: notes, facts.
    """

    def score(rows: EncodedRows) -> Callable[[Outputs], dict[str, float]]:
        if labels:
            return score_classes(rows.targets["label_ids"], labels, metrics, positive)
        return score_numbers(rows.targets["label_ids"], metrics)

    train_rows = encode(train)
    held_out_rows = {split: encode(examples) for split, examples in held_out.items()}
    notes = [*rest.pop("notes", ())]
    for split, rows in {"train": train_rows, **held_out_rows}.items():
        if rows.truncated:
            notes.append(f"{name}: {rows.truncated} of {len(rows)} {split} rows are too long and were cut")
    return Task(
        name=name,
        head="sentences",
        labels=labels,
        train=train_rows,
        held_out={split: HeldOut(rows, score(rows)) for split, rows in held_out_rows.items()},
        best_metric=metrics[0],
        notes=tuple(notes),
        **rest,
    )


def encode_examples(
    examples: Sequence[SentenceExample], tokenizer: WordPiece, labels: tuple[str, ...], max_seq_length: int
) -> EncodedRows:
    """Return the rows of examples; their targets only if every example has a label.

    Args:
        examples: all of one text, or all of two.
        tokenizer: of the model.
        labels: names of the classes in the order of their ids; () = the labels are scores.
        max_seq_length: tokens; longer texts are cut.

    Raises:
        ValueError: an unknown label, a score that is no number, or pairs among single texts.
    """
    paired = bool(examples) and examples[0].second is not None
    for example in examples:
        if (example.second is not None) != paired:
            raise ValueError(
                f"{example.where}: {'one text' if paired else 'two texts'}, where {examples[0].where} has "
                f"{'two' if paired else 'one'}; all rows have one text, or all have two"
            )
    seconds = [example.second or "" for example in examples] if paired else None
    rows = encode_texts(tokenizer, [example.first for example in examples], seconds, max_seq_length)
    targets = {}
    if all(example.label is not None for example in examples):
        targets["label_ids"] = _class_ids(examples, labels) if labels else _scores(examples)
    return EncodedRows(rows[0], rows[1], targets, truncated=rows[2])


def order_labels(own: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the order `given` by a checkpoint's classifier if it has the same names, else the task's own."""
    return given if len(given) == len(own) and set(given) == set(own) else own


def _class_ids(examples: Sequence[SentenceExample], labels: tuple[str, ...]) -> np.ndarray:
    id_of = {name: index for index, name in enumerate(labels)}
    for example in examples:
        if example.label not in id_of:
            raise ValueError(f"{example.where}: the label is {example.label!r}; accepted: {', '.join(labels)}")
    return np.array([id_of[str(example.label)] for example in examples], np.int32)


def _scores(examples: Sequence[SentenceExample]) -> np.ndarray:
    scores = []
    for example in examples:
        try:
            scores.append(float(example.label if example.label is not None else "nan"))
        except ValueError:
            scores.append(np.nan)
        if not np.isfinite(scores[-1]):
            raise ValueError(f"{example.where}: the score is {example.label!r}; a number is needed")
    return np.array(scores, np.float32)


def read_examples(lines: Iterable[str], columns: Sequence[str], origin: str) -> Iterator[SentenceExample]:
    r"""Yield unlabelled examples of lines that a user wants predictions for; blank lines are left out.

    Args:
        lines: without ends; JSON objects if the first is one, else plain texts, of a pair `first<TAB>second`.
        columns: names of the one or two texts in the objects, a task's facts["text_columns"].
        origin: where the lines are from, such as a path, for messages.

    Yields:
        Examples, as far as the lines are right; their row_id is the number of their line, from 1.

    Raises:
        ValueError: a line has another number of texts, or an object lacks a column.
    """
    rest = iter(lines)
    begin = up_to_text(rest)
    first = begin[-1].strip() if begin else ""
    lines = itertools.chain(begin, rest)
    if first.startswith("{") and first.endswith("}"):
        for cells, where in parse_json_lines(lines, origin):
            yield _unlabelled([text_of(cells, column, where) for column in columns], where)
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            texts = line.split("\t") if len(columns) == 2 else [line]
            where = f"{origin}:{number}"
            if len(texts) != len(columns):
                raise ValueError(
                    f"{where}: {len(texts)} texts instead of 2; write first<TAB>second ({', '.join(columns)}), or one "
                    "JSON object a line"
                )
            yield _unlabelled(texts, where)


def up_to_text(lines: Iterator[str]) -> list[str]:
    """Take the lines up to the first that is not blank."""
    taken = []
    for line in lines:
        taken.append(line)
        if line.strip():
            break
    return taken


def text_of(cells: Mapping[str, Any], column: str, where: str) -> str:
    """Return the text of a column; raise a ValueError if there is none."""
    text = cells.get(column)
    if not isinstance(text, str):
        got = "no such column" if column not in cells else repr(text)
        raise ValueError(f"{where}: {column!r} must be a text; got {got}; the row has {', '.join(cells)}")
    return text


def _unlabelled(texts: Sequence[str], where: str) -> SentenceExample:
    second = texts[1] if len(texts) == 2 else None
    return SentenceExample(texts[0], second, None, where.rpartition(":")[2], where)
