"""A BERT in memory, on its way from one system to another: sizes, parameters, vocabulary."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.config import first_names
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.models.bert import BertConfig


@dataclasses.dataclass(frozen=True)
class Weights:
    """A model without the optimizer's state.

    Attributes:
        config: its sizes; vocab_size is the tokenizer's.
        params: float32 arrays by our names, `layers/attention/query/kernel`; see `name_map.nest`.
        tokenizer: the vocabulary it was trained with.
        labels: names of the classifier's outputs, in their order; () when they have none.
        head: what a fine-tuned model is for: "sentences", "tokens", "span" or "choices"; "" = not known.
    """

    config: BertConfig
    params: dict[str, np.ndarray]
    tokenizer: WordPiece
    labels: tuple[str, ...] = ()
    head: str = ""

    def __post_init__(self) -> None:
        """Refuse a vocabulary of another model."""
        if self.config.vocab_size != self.tokenizer.vocab_size:
            raise ValueError(
                f"the model has {self.config.vocab_size} word pieces and the vocabulary {self.tokenizer.vocab_size}; "
                "they belong to two models"
            )

    def has(self, group: str) -> bool:
        """Return whether there is a module of this name, such as `pooler` or `heads/masked_lm`."""
        return any(name.startswith(f"{group}/") for name in self.params)

    @property
    def task_head(self) -> str:
        """What the fine-tuned model is for, by its modules where nothing says so; "" = it is not fine-tuned."""
        if self.has("heads/classifier"):
            return self.head or ("sentences" if self.has("pooler") else "tokens")
        return "span" if self.has("heads/span") else ""


@dataclasses.dataclass(frozen=True)
class Beside:
    """Files to read in place of those beside a checkpoint.

    Attributes:
        vocab: a vocab.txt; None = that of the checkpoint's directory.
        config: a bert_config.json or config.json; None likewise.
        do_lower_case: of the vocabulary; None = as its settings say, or else as its pieces look.
    """

    vocab: Path | None = None
    config: Path | None = None
    do_lower_case: bool | None = None


def fit_vocabulary(config: BertConfig, pieces: int) -> BertConfig:
    """Return the config with the vocabulary's real size; tables may have more rows, to fill a multiple.

    Raises:
        ValueError: they have fewer.
    """
    if pieces > config.vocab_size:
        raise ValueError(
            f"the vocabulary has {pieces} pieces and the model {config.vocab_size}; give the vocab.txt that the model "
            "was trained with"
        )
    return dataclasses.replace(config, vocab_size=pieces)


def check_finite(source: str, params: Mapping[str, Any]) -> None:
    """Refuse parameters with infinities or NaNs, which training would spread.

    Args:
        source: where they are from, for the message.
        params: arrays by name.

    Raises:
        ValueError: there are some; it names the parameters.
    """
    if names := sorted(name for name, values in params.items() if not np.isfinite(values).all()):
        raise ValueError(
            f"{source} has numbers that are not finite in {first_names(names)}; take another checkpoint, or an earlier "
            "step of its run"
        )
