"""Units that train taggers on frozen vectors, and ELMo's pretraining."""

import dataclasses
import shlex
from pathlib import Path

from bert_jax.models.elmo import ElmoConfig, named_size
from bert_jax.tables.finetuning import RESTARTS
from bert_jax.tables.pretraining import Model
from bert_jax.tables.unit import HERE, RUN, Unit
from bert_jax.training.throughput import elmo_row_flops

_WORDS = 20  # of a window; configs/elmo.py


@dataclasses.dataclass(frozen=True)
class Tagging:
    """How every tagger of a table is trained.

    Attributes:
        preset: of configs/tagger.py.
        restarts: seeds of each.
        train, dev, test: files in CoNLL columns; test may be "".
        words: of the training file, for the cost.
        cells, layers: of the BiLSTM.
        num_epochs: times that every sentence is trained on.
        more: further flags of `launch.tagger`, as in a shell.
    """

    preset: str
    restarts: int
    train: str
    dev: str
    test: str
    words: int
    cells: int
    layers: int
    num_epochs: int
    more: str = ""

    def within(self, directory: str) -> "Tagging":
        """Return the same with files in a directory; "" = as they stand."""
        files = {split: str(Path(directory) / file) for split, file in self.files.items()}
        return dataclasses.replace(self, **files)

    @property
    def files(self) -> dict[str, str]:
        """Files by split."""
        files = {"train": self.train, "dev": self.dev, "test": self.test}
        return {split: file for split, file in files.items() if file}

    def flops(self, width: int) -> float:
        """Return the training FLOPs of all restarts on vectors of a width: those of the BiLSTM's products."""
        first = 8 * self.cells * (width + self.cells)
        further = (self.layers - 1) * 8 * self.cells * 3 * self.cells
        return 6.0 * (first + further) * self.words * self.num_epochs * self.restarts


@dataclasses.dataclass(frozen=True)
class ElmoPretraining:
    """How an ELMo is pretrained.

    Attributes:
        size, recipe, preset: of configs/elmo.py.
        corpus, instances: windows of words that `launch.prepare` made.
        batch_size: windows a step.
        num_negatives: words of the sampled softmax.
        num_steps: updates.
        eval_rows: windows of the validation split.
        more: further flags of `launch.pretrain`, as in a shell.
    """

    size: str
    recipe: str
    preset: str
    corpus: str
    instances: str
    batch_size: int
    num_negatives: int
    num_steps: int
    eval_rows: int
    more: str = ""


@dataclasses.dataclass(frozen=True)
class Vectors:
    """A choice of frozen vectors.

    Attributes:
        layers, combine: of `config.features` in configs/tagger.py.
        width: how many layers stand side by side.
    """

    layers: str
    combine: str = "none"
    width: int = 1


def tagged(
    config: Tagging, name: str, model: Model, vectors: Vectors, hidden_size: int, max_seq_length: int = 0
) -> Unit:
    """Return the unit that trains a tagger on a model's vectors, once a seed.

    Args:
        config: how.
        name: of the unit.
        model: frozen.
        vectors: which.
        hidden_size: of one layer, for the cost.
        max_seq_length: of the rows that a BERT reads; 0 = as the model takes.
    """
    values = {
        "features.checkpoint": model.address,
        "features.layers": vectors.layers,
        "features.combine": vectors.combine,
        **({"features.max_seq_length": max_seq_length} if max_seq_length else {}),
        **{f"data.{split}": file for split, file in config.files.items()},
        "model.cells": config.cells,
        "model.layers": config.layers,
        "num_epochs": config.num_epochs,
    }
    arguments = (
        f"--config=configs/tagger.py:preset={config.preset}",
        *(f"--config.{key}={value}" for key, value in values.items()),
        *shlex.split(config.more),
        f"--workdir={HERE}/{RESTARTS}",
    )
    flops = config.flops(vectors.width * hidden_size)
    return Unit(name, "tagger", arguments, model.needs, config.restarts, flops=flops)


def pretrained_elmo(config: ElmoPretraining) -> Model:
    """Return the ELMo of a unit."""
    values = {
        "data.corpus": config.corpus,
        "data.instances": config.instances,
        "data.batch_size": config.batch_size,
        "objective.num_negatives": config.num_negatives,
        "train.num_steps": config.num_steps,
        "eval.max_rows": config.eval_rows,
    }
    arguments = (
        f"--config=configs/elmo.py:size={config.size},recipe={config.recipe},preset={config.preset}",
        *(f"--config.{key}={value}" for key, value in values.items()),
        *shlex.split(config.more),
        f"--workdir={HERE}/{RUN}",
    )
    sizes = ElmoConfig(**named_size(config.size))
    flops = elmo_row_flops(sizes, _WORDS, config.num_negatives + 1).flops * config.batch_size * config.num_steps
    unit = Unit("pretrain-elmo", "pretrain", arguments, flops=flops)
    return Model("elmo", unit.run_address, (unit,))
