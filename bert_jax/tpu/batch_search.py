"""The largest batch a device that fits, found with few compilations: memory is nearly a line in the rows."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What one compilation said.

    Attributes:
        rows: of a device.
        used_bytes: by the program's memory, or by the compiler's refusal; None where that does not say.
        fits: whether it compiled.
    """

    rows: int
    used_bytes: float | None
    fits: bool


@dataclasses.dataclass(frozen=True)
class LargestBatch:
    """The result of a search.

    Attributes:
        rows: the most rows of a device that fit, a multiple of the search's step; 0 = not even the smallest fits.
        refused_rows: the fewest that did not; None = the limit was reached, and fits.
        attempts: in the order in which they were made.
    """

    rows: int
    refused_rows: int | None
    attempts: tuple[Attempt, ...]


def largest_batch(
    attempt: Callable[[int], Attempt], available_bytes: float, first: int, step: int, limit: int
) -> LargestBatch:
    """Search among the multiples of `step` rows up to `limit`.

    Args:
        attempt: compiles with so many rows a device.
        available_bytes: of a device.
        first: rows to begin with.
        step: the result is exact to this many rows.
        limit: rows that are enough.
    """
    first, limit = max(first // step, 1), limit // step
    attempts: list[Attempt] = []
    fits, refused = 0, limit + 1
    place = min(first, limit)
    while refused - fits > 1:
        attempts.append(attempt(place * step))
        fits, refused = (place, refused) if attempts[-1].fits else (fits, place)
        place = _next(attempts, available_bytes, step, fits, refused)
    return LargestBatch(fits * step, refused * step if refused <= limit else None, tuple(attempts))


def _next(attempts: list[Attempt], available_bytes: float, step: int, fits: int, refused: int) -> int:
    """Return the place to try: where the line through the last two known points meets the memory.

    It lies between the bounds: one above what is thought to be the largest, which must be refused, where that fits.
    Past the line, where what is counted is more than the compiler needs, it goes on in growing strides.
    """
    past = sum(one.fits and (one.used_bytes or 0.0) > available_bytes for one in attempts)
    if past:
        return min(max(min(fits + 2**past, (fits + refused) // 2), fits + 1), refused - 1)
    known = [one for one in attempts if one.used_bytes is not None][-2:]
    guess = 2 * fits if refused > 2 * fits and fits else (fits + refused) // 2
    if len(known) == 2 and known[0].rows != known[1].rows:
        (first, last), used = known, [one.used_bytes or 0.0 for one in known]
        slope = (used[1] - used[0]) / (last.rows - first.rows)
        if slope > 0:
            guess = int((last.rows + (available_bytes - used[1]) / slope) / step)
        if guess > refused:  # the line promises what was refused
            guess = (fits + refused) // 2
    return min(max(guess, fits + 1), refused - 1)
