"""A tagger trained on frozen vectors of words: vectors once, then one training a seed through one compiled step.

Source: Devlin et al. 2019 §5.3 and Table 7, the feature-based approach; first pieces tagged, no CRF.
Differs: a training scores its last epoch; the paper does not say how long it trained.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from bert_jax.config import build, to_plain
from bert_jax.inference.feature_rows import Notes
from bert_jax.inference.word_vectors import FeatureSource, WordVectors
from bert_jax.models.tagger import TaggerConfig
from bert_jax.objectives.tagging import TaggingObjective
from bert_jax.tasks.batches import Schedule
from bert_jax.tasks.conll import ConllFile, read_conll
from bert_jax.tasks.ner import NO_LABEL, label_names, score_tags
from bert_jax.training.optimizers import OptimizerConfig, make_optimizer
from bert_jax.training.state import hyper_values, make_state
from bert_jax.training.step import make_train_step
from bert_jax.training.workdir import describe_environment

BEST_METRIC = "f1"
_HELD_OUT_ROWS = 64  # at a time
_LOG_EVERY_STEPS = 50


@dataclasses.dataclass(frozen=True)
class TaggingData:
    """`config.data`.

    Attributes:
        train: file in CoNLL columns.
        dev: likewise; its F1 is the score.
        test: likewise, scored too; None = there is none.
        batch_size: sentences a step.
        max_buckets: lengths that sentences are padded to, each compiled once.
        max_train_sentences: the first so many; 0 = all.
    """

    train: str
    dev: str
    test: str | None = None
    batch_size: int = 32
    max_buckets: int = 6
    max_train_sentences: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        for name in ("train", "dev"):
            if not getattr(self, name):
                raise ValueError(f"config.data.{name} is empty; give a file of words and tags in columns")


@dataclasses.dataclass(frozen=True)
class TaggingConfig:
    """The sections of configs/tagger.py.

    Attributes:
        family: "tagger".
        num_epochs: times that every sentence is trained on.
        warmup_fraction: of the steps.
        features, model, data, optim: see their classes.
    """

    family: str
    num_epochs: int
    warmup_fraction: float
    features: FeatureSource
    model: TaggerConfig
    data: TaggingData
    optim: OptimizerConfig

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.num_epochs < 1:
            raise ValueError(f"config.num_epochs is {self.num_epochs}; use 1 or more")


@dataclasses.dataclass(frozen=True)
class Split:
    """A file's sentences, as vectors and tags.

    Attributes:
        file: that was read.
        vectors: [kept, words, width] a sentence, float32 or float16.
        label_ids: int32 [words] a sentence; -1 for a tag that the training file has not.
    """

    file: ConllFile
    vectors: list[np.ndarray]
    label_ids: list[np.ndarray]

    @property
    def lengths(self) -> np.ndarray:
        """Words of each sentence."""
        return np.array([len(ids) for ids in self.label_ids], np.int64)

    def batch(self, numbers: np.ndarray, words: int) -> dict[str, np.ndarray]:
        """Return some sentences padded to so many words; -1 is none, which weighs nothing."""
        kept, _, width = self.vectors[0].shape
        batch = {
            "vectors": np.zeros((len(numbers), kept, words, width), np.float32),
            "label_ids": np.full((len(numbers), words), NO_LABEL, np.int32),
            "lengths": np.zeros(len(numbers), np.int32),
        }
        for row, number in enumerate(numbers):
            if number >= 0:
                ids = self.label_ids[number]
                batch["vectors"][row, :, : len(ids)] = self.vectors[number]
                batch["label_ids"][row, : len(ids)] = ids
                batch["lengths"][row] = len(ids)
        return batch


class TaggerTrainer:
    """Trains a tagger on one choice of vectors, once a seed."""

    def __init__(self, section: Any, say: Callable[[str], None]) -> None:
        """Read the files and compute all vectors.

        Args:
            section: values of configs/tagger.py.
            say: takes lines for the user.

        Raises:
            ValueError, FileNotFoundError: what does not fit.
        """
        self.config = build(TaggingConfig, to_plain(section))
        self._say = say
        data = self.config.data
        paths = {"train": data.train, "dev": data.dev} | ({"test": data.test} if data.test else {})
        files = {split: read_conll(path) for split, path in paths.items()}
        if data.max_train_sentences:
            files["train"] = _first(files["train"], data.max_train_sentences)
        self.labels = label_names({tag[2:] for s in files["train"].sentences for tag in s.tags} - {""})
        model, notes = WordVectors.load(self.config.features), Notes()
        started = time.monotonic()
        self.splits = {split: self._read(file, model, notes) for split, file in files.items()}
        kept, width = model.shape
        words = sum(int(split.lengths.sum()) for split in self.splits.values())
        say(f"{words:,} words as {kept} × {width} numbers each, in {time.monotonic() - started:.0f} s")
        for line in notes.lines():
            say(f"  {line}")
        self.schedule = Schedule(self.splits["train"].lengths, data.batch_size, data.max_buckets)
        self.num_steps = self.config.num_epochs * self.schedule.steps_per_epoch
        self.optim = dataclasses.replace(
            self.config.optim, warmup_steps=round(self.config.warmup_fraction * self.num_steps)
        )
        self.objective = TaggingObjective(self.config.model, len(self.labels), kept, width)
        self._optimizer = make_optimizer(self.optim)
        self._step: Any = jax.jit(make_train_step(self.objective, self._optimizer), donate_argnums=0)
        self._logits: Any = jax.jit(self.objective.logits)

    def run(self, seed: int) -> dict[str, Any]:
        """Train once, and return what `result.json` of a fine-tuning run has."""
        started = time.monotonic()
        state = make_state(self.objective.init(seed), self._optimizer, {})
        hyper = hyper_values(self.optim, self.num_steps, seed)
        train, finite = self.splits["train"], True
        for number in range(self.num_steps):
            length, rows = self.schedule.step(number, seed)
            state, metrics = self._step(state, train.batch(rows, length), hyper)
            if number % _LOG_EVERY_STEPS == 0 or number + 1 == self.num_steps:
                loss = float(metrics["loss"][0])
                finite = finite and bool(np.isfinite(loss)) and not float(metrics["nonfinite"][0])
                self._say(f"seed {seed}  step {number + 1:,}/{self.num_steps:,}  loss {loss:.3f}")
        last = {}
        for split in list(self.splits)[1:]:
            prefix = "" if split == "dev" else f"{split}/"
            last |= {f"{prefix}{name}": value for name, value in self.score(state.params, split).items()}
        mixture = state.params.get("mixture")
        return {
            "task": "tagging",
            "trial": f"seed{seed}",
            "overrides": {"seed": seed},
            "best_metric": BEST_METRIC,
            "last": last,
            **({} if finite else {"failed": "a loss is not finite"}),
            **({"layer_weights": jax.nn.softmax(mixture["weights"]).tolist()} if mixture else {}),
            "seconds": round(time.monotonic() - started, 1),
            "steps": self.num_steps,
            "labels": list(self.labels),
            "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
            **describe_environment(),
            "config": to_plain(self.config),
        }

    def score(self, params: Any, split: str) -> dict[str, float]:
        """Return entity scores of a held-out file."""
        part = self.splits[split]
        tags: list[list[str]] = [[]] * len(part.vectors)
        for numbers, length in self._held_out(part):
            best = np.asarray(self._logits(params, part.batch(numbers, length))).argmax(axis=-1)
            for row, number in enumerate(numbers):
                if number >= 0:
                    tags[number] = [self.labels[index] for index in best[row, : len(part.label_ids[number])]]
        return score_tags([sentence.tags for sentence in part.file.sentences], tags)

    def _held_out(self, part: Split) -> Iterator[tuple[np.ndarray, int]]:
        schedule = Schedule(part.lengths, _HELD_OUT_ROWS, self.config.data.max_buckets)
        for bucket in schedule.buckets:
            for first in range(0, len(bucket.rows), _HELD_OUT_ROWS):
                numbers = bucket.rows[first : first + _HELD_OUT_ROWS]
                yield np.pad(numbers, (0, _HELD_OUT_ROWS - len(numbers)), constant_values=-1), bucket.length

    def _read(self, file: ConllFile, model: WordVectors, notes: Notes) -> Split:
        ids = {label: number for number, label in enumerate(self.labels)}
        label_ids = [
            np.array([ids.get(tag, NO_LABEL) for tag in sentence.tags], np.int32) for sentence in file.sentences
        ]
        return Split(file, model.of(file, notes), label_ids)


def _first(file: ConllFile, sentences: int) -> ConllFile:
    """Return a file cut behind its first sentences."""
    documents, left = [], sentences
    for document in file.documents:
        documents.append(document[:left])
        left -= len(documents[-1])
        if left == 0:
            break
    return dataclasses.replace(file, documents=tuple(documents))
