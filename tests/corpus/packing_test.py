import random

import numpy as np
import pytest

from bert_jax.corpus.packing import pack_lengths


def test_the_longest_go_first_into_the_fullest_row_that_has_room():
    rows, columns = pack_lengths(np.array([2, 5, 4, 3]), 8, 8)
    assert rows.tolist() == [1, 0, 1, 0]
    assert columns.tolist() == [4, 0, 0, 5]


@pytest.mark.parametrize("most", [2, 3, 8])
def test_rows_hold_every_sequence_once_without_overlap(most):
    rng = random.Random(most)
    lengths = np.array([rng.randint(1, 32) for _ in range(500)])
    rows, columns = pack_lengths(lengths, 32, most)
    taken = np.zeros((rows.max() + 1, 32), int)
    for row, column, length in zip(rows, columns, lengths, strict=True):
        taken[row, column : column + length] += 1
    assert taken.max() == 1
    assert taken.sum() == lengths.sum()
    assert np.bincount(rows).max() <= most
    assert np.bincount(rows).min() >= 1


def test_packing_is_near_the_bound():
    rng = random.Random(5)
    lengths = np.array([rng.randint(2, 128) for _ in range(3000)])
    rows, _ = pack_lengths(lengths, 128, 8)
    assert rows.max() + 1 <= 1.01 * -(-lengths.sum() // 128)


def test_nothing_packs_into_no_rows():
    rows, columns = pack_lengths(np.zeros(0, np.int64), 8, 2)
    assert rows.shape == columns.shape == (0,)
