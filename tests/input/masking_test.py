import dataclasses

import numpy as np
import pytest

from bert_jax.corpus.records import Rows
from bert_jax.input import hashing, masking
from bert_jax.input.masking import MaskingConfig, mask_rows

PAD, CLS, SEP, MASK = 0, 2, 3, 4
SPECIAL_IDS = {"pad": PAD, "unk": 1, "cls": CLS, "sep": SEP, "mask": MASK}
VOCAB_SIZE = 1000


def make_rows(sizes, length, seed=0, num_sequences=1, piece_fraction=0.3):
    """Rows of `num_sequences` sequences of sizes[row] tokens each, ids from 5 on, random word starts."""
    generator = np.random.default_rng(seed)
    ids = np.zeros((len(sizes), length), np.int32)
    word_starts = np.zeros((len(sizes), length), bool)
    sequence_ids = np.zeros((len(sizes), length), np.int32)
    for row, size in enumerate(sizes):
        for sequence in range(num_sequences):
            span = slice(sequence * size, (sequence + 1) * size)
            ids[row, span] = generator.integers(5, VOCAB_SIZE, size)
            ids[row, [span.start, span.start + size // 2, span.stop - 1]] = CLS, SEP, SEP
            word_starts[row, span] = (generator.random(size) >= piece_fraction) | (ids[row, span] < 5)
            sequence_ids[row, span] = sequence + 1
    zeros = np.zeros_like(ids)
    return Rows(ids, zeros, word_starts, sequence_ids, zeros[:, :num_sequences], zeros[:, :num_sequences])


def mask(rows, indices=None, epochs=None, seed=0, **config):
    indices = np.arange(len(rows.input_ids)) if indices is None else indices
    epochs = np.zeros_like(indices) if epochs is None else epochs
    return mask_rows(rows, indices, epochs, MaskingConfig(**config), seed, SPECIAL_IDS, VOCAB_SIZE)


def chosen_positions(masked, row):
    return masked["masked_lm_positions"][row][masked["masked_lm_weights"][row] > 0].tolist()


def groups_by_hand(rows, row, unit):
    """Consecutive positions that one group holds, found token by token."""
    groups = []
    for position, token in enumerate(rows.input_ids[row].tolist()):
        if rows.sequence_ids[row, position] == 0 or token in (CLS, SEP):
            continue
        joins = unit == "word" and not rows.word_starts[row, position]
        if joins and groups and groups[-1][-1] == position - 1:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def masks_by_hand(rows, row, unit, fraction, most, index, epoch, seed):
    """`create_masked_lm_predictions` in plain Python, with the hash as its shuffle."""
    draws = hashing.draw(hashing.fold(seed, np.array([index]), np.array([epoch])), rows.input_ids.shape[1])[0]
    groups = sorted(groups_by_hand(rows, row, unit), key=lambda group: int(draws[group[0]]))
    wanted = min(most, max(1, round(fraction * int((rows.sequence_ids[row] > 0).sum()))))
    chosen = []
    for group in groups:
        if len(chosen) + len(group) <= wanted:
            chosen += group
    return sorted(chosen)


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize(("fraction", "piece_fraction"), [(0.15, 0.3), (0.5, 0.3), (1.0, 0.3), (0.05, 0.8), (0.1, 0.8)])
@pytest.mark.parametrize("num_sequences", [1, 3])
def test_chosen_tokens_are_those_of_a_loop_over_groups(unit, fraction, piece_fraction, num_sequences):
    # With words of 5 pieces and 3 tokens wanted, most groups overshoot and many are tried.
    rows = make_rows([3, 4, 10, 21, 13, 18], 63, num_sequences=num_sequences, piece_fraction=piece_fraction)
    masked = mask(rows, np.arange(6) + 40, np.full(6, 9), 5, unit=unit, masked_fraction=fraction)

    for row in range(6):
        assert chosen_positions(masked, row) == masks_by_hand(rows, row, unit, fraction, 20, row + 40, 9, 5)


@pytest.mark.parametrize("unit", ["token", "word", "ngram"])
def test_outputs_fit_together(unit):
    rows = make_rows([5, 20, 33, 64] * 10, 64)
    masked = mask(rows, unit=unit, max_predictions_per_row=7)

    assert {name: (array.dtype.name, array.shape) for name, array in masked.items()} == {
        "input_ids": ("int32", (40, 64)),
        "masked_lm_positions": ("int32", (40, 7)),
        "masked_lm_ids": ("int32", (40, 7)),
        "masked_lm_weights": ("float32", (40, 7)),
    }
    for row in range(40):
        positions = chosen_positions(masked, row)
        count = len(positions)
        assert positions == sorted(set(positions))
        assert masked["masked_lm_ids"][row, :count].tolist() == rows.input_ids[row, positions].tolist()
        assert not masked["masked_lm_positions"][row, count:].any()
        assert not masked["masked_lm_ids"][row, count:].any()
        unchosen = np.setdiff1d(np.arange(64), positions)
        assert (masked["input_ids"][row, unchosen] == rows.input_ids[row, unchosen]).all()
        assert not np.isin(rows.input_ids[row, positions], [PAD, CLS, SEP]).any()


def test_the_rows_given_are_left_alone():
    rows = make_rows([30] * 5, 32)
    before = rows.input_ids.copy()

    mask(rows)

    assert (rows.input_ids == before).all()


@pytest.mark.parametrize(("real_tokens", "count"), [(3, 1), (10, 2), (30, 4), (50, 8), (64, 10)])
def test_the_number_of_masks_rounds_half_to_even_over_all_real_tokens(real_tokens, count):
    # 0.15 × 10 = 1.5 -> 2, 0.15 × 30 = 4.5 -> 4, 0.15 × 50 = 7.5 -> 8: as Python's round in Google's code.
    assert mask(make_rows([real_tokens], 64))["masked_lm_weights"].sum() == min(count, real_tokens - 3 or 0)


@pytest.mark.parametrize("unit", ["token", "word", "ngram"])
def test_a_row_without_candidates_has_no_predictions(unit):
    rows = make_rows([3, 40], 64)  # the first row is [CLS] [SEP] [SEP]
    rows.input_ids[0, 1] = SEP

    weights = mask(rows, unit=unit)["masked_lm_weights"]

    assert weights.sum(axis=1).tolist()[0] == 0
    assert weights.sum(axis=1).tolist()[1] > 0


@pytest.mark.parametrize("unit", ["token", "word", "ngram"])
def test_masks_do_not_depend_on_the_batch(unit):
    rows = make_rows([20, 64, 40, 33, 64, 50], 64)
    indices, epochs = np.array([5, 0, 3, 2**33, 1, 4]), np.array([0, 1, 7, 0, 2, 2])
    together = mask(rows, indices, epochs, unit=unit)

    for row in range(6):
        one = Rows(*(getattr(rows, field.name)[row : row + 1] for field in dataclasses.fields(Rows)[:6]))
        alone = mask(one, indices[row : row + 1], epochs[row : row + 1], unit=unit)
        for name, array in alone.items():
            assert (array[0] == together[name][row]).all(), name


@pytest.mark.parametrize("change", [{"epochs": np.ones(20, np.int64)}, {"seed": 1}, {"indices": np.arange(20) + 20}])
def test_masks_are_new_for_another_epoch_seed_or_record(change):
    rows = make_rows([64] * 20, 64)
    first, second = mask(rows), mask(rows, **change)

    same = [chosen_positions(first, row) == chosen_positions(second, row) for row in range(20)]
    assert not any(same)


def test_whole_words_are_masked_whole():
    rows = make_rows([64] * 200, 64, piece_fraction=0.5)
    masked = mask(rows, unit="word")

    for row in range(200):
        chosen = set(chosen_positions(masked, row))
        for group in groups_by_hand(rows, row, "word"):
            assert chosen.isdisjoint(group) or chosen.issuperset(group)


def test_ngrams_are_whole_words_and_end_at_special_tokens():
    rows = make_rows([64] * 200, 64, piece_fraction=0.5)
    masked = mask(rows, unit="ngram", masked_fraction=0.3, max_ngram_words=4)

    for row in range(200):
        chosen = set(chosen_positions(masked, row))
        for group in groups_by_hand(rows, row, "word"):
            assert chosen.isdisjoint(group) or chosen.issuperset(group)
    assert masked["masked_lm_weights"].sum(axis=1).mean() > 17  # of 19: what fits is found


@pytest.mark.parametrize("max_words", [1, 2, 3, 5])
def test_ngram_lengths_are_weighted_one_over_n(max_words):
    words = np.ones((400, 200), bool)
    starts = masking._ngram_starts(words, words, hashing.fold(0, np.arange(400)), max_words)

    lengths = np.concatenate([np.diff(np.flatnonzero(row)) for row in starts])  # without the last group, which is cut
    weights = 1 / np.arange(1, max_words + 1)
    expected = len(lengths) * weights / weights.sum()
    counts = np.bincount(lengths)[1:]
    assert starts[:, 0].all()
    assert np.abs(counts - expected).max() < 5 * np.sqrt(len(lengths) / 4)


def test_ngrams_of_one_word_are_whole_words():
    rows = make_rows([20, 64, 40], 64)

    words, ngrams = mask(rows, unit="word"), mask(rows, unit="ngram", max_ngram_words=1)

    assert all((words[name] == ngrams[name]).all() for name in words)


def test_ngrams_are_cut_at_special_tokens():
    candidates = np.tile(np.array([False, True, True, False, True, True, True, False]), (300, 1))
    words = candidates & (np.arange(8) != 5)  # [CLS] a b [SEP] c ##d e [SEP]
    starts = masking._ngram_starts(words, candidates, hashing.fold(0, np.arange(300)), 9)

    assert starts[:, [1, 4]].all()
    assert not starts[:, [0, 3, 5, 7]].any()
    assert 0 < starts[:, 2].mean() < 1


@pytest.mark.parametrize("unit", ["token", "word"])
def test_every_position_is_as_likely(unit):
    rows = make_rows([32] * 4000, 32, piece_fraction=0.0)
    masked = mask(rows, unit=unit)

    counts = np.bincount(masked["masked_lm_positions"][masked["masked_lm_weights"] > 0], minlength=32)
    candidates = np.setdiff1d(np.arange(32), [0, 16, 31])
    expected = counts.sum() / len(candidates)
    assert counts[[0, 16, 31]].sum() == 0
    assert np.abs(counts[candidates] - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize(("mask_fraction", "random_fraction"), [(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_chosen_tokens_become_mask_random_or_stay(mask_fraction, random_fraction):
    rows = make_rows([128] * 2000, 128)
    masked = mask(rows, mask_token_fraction=mask_fraction, random_token_fraction=random_fraction)
    weights = masked["masked_lm_weights"] > 0
    new = np.take_along_axis(masked["input_ids"], masked["masked_lm_positions"], axis=1)[weights]
    old = masked["masked_lm_ids"][weights]

    shares = np.array([(new == MASK).mean(), ((new != MASK) & (new != old)).mean(), (new == old).mean()])
    # 38,000 tokens: a share's standard deviation is at most 0.0026. A random token is the old one or [MASK] in 0.2 %.
    expected = np.array([mask_fraction, random_fraction, 1 - mask_fraction - random_fraction])
    assert np.abs(shares - expected).max() < 0.0105


def test_random_tokens_come_from_the_whole_vocabulary():
    rows = make_rows([128] * 2000, 128)
    masked = mask(rows, mask_token_fraction=0.0, random_token_fraction=1.0)
    weights = masked["masked_lm_weights"] > 0
    new = np.take_along_axis(masked["input_ids"], masked["masked_lm_positions"], axis=1)[weights]

    counts = np.bincount(new, minlength=VOCAB_SIZE)
    expected = len(new) / VOCAB_SIZE
    assert len(counts) == VOCAB_SIZE
    assert counts.min() > 0  # special tokens included, as in Google's code
    assert np.abs(counts - expected).max() < 5.5 * np.sqrt(expected)


def test_more_predictions_than_tokens_are_allowed():
    masked = mask(make_rows([8, 8], 8), masked_fraction=1.0, max_predictions_per_row=50)

    assert masked["masked_lm_weights"].sum(axis=1).tolist() == [5, 5]
    assert masked["masked_lm_positions"].shape == (2, 50)


def test_stored_masks_are_used_as_they_are():
    rows = make_rows([8], 8)
    static = dataclasses.replace(
        rows,
        masked_lm_positions=np.array([[2, 5, 0]], np.int32),
        masked_lm_ids=np.array([[77, 78, 0]], np.int32),
        num_masked=np.array([2], np.int32),
    )

    masked = mask(static)

    assert (masked["input_ids"] == rows.input_ids).all()
    assert masked["masked_lm_positions"].tolist() == [[2, 5, 0]]
    assert masked["masked_lm_ids"].tolist() == [[77, 78, 0]]
    assert masked["masked_lm_weights"].tolist() == [[1, 1, 0]]
    assert masked["masked_lm_weights"].dtype == np.float32


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"unit": "words"}, "did you mean 'word'"),
        ({"masked_fraction": 0.0}, "masked_fraction is 0.0"),
        ({"masked_fraction": 15.0}, "at most 1"),
        ({"mask_token_fraction": 1.2}, "mask_token_fraction is 1.2"),
        ({"random_token_fraction": -0.1}, "random_token_fraction is -0.1"),
        ({"random_token_fraction": 0.3}, "add up to more than 1"),
        ({"max_predictions_per_row": 0}, "max_predictions_per_row is 0"),
        ({"max_ngram_words": 0}, "max_ngram_words is 0"),
    ],
)
def test_a_config_that_cannot_mask_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        MaskingConfig(**config)


@pytest.mark.parametrize("num_sequences", [1, 2])
def test_the_next_token_of_the_same_sequence_is_predicted_and_nothing_is_masked(num_sequences):
    rows = make_rows([6, 4], 14, num_sequences=num_sequences)
    masked = mask(rows, unit="next", max_predictions_per_row=13)
    np.testing.assert_array_equal(masked["input_ids"], rows.input_ids)
    for row, size in enumerate((6, 4)):
        expected = [sequence * size + place for sequence in range(num_sequences) for place in range(size - 1)]
        assert chosen_positions(masked, row) == expected
        ids = masked["masked_lm_ids"][row, : len(expected)]
        np.testing.assert_array_equal(ids, rows.input_ids[row, np.array(expected) + 1])
        assert not masked["masked_lm_ids"][row, len(expected) :].any()


@pytest.mark.parametrize("most", [3, 50])
def test_the_first_next_tokens_are_predicted_where_there_is_no_room_for_all(most):
    masked = mask(make_rows([6], 8), unit="next", max_predictions_per_row=most)
    assert masked["masked_lm_positions"].shape == (1, most)
    assert chosen_positions(masked, 0) == list(range(min(most, 5)))


def test_a_full_row_predicts_its_share_or_all_but_one():
    assert masking.predictions_wanted(MaskingConfig(masked_fraction=0.15), 128) == 19
    assert masking.predictions_wanted(MaskingConfig(unit="next"), 128) == 127
