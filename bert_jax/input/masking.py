"""Masks of the masked language model, drawn online for a whole batch at once.

What is masked is a pure function of (seed, record, epoch): the same for any batch, host or thread in which the record
comes, and new each epoch. A mask unit is a group of neighbouring tokens: a token, a word, or an n-gram of words.

Source: Devlin et al. 2019 §3.1 and google-research/bert `create_pretraining_data.py` (`create_masked_lm_predictions`);
n-gram lengths weighted 1/n as in ALBERT (Lan et al. 2020 §4.1).
Differs: random draws are hashes, so masks are new each epoch and those of a record can be made alone. A word piece at
the start of a truncated sentence is a word of its own; Google's code joins it to the word before the special token.
Packed rows count and draw all their sequences together.
"""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from jaxtyping import Int

from bert_jax.config import choose
from bert_jax.corpus.records import Rows
from bert_jax.input import hashing

NEXT = "next"
UNITS = ("token", "word", "ngram", NEXT)
_CORRUPTION, _NGRAMS = 1, 2  # what a row's further draws are for
_POSITION_BITS = np.uint64(0xFFFF)  # a row holds at most 65,535 tokens (records.RecordFormat)
_LAST = np.uint64(0xFFFF_FFFF_FFFF_FFFF)  # sorts behind every candidate


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """How masks are drawn; a set with static masks (mode `google`) uses its stored ones and ignores this.

    Attributes:
        unit: "token", "word" (whole words) or "ngram" (1 to max_ngram_words whole words, lengths weighted 1/n); or
            "next": nothing is masked, and every token is to predict the one behind it (of a causal model), the first
            max_predictions_per_row of them.
        masked_fraction: of a row's real tokens, special ones counted, that is to be predicted; in (0, 1].
        mask_token_fraction: of the chosen tokens that become [MASK].
        random_token_fraction: of the chosen tokens that become any token of the vocabulary; the rest stays.
        max_predictions_per_row: at most so many tokens are chosen; 1 or more. The P of a batch's shapes.
        max_ngram_words: of unit "ngram"; 1 or more.
    """

    unit: str = "token"
    masked_fraction: float = 0.15
    mask_token_fraction: float = 0.8
    random_token_fraction: float = 0.1
    max_predictions_per_row: int = 20
    max_ngram_words: int = 3

    def __post_init__(self) -> None:
        """Refuse what no mask can be drawn from."""
        choose("masking.unit", self.unit, UNITS)
        if not 0 < self.masked_fraction <= 1:
            raise ValueError(f"masking.masked_fraction is {self.masked_fraction}; it must be above 0 and at most 1")
        for name in ("mask_token_fraction", "random_token_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"masking.{name} is {getattr(self, name)}; it must be in [0, 1]")
        if self.mask_token_fraction + self.random_token_fraction > 1 + 1e-9:
            raise ValueError(
                f"masking.mask_token_fraction {self.mask_token_fraction} and random_token_fraction "
                f"{self.random_token_fraction} add up to more than 1; the paper's are 0.8 and 0.1"
            )
        for name in ("max_predictions_per_row", "max_ngram_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"masking.{name} is {getattr(self, name)}; it must be 1 or more")


def mask_rows(
    rows: Rows,
    record_indices: Int[np.ndarray, " rows"],
    epochs: Int[np.ndarray, " rows"],
    config: MaskingConfig,
    seed: int,
    special_ids: Mapping[str, int],
    vocab_size: int,
) -> dict[str, np.ndarray]:
    """Choose and corrupt the tokens to predict.

    A row gets min(max_predictions_per_row, max(1, masked_fraction × real tokens rounded half to even)) tokens, fewer
    when it has no more candidates; [CLS], [SEP] and padding are none. Groups are taken in a drawn order; one that would
    overshoot is passed over and later ones are tried. A row without candidates gets no prediction.

        [CLS] my dog [SEP] [PAD]  ->  input_ids [CLS] my [MASK] [SEP] [PAD], positions 2 0 …, ids dog 0 …, weights 1 0 …

    Args:
        rows: decoded rows; with stored masks (static) these are returned as they are.
        record_indices: of each row in its split.
        epochs: of each row, 0 for evaluation.
        config: how to draw.
        seed: of the run.
        special_ids: ids of `cls`, `sep` and `mask`.
        vocab_size: random tokens come from all of [0, vocab_size), special ones included, as in Google's code.

    Returns:
        input_ids int32 [rows, length]; masked_lm_positions (sorted) and masked_lm_ids int32, masked_lm_weights float32
        [rows, predictions], all 0 behind a row's last prediction.
    """
    if rows.num_masked is not None:
        return _stored_masks(rows)
    if config.unit == NEXT:
        return _next_tokens(rows, config.max_predictions_per_row)
    real = rows.sequence_ids > 0
    candidates = real & (rows.input_ids != special_ids["cls"])
    candidates &= rows.input_ids != special_ids["sep"]
    # Python's and numpy's rounding both go half to even, and the product is an IEEE double in both.
    wanted = np.rint(config.masked_fraction * np.count_nonzero(real, axis=1)).astype(np.int64)
    wanted = np.minimum(config.max_predictions_per_row, np.maximum(1, wanted))
    keys = hashing.fold(seed, record_indices, epochs)
    if config.unit == "token":
        chosen = _choose_tokens(candidates, keys, wanted)
    else:
        starts = candidates & rows.word_starts
        starts[:, 1:] |= candidates[:, 1:] & ~candidates[:, :-1]  # a span never crosses a special token
        starts[:, 0] |= candidates[:, 0]
        if config.unit == "ngram":
            starts = _ngram_starts(starts, candidates, keys, config.max_ngram_words)
        chosen = _choose_groups(starts, candidates, keys, wanted)
    return _corrupt(rows.input_ids, chosen, keys, config, special_ids["mask"], vocab_size)


def predictions_wanted(config: MaskingConfig, sequence_length: int) -> int:
    """Return how many tokens of a full row of this length are predicted, if max_predictions_per_row allows."""
    return sequence_length - 1 if config.unit == NEXT else round(config.masked_fraction * sequence_length)


def _next_tokens(rows: Rows, max_predictions: int) -> dict[str, np.ndarray]:
    """Return the rows as they are; each token of a sequence but its last is to predict the one behind it."""
    ids, sequences = rows.input_ids, rows.sequence_ids
    predicts = (sequences[:, :-1] > 0) & (sequences[:, :-1] == sequences[:, 1:])
    # Places that predict, in order, before those that do not.
    order = np.argsort(~predicts, axis=1, kind="stable")[:, :max_predictions]
    weights = np.take_along_axis(predicts, order, axis=1)
    filler = ((0, 0), (0, max_predictions - order.shape[1]))
    predictions = {
        "masked_lm_positions": np.where(weights, order, 0).astype(np.int32),
        "masked_lm_ids": np.where(weights, np.take_along_axis(ids[:, 1:], order, axis=1), 0).astype(np.int32),
        "masked_lm_weights": weights.astype(np.float32),
    }
    return {"input_ids": ids, **{name: np.pad(values, filler) for name, values in predictions.items()}}


def _stored_masks(rows: Rows) -> dict[str, np.ndarray]:
    assert rows.masked_lm_positions is not None
    assert rows.masked_lm_ids is not None
    assert rows.num_masked is not None
    weights = np.arange(rows.masked_lm_positions.shape[1]) < rows.num_masked[:, None]
    return {
        "input_ids": rows.input_ids,
        "masked_lm_positions": rows.masked_lm_positions,
        "masked_lm_ids": rows.masked_lm_ids,
        "masked_lm_weights": weights.astype(np.float32),
    }


def _drawn_order(members: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return uint64 [rows, length] whose ascending order is random; the low 16 bits are the position."""
    length = members.shape[1]
    order = hashing.draw(keys, length)
    order &= ~_POSITION_BITS
    order |= np.arange(length, dtype=np.uint64)
    order[~members] = _LAST
    return order


def _choose_tokens(candidates: np.ndarray, keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Choose `wanted` candidates of each row; returns bool [rows, length]."""
    order = _drawn_order(candidates, keys)
    most = min(int(wanted.max()), order.shape[1])
    first = np.partition(order, most - 1, axis=1)[:, :most]
    first.sort(axis=1)
    last = np.take_along_axis(first, np.minimum(wanted, most)[:, None] - 1, axis=1)
    return (order <= last) & candidates


def _choose_groups(starts: np.ndarray, candidates: np.ndarray, keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Choose whole groups of together at most `wanted` tokens a row; returns bool [rows, length].

    A group is a candidate in `starts` with the candidates that follow it, up to the next start or non-candidate.
    """
    num_rows, length = starts.shape
    boundaries = starts | ~candidates
    boundaries[:, 0] = True
    # Every token from one boundary to the next is one run over the flattened batch; the runs tile it.
    runs = np.flatnonzero(boundaries)
    run_sizes = np.diff(runs, append=num_rows * length)
    size_at = np.empty(num_rows * length, np.int64)
    size_at[runs] = run_sizes

    order = np.sort(_drawn_order(starts, keys), axis=1)
    num_groups = np.count_nonzero(starts, axis=1)
    remaining = np.minimum(wanted, length)
    chosen = np.zeros(num_rows * length, bool)
    # Most rows are full after their first groups, so later ranks are tried for the unfinished rows only.
    rows, first, block = np.arange(num_rows), 0, int(wanted.max()) + 4
    while len(rows):
        ranked = order[rows, first : first + block].T  # [ranks, rows]
        present = ranked != _LAST
        flat = np.where(present, ranked & _POSITION_BITS, 0).astype(np.int64) + rows * length
        sizes = np.where(present, size_at[flat], length + 1)  # an absent group never fits
        taken, left = np.empty(sizes.shape, bool), remaining[rows]
        for rank in range(len(sizes)):
            np.less_equal(sizes[rank], left, out=taken[rank])
            left -= sizes[rank] * taken[rank]
        chosen[flat[taken]] = True
        remaining[rows] = left
        first += block
        rows = rows[(left > 0) & (num_groups[rows] > first)]
    return np.repeat(chosen[runs], run_sizes).reshape(num_rows, length)


def _ngram_starts(word_starts: np.ndarray, candidates: np.ndarray, keys: np.ndarray, max_words: int) -> np.ndarray:
    """Cut each row's words into consecutive groups of 1 to `max_words`; returns where groups start.

    Group j of a row has a drawn length; a special token cuts a group short. Bool [rows, length].
    """
    num_words = np.count_nonzero(word_starts, axis=1)
    num_rows, most = len(num_words), int(num_words.max())
    draws = hashing.draw(hashing.mix(keys + np.uint64(_NGRAMS)), most)
    lengths = np.ones((num_rows, most), np.int8)
    for threshold in _ngram_thresholds(max_words):
        lengths += draws >= threshold
    # begins[r, j] is the number of the word with which group j starts; those behind the row's end go to a spare column.
    begins = np.cumsum(lengths, axis=1, dtype=np.int64) - lengths
    is_first = np.zeros((num_rows, most + 1), bool)
    is_first.ravel()[np.minimum(begins, most) + np.arange(num_rows)[:, None] * (most + 1)] = True
    # Row by row, the words of `is_first` are those of `word_starts`.
    starts = np.zeros_like(word_starts)
    starts[word_starts] = is_first[np.arange(most + 1) < num_words[:, None]]
    starts[:, 1:] |= word_starts[:, 1:] & ~candidates[:, :-1]
    return starts


def _ngram_thresholds(max_words: int) -> list[np.uint64]:
    """Return where a 64-bit draw passes from n words to n + 1, n words having the weight 1/n."""
    weights = [Fraction(1, words) for words in range(1, max_words + 1)]
    return [np.uint64(int(sum(weights[:words]) / sum(weights) * (1 << 64))) for words in range(1, max_words)]


def _corrupt(
    input_ids: np.ndarray,
    chosen: np.ndarray,
    keys: np.ndarray,
    config: MaskingConfig,
    mask_id: int,
    vocab_size: int,
) -> dict[str, np.ndarray]:
    num_rows, length = input_ids.shape
    flat = np.flatnonzero(chosen)  # ascending, so positions come out sorted
    row = flat // length
    position = flat - row * length
    ids = input_ids.ravel()[flat]

    draws = hashing.draw_at(hashing.mix(keys + np.uint64(_CORRUPTION))[row], position)
    kind, token = draws >> np.uint64(32), draws & np.uint64(0xFFFF_FFFF)
    masked_below = np.uint64(round(config.mask_token_fraction * (1 << 32)))
    random_below = masked_below + np.uint64(round(config.random_token_fraction * (1 << 32)))
    random_ids = ((token * np.uint64(vocab_size)) >> np.uint64(32)).astype(np.int32)
    new_ids = np.where(kind < masked_below, np.int32(mask_id), np.where(kind < random_below, random_ids, ids))
    corrupted = input_ids.copy()
    corrupted.ravel()[flat] = new_ids

    counts = np.bincount(row, minlength=num_rows)
    slot = np.arange(len(flat)) - (np.cumsum(counts) - counts)[row]
    predictions = {
        "masked_lm_positions": np.zeros((num_rows, config.max_predictions_per_row), np.int32),
        "masked_lm_ids": np.zeros((num_rows, config.max_predictions_per_row), np.int32),
        "masked_lm_weights": np.zeros((num_rows, config.max_predictions_per_row), np.float32),
    }
    for name, values in zip(predictions, (position, ids, 1.0), strict=True):
        predictions[name][row, slot] = values
    return {"input_ids": corrupted, **predictions}
