"""GLUE's tasks, and SICK, from their official files or from TFDS.

Source: GLUE (Wang et al. 2018), gluebenchmark.com; SICK (Marelli et al. 2014). Columns are found by their names in the
header. Labels have the names of TFDS's builder; the files' 0 and 1 are mapped to them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_jax.config import choose
from bert_jax.corpus import tables as tfds_tables
from bert_jax.corpus.documents import SourceConfig
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.sentences import SentenceExample, encode_examples, make_sentence_task, order_labels
from bert_jax.tasks.tables import Row, find_file, read_tsv
from bert_jax.tasks.task import Task, TaskData

ENTAILED = ("entailment", "not_entailment")
ENTAILED_OR_NOT = ("contradiction", "entailment", "neutral")  # Google's order; TFDS has entailment first
TFDS = "tfds:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlueTask:
    """What is known of a task.

    Attributes:
        folder: of its files; the first that exists.
        texts: columns of the text, or of the two.
        tfds_texts: their names in TFDS, if they differ.
        label: column of the label.
        labels: names of the classes in the order of their ids; () = a score.
        written: how the files write them, if not by these names.
        metrics: the first chooses the best checkpoint.
        positive: the class that f1 is of.
        train: file of the training rows; "" = there is none.
        held_out: split → file.
        tests: name in a submission → file of the test rows.
        columns: of train and dev files without a header.
        malformed_allowed: malformed lines of a file that are left out and counted.
        rows: official number of rows of each file.
    """

    folder: tuple[str, ...]
    texts: tuple[str, ...]
    tfds_texts: tuple[str, ...] = ()
    label: str = "label"
    labels: tuple[str, ...]
    written: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    positive: str = ""
    train: str = "train.tsv"
    held_out: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"dev": "dev.tsv"})
    tests: Mapping[str, str]
    columns: tuple[str, ...] = ()
    malformed_allowed: int = 0
    rows: Mapping[str, int]

    @property
    def names(self) -> dict[str, str]:
        """Names of the labels by how they are written, names themselves included."""
        return {name: name for name in self.labels} | dict(zip(self.written, self.labels, strict=False))


def _rows(train: int, dev: int, test: int) -> dict[str, int]:
    return {"train.tsv": train, "dev.tsv": dev, "test.tsv": test}


GLUE_TASKS: dict[str, GlueTask] = {
    "cola": GlueTask(
        folder=("CoLA",),
        texts=("sentence",),
        labels=("unacceptable", "acceptable"),
        written=("0", "1"),
        metrics=("matthews_correlation", "accuracy"),
        tests={"CoLA": "test.tsv"},
        columns=("source", "label", "mark", "sentence"),
        rows=_rows(8551, 1043, 1063),
    ),
    "sst2": GlueTask(
        folder=("SST-2",),
        texts=("sentence",),
        labels=("negative", "positive"),
        written=("0", "1"),
        tests={"SST-2": "test.tsv"},
        rows=_rows(67_349, 872, 1821),
    ),
    "mrpc": GlueTask(
        folder=("MRPC",),
        texts=("#1 String", "#2 String"),
        tfds_texts=("sentence1", "sentence2"),
        label="Quality",
        labels=("not_equivalent", "equivalent"),
        written=("0", "1"),
        metrics=("accuracy", "f1"),
        positive="equivalent",
        tests={"MRPC": "test.tsv"},
        rows=_rows(3668, 408, 1725),
    ),
    "stsb": GlueTask(
        folder=("STS-B",),
        texts=("sentence1", "sentence2"),
        label="score",
        labels=(),
        metrics=("pearson", "spearman"),
        tests={"STS-B": "test.tsv"},
        rows=_rows(5749, 1500, 1379),
    ),
    "qqp": GlueTask(
        folder=("QQP",),
        texts=("question1", "question2"),
        label="is_duplicate",
        labels=("not_duplicate", "duplicate"),
        written=("0", "1"),
        metrics=("accuracy", "f1"),
        positive="duplicate",
        tests={"QQP": "test.tsv"},
        malformed_allowed=16,
        rows=_rows(363_846, 40_430, 390_965),
    ),
    "mnli": GlueTask(
        folder=("MNLI",),
        texts=("sentence1", "sentence2"),
        tfds_texts=("premise", "hypothesis"),
        label="gold_label",
        labels=ENTAILED_OR_NOT,
        held_out={"matched": "dev_matched.tsv", "mismatched": "dev_mismatched.tsv"},
        tests={"MNLI-m": "test_matched.tsv", "MNLI-mm": "test_mismatched.tsv"},
        rows={
            "train.tsv": 392_702,
            "dev_matched.tsv": 9815,
            "dev_mismatched.tsv": 9832,
            "test_matched.tsv": 9796,
            "test_mismatched.tsv": 9847,
        },
    ),
    "qnli": GlueTask(
        folder=("QNLI",),
        texts=("question", "sentence"),
        labels=ENTAILED,
        tests={"QNLI": "test.tsv"},
        rows=_rows(104_743, 5463, 5463),
    ),
    "rte": GlueTask(
        folder=("RTE",),
        texts=("sentence1", "sentence2"),
        labels=ENTAILED,
        tests={"RTE": "test.tsv"},
        rows=_rows(2490, 277, 3000),
    ),
    "wnli": GlueTask(
        folder=("WNLI",),
        texts=("sentence1", "sentence2"),
        labels=("not_entailment", "entailment"),
        written=("0", "1"),
        tests={"WNLI": "test.tsv"},
        rows=_rows(635, 71, 146),
    ),
    "ax": GlueTask(  # answered by a model of mnli
        folder=("AX", "diagnostic"),
        texts=("sentence1", "sentence2"),
        tfds_texts=("premise", "hypothesis"),
        labels=ENTAILED_OR_NOT,
        metrics=("matthews_correlation",),
        train="",
        held_out={},
        tests={"AX": "diagnostic.tsv"},
        rows={"diagnostic.tsv": 1104},
    ),
    "sick": GlueTask(  # not of GLUE: three classes as MNLI's, and small
        folder=("SICK", "sick"),
        texts=("sentence_A", "sentence_B"),
        label="entailment_judgment",
        labels=ENTAILED_OR_NOT,
        written=("CONTRADICTION", "ENTAILMENT", "NEUTRAL"),
        train="SICK_train.txt",
        held_out={"dev": "SICK_trial.txt"},
        tests={"SICK": "SICK_test_annotated.txt"},
        rows={"SICK_train.txt": 4500, "SICK_trial.txt": 500, "SICK_test_annotated.txt": 4927},
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlueData(TaskData):
    """The `config.data` of a GLUE task.

    Attributes:
        task: of GLUE_TASKS.
        directory: the folder with CoLA/, MRPC/ and so on, or the task's own; `tfds:glue` or `tfds:glue/mrpc`.
        max_train_rows: the first so many rows are trained on; 0 = all.
    """

    task: str
    directory: str
    max_train_rows: int = 0

    def __post_init__(self) -> None:
        """Refuse an unknown task."""
        super().__post_init__()
        choose("config.data.task", self.task, GLUE_TASKS)
        if self.max_train_rows < 0:
            raise ValueError(f"config.data.max_train_rows is {self.max_train_rows}; use 0 (all) or more")
        accepted = () if self.task == "sick" else ("tfds:glue", f"tfds:glue/{self.task}")
        if self.directory.startswith(TFDS) and self.directory not in accepted:
            raise ValueError(
                f"config.data.directory is {self.directory!r}; for {self.task} give "
                + ", ".join(("the folder of its files", *accepted))
            )


def make_task(data: GlueData, tokenizer: WordPiece, labels: tuple[str, ...] = ()) -> Task:
    """Read and encode a task.

    Args:
        data: which one, and where it is.
        tokenizer: of the model.
        labels: of a checkpoint that has a classifier; its order is kept if it has the task's names.

    Raises:
        ValueError: a malformed row, an unknown label; with file and line.
        FileNotFoundError: a file is missing.
    """
    task = GLUE_TASKS[data.task]
    if not task.train:
        raise ValueError(f"{data.task} has no training rows: train mnli, and predict {data.task} with its model")
    notes: list[str] = []
    train = _read_file(data, task.train, notes)
    held_out = {split: _read_file(data, file, notes) for split, file in task.held_out.items()}
    labels = order_labels(task.labels, labels)
    encode = functools.partial(encode_examples, tokenizer=tokenizer, labels=labels, max_seq_length=data.max_seq_length)
    return make_sentence_task(
        data.task,
        train,
        held_out,
        encode,
        labels=labels,
        metrics=task.metrics,
        positive=task.positive,
        notes=notes,
        facts={
            "text_columns": task.tfds_texts or task.texts,
            "train_rows": len(train),
            "held_out_rows": {split: len(examples) for split, examples in held_out.items()},
            "official_train_rows": task.rows[task.train],
        },
    )


def read_test(data: GlueData) -> dict[str, list[SentenceExample]]:
    """Return the rows of the test split by their names in a submission; mnli has two. Only sick's have labels."""
    return {name: _read_file(data, file, []) for name, file in GLUE_TASKS[data.task].tests.items()}


def _read_file(data: GlueData, file: str, notes: list[str]) -> list[SentenceExample]:
    """Return the examples of a file, or of its split in TFDS; say in `notes` what is unusual."""
    task = GLUE_TASKS[data.task]
    kept = data.max_train_rows if file == task.train and data.max_train_rows else None
    if data.directory.startswith(TFDS):
        return _read_tfds(data.task, file, kept)
    labelled = file not in task.tests.values() or data.task == "sick"
    texts = task.texts
    path = find(data.task, data.directory, file)
    rows, malformed = read_tsv(path, task.columns if labelled else (), task.malformed_allowed)
    needed = (*texts, task.label) if labelled else texts
    missing = [column for column in needed if column not in rows[0].cells]
    if missing:
        raise ValueError(f"{path}:1: the header has {', '.join(rows[0].cells)}; {data.task} needs {', '.join(needed)}")
    if malformed:
        notes.append(f"{data.task}: {malformed} malformed lines of {path} were left out")
    if len(rows) + malformed != task.rows[file] and len(rows) != task.rows[file]:
        notes.append(f"{data.task}: {path} has {len(rows)} rows; the official file has {task.rows[file]}")
    return [_example(task, row, str(number), texts, labelled) for number, row in enumerate(rows[:kept])]


def _example(task: GlueTask, row: Row, row_id: str, texts: tuple[str, ...], labelled: bool) -> SentenceExample:
    label = None
    if labelled:
        written = row.cells[task.label]
        label = task.names.get(written)
        if not task.labels:
            label = written
        elif label is None:
            accepted = ", ".join(task.written or task.labels)
            raise ValueError(f"{row.where}: the label is {written!r}; accepted: {accepted}")
    first, second = ([row.cells[column] for column in texts] + [None])[:2]
    return SentenceExample(first, second, label, row_id, row.where)


def find(task: str, directory: str, file: str) -> Path:
    """Return the path of a task's file, in its folder in the directory or in the directory itself.

    Raises:
        FileNotFoundError: it is in neither.
    """
    root = Path(directory).expanduser()
    folders = [root / name for name in GLUE_TASKS[task].folder]
    for folder in folders:
        if folder.is_dir():
            return find_file(folder / file)
    try:
        return find_file(root / file)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{task} is not in config.data.directory={directory!r}: neither {file} (or {file}.gz) nor the folder "
            f"{' or '.join(folder.name for folder in folders)} is there"
        ) from None


def _read_tfds(name: str, file: str, kept: int | None) -> list[SentenceExample]:
    """Return the examples of a split of `glue/<name>`, prepared as ArrayRecord."""
    task = GLUE_TASKS[name]
    split = "test" if name == "ax" else file.removesuffix(".tsv").replace("dev", "validation")
    source = tfds_tables.open_tfds(Path(f"glue/{name}:{split}"), SourceConfig("tfds"))
    builder, origin = source[0], f"tfds:glue/{name}:{split}"
    label_names = getattr(builder.info.features["label"], "names", None)
    texts = task.tfds_texts or task.texts
    examples = []
    for number, values in enumerate(itertools.islice(builder.as_data_source(split=split), kept)):
        cells: dict[str, Any] = {column: values[column].decode("utf-8") for column in texts}
        labelled = split.split("_")[0] != "test"
        if labelled:
            label = values["label"]
            cells[task.label] = str(label) if label_names is None else label_names[int(label)]
        examples.append(_example(task, Row(cells, f"{origin}, row {number}"), str(number), texts, labelled))
    return examples
