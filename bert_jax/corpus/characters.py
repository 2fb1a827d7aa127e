"""Words as ELMo's character ids.

Source: allenai/bilm-tf `data.py` (UnicodeCharsVocabulary); AllenNLP's `ELMoCharacterMapper`.
A word is a begin mark, its UTF-8 bytes (at most 48 of 50 places), an end mark and padding. Begin and end of a sentence
are words of one mark. Everything is one more than in bilm-tf's training code, as in all code that applies the models:
0 is then a word that is none. So there are 261 characters in the files' tables and in the options that bilm-tf's
training writes, and 262 in the models' (`interop/allennlp.py`).
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int32, Int64

MAX_CHARACTERS = 50
NUM_CHARACTERS = 262  # 256 bytes, five marks, the mask
_SHIFT = 1
BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, PADDING = (mark + _SHIFT for mark in range(256, 261))
BEGIN_TOKEN, END_TOKEN = "<S>", "</S>"  # how bilm-tf's vocabularies spell the two words of one mark
_MAX_WORDS = 1 << 18  # in the cache: 26 MB of ids


class CharacterIds:
    """Encodes words, each distinct one once. Use one instance a thread: encoding fills its cache.

    Attributes:
        max_characters: ids of a word.
    """

    def __init__(self, max_characters: int = MAX_CHARACTERS) -> None:
        """Start with the two marks of a sentence alone.

        Raises:
            ValueError: no room for a character between the marks.
        """
        if max_characters < 3:
            raise ValueError(f"max_characters is {max_characters}; a word takes 3 or more: its two marks and a byte")
        self.max_characters = max_characters
        self._empty()

    def _empty(self) -> None:
        rows = _spell([b"", b""], self.max_characters)
        rows[:, 1:3] = [[BEGIN_SENTENCE, END_WORD], [END_SENTENCE, END_WORD]]
        self._rows = np.concatenate([np.zeros((1, self.max_characters), np.int32), rows])
        self._number_of = {"": 0, BEGIN_TOKEN: 1, END_TOKEN: 2}  # no word is empty: the mask
        self._count = 3

    def encode_words(self, words: Sequence[str]) -> Int32[np.ndarray, "words characters"]:
        """Return the words' ids; "<S>" and "</S>" are the marks, "" is the mask (all zeros).

        Bytes beyond `max_characters` - 2 are cut, in the middle of a character if need be, as the originals do.
        """
        numbers = self.numbers(words)  # may make room: before the rows are looked at
        return self._rows[numbers]

    def numbers(self, words: Sequence[str]) -> Int64[np.ndarray, " words"]:
        """Return a number for each word, equal for equal ones, 0 for ""; `rows` has their ids until the next call."""
        if self._count > _MAX_WORDS:
            self._empty()
        new = [word for word in dict.fromkeys(words) if word not in self._number_of]
        if new:
            rows = _spell([word.encode("utf-8", "ignore") for word in new], self.max_characters)
            if self._count + len(new) > len(self._rows):
                room = np.zeros((max(len(self._rows), len(new)), self.max_characters), np.int32)
                self._rows = np.concatenate([self._rows, room])
            self._rows[self._count : self._count + len(new)] = rows
            self._number_of.update(zip(new, range(self._count, self._count + len(new)), strict=True))
            self._count += len(new)
        return np.fromiter(map(self._number_of.__getitem__, words), np.int64, len(words))

    def rows(self, numbers: Int64[np.ndarray, " words"]) -> Int32[np.ndarray, "words characters"]:
        """Return the ids of the words with these numbers."""
        return self._rows[numbers]

    def encode_sentences(
        self, sentences: Sequence[Sequence[str]], num_words: int | None = None
    ) -> Int32[np.ndarray, "batch words characters"]:
        """Return the sentences' ids, each between its marks, padded with words of zeros.

        Args:
            sentences: words.
            num_words: of a row, marks included; None is the longest sentence's.

        Raises:
            ValueError: a sentence is longer.
        """
        longest = max(map(len, sentences), default=0) + 2
        if num_words is None:
            num_words = longest
        if longest > num_words:
            raise ValueError(
                f"a sentence of {longest - 2} words takes {longest} places and rows have {num_words}; "
                "use longer rows or split it"
            )
        flat: list[str] = []
        for sentence in sentences:
            flat += (BEGIN_TOKEN, *sentence, END_TOKEN, *[""] * (num_words - 2 - len(sentence)))
        return self.encode_words(flat).reshape(len(sentences), num_words, self.max_characters)


def _spell(words: Iterable[bytes], max_characters: int) -> np.ndarray:
    """Return the ids of words' bytes between the marks of a word, padded."""
    words = [word[: max_characters - 2] for word in words]
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    codes = np.frombuffer(b"".join(words), np.uint8)
    rows = np.full((len(words), max_characters), PADDING, np.int32)
    rows[:, 0] = BEGIN_WORD
    places = np.arange(max_characters)
    rows[(places > 0) & (places <= lengths[:, None])] = codes.astype(np.int32) + _SHIFT
    rows[np.arange(len(words)), lengths + 1] = END_WORD
    return rows
