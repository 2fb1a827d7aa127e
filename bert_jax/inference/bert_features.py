"""BERT as a source of features: words → rows of word pieces → hidden layers.

Source: google-research/bert `extract_features.py` (rows, pairs, cutting), for pieces with [CLS] and [SEP].
Differs: words keep together, one vector each; what is longer than a row is read in windows that overlap, so that no
word goes without a vector.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.inference.feature_rows import FULL_PRECISION, EncodedLine, Notes, Row, padded_length
from bert_jax.inference.layer_choice import LayerChoice
from bert_jax.interop import name_map
from bert_jax.interop.weights import Weights
from bert_jax.models.bert import Bert
from bert_jax.tasks.context_windows import plan_windows
from bert_jax.tasks.encode import encode_texts, join

UNITS = ("word", "piece")
_PAIR = re.compile(r"^(.*) \|\|\| (.*)$")


@dataclasses.dataclass(frozen=True)
class BertFeatures:
    """A BERT and its vocabulary.

    Attributes:
        weights: parameters, sizes, vocabulary.
        max_seq_length: tokens of a row, [CLS] and [SEP] among them; 0 = as many as the model has positions.
        unit: what has a vector: "word" or "piece".
    """

    weights: Weights
    max_seq_length: int = 0
    unit: str = "word"

    def __post_init__(self) -> None:
        """Refuse rows that the model cannot read."""
        positions = self.weights.config.max_position_embeddings
        if self.max_seq_length and not 3 <= self.max_seq_length <= positions:
            raise ValueError(f"max_seq_length is {self.max_seq_length}; the model takes 3 to {positions}")

    @property
    def num_outputs(self) -> int:
        """Layers, the embeddings among them."""
        return 1 + self.weights.config.num_hidden_layers

    @property
    def size(self) -> int:
        """Width of a layer."""
        return self.weights.config.hidden_size

    @property
    def max_length(self) -> int:
        """Tokens of the longest row."""
        return self.max_seq_length or self.weights.config.max_position_embeddings

    def padded_length(self, length: int) -> int:
        """Return how many places a row of `length` tokens gets."""
        return padded_length(length, self.max_length)

    def split(self, text: str) -> list[str]:
        """Return a text's words as the vocabulary's own tokenizer splits it: punctuation apart, lowered if so."""
        tokenizer = self.weights.tokenizer
        words, _ = tokenizer.split_words([text])
        return [part for word in words for part in tokenizer.split_word(word)]

    def encode(self, index: int, words: Sequence[str], notes: Notes) -> EncodedLine:
        """Return the rows of a line of words, each encoded by itself; one without any piece is [UNK]."""
        tokenizer, room = self.weights.tokenizer, self.max_length - 2
        unknown = np.array([tokenizer.special_ids["unk"]], np.int32)
        pieces = [ids if len(ids) else unknown for ids in tokenizer.encode_many(words)]
        if self.unit == "piece":
            flat = np.concatenate(pieces) if pieces else unknown[:0]
            words, pieces = tokenizer.tokens(flat), [*flat[:, None]]
        if not pieces:
            return EncodedLine(index, [], [])
        notes.add("a word of more pieces than a row, cut", index, sum(len(ids) > room for ids in pieces))
        pieces = [ids[:room] for ids in pieces]
        sizes = np.array([len(ids) for ids in pieces], np.int64)
        windows = plan_windows(sizes, np.array([len(sizes)]), room)
        notes.add(f"a line of more than {self.max_length} tokens, read in windows", index, len(windows) > 1)
        rows = []
        for window in windows:
            ids, segments = join([np.concatenate(pieces[window.start : window.stop])], tokenizer)
            stops = 1 + np.cumsum(sizes[window.start : window.stop])
            own = slice(window.own_start - window.start, window.own_stop - window.start)
            rows.append(Row(ids, (stops - sizes[window.start : window.stop])[own], stops[own], segments))
        return EncodedLine(index, words, rows)

    def encode_text(self, index: int, text: str, notes: Notes) -> EncodedLine:
        """Return the row of a text, or of `a ||| b`, whose every piece has a vector, [CLS] and [SEP] too.

        What is longer than a row is cut, as in the original.
        """
        pair = _PAIR.match(text.strip())
        parts = [pair[1], pair[2]] if pair else [text.strip()]
        second = parts[1:] or None
        ids, segments, truncated = encode_texts(self.weights.tokenizer, parts[:1], second, self.max_length)
        notes.add(f"a line of more than {self.max_length} tokens, cut", index, truncated)
        starts = np.arange(len(ids[0]))
        return EncodedLine(index, self.weights.tokenizer.tokens(ids[0]), [Row(ids[0], starts, starts + 1, segments[0])])

    def hidden(self, rows: Sequence[Row], num_rows: int, length: int, choice: LayerChoice) -> jax.Array:
        """Return what is chosen of the layers, [kept, num_rows, length, width]; rows that are not there are padding."""
        input_ids, input_mask, segment_ids = np.zeros((3, num_rows, length), np.int32)
        for number, row in enumerate(rows):
            input_ids[number, : row.length] = row.tokens
            input_mask[number, : row.length] = 1
            segment_ids[number, : row.length] = row.segments
        batch = {
            "input_ids": input_ids,
            "input_mask": input_mask,
            "segment_ids": segment_ids,
            "position_ids": np.arange(length, dtype=np.int32) * input_mask,
            "sequence_ids": input_mask,
            "sequence_starts": np.zeros((num_rows, 1), np.int32),
        }
        return _hidden(self._model, choice, self._params, batch)

    @functools.cached_property
    def _model(self) -> Bert:
        config = dataclasses.replace(self.weights.config, attention="xla", dtype="float32")
        return Bert(config, add_pooler=False, keep_hidden=True)

    @functools.cached_property
    def _params(self) -> Any:
        nested = name_map.nest(self.weights.params)
        return jax.device_put({name: nested[name] for name in ("embeddings", "layers")})


@functools.partial(jax.jit, static_argnums=(0, 1))
def _hidden(model: Bert, choice: LayerChoice, params: Any, batch: dict[str, Any]) -> jax.Array:
    with FULL_PRECISION():
        output: Any = model.apply({"params": params}, **batch)
    return choice.apply(output.all_hidden)
