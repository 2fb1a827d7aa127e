"""What a fine-tuning task is: encoded rows to train on, held-out rows with their scores, and the head it needs.

The readers of `tasks/` make it from files, without jax; `tasks/finetuning.py` trains it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.config import choose

HEADS = ("sentences", "tokens", "span", "choices")

# What the head returned for every row, in the rows' order: "logits" [rows, outputs] of sentences and [rows, choices] of
# choices; a list of [tokens of the row, outputs] of tokens; "start_logits" and "end_logits", lists of [tokens of the
# row], of span.
Outputs = Mapping[str, Sequence[np.ndarray] | np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskData:
    """What the `config.data` of every task has.

    Attributes:
        batch_size: rows of a training step.
        max_seq_length: longest row in word pieces, [CLS] and [SEP] included; longer texts are cut and counted.
        max_buckets: lengths that rows are padded to, at most; each is compiled once.
    """

    batch_size: int = 32
    max_seq_length: int = 128
    max_buckets: int = 6

    def __post_init__(self) -> None:
        """Refuse what cannot be batched."""
        for name, lowest in (("batch_size", 1), ("max_seq_length", 8), ("max_buckets", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"config.data.{name} is {getattr(self, name)}; use {lowest} or more")


@dataclasses.dataclass(frozen=True)
class EncodedRows:
    """Rows of word pieces, each of its own length.

    A row is one example of a task, or one window of it; with several choices it is that many sequences.

    Attributes:
        input_ids: int32 [tokens] for each sequence, [CLS] and [SEP] included; row-major, `choices` a row.
        segment_ids: likewise, 0 for the first text and 1 for the second.
        targets: by their names in a batch, one entry a row: `label_ids` int32 [rows] (class, or the right choice) or
            float32 [rows] (score); `start_positions`, `end_positions` int32 [rows].
        token_targets: likewise, one int32 [tokens] for each row: `label_ids`, -1 where a token has no label.
        choices: sequences a row.
        truncated: rows of which a text was cut.
    """

    input_ids: Sequence[np.ndarray]
    segment_ids: Sequence[np.ndarray]
    targets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    token_targets: Mapping[str, Sequence[np.ndarray]] = dataclasses.field(default_factory=dict)
    choices: int = 1
    truncated: int = 0

    def __post_init__(self) -> None:
        """Hold the parts against each other."""
        assert len(self.input_ids) == len(self.segment_ids)
        assert len(self.input_ids) % self.choices == 0
        assert all(len(values) == len(self) for values in (*self.targets.values(), *self.token_targets.values()))

    def __len__(self) -> int:
        return len(self.input_ids) // self.choices

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row's longest sequence, int64 [rows]."""
        lengths = np.array([len(ids) for ids in self.input_ids], np.int64)
        return lengths.reshape(-1, self.choices).max(axis=1)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Rows with known answers.

    Attributes:
        rows: encoded as the training rows.
        score: the head's outputs → metrics by name, such as {"accuracy": 0.5, "f1": 0.6}.
    """

    rows: EncodedRows
    score: Callable[[Outputs], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task, read and encoded.

    Attributes:
        name: such as "mrpc".
        head: "sentences" (one output a row), "tokens" (one a token), "span" or "choices".
        labels: names of the classes in the order of the outputs; () for scores, spans and choices.
        train: rows to train on.
        held_out: by split; the first is the one that `best_metric` is of, and its metrics are not prefixed.
        best_metric: of the first split, that chooses the best checkpoint; higher is better.
        notes: lines for the user, such as how many texts were cut.
        facts: more for result.json.
    """

    name: str
    head: str
    labels: tuple[str, ...]
    train: EncodedRows
    held_out: Mapping[str, HeldOut]
    best_metric: str
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an unknown head."""
        choose("the task's head", self.head, HEADS)
        assert self.held_out

    @property
    def outputs(self) -> int:
        """How many numbers the classifier returns; 1 for a score and for a choice."""
        return max(1, len(self.labels))
