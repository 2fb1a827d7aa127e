"""What a table reads from elsewhere, looked for before anything runs: hours of pretraining should not come first."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from bert_jax.input.instances import set_directory
from bert_jax.tables.finetuning import Finetuning
from bert_jax.tasks import glue
from bert_jax.tasks.tables import find_file
from bert_jax.training import addresses


def check_corpus(corpus: str, instances: Iterable[str]) -> None:
    """Refuse a corpus that is not there, or that lacks one of these instance sets.

    Raises:
        FileNotFoundError: says which.
    """
    for name in instances:
        set_directory(corpus, name)


def check_tasks(config: Finetuning, tasks: Iterable[str]) -> None:
    """Refuse tasks whose training and dev files are not there; those of `tfds:` are not looked for.

    Raises:
        FileNotFoundError: says which.
        ValueError: `tfds:` has no such task, or it names another one.
    """
    for task in tasks:
        if task not in glue.GLUE_TASKS:
            check_files(config.files(task))
            continue
        directory, facts = config.directory(task), glue.GLUE_TASKS[task]
        glue.GlueData(task=task, directory=directory)  # refuses what it cannot read
        if not directory.startswith(glue.TFDS):
            for file in (facts.train, *facts.held_out.values()):
                glue.find(task, directory, file)


def check_files(files: Mapping[str, str]) -> None:
    """Refuse files that are named, by what they are for, and not there.

    Raises:
        FileNotFoundError: says which.
    """
    for name, file in files.items():
        if file:
            try:
                find_file(Path(file))
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{name}: {error}") from None


def check_size(address: str, name: str, expected: Mapping[str, int]) -> None:
    """Refuse a checkpoint of other sizes than its row says.

    Args:
        address: of a BERT.
        name: of the setting that says so, for people.
        expected: of `BertConfig`, some of its values.

    Raises:
        ValueError: they differ.
        FileNotFoundError: no such checkpoint.
    """
    config = dataclasses.asdict(addresses.read_config(address))
    other = {key: config[key] for key, value in expected.items() if config[key] != value}
    if other:
        sizes = ", ".join(f"{key} {value}" for key, value in other.items())
        wanted = ", ".join(f"{expected[key]}" for key in other)
        raise ValueError(f"{address} has {sizes}, {name} says {wanted}")
