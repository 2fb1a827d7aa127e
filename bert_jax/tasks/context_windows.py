"""Documents of words → rows that have words of their own, with as much of the document around them as fits.

Source: Devlin et al. 2018, section 5.3 ("the maximal document context provided by the data").
"""

from typing import NamedTuple

import numpy as np


class ContextWindow(NamedTuple):
    """Words `start` up to `stop` are a row; `own_start` up to `own_stop` are scored in it, the others are context."""

    start: int
    stop: int
    own_start: int
    own_stop: int


def plan_windows(
    word_sizes: np.ndarray, sentence_ends: np.ndarray, room: int, sentences_per_row: int = 0
) -> list[ContextWindow]:
    """Return windows of a document; each of its words is one window's own.

    A window owns whole sentences, as many as leave a quarter of its room on both sides to context (less at the
    document's ends, where there is less), or one that is longer than that. Of a sentence longer than the room it owns a
    part, cut between words.

    Args:
        word_sizes: pieces of each word, int [words]; each 1 to `room`.
        sentence_ends: ascending, in words, int [sentences]; the last is the number of words.
        room: pieces of a window.
        sentences_per_row: sentences that a window owns, at most; 0 = no limit.
    """
    offsets = np.concatenate([[0], np.cumsum(word_sizes)])
    windows: list[ContextWindow] = []
    own_start = 0
    while own_start < len(word_sizes):
        own_stop = _own_stop(offsets, sentence_ends, own_start, room, sentences_per_row)
        before, after = int(offsets[own_start]), int(offsets[-1] - offsets[own_stop])
        spare = room - int(offsets[own_stop] - offsets[own_start])
        left = min(before, max(spare // 2, spare - after))
        right = min(after, spare - left)
        start = int(np.searchsorted(offsets, before - left, side="left"))
        stop = int(np.searchsorted(offsets, offsets[own_stop] + right, side="right")) - 1
        windows.append(ContextWindow(start, stop, own_start, own_stop))
        own_start = own_stop
    return windows


def _own_stop(offsets: np.ndarray, ends: np.ndarray, own_start: int, room: int, sentences_per_row: int) -> int:
    begin, margin = int(offsets[own_start]), room // 4
    reach = begin + room - min(margin, begin)  # behind the context on the left
    if reach < offsets[-1]:
        reach -= margin
    furthest_word = int(np.searchsorted(offsets, reach, side="right")) - 1
    next_end = int(np.searchsorted(ends, own_start, side="right"))
    last_end = int(np.searchsorted(ends, furthest_word, side="right")) - 1
    if sentences_per_row:
        last_end = min(last_end, next_end + sentences_per_row - 1)
    if last_end >= next_end:
        return int(ends[last_end])
    if offsets[ends[next_end]] - begin <= room:
        return int(ends[next_end])
    return max(furthest_word, own_start + 1)
