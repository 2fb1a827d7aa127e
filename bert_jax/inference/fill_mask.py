"""Ask a pretrained BERT for the words behind [MASK], and whether one sentence follows another.

Source: Devlin et al. 2019 §3.1. Rows look as in pretraining: [CLS] A [SEP], or [CLS] A [SEP] B [SEP].
Differs: the original code has no such tool.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from bert_jax.corpus.records import IS_NEXT
from bert_jax.corpus.vocabulary import SPECIAL_TOKENS, WordPiece
from bert_jax.interop import name_map
from bert_jax.models.heads import BertForPreTraining
from bert_jax.training import addresses

PAIR_SEPARATOR = "|||"
_MASK = SPECIAL_TOKENS["mask"]
# Rows are padded up to a multiple, so that texts of many lengths share few compiled programs.
_LENGTH_MULTIPLE = 32
_PREDICTIONS_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class Query:
    """One text, or a pair of them; [MASK] stands for each word that is asked for.

    Attributes:
        text: the text, or the first of the pair.
        text_b: what may follow it; None asks for masks alone.
        origin: where the query stands (`line 3: `), put in front of messages.
    """

    text: str
    text_b: str | None = None
    origin: str = ""

    @classmethod
    def parse(cls, line: str, origin: str = "") -> "Query":
        """Return the query of a line: a text, or `A ||| B`.

        Raises:
            ValueError: more than one separator, or nothing on one side of it.
        """
        parts = [part.strip() for part in line.split(PAIR_SEPARATOR)]
        if len(parts) > 2 or not all(parts):
            raise ValueError(f"{origin}{line!r} is neither one text nor a pair; a pair is 'A {PAIR_SEPARATOR} B'")
        return cls(parts[0], parts[1] if len(parts) == 2 else None, origin)


class Candidate(NamedTuple):
    """A piece of the vocabulary and the probability that the model gives it."""

    token: str
    token_id: int
    probability: float


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model says.

    Attributes:
        query: what was asked.
        masks: for each [MASK], in the order of the text, the most probable pieces, the best first.
        is_next: the probability that text_b follows text; None without a pair or without the model's second head.
    """

    query: Query
    masks: tuple[tuple[Candidate, ...], ...]
    is_next: float | None

    @property
    def filled(self) -> str:
        """The text, or both with the separator between them, with the best candidate in place of each [MASK]."""
        text = self.query.text
        if self.query.text_b is not None:
            text = f"{text} {PAIR_SEPARATOR} {self.query.text_b}"
        filled, *tails = text.split(_MASK)
        for candidates, tail in zip(self.masks, tails, strict=True):
            token = candidates[0].token
            # A piece that continues a word is glued to it.
            filled = f"{filled.rstrip()}{token[2:]}{tail}" if token.startswith("##") else f"{filled}{token}{tail}"
        return filled


class EncodedQuery(NamedTuple):
    """The model's input for one query, without padding."""

    input_ids: np.ndarray
    segment_ids: np.ndarray
    mask_positions: np.ndarray


def encode_query(query: Query, tokenizer: WordPiece, max_length: int) -> EncodedQuery:
    """Return [CLS] A [SEP], or [CLS] A [SEP] B [SEP], with one mask token for each literal "[MASK]".

    The tokenizer protects no token and would take "[MASK]" to pieces; so the text is split there first.

    Raises:
        ValueError: more than `max_length` tokens.
    """
    ids, segments = [tokenizer.special_ids["cls"]], [0]
    for segment, text in enumerate([query.text] if query.text_b is None else [query.text, query.text_b]):
        parts = tokenizer.encode_many(text.split(_MASK))
        tokens = parts[0].tolist()
        for part in parts[1:]:
            tokens += [tokenizer.special_ids["mask"], *part.tolist()]
        tokens.append(tokenizer.special_ids["sep"])
        ids += tokens
        segments += [segment] * len(tokens)
    if len(ids) > max_length:
        raise ValueError(
            f"{query.origin}{_shortened(query.text)} has {len(ids)} tokens with [CLS] and [SEP], "
            f"the model takes {max_length}; give less text"
        )
    input_ids = np.array(ids, np.int32)
    positions = np.flatnonzero(input_ids == tokenizer.special_ids["mask"]).astype(np.int32)
    return EncodedQuery(input_ids, np.array(segments, np.int32), positions)


@dataclasses.dataclass(frozen=True)
class MaskFiller:
    """A pretrained model with its vocabulary, ready to answer.

    Attributes:
        model: the module that the parameters belong to.
        params: its parameters, plain arrays.
        tokenizer: the vocabulary that it was trained with.
        top_k: candidates for each mask, 1 up to the size of the vocabulary.
        batch_size: rows a forward pass.
    """

    model: BertForPreTraining
    params: Any
    tokenizer: WordPiece
    top_k: int = 5
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuse what cannot be answered, and a vocabulary of another model."""
        sizes = self.model.config.vocab_size, self.tokenizer.vocab_size
        if sizes[0] != sizes[1]:
            raise ValueError(f"the model has {sizes[0]} pieces and its tokenizer {sizes[1]}; they belong to two runs")
        if not 1 <= self.top_k <= sizes[0]:
            raise ValueError(f"top_k is {self.top_k}; it takes 1 to {sizes[0]}, the size of the vocabulary")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it takes 1 or more")

    @classmethod
    def load(cls, address: str, top_k: int = 5, batch_size: int = 32) -> "MaskFiller":
        """Load a checkpoint with its tokenizer; the corpus is not needed.

        Args:
            address: `run:DIR[@step|@best]`, `hf:DIR`, `google:PREFIX` (see `training/addresses.py`).
            top_k: see the class.
            batch_size: see the class.

        Raises:
            ValueError: not an address, a model without the masked-word head, or a setting that makes no sense.
            FileNotFoundError: no such checkpoint, or one without a tokenizer.
        """
        weights, _ = addresses.load(address)
        if not weights.has("heads/masked_lm"):
            raise ValueError(f"{address} has no head that guesses masked words; use a checkpoint of pretraining")
        model_config = dataclasses.replace(weights.config, attention="xla")  # which runs everywhere
        model = BertForPreTraining(model_config, weights.has("heads/next_sentence"))
        params = jax.device_put(name_map.nest(weights.params))
        return cls(model, params, weights.tokenizer, top_k, batch_size)

    def answers(self, queries: Iterable[Query]) -> Iterator[Answer]:
        """Yield one answer a query, in their order; reads ahead by one batch.

        Raises:
            ValueError: a query without anything to answer, or longer than the model's positions.
        """
        remaining = iter(queries)
        while batch := list(itertools.islice(remaining, self.batch_size)):
            yield from self._answer_batch(batch)

    def _answer_batch(self, queries: Sequence[Query]) -> list[Answer]:
        encoded = [self._encode(query) for query in queries]
        batch = _pad(encoded, self.batch_size, self.model.config.max_position_embeddings)
        predictions = jax.device_get(_predict(self.model, self.top_k, self.params, batch))
        answers = []
        for row, (query, (_, _, positions)) in enumerate(zip(queries, encoded, strict=True)):
            masks = tuple(
                self._candidates(predictions.token_ids[row, mask], predictions.probabilities[row, mask])
                for mask in range(len(positions))
            )
            is_next = None
            if query.text_b is not None and predictions.is_next is not None:
                is_next = float(predictions.is_next[row])
            answers.append(Answer(query, masks, is_next))
        return answers

    def _encode(self, query: Query) -> EncodedQuery:
        encoded = encode_query(query, self.tokenizer, self.model.config.max_position_embeddings)
        if len(encoded.mask_positions):
            return encoded
        if query.text_b is None:
            raise ValueError(
                f"{query.origin}{_shortened(query.text)} has no {_MASK}; put {_MASK} in place of each word to be "
                f"guessed, or ask for a pair: 'A {PAIR_SEPARATOR} B'"
            )
        if not self.model.next_sentence:
            raise ValueError(
                f"{query.origin}the model was pretrained without next sentences and cannot judge a pair; "
                f"use {_MASK} in it, or a model pretrained with objective.next_sentence"
            )
        return encoded

    def _candidates(self, token_ids: np.ndarray, probabilities: np.ndarray) -> tuple[Candidate, ...]:
        tokens = self.tokenizer.tokens(token_ids.tolist())
        return tuple(map(Candidate, tokens, token_ids.tolist(), probabilities.tolist()))


class _Predictions(NamedTuple):
    token_ids: Int[Array, "batch predictions top"]
    probabilities: Float[Array, "batch predictions top"]
    is_next: Float[Array, " batch"] | None  # without the second head


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(model: BertForPreTraining, top_k: int, params: Any, batch: Mapping[str, Any]) -> _Predictions:
    output: Any = model.apply({"params": params}, **batch)
    probabilities, token_ids = jax.lax.top_k(jax.nn.softmax(output.masked_lm_logits), top_k)
    is_next = None
    if model.next_sentence:
        is_next = jax.nn.softmax(output.next_sentence_logits)[:, 0, IS_NEXT]
    return _Predictions(token_ids, probabilities, is_next)


def _pad(encoded: Sequence[EncodedQuery], batch_size: int, max_length: int) -> dict[str, np.ndarray]:
    """Return the model's arguments: `batch_size` rows, lengths rounded up; filler rows are all padding."""
    length = min(_round_up(max(len(row.input_ids) for row in encoded), _LENGTH_MULTIPLE), max_length)
    predictions = _round_up(max(len(row.mask_positions) for row in encoded), _PREDICTIONS_MULTIPLE)
    input_ids, input_mask, segment_ids = np.zeros((3, batch_size, length), np.int32)
    positions = np.zeros((batch_size, predictions), np.int32)
    for index, row in enumerate(encoded):
        real = slice(len(row.input_ids))
        input_ids[index, real] = row.input_ids
        segment_ids[index, real] = row.segment_ids
        input_mask[index, real] = 1
        positions[index, : len(row.mask_positions)] = row.mask_positions
    return {
        "input_ids": input_ids,
        "input_mask": input_mask,
        "segment_ids": segment_ids,
        "position_ids": np.arange(length, dtype=np.int32) * input_mask,
        "sequence_ids": input_mask,  # one sequence a row
        "sequence_starts": np.zeros((batch_size, 1), np.int32),
        "masked_lm_positions": positions,
    }


def _round_up(number: int, multiple: int) -> int:
    return max(-(-number // multiple), 1) * multiple


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
