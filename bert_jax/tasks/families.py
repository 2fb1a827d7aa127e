"""The kinds of tasks, by config.family: which config.data each has, and who reads it."""

import dataclasses
from collections.abc import Callable
from typing import Any

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks import glue, multiple_choice, ner, squad, text_table
from bert_jax.tasks.task import Task, TaskData

# (config.data, the checkpoint's vocabulary, the checkpoint's labels) → the task
MakeTask = Callable[[Any, WordPiece, tuple[str, ...]], Task]


@dataclasses.dataclass(frozen=True)
class Family:
    """Tasks that one config file describes.

    Attributes:
        data: the dataclass of its config.data.
        make_task: reads and encodes.
    """

    data: type[TaskData]
    make_task: MakeTask


FAMILIES = {
    "glue": Family(glue.GlueData, glue.make_task),
    "text_table": Family(text_table.TextTableData, text_table.make_task),
    "ner": Family(ner.NerData, ner.make_task),
    "squad": Family(squad.SquadData, squad.make_task),
    "multiple_choice": Family(multiple_choice.ChoiceData, multiple_choice.make_task),
}
