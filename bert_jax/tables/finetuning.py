"""Units that fine-tune: one sweep over seeds for each model and task, whose trials share compiled steps."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from bert_jax.config import choose
from bert_jax.tables.cost import finetuning_flops
from bert_jax.tables.pretraining import Model
from bert_jax.tables.unit import HERE, Unit

RESTARTS = "restarts"  # folder of a unit's directory, where `trials/` has a result a seed


@dataclasses.dataclass(frozen=True)
class TaskFacts:
    """A task as a column, and what its training costs.

    Attributes:
        title: of the column.
        metric: of `result.json`, a share; shown in percent.
        config: file that `launch.sweep` takes.
        train_rows: of the official training file.
        tokens: word pieces of a training row on average, [CLS] and [SEP] included; measured with BERT's uncased
            vocabulary and at most 128 pieces, unless said otherwise.
    """

    title: str
    metric: str
    config: str
    train_rows: int
    tokens: float


TASKS = {
    "mnli": TaskFacts("MNLI-m", "accuracy", "glue", 392_702, 40.0),  # assumed
    "qqp": TaskFacts("QQP", "accuracy", "glue", 363_846, 31.0),  # assumed
    "qnli": TaskFacts("QNLI", "accuracy", "glue", 104_743, 51.0),  # assumed
    "sst2": TaskFacts("SST-2", "accuracy", "glue", 67_349, 13.3),
    "cola": TaskFacts("CoLA", "matthews_correlation", "glue", 8551, 11.3),
    "stsb": TaskFacts("STS-B", "spearman", "glue", 5749, 27.8),
    "mrpc": TaskFacts("MRPC", "accuracy", "glue", 3668, 53.2),
    "rte": TaskFacts("RTE", "accuracy", "glue", 2490, 66.6),
    "wnli": TaskFacts("WNLI", "accuracy", "glue", 635, 37.1),
    "sick": TaskFacts("SICK", "accuracy", "glue", 4500, 23.0),
    "squad": TaskFacts("SQuAD 1.1 F1", "f1", "squad", 88_641, 240.0),  # windows; assumed
    "ner": TaskFacts("NER F1", "f1", "ner", 14_041, 24.0),  # CoNLL-2003; assumed
}


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """How every model of a table is fine-tuned.

    Attributes:
        tasks: columns, of TASKS.
        restarts: seeds of each.
        recipe: of configs/glue.py.
        num_epochs, batch_size, peak_learning_rate, max_seq_length, max_buckets: see configs/glue.py.
        glue: directory of GLUE's files.
        sick: directory of SICK's; "" = as glue.
        squad_train, squad_dev, ner_train, ner_dev, ner_test: files of these tasks; ner_test may be "".
        max_train_rows: of GLUE's tasks, the first so many; 0 = all.
        trials_per_device: that are trained at once; changes no result but in rounding.
        more: further flags of `launch.sweep`, as in a shell.
    """

    tasks: tuple[str, ...]
    restarts: int
    recipe: str
    num_epochs: int
    batch_size: int
    peak_learning_rate: float
    max_seq_length: int
    max_buckets: int
    glue: str
    sick: str = ""
    squad_train: str = ""
    squad_dev: str = ""
    ner_train: str = ""
    ner_dev: str = ""
    ner_test: str = ""
    max_train_rows: int = 0
    trials_per_device: int = 1
    more: str = ""

    def __post_init__(self) -> None:
        """Refuse an unknown task."""
        for task in self.tasks:
            choose("config.finetuning.tasks", task, TASKS)
        if self.restarts < 1:
            raise ValueError(f"config.finetuning.restarts is {self.restarts}; use 1 or more")

    def directory(self, task: str) -> str:
        """Return the directory of the files of a task of GLUE, or of SICK."""
        return self.sick or self.glue if task == "sick" else self.glue

    def with_ner(self, files: Mapping[str, str]) -> "Finetuning":
        """Return the same with these files of named entities, by split."""
        return dataclasses.replace(self, **{f"ner_{split}": file for split, file in files.items()})

    def files(self, task: str) -> dict[str, str]:
        """Return the files of another task by split; a test file that is not named is left out."""
        files = {split: getattr(self, f"{task}_{split}", "") for split in ("train", "dev", "test")}
        return {split: file for split, file in files.items() if file}


def finetuned(config: Finetuning, model: Model, task: str, sizes: Any, changes: dict[str, Any] | None = None) -> Unit:
    """Return the unit that fine-tunes a model on a task, once a seed.

    Args:
        config: how.
        model: to begin with.
        task: of TASKS.
        sizes: its BertConfig, for the cost; None = not known.
        changes: of the config, by dotted names.
    """
    facts = TASKS[task]
    values: dict[str, Any] = {
        "init_from": model.address,
        "num_epochs": config.num_epochs,
        "optim.peak_learning_rate": config.peak_learning_rate,
        "data.batch_size": config.batch_size,
        "data.max_buckets": config.max_buckets,
    }
    if facts.config == "glue":
        argument = f"task={task},recipe={config.recipe}"
        values |= {
            "data.directory": config.directory(task),
            "data.max_seq_length": config.max_seq_length,
            "data.max_train_rows": config.max_train_rows,
        }
    else:
        argument = f"recipe={config.recipe}"
        values |= {f"data.{split}": file for split, file in config.files(task).items()}
    values |= changes or {}
    arguments = (
        f"--config=configs/{facts.config}.py:{argument}",
        *(f"--config.{key}={value}" for key, value in values.items()),
        *shlex.split(config.more),
        "--grid=seeds",
        f"--workdir={HERE}/{RESTARTS}",
    )
    rows = facts.train_rows
    if facts.config == "glue" and config.max_train_rows:
        rows = min(rows, config.max_train_rows)
    trained = float(rows) * config.num_epochs * config.restarts
    flops = finetuning_flops(sizes, facts.tokens, trained) if sizes is not None else 0.0
    return Unit(
        name=f"{task}-{model.name}",
        launcher="sweep",
        arguments=arguments,
        needs=model.needs,
        restarts=config.restarts,
        incidental=(f"--trials_per_device={config.trials_per_device}",),
        flops=flops,
    )
