"""What a training step's program follows from, read from a config alone: the objective, and the shape of a batch.

No corpus, task or checkpoint is needed; what they would say (a vocabulary, labels) is taken from the released models
and data sets.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import build, choose, to_plain
from bert_jax.input.masking import MaskingConfig
from bert_jax.models.bert import VOCAB_SIZES, BertConfig, named_size
from bert_jax.models.elmo import ElmoConfig
from bert_jax.objectives.bidirectional_lm import BidirectionalLmConfig, BidirectionalLmObjective
from bert_jax.objectives.downstream import DownstreamObjective
from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.tasks import finetuning
from bert_jax.tasks.batches import collate
from bert_jax.tasks.families import FAMILIES
from bert_jax.tasks.glue import GLUE_TASKS
from bert_jax.tasks.task import EncodedRows
from bert_jax.training import addresses, throughput
from bert_jax.training.benchmark import random_batch, row_shape
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig
from bert_jax.training.optimizers import OptimizerConfig
from bert_jax.training.state import Objective

REMAT_POLICIES = ("full", "dots", "none")  # from the least memory to the most
_ELMO_VOCAB_SIZE = 793_471  # words that the released ELMo was trained to predict; bilm-tf's README
# head, outputs and choices of tasks whose own say the data: CoNLL-2003's tags, two classes, SWAG's endings
_HEADS = {
    "ner": ("tokens", 9, 1),
    "text_table": ("sentences", 2, 1),
    "squad": ("span", 2, 1),
    "multiple_choice": ("choices", 1, 4),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepShape(abc.ABC):
    """What the program of a step follows from; a subclass for each kind of training.

    Attributes:
        model, optim, train, mesh: sections of the config.
        batch_size: global rows a step.
        sequence_length: tokens (ELMo: words) a row.
        packed: whether a row has several sequences.
    """

    model: Any
    optim: OptimizerConfig
    train: TrainConfig
    mesh: MeshConfig
    batch_size: int
    sequence_length: int
    packed: bool = False

    @property
    @abc.abstractmethod
    def objective(self) -> Objective:
        """What the step optimizes."""

    @property
    @abc.abstractmethod
    def row_flops(self) -> throughput.RowFlops:
        """A row's FLOPs by the published formula."""

    @abc.abstractmethod
    def batch(self, parts: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Return the arrays of a global batch whose rows are split over `parts` devices."""

    @property
    def facts(self) -> dict[str, Any]:
        """What else a result should say."""
        names = ("attention", "remat", "hidden_dropout_prob", "attention_probs_dropout_prob")
        return {name: getattr(self.model, name) for name in names}

    @property
    def remat_policies(self) -> tuple[str, ...]:
        """The policies that the model knows."""
        return REMAT_POLICIES

    def with_remat(self, policy: str) -> "StepShape":
        """Return the same step with another policy."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, remat=policy))

    def _repeat(self, row: Mapping[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
        """Return a batch of rows like one that is made up."""
        return {
            name: jax.ShapeDtypeStruct((self.batch_size, *array.shape[1:]), array.dtype) for name, array in row.items()
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingShape(StepShape):
    """BERT's pretraining, as configs/bert.py.

    Attributes:
        masking: a section of the config.
        next_sentence: see ObjectiveConfig.
        next_sentence_weight: likewise.
    """

    masking: MaskingConfig
    next_sentence: bool
    next_sentence_weight: float

    @property
    def objective(self) -> Objective:
        """Masked words and next sentences."""
        return MaskedLmObjective(self.model, self.next_sentence, self.next_sentence_weight)

    @property
    def row_flops(self) -> throughput.RowFlops:
        """See the base class."""
        return throughput.bert_row_flops(self.model, self.sequence_length, self.masking.max_predictions_per_row)

    def batch(self, parts: int) -> dict[str, jax.ShapeDtypeStruct]:
        """See the base class."""
        predictions = self.masking.max_predictions_per_row
        return self._repeat(
            random_batch(1, self.sequence_length, predictions, self.model.vocab_size, packed=self.packed)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningShape(StepShape):
    """Fine-tuning on the longest rows, as configs/glue.py and its like.

    Attributes:
        head, outputs, choices, bilstm_cells: see DownstreamObjective.
    """

    head: str
    outputs: int
    choices: int
    bilstm_cells: int

    @property
    def objective(self) -> Objective:
        """The task's."""
        return DownstreamObjective(self.model, self.head, self.outputs, self.bilstm_cells)

    @property
    def row_flops(self) -> throughput.RowFlops:
        """See the base class."""
        row = throughput.bert_row_flops(self.model, self.sequence_length, 0)
        return dataclasses.replace(row, flops=row.flops * self.choices)

    def batch(self, parts: int) -> dict[str, jax.ShapeDtypeStruct]:
        """See the base class."""
        tokens = [np.zeros(self.sequence_length, np.int32)] * self.choices
        one = np.zeros(1, np.float32 if (self.head, self.outputs) == ("sentences", 1) else np.int32)
        by_token = {"label_ids": tokens} if self.head == "tokens" else {}
        names = {"tokens": (), "span": ("start_positions", "end_positions")}.get(self.head, ("label_ids",))
        rows = EncodedRows(tokens, tokens, dict.fromkeys(names, one), by_token, self.choices)
        return self._repeat(collate(rows, np.zeros(1, np.int64), self.sequence_length))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamShape(StepShape):
    """ELMo's pretraining, as configs/elmo.py.

    Attributes:
        softmax: the config's objective.
    """

    softmax: BidirectionalLmConfig

    @property
    def objective(self) -> Objective:
        """Both directions' next word."""
        return BidirectionalLmObjective(self.model, self.softmax)

    @property
    def row_flops(self) -> throughput.RowFlops:
        """See the base class."""
        words = self.softmax.num_negatives + 1 if self.softmax.num_negatives else self.softmax.vocab_size
        return throughput.elmo_row_flops(self.model, self.sequence_length, words)

    @property
    def facts(self) -> dict[str, Any]:
        """See the base class."""
        return {"attention": None, "remat": "none", "dropout": self.model.dropout}

    @property
    def remat_policies(self) -> tuple[str, ...]:
        """LSTMs keep what they keep."""
        return ("none",)

    def with_remat(self, policy: str) -> StepShape:
        """Return this step, which knows no policies."""
        assert policy == "none"
        return self

    def batch(self, parts: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Return a batch as `input.streams` makes it: a table of words for each device and microbatch."""
        groups = parts * self.train.microbatches
        lanes = (self.batch_size, self.sequence_length)
        words = 1 + 2 * self.batch_size * self.sequence_length // groups
        names = ("word_index", "word_index_reverse", "target_ids", "target_ids_reverse")
        return {
            "char_ids": jax.ShapeDtypeStruct((groups, words, self.model.max_characters_per_token), jnp.int32),
            **{name: jax.ShapeDtypeStruct(lanes, jnp.int32) for name in names},
            "target_weights": jax.ShapeDtypeStruct(lanes, jnp.float32),
        }


def step_shape(config: Any) -> StepShape:
    """Read what matters to the step from a config of configs/bert.py, elmo.py, or for fine-tuning.

    A vocabulary of 0 becomes that of the release; fine-tuning without `init_from` that of BERT-Base.

    Raises:
        ValueError: another family, or a value that cannot be.
    """
    values = to_plain(config)
    kinds = {"bert": _pretraining, "elmo": _stream, **dict.fromkeys(FAMILIES, _finetuning)}
    return kinds[choose("config.family", values.get("family", ""), kinds)](values)


def _common(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that both kinds of pretraining have."""
    length, packed = row_shape(values["data"]["instances"])
    return {
        "optim": build(OptimizerConfig, values["optim"], "config.optim"),
        "train": build(TrainConfig, values["train"], "config.train"),
        "mesh": build(MeshConfig, values["mesh"], "config.mesh"),
        "batch_size": values["data"]["batch_size"],
        "sequence_length": length,
        "packed": packed,
    }


def _pretraining(values: dict[str, Any]) -> StepShape:
    values["model"]["vocab_size"] = values["model"]["vocab_size"] or VOCAB_SIZES["uncased"]
    return PretrainingShape(
        model=build(BertConfig, values["model"], "config.model"),
        masking=build(MaskingConfig, values["masking"], "config.masking"),
        next_sentence=values["objective"]["next_sentence"],
        next_sentence_weight=values["objective"]["next_sentence_weight"],
        **_common(values),
    )


def _stream(values: dict[str, Any]) -> StepShape:
    values["objective"]["vocab_size"] = values["objective"]["vocab_size"] or _ELMO_VOCAB_SIZE
    return StreamShape(
        model=build(ElmoConfig, values["model"], "config.model"),
        softmax=build(BidirectionalLmConfig, values["objective"], "config.objective"),
        **_common(values),
    )


def _finetuning(values: dict[str, Any]) -> StepShape:
    family, data = values["family"], values["data"]  # files that the data name need not be there
    if values["init_from"]:
        sizes = to_plain(addresses.load(values["init_from"])[0].config)
    else:
        sizes = named_size("base") | {"vocab_size": VOCAB_SIZES["uncased"]}
    model = build(BertConfig, sizes | values["model"], "config.model")
    config = finetuning.resolve(values | {"model": model}, steps_per_epoch=1)
    head, outputs, choices = _HEADS.get(family) or ("sentences", max(1, len(GLUE_TASKS[data["task"]].labels)), 1)
    return FinetuningShape(
        model=model,
        optim=config.optim,
        train=config.train,
        mesh=config.mesh,
        batch_size=data["batch_size"],
        sequence_length=data["max_seq_length"],
        head=head,
        outputs=outputs,
        choices=choices,
        bilstm_cells=config.bilstm_cells,
    )
