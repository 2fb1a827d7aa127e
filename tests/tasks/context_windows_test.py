"""Every word is scored once, with context on both sides."""

import numpy as np
import pytest

from bert_jax.tasks.context_windows import plan_windows


def random_document(seed, sentence_length):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, sentence_length, size=int(generator.integers(1, 40)))
    return generator.integers(1, 5, size=int(lengths.sum())), np.cumsum(lengths)


@pytest.mark.parametrize("sentences_per_row", [0, 1])
@pytest.mark.parametrize(("room", "sentence_length"), [(40, 6), (40, 12), (16, 30), (6, 9)])
def test_each_word_is_scored_once_and_the_rest_is_context(room, sentence_length, sentences_per_row):
    for seed in range(30):
        sizes, ends = random_document(seed, sentence_length)
        windows = plan_windows(sizes, ends, room, sentences_per_row)
        owned = [word for w in windows for word in range(w.own_start, w.own_stop)]
        assert owned == list(range(len(sizes)))
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        for window in windows:
            start, stop, own_start, own_stop = window
            assert start <= own_start < own_stop <= stop
            used = offsets[stop] - offsets[start]
            assert used <= room
            if used < room - 6:  # less than a word on each side is free, or the document is all there
                assert (start, stop) == (0, len(sizes))
            if sentences_per_row:
                assert sum(own_start < end <= own_stop for end in ends) <= 1
            if sum(own_start < end <= own_stop for end in ends) > 1:  # the other sentences leave room to context
                left, right = offsets[own_start] - offsets[start], offsets[stop] - offsets[own_stop]
                assert left >= min(room // 4 - 3, offsets[own_start])
                assert right >= min(room // 4 - 3, offsets[-1] - offsets[own_stop])


def test_a_document_that_fits_is_one_row():
    assert plan_windows(np.array([1, 2, 1, 1]), np.array([2, 4]), 5) == [(0, 4, 0, 4)]


def test_one_sentence_a_row_sees_the_whole_of_a_short_document():
    assert plan_windows(np.array([1, 2, 1, 1]), np.array([2, 4]), 5, 1) == [(0, 4, 0, 2), (0, 4, 2, 4)]


def test_only_a_sentence_that_is_longer_than_a_row_is_cut():
    sizes, ends = np.ones(30, np.int64), np.array([8, 18, 30])
    windows = plan_windows(sizes, ends, 10)
    stops = {w.own_stop for w in windows}
    assert {8, 18} <= stops  # 8 and 10 words fit
    assert len([w for w in windows if w.own_start >= 18]) > 1
