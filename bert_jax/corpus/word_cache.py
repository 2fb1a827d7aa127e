"""A cache of whole words in front of a tokenizer: most words of a text have been met before.

Two ways to the same numbers. Lists of words go through a dictionary. Long texts stay bytes: numpy finds their words and
looks all of them up at once in a hash table whose keys are the words' own bytes (so there are no false hits); only
words that are new or longer than 16 bytes become Python strings.
"""

import string
from array import array
from collections.abc import Callable

import numpy as np

_MAX_WORDS = 1 << 19  # beside their pieces about 100 MB; English is warm again 40 MB after the cache was emptied
_MAX_CHARACTERS = 1 << 24  # so that texts without spaces (long "words") stay bounded as well
_KEY_BYTES = 16
_SLOT_BITS = 20  # of the hash table: less than two thirds full, whatever one more chunk brings
_SPACE, _WORD, _MARK = 0, 1, 2
_MARKS = string.punctuation.encode()
# Every byte's class: ASCII punctuation is a word by itself; all bytes of other characters belong to words.
_CLASSES = bytes(_SPACE if byte in b" \t\n\r" else _MARK if byte in _MARKS else _WORD for byte in range(256))
_LOW_MASKS = np.array([(1 << 8 * min(length, 8)) - 1 for length in range(_KEY_BYTES + 1)], np.uint64)
_HIGH_MASKS = np.array([(1 << 8 * max(length - 8, 0)) - 1 for length in range(_KEY_BYTES + 1)], np.uint64)
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0xD6E8FEB86659FD93))  # odd, any


class WordCache(dict[str, int]):
    """Words → numbers; word k's ids are `_pieces[_offsets[k] : _offsets[k + 1]]`. Emptied when it is full."""

    def __init__(self, split_word: Callable[[str], list[str]], match_pieces: Callable[[str], list[int]]) -> None:
        """Start empty.

        Args:
            split_word: a text without ASCII whitespace → its words and punctuation marks, as they are matched.
            match_pieces: one of these → its ids.
        """
        super().__init__()
        self._split_word, self._match_pieces = split_word, match_pieces
        self._empty()

    def _empty(self) -> None:
        self.clear()
        self._pieces, self._offsets = array("i"), array("q", [0])
        self._characters = 0
        # The table: a word's first and last 8 bytes (zeros behind a shorter one; a free slot is all zeros).
        self._low, self._high = np.zeros(1 << _SLOT_BITS, np.uint64), np.zeros(1 << _SLOT_BITS, np.uint64)
        self._numbers = np.zeros(1 << _SLOT_BITS, np.int32)
        self._views = self._low.data, self._high.data, self._numbers.data  # for single items

    def _empty_if_full(self) -> None:
        if len(self) > _MAX_WORDS or self._characters > _MAX_CHARACTERS:
            self._empty()  # frequent words are back at once; keeping them would take counting all words

    def __missing__(self, word: str) -> int:
        pieces, offsets = self._pieces, self._offsets
        ids: list[int] = []
        for part in [word] if word.isalnum() and word.islower() and word.isascii() else self._split_word(word):
            if part != word and part.isascii():  # a word by itself, shared by all that hold it
                number = self[part]
                ids += pieces[offsets[number] : offsets[number + 1]]
            else:
                ids += self._match_pieces(part)
        pieces.extend(ids)
        number = self[word] = len(offsets) - 1
        offsets.append(len(pieces))
        self._characters += len(word)
        return number

    def encode_words(self, words: list[str], ends: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Encode words.

        Returns:
            The ids, int32, and the number of ids between one of `ends` (counts of words, rising) and the next, int64.
        """
        self._empty_if_full()
        numbers = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        return self._gather(numbers, np.array(ends, np.int64))

    def encode_lines(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        r"""Encode lines of UTF-8 (lone surrogates allowed) that end in "\n" and hold no NUL.

        Returns:
            The ids of all lines, int32, and the number of ids in each, int64.
        """
        self._empty_if_full()
        starts, lengths = _find_words(text)
        padded = text + bytes(_KEY_BYTES)
        words_at = np.ndarray(len(text) + 9, "<u8", padded, strides=(1,))  # 8 bytes from anywhere
        cut = np.minimum(lengths, _KEY_BYTES)
        low = words_at[starts] & _LOW_MASKS[cut]
        high = words_at[starts + 8] & _HIGH_MASKS[cut]
        numbers, slots = self._look_up(low, high)
        missed = np.flatnonzero((lengths > _KEY_BYTES) | (numbers < 0))
        columns = (missed, starts[missed], starts[missed] + lengths[missed], low[missed], high[missed], slots[missed])
        for index, begin, end, low_key, high_key, slot in zip(*(column.tolist() for column in columns), strict=True):
            number = numbers[index] = self[text[begin:end].decode("utf-8", "surrogatepass")]
            if end - begin <= _KEY_BYTES:
                self._insert(low_key, high_key, slot, number)
        newlines = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
        return self._gather(numbers, np.searchsorted(starts, newlines))

    def _gather(self, numbers: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        offsets, pieces = np.frombuffer(self._offsets, np.int64), np.frombuffer(self._pieces or b"", np.int32)
        begins = offsets[numbers]
        lengths = offsets[numbers + 1] - begins
        word_ends = np.concatenate([[0], np.cumsum(lengths)])
        index = np.repeat(begins - word_ends[:-1], lengths)
        index += np.arange(word_ends[-1])
        return pieces[index], np.diff(word_ends[ends], prepend=0)

    def _look_up(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each key's number, -1 if it is new, and the slot where the search ended."""
        mixed = ((low * _MIX[0]) ^ (high * _MIX[1])) * _MIX[2]
        slots = (mixed >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
        found = self._low[slots]
        hit = (found == low) & (self._high[slots] == high)
        numbers = np.where(hit, self._numbers[slots], -1).astype(np.int64)
        searching = np.flatnonzero(~hit & (found != 0))
        while len(searching):  # another word has the slot: try the next one
            slots[searching] = (slots[searching] + 1) & ((1 << _SLOT_BITS) - 1)
            slot = slots[searching]
            found = self._low[slot]
            hit = (found == low[searching]) & (self._high[slot] == high[searching])
            numbers[searching[hit]] = self._numbers[slot[hit]]
            searching = searching[~hit & (found != 0)]
        return numbers, slots

    def _insert(self, low: int, high: int, slot: int, number: int) -> None:
        """Put a key into the first free slot from `slot` on, unless it was put there meanwhile."""
        lows, highs, numbers = self._views
        while lows[slot]:
            if lows[slot] == low and highs[slot] == high:
                return
            slot = (slot + 1) & ((1 << _SLOT_BITS) - 1)
        lows[slot], highs[slot], numbers[slot] = low, high, number


def _find_words(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return where the words and ASCII punctuation marks of a text start, and their lengths, in bytes."""
    classes = np.frombuffer(text.translate(_CLASSES), np.uint8)
    inside, marks = classes == _WORD, classes == _MARK
    edge = np.ones(1, bool)
    first = marks | (inside & np.concatenate([edge, ~inside[:-1]]))
    last = marks | (inside & np.concatenate([~inside[1:], edge]))
    starts = np.flatnonzero(first)
    return starts, np.flatnonzero(last) - starts + 1
