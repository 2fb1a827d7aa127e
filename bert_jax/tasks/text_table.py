"""A user's own table: csv, tsv or JSON lines, one text or two, classes or a score."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert_jax.config import choose
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.sentences import SentenceExample, encode_examples, make_sentence_task, order_labels, text_of
from bert_jax.tasks.tables import Row, find_file, read_csv, read_json_lines, read_tsv
from bert_jax.tasks.task import Task, TaskData

READERS = {".csv": read_csv, ".tsv": lambda path: read_tsv(path)[0], ".jsonl": read_json_lines}

# Names by which columns are found, in lower case; v1 and v2 are those of the SMS spam collection's label and text.
TEXT_NAMES = ("text", "sentence", "review", "message", "content", "comment", "tweet", "document", "body", "v2")
PAIR_NAMES = (
    ("sentence1", "sentence2"), ("sentence_a", "sentence_b"), ("text1", "text2"), ("text_a", "text_b"),
    ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"), ("question", "answer"),
)  # fmt: skip
LABEL_NAMES = ("label", "class", "target", "score", "category", "sentiment", "rating", "gold_label", "v1")
MOST_CLASSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTableData(TaskData):
    """The `config.data` of a user's table.

    Attributes:
        train: .csv (with quotes), .tsv (without) or .jsonl, with a header, UTF-8; .gz too.
        dev: likewise, to be scored; "" = a part of train is held out.
        dev_fraction: that part; which rows is decided by a hash of their texts, so equal texts stay together.
        text_column: of the text, or of the first of two; "" = found by its name.
        second_column: of the second text; "" = there is none, or found with the first.
        label_column: "" = found by its name.
        score: labels are numbers to be predicted, not classes.
    """

    train: str
    dev: str = ""
    dev_fraction: float = 0.1
    text_column: str = ""
    second_column: str = ""
    label_column: str = ""
    score: bool = False

    def __post_init__(self) -> None:
        """Refuse no table, a fraction that leaves nothing, and a second column without a first."""
        super().__post_init__()
        if not self.train:
            raise ValueError(f"config.data.train is empty; give a table, {', '.join(READERS)}")
        if not 0 < self.dev_fraction < 1:
            raise ValueError(f"config.data.dev_fraction is {self.dev_fraction}; use a number between 0 and 1")
        if self.second_column and not self.text_column:
            raise ValueError("config.data.second_column is set and text_column is not; set both")


def make_task(data: TextTableData, tokenizer: WordPiece, labels: tuple[str, ...] = ()) -> Task:
    """Read and encode a table.

    Args:
        data: which one.
        tokenizer: of the model.
        labels: of a checkpoint that has a classifier; its order is kept if it has the table's names.

    Raises:
        ValueError: a malformed row, an unknown label, columns that cannot be guessed; with file and line.
        FileNotFoundError: a file is missing.
    """
    rows = _read_rows(data.train)
    texts, label = find_columns(data, rows[0])
    train = [_example(row, texts, label, data.score) for row in rows]
    if data.dev:
        dev = [_example(row, texts, label, data.score) for row in _read_rows(data.dev)]
    else:
        train, dev = _hold_out(train, data)
    # A class that is only in rows held out by the hash is one all the same; a dev file's must be in train.
    own = () if data.score else _class_names(train if data.dev else [*train, *dev], data.train, label)
    labels = order_labels(own, labels)
    notes = [f"table: the text is {' and '.join(texts)}, the {'score' if data.score else 'class'} is {label}"]
    if not data.dev:
        notes.append(f"table: {len(dev)} of {len(rows)} rows are held out (dev_fraction {data.dev_fraction:g})")
    empty = sum(not example.first.strip() for example in (*train, *dev))
    if empty:
        notes.append(f"table: {empty} rows have an empty text")
    return make_sentence_task(
        "text_table",
        train,
        {"dev": dev},
        functools.partial(encode_examples, tokenizer=tokenizer, labels=labels, max_seq_length=data.max_seq_length),
        labels=labels,
        metrics=("pearson", "spearman") if data.score else ("accuracy", "macro_f1"),
        notes=notes,
        facts={
            "text_columns": texts,
            "label_column": label,
            "train_rows": len(train),
            "held_out_rows": {"dev": len(dev)},
        },
    )


def find_columns(data: TextTableData, row: Row) -> tuple[tuple[str, ...], str]:
    """Return the columns of the text, or of the two, and of the label: those of the config, or found by their names.

    Raises:
        ValueError: a column is not there, or none or several have a known name.
    """
    columns, file = list(row.cells), row.where.rpartition(":")[0]
    by_name = {column.lower().strip(): column for column in columns}
    for key in ("text_column", "second_column", "label_column"):
        if getattr(data, key):
            choose(f"config.data.{key}", getattr(data, key), columns)
    if data.text_column:
        texts = (data.text_column, data.second_column) if data.second_column else (data.text_column,)
    else:
        pairs = [pair for pair in PAIR_NAMES if by_name.keys() >= {*pair}]
        in_pairs = {name for pair in pairs for name in pair}
        found = pairs + [(name,) for name in TEXT_NAMES if name in by_name and name not in in_pairs]
        texts = tuple(by_name[name] for name in _only(found, "the text", "text_column", columns, file))
    taken = {*texts}
    labels = [(name,) for name in LABEL_NAMES if name in by_name and by_name[name] not in taken]
    if data.label_column:
        return texts, data.label_column
    return texts, by_name[_only(labels, "the label", "label_column", columns, file)[0]]


def _only(found: list[Any], what: str, key: str, columns: list[str], file: str) -> tuple[str, ...]:
    if len(found) != 1:
        got = " or ".join("+".join(names) for names in found) or "none with a usual name"
        raise ValueError(
            f"{file}: which column is {what}? ({got}); the file has {', '.join(columns)}: set config.data.{key}"
        )
    return found[0]


def _read_rows(name: str) -> list[Row]:
    path = find_file(Path(name).expanduser())
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in READERS:
        raise ValueError(f"{path}: the name must end with {', '.join(READERS)}, or one of these and .gz")
    return READERS[suffix](path)


def _example(row: Row, texts: tuple[str, ...], label_column: str, score: bool) -> SentenceExample:
    label = row.cells.get(label_column)
    if label is None or label == "":
        raise ValueError(f"{row.where}: the label, {label_column!r}, is empty; every row needs one")
    first, second = ([text_of(row.cells, column, row.where) for column in texts] + [None])[:2]
    assert first is not None
    label = label.strip() if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
    return SentenceExample(first, second, label, row.where.rpartition(":")[2], row.where)


def _hold_out(
    examples: Sequence[SentenceExample], data: TextTableData
) -> tuple[list[SentenceExample], list[SentenceExample]]:
    """Return rows to train on and rows to score, the same ones in every order of the table."""

    def is_held_out(example: SentenceExample) -> bool:
        texts = json.dumps([example.first, example.second]).encode()
        draw = int.from_bytes(hashlib.blake2b(texts, digest_size=8).digest(), "big")
        return draw < data.dev_fraction * 2**64

    train = [example for example in examples if not is_held_out(example)]
    dev = [example for example in examples if is_held_out(example)]
    if not train or not dev:
        raise ValueError(
            f"{data.train}: of {len(examples)} rows, dev_fraction {data.dev_fraction:g} holds {len(dev)} out; "
            "more rows are needed, another fraction, or a file of its own (config.data.dev)"
        )
    return train, dev


def _class_names(examples: Sequence[SentenceExample], path: str, column: str) -> tuple[str, ...]:
    """Return the classes of some rows, sorted by name."""
    names = sorted({str(example.label) for example in examples})
    if len(names) < 2:
        raise ValueError(f"{path}: all rows have the label {names[0]!r} ({column}); two classes are needed")
    if len(names) > MOST_CLASSES:
        raise ValueError(
            f"{path}: the column {column!r} has {len(names)} different labels; numbers to be predicted want "
            "config.data.score=true, another column config.data.label_column"
        )
    return tuple(names)
