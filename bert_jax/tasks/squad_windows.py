"""Passages → word pieces that know their characters, and windows of them that fit a row.

Source: google-research/bert `run_squad.py` (read_squad_examples, convert_examples_to_features, _improve_answer_span,
_check_is_max_context). Differs: pieces map to characters, where Google's code aligns texts afterwards and returns
whole words when their lengths differ, as with accents.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bert_jax.corpus.vocabulary import WordPiece

_WORD = re.compile("[^ \t\r\n\u202f]+")  # run_squad.py's white space


@dataclasses.dataclass(frozen=True)
class Passage:
    """An encoded passage.

    Attributes:
        text: as it stands.
        ids: int32 [pieces].
        starts: first character of each piece, int64 [pieces].
        ends: the character behind it.
        word_starts: first character of each word that white space sets apart, int64 [words].
        first_pieces: pieces before each word and before the end, int64 [words + 1].
    """

    text: str
    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    word_starts: np.ndarray
    first_pieces: np.ndarray

    def cut(self, first: int, last: int) -> str:
        """Return the text of pieces `first` to `last`, both included."""
        return self.text[self.starts[first] : self.ends[last]]


class PassageEncoder:
    """Encodes passages; words are looked up once."""

    def __init__(self, tokenizer: WordPiece) -> None:
        """Keep the tokenizer; the caches are empty."""
        self._tokenizer = tokenizer
        self._words: dict[str, list[tuple[int, int, int]]] = {}
        self._sizes: dict[str, int] = {}

    def encode(self, text: str) -> Passage:
        """Return the passage of a text."""
        ids, starts, ends, word_starts, first_pieces = [], [], [], [], []
        for match in _WORD.finditer(text):
            begin = match.start()
            word_starts.append(begin)
            first_pieces.append(len(ids))
            for piece, start, end in self._encode_word(match.group()):
                ids.append(piece)
                starts.append(begin + start)
                ends.append(begin + end)
        first_pieces.append(len(ids))
        places = (np.array(values, np.int64) for values in (starts, ends, word_starts, first_pieces))
        return Passage(text, np.array(ids, np.int32), *places)

    def _encode_word(self, word: str) -> list[tuple[int, int, int]]:
        """Return id, first character and the character behind of each piece."""
        if word not in self._words:
            self._words[word] = list(self._align(word))
        return self._words[word]

    def _align(self, word: str) -> Iterator[tuple[int, int, int]]:
        tokenizer = self._tokenizer
        parts = tokenizer.split_word(word)
        # character_of[k]: the character of the word that character k of the cleaned and lowered word comes from.
        character_of = [index for index, character in enumerate(word) for _ in range(self._size(character))]
        aligned = len(character_of) == sum(map(len, parts))
        done = 0
        for part in parts:
            pieces = tokenizer.match_pieces(part)
            texts = [tokenizer.vocab[piece].removeprefix("##") for piece in pieces]
            sizes = [len(text) for text in texts] if "".join(texts) == part else [len(part)] * len(pieces)  # [UNK]
            for piece, size in zip(pieces, sizes, strict=True):
                end = done + size
                yield (piece, character_of[done], character_of[end - 1] + 1) if aligned else (piece, 0, len(word))
                done = end

    def _size(self, character: str) -> int:
        """Return how many characters one becomes: 0 for a dropped one."""
        if character not in self._sizes:
            self._sizes[character] = len("".join(self._tokenizer.split_word(character)))
        return self._sizes[character]


class PassageWindow(NamedTuple):
    """A row: the pieces `start` up to `stop` of a question's passage, from position `offset` of the row on."""

    question: int
    start: int
    stop: int
    offset: int


def plan_spans(num_pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Return first piece and the piece behind of each window; one, empty, of a passage without pieces."""
    spans, start = [], 0
    while True:
        stop = min(start + room, num_pieces)
        spans.append((start, stop))
        if stop == num_pieces:
            return spans
        start += min(stop - start, stride)


def max_context(spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Return for each span which of its pieces have more context in it than in any other, bool [pieces].

    Context is the smaller of what stands on the left and on the right, and a hundredth of the span's size.
    """
    num_pieces = spans[-1][1]
    places = np.arange(num_pieces)
    scores = np.full((len(spans), num_pieces), -np.inf)
    for row, (start, stop) in zip(scores, spans, strict=True):
        inside = places[start:stop]
        row[start:stop] = np.minimum(inside - start, stop - 1 - inside) + 0.01 * (stop - start)
    best = scores.argmax(axis=0) if num_pieces else places
    return [best[start:stop] == index for index, (start, stop) in enumerate(spans)]


def find_pieces(passage: Passage, start: int, text: str, answer_ids: np.ndarray) -> tuple[int, int] | None:
    """Return the first and the last piece of an answer; None if it does not stand at its character `start`.

    The words around the answer are narrowed to the pieces `answer_ids` of the answer by itself, if they hold them; if
    they do several times, to those nearest to `start`, where Google's code takes the first.
    """
    stop = start + len(text)
    if start < 0 or not text.strip() or not passage.text.startswith(text, start):
        return None
    first_word, last_word = np.searchsorted(passage.word_starts, [start, stop - 1], side="right") - 1
    first = int(passage.first_pieces[max(first_word, 0)])
    last = int(passage.first_pieces[last_word + 1]) - 1
    size = len(answer_ids)
    places = range(first, last - size + 2) if size else ()
    held = [place for place in places if np.array_equal(passage.ids[place : place + size], answer_ids)]
    if held:
        place = min(held, key=lambda each: abs(int(passage.starts[each]) - start))
        return place, place + size - 1
    return (first, last) if first <= last else None


def by_question(windows: Sequence[PassageWindow]) -> Iterator[tuple[int, int]]:
    """Yield the first row of each question and the row behind; a question's rows stand together."""
    begins = [row for row, window in enumerate(windows) if not row or window.question != windows[row - 1].question]
    yield from pairwise([*begins, len(windows)])
