import itertools

import pytest

from bert_jax.tpu.batch_search import Attempt, largest_batch


def compiler(fixed, per_row, memory, says=True, needs=1.0):
    """Return a compiler whose programs take fixed + per_row · rows, of which it needs a part only."""

    def attempt(rows):
        used = fixed + per_row * rows
        fits = needs * used <= memory
        return Attempt(rows, used if says or fits else None, fits)

    return attempt


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("needs", [1.0, 0.97, 0.5, 1.05])
@pytest.mark.parametrize(("fixed", "per_row"), [(2.0, 0.1), (1.0, 0.013), (0.0, 1.9), (15.0, 0.09)])
def test_the_largest_multiple_that_fits_is_found_and_the_next_one_was_refused(fixed, per_row, needs, says):
    attempt = compiler(fixed, per_row, 16.0, says, needs)
    best = largest_batch(attempt, 16.0, first=64, step=8, limit=4096)
    assert attempt(best.rows).fits
    assert best.refused_rows == best.rows + 8
    assert not attempt(best.refused_rows).fits
    assert {best.rows, best.refused_rows} - {0} <= {one.rows for one in best.attempts}


def test_a_line_takes_few_compilations():
    assert len(largest_batch(compiler(2.0, 0.1, 16.0), 16.0, first=64, step=8, limit=4096).attempts) <= 4
    for needs, says in itertools.product((0.95, 1.05), (True, False)):
        counted_otherwise = compiler(2.0, 0.0118, 16.0, says, needs)
        assert len(largest_batch(counted_otherwise, 16.0, first=64, step=8, limit=4096).attempts) <= 12


def test_nothing_fits_or_everything():
    assert largest_batch(compiler(17.0, 0.1, 16.0), 16.0, first=64, step=8, limit=4096).rows == 0
    best = largest_batch(compiler(1.0, 0.0, 16.0), 16.0, first=64, step=8, limit=128)
    assert (best.rows, best.refused_rows) == (128, None)
