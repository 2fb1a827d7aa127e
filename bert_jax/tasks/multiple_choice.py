"""Multiple choice: the right ending of several. SWAG, CODAH, and JSON lines of a user's own.

Source: Devlin et al. 2018, section 4.4: each choice is the pair (context, continuation), scored by one vector.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from bert_jax.config import choose
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.encode import encode_texts
from bert_jax.tasks.scores import score_classes
from bert_jax.tasks.tables import Row, find_file, read_csv, read_json_lines, read_tsv
from bert_jax.tasks.task import EncodedRows, HeldOut, Outputs, Task, TaskData
from bert_jax.tasks.text_lines import read_lines

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
_ENDING = re.compile(r"ending_?(\d+)")
_ACCEPTED = (
    "SWAG's sent1, sent2, ending0, ending1, …; CODAH's prompt and endings, tab-separated without a header; context and "
    "choices (a list), with or without a question between them"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceData(TaskData):
    """What `config.data` of multiple choice has.

    Attributes:
        train: file, plain or .gz: .csv as SWAG's, .tsv as CODAH's, or .jsonl.
        dev: likewise; its accuracy chooses the best checkpoint.
        max_train_rows: the first so many are trained on; 0 = all.
    """

    train: str
    dev: str
    max_train_rows: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        super().__post_init__()
        for name in ("train", "dev"):
            if not getattr(self, name):
                raise ValueError(f"config.data.{name} is empty; give a .csv, .tsv or .jsonl file of choices")
        if self.max_train_rows < 0:
            raise ValueError(f"config.data.max_train_rows is {self.max_train_rows}; use 0 (all) or more")


@dataclasses.dataclass(frozen=True)
class ChoiceExample:
    """A context with its possible endings.

    Attributes:
        context: the first text of every pair.
        endings: the second texts.
        label: number of the right one, from 0; None = not known.
        where: file and line, for messages.
    """

    context: str
    endings: tuple[str, ...]
    label: int | None
    where: str


def make_task(data: ChoiceData, tokenizer: WordPiece, labels: tuple[str, ...] = ()) -> Task:
    """Read and encode training and held-out files; `labels` are not used.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a row is malformed, or has another number of choices than the first; the message has file and line.
    """
    del labels
    examples = {"train": read_choices(data.train)[: data.max_train_rows or None], "dev": read_choices(data.dev)}
    for _ in same_choices([*examples["train"], *examples["dev"]]):
        pass
    rows = {split: encode_choices(part, tokenizer, data.max_seq_length) for split, part in examples.items()}
    names = tuple(str(number) for number in range(rows["train"].choices))
    return Task(
        name="multiple_choice",
        head="choices",
        labels=(),
        train=rows["train"],
        held_out={"dev": HeldOut(rows["dev"], score_classes(rows["dev"].targets["label_ids"], names, ("accuracy",)))},
        best_metric="accuracy",
        notes=tuple(
            f"{split}: {part.truncated:,} pairs of context and ending are longer than {data.max_seq_length} tokens and "
            "were cut"
            for split, part in rows.items()
            if part.truncated
        ),
        facts={"choices": rows["train"].choices} | {split: {"rows": len(part)} for split, part in rows.items()},
    )


def read_choices(path: str | Path, with_labels: bool = True, trained: int = 0) -> list[ChoiceExample]:
    """Read the examples of a file.

    Args:
        path: the file, or its name without .gz.
        with_labels: False takes files without, and passes over labels.
        trained: choices that the model was trained with, by which labels without a header are told from endings; 0 =
            not known.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a malformed row, with file and line.
    """
    found = find_file(Path(path))
    suffix = choose(f"{found}: the file's suffix", Path(found.name.removesuffix(".gz")).suffix, _SUFFIXES)
    if suffix == ".csv":
        rows = read_csv(found)
    elif suffix == ".tsv":
        rows, _ = read_tsv(found, _codah_columns([*read_lines(found)], with_labels, trained))
    else:
        rows = read_json_lines(found)
    return parse_choices(rows, with_labels)


def parse_choices(rows: Iterable[Row], with_labels: bool = True) -> list[ChoiceExample]:
    """Return the examples of a table's rows, or of JSON lines (`tables.parse_json_lines`)."""
    return [_parse(cells, where, with_labels) for cells, where in rows]


def encode_choices(examples: Sequence[ChoiceExample], tokenizer: WordPiece, max_seq_length: int) -> EncodedRows:
    """Return the rows of examples with equally many endings, with `label_ids` if all of them are known.

    `truncated` counts pairs of context and ending.
    """
    choices = len(examples[0].endings)
    contexts = [example.context for example in examples for _ in range(choices)]
    endings = [ending for example in examples for ending in example.endings]
    input_ids, segment_ids, truncated = encode_texts(tokenizer, contexts, endings, max_seq_length)
    labels = [example.label for example in examples]
    targets = {} if None in labels else {"label_ids": np.array(labels, np.int32)}
    return EncodedRows(input_ids, segment_ids, targets, choices=choices, truncated=truncated)


def same_choices(examples: Iterable[ChoiceExample]) -> Iterator[ChoiceExample]:
    """Yield examples as long as they have equally many choices.

    Raises:
        ValueError: one has another number than the first, with its file and line.
    """
    first = None
    for example in examples:
        first = first or example
        if len(example.endings) != len(first.endings):
            raise ValueError(
                f"{example.where}: {len(example.endings)} choices, where {first.where} has {len(first.endings)}; all "
                "rows need the same number"
            )
        yield example


def predictions(examples: Sequence[ChoiceExample], outputs: Outputs) -> list[dict[str, Any]]:
    """Return for each example the number of its most probable ending, its text, and all probabilities, for JSON."""
    probabilities = softmax(np.asarray(outputs["logits"], np.float64), axis=-1)
    return [
        {"label": (best := int(row.argmax())), "ending": example.endings[best], "probabilities": row.tolist()}
        for example, row in zip(examples, probabilities, strict=True)
    ]


def _codah_columns(lines: Sequence[str], with_labels: bool, trained: int) -> list[str]:
    """Return the columns of a .tsv file with such lines; [] if the first is a header."""
    first = lines[0].split("\t")
    if any(_ENDING.fullmatch(cell) for cell in first):
        return []
    endings = len(first) - 3  # beside category, prompt and label
    if not with_labels and (endings + 1 == trained or not _are_labels(lines, endings)):
        return ["category", "prompt", *(f"ending{number}" for number in range(endings + 1))]
    return ["category", "prompt", *(f"ending{number}" for number in range(endings)), "label"]


def _are_labels(lines: Sequence[str], endings: int) -> bool:
    """Return whether every line's last cell is the number of one of the endings before it."""
    numbers = {str(number) for number in range(endings)}
    return all(line.rpartition("\t")[2] in numbers for line in lines if line)


def _parse(cells: Mapping[str, Any], where: str, with_labels: bool) -> ChoiceExample:
    numbered = {int(match[1]): cells[name] for name in cells if (match := _ENDING.fullmatch(name))}
    choices = cells.get("choices", cells.get("endings", [numbered[number] for number in sorted(numbered)]))
    if "sent1" in cells:
        context, start = cells["sent1"], cells.get("sent2", "")
    else:
        context, start = cells.get("context", cells.get("prompt")), cells.get("question") or ""
        if context is None:
            context, start = start or None, ""
    texts = [context, start, *choices] if isinstance(choices, list) else [None]
    if not (isinstance(context, str) and all(isinstance(text, str) for text in texts)):
        raise ValueError(f"{where}: the row has {', '.join(map(str, cells))}; accepted, as texts: {_ACCEPTED}")
    if len(choices) < 2:
        raise ValueError(f"{where}: {len(choices)} choices; 2 or more are needed ({_ACCEPTED})")
    endings = tuple(f"{start} {ending}" if start else ending for ending in choices)
    return ChoiceExample(context, endings, _label(cells, len(choices), where) if with_labels else None, where)


def _label(cells: Mapping[str, Any], choices: int, where: str) -> int:
    label = cells.get("label", "")
    if isinstance(label, bool) or str(label) not in map(str, range(choices)):
        got = f"the label is {label!r}" if "label" in cells else f"no label among {', '.join(map(str, cells))}"
        raise ValueError(f"{where}: {got}; the number of the right ending is needed, 0 to {choices - 1}")
    return int(label)
