"""ELMo as a source of features: words → vectors of their characters → hidden layers.

Source: allenai/bilm-tf `elmo.py`, `model.py`; AllenNLP's `ElmoEmbedder`. A sentence is read between <S> and </S>,
which have no vector.
Differs: every sentence is read from a zero state unless the caller carries it. What is longer than a row can be is read
in windows that overlap, as a BERT reads it. A word's vector by itself is computed once and kept.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.corpus.characters import BEGIN_TOKEN, END_TOKEN, CharacterIds
from bert_jax.corpus.word_vocabulary import WordSettings, WordVocabulary, split_words
from bert_jax.inference.feature_rows import FULL_PRECISION, EncodedLine, Notes, Row, padded_length
from bert_jax.inference.layer_choice import LayerChoice
from bert_jax.models.elmo import Elmo, ElmoConfig
from bert_jax.models.recurrent import LstmState, zero_state
from bert_jax.tasks.context_windows import ContextWindow, plan_windows
from bert_jax.training import checkpoint, elmo_addresses

_MAX_WORDS = 8190  # of a row, which with the marks has 8192 places: in the original size a GiB for an LSTM's gates
_WORDS_AT_ONCE = 256  # whose characters are computed together
_MAX_KEPT_WORDS = 1 << 16


class ElmoFeatures:
    """An ELMo.

    Attributes:
        config: its sizes.
    """

    def __init__(self, config: ElmoConfig, params: Any, splitting: str = WordSettings.splitting) -> None:
        """Put the parameters onto the device.

        Args:
            config: of the model.
            params: of `models.elmo.Elmo`.
            splitting: how text becomes words, of `corpus.word_vocabulary`.
        """
        self.config = dataclasses.replace(config, dtype="float32")
        self._params = jax.device_put(params)
        self._splitting = splitting
        self._characters = CharacterIds(config.max_characters_per_token)
        self._forget_words()

    @classmethod
    def load(cls, address: str) -> "ElmoFeatures":
        """Load `elmo:DIR` or a run; a run's vocabulary says how text becomes words.

        Raises:
            FileNotFoundError, ValueError: no such checkpoint, or one of something else.
        """
        weights, splitting = elmo_addresses.load(address), WordSettings.splitting
        if not address.startswith(f"{elmo_addresses.SCHEME}:"):
            tokenizer = checkpoint.resolve(address).workdir / "tokenizer"
            if tokenizer.exists():  # a run that was converted has none
                splitting = WordVocabulary.load(tokenizer).settings.splitting
        return cls(weights.config, weights.params, splitting)

    @property
    def num_outputs(self) -> int:
        """Layers, the words by themselves among them."""
        return 1 + self.config.n_layers

    @property
    def size(self) -> int:
        """Width of a layer: both directions."""
        return 2 * self.config.projection_dim

    def padded_length(self, length: int) -> int:
        """Return how many places a row of `length` words gets, the marks among them."""
        return padded_length(length)

    def split(self, text: str) -> list[str]:
        """Return a text's words, split as the model was trained."""
        return split_words(text, self._splitting)

    def encode(self, index: int, words: Sequence[str], notes: Notes) -> EncodedLine:
        """Return the rows of a line of words; the ends of words with too many bytes are not read."""
        room = self.config.max_characters_per_token - 2
        too_long = sum(len(word) * 4 > room and len(word.encode("utf-8", "ignore")) > room for word in words)
        notes.add(f"a word of more than {room} bytes, the rest of which is not read", index, too_long)
        windows = plan_windows(np.ones(len(words), np.int64), np.array([len(words)]), _MAX_WORDS)
        notes.add(f"a line of more than {_MAX_WORDS:,} words, read in windows", index, len(windows) > 1)
        rows = []
        for window in windows or [ContextWindow(0, 0, 0, 0)]:  # of a line without words the marks are read
            starts = 1 + np.arange(window.own_start, window.own_stop) - window.start
            rows.append(Row((BEGIN_TOKEN, *words[window.start : window.stop], END_TOKEN), starts, starts + 1))
        return EncodedLine(index, words, rows)

    def hidden(self, rows: Sequence[Row], num_rows: int, length: int, choice: LayerChoice) -> jax.Array:
        """Return what is chosen of the layers, [kept, num_rows, length, width]; rows that are not there are padding."""
        return self.hidden_and_state(rows, length, choice, zero_state(self.config, num_rows))[0]

    def hidden_and_state(
        self, rows: Sequence[Row], length: int, choice: LayerChoice, state: LstmState
    ) -> tuple[jax.Array, LstmState]:
        """Return the same, and the state after each row's last word, from the state before the first words."""
        num_rows = len(state.cell)
        tokens = np.zeros((num_rows, length, self.config.projection_dim), np.float32)
        mask = np.zeros((num_rows, length), np.bool_)
        vectors = self._word_vectors([word for row in rows for word in row.tokens])
        done = 0
        for number, row in enumerate(rows):
            tokens[number, : row.length] = vectors[done : done + row.length]
            mask[number, : row.length] = True
            done += row.length
        return _contextualize(self.config, choice, self._params, tokens, mask, state)

    def _word_vectors(self, words: Sequence[str]) -> np.ndarray:
        """Return the words' own vectors, [words, projection]."""
        if len(self._number_of) > _MAX_KEPT_WORDS:
            self._forget_words()
        new = [word for word in dict.fromkeys(words) if word not in self._number_of]
        found = []
        for first in range(0, len(new), _WORDS_AT_ONCE):
            block = new[first : first + _WORDS_AT_ONCE]
            ids = self._characters.encode_words([*block, *[""] * (_WORDS_AT_ONCE - len(block))])
            found.append(jax.device_get(_encode(self.config, self._params, ids))[: len(block)])
        self._number_of.update(zip(new, range(len(self._number_of), len(self._number_of) + len(new)), strict=True))
        if found:
            self._grow(np.concatenate(found))
        return self._vectors[[self._number_of[word] for word in words]]

    def _grow(self, vectors: np.ndarray) -> None:
        """Put the vectors of new words behind the others."""
        before = len(self._number_of) - len(vectors)
        if len(self._number_of) > len(self._vectors):
            room = np.zeros((max(len(self._vectors), len(vectors)), vectors.shape[1]), np.float32)
            self._vectors = np.concatenate([self._vectors, room])
        self._vectors[before : len(self._number_of)] = vectors

    def _forget_words(self) -> None:
        self._number_of: dict[str, int] = {}
        self._vectors = np.zeros((0, self.config.projection_dim), np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: ElmoConfig, params: Any, char_ids: Any) -> jax.Array:
    with FULL_PRECISION():
        vectors: Any = Elmo(config).apply({"params": params}, char_ids, method="encode")
    return vectors


@functools.partial(jax.jit, static_argnums=(0, 1))
def _contextualize(
    config: ElmoConfig, choice: LayerChoice, params: Any, tokens: Any, mask: Any, state: LstmState
) -> tuple[jax.Array, LstmState]:
    with FULL_PRECISION():
        output: Any = Elmo(config).apply({"params": params}, tokens, mask, state, method="contextualize")
    return choice.apply(output.hidden), output.state
