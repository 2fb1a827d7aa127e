"""The vectorised builders against plain ones on lists of tokens, and what must hold of any rows."""

import random
from itertools import chain, count

import numpy as np
import pytest

from bert_jax.corpus.instances import InstanceConfig, permutation
from bert_jax.corpus.pairs import build_rows
from bert_jax.corpus.records import IS_NEXT, IS_RANDOM, NO_LABEL, decode_rows, encode_rows
from bert_jax.corpus.vocabulary import TokenizedDocuments

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
FIRST_ID = 10


def documents_of(lengths, word_starts=None):
    """Documents of sentences of given lengths; every token has its own id, so spans can be told apart."""
    sentences = [length for document in lengths for length in document]
    total = sum(sentences)
    return TokenizedDocuments(
        input_ids=np.arange(FIRST_ID, FIRST_ID + total, dtype=np.int32),
        word_starts=np.arange(total) % 3 != 1 if word_starts is None else word_starts,
        sentence_offsets=np.cumsum([0, *sentences], dtype=np.int64),
        document_offsets=np.cumsum([0, *map(len, lengths)], dtype=np.int64),
    )


def random_lengths(seed, documents=12, longest=14):
    rng = random.Random(seed)
    return [[rng.randint(1, longest) for _ in range(rng.choice([0, 1, 2, 5, 9, 20]))] for _ in range(documents)]


def build(lengths, seed=7, **config):
    config = InstanceConfig("test", **{"sequence_length": 24, **config})
    documents = documents_of(lengths)
    return build_rows(documents, config, SPECIAL, 5000, seed)


def sequences_of(rows):
    """Every sequence as (first span, second span, label), read back from the rows."""
    found = []
    for row in range(len(rows.input_ids)):
        for number in range(1, rows.sequence_ids[row].max() + 1):
            inside = rows.sequence_ids[row] == number
            ids, segments = rows.input_ids[row, inside].tolist(), rows.segment_ids[row, inside]
            start = rows.sequence_starts[row, number - 1]
            assert inside[start]
            assert not inside[:start].any()
            assert ids[0] == SPECIAL["cls"]
            assert ids[-1] == SPECIAL["sep"]
            split = int((segments == 0).sum())
            assert ids[split - 1] == SPECIAL["sep"]
            assert (segments[split:] == 1).all()
            second = tuple(ids[split:-1]) if split < len(ids) else ()
            found.append((tuple(ids[1 : split - 1]), second, int(rows.next_sentence_labels[row, number - 1])))
    return found


def plain_pairs(lengths, config, seed):
    """Google's algorithm on lists of tokens, with the draws of the builder."""
    rng, tokens = random.Random(seed), count(FIRST_ID)
    texts = [[[next(tokens) for _ in range(length)] for length in document] for document in lengths if document]
    found = []
    for _ in range(config.duplicates):
        for index, text in enumerate(texts):
            target = config.max_tokens
            if rng.random() < config.short_probability:
                target = 2 + int(rng.random() * (config.max_tokens - 1))
            others = texts[:index] + texts[index + 1 :]
            position = 0
            while position < len(text):
                chunk = whole_sentences(text[position:], target)
                a, b, label, used = plain_pair(chunk, others, target, config, rng)
                position += used
                a, b = truncated_by_coins(a, b, config.max_tokens, rng)
                if config.pairs == "sop" and label == IS_RANDOM:
                    a, b = b, a
                found.append((tuple(a), tuple(b), label if b else NO_LABEL))
    return found


def plain_pair(chunk, others, target, config, rng):
    a_end = 1 + int(rng.random() * (len(chunk) - 1)) if len(chunk) > 1 else 1
    a, rest = list(chain(*chunk[:a_end])), list(chain(*chunk[a_end:]))
    if config.pairs == "sop":
        return a, rest, IS_RANDOM if len(chunk) > 1 and rng.random() < 0.5 else IS_NEXT, len(chunk)
    if others and (len(chunk) == 1 or rng.random() < 0.5):
        other = others[int(rng.random() * len(others))]
        start = int(rng.random() * len(other))
        return a, list(chain(*whole_sentences(other[start:], target - len(a)))), IS_RANDOM, a_end
    return a, rest, IS_NEXT, len(chunk)


def whole_sentences(sentences, target):
    taken = []
    for sentence in sentences:
        taken.append(sentence)
        if sum(map(len, taken)) >= target:
            break
    return taken


def truncated_by_coins(a, b, most, rng):
    cuts = [0, 0]
    while len(a) + len(b) - sum(cuts) > most:
        cuts[len(a) - cuts[0] <= len(b) - cuts[1]] += 1
    return [cut_by_coins(span, number, rng) for span, number in zip((a, b), cuts, strict=True)]


def cut_by_coins(span, number, rng):
    while number > 0:
        coins = int(rng.random() * 2**53)
        for bit in range(min(number, 53)):
            span = span[1:] if coins >> bit & 1 else span[:-1]
        number -= 53
    return span


@pytest.mark.parametrize("pairs", ["nsp", "sop"])
@pytest.mark.parametrize(("length", "short", "duplicates"), [(24, 0.1, 1), (64, 0.5, 3), (5, 0.0, 2)])
def test_pairs_are_those_of_the_plain_algorithm(pairs, length, short, duplicates):
    lengths = random_lengths(seed=length, longest=200 if length == 64 else 14)
    settings = {
        "pairs": pairs,
        "sequence_length": length,
        "short_sequence_probability": short,
        "duplicates": duplicates,
    }
    expected = plain_pairs(lengths, InstanceConfig("test", **settings), seed=7)
    rows = build(lengths, seed=7, **settings)
    order = permutation(len(expected), 7)
    assert [sequences_of(rows)[place] for place in order] == expected


def test_half_of_the_pairs_are_random_and_their_partners_come_from_other_documents():
    lengths = [[6] * 40 for _ in range(60)]
    found = sequences_of(build(lengths))
    labels = np.array([label for _, _, label in found])
    assert set(labels) == {IS_NEXT, IS_RANDOM}
    assert 0.5 < labels.mean() < 0.65  # a coin a chunk, but a lone last sentence always gets a random partner
    for a, b, label in found:
        document_a, document_b = ((ids[0] - FIRST_ID) // 240 for ids in (a, b))
        assert (document_a == document_b) == (label == IS_NEXT)
        assert label == IS_RANDOM or b[0] > a[-1]


def test_no_sentence_is_lost_where_nothing_has_to_be_truncated():
    lengths = [[1] * 30 for _ in range(20)]  # sentences of one token: chunks meet the length exactly
    found = sequences_of(build(lengths, short_sequence_probability=0.0))
    used = {token for a, b, label in found for token in (a + b if label == IS_NEXT else a)}
    assert used == set(range(FIRST_ID, FIRST_ID + 600))


def test_sop_swaps_half_of_the_pairs_and_labels_them():
    found = sequences_of(build([[6] * 200 for _ in range(5)], pairs="sop"))
    assert 0.4 < np.mean([label for *_, label in found]) < 0.6
    assert all((a[0] > b[0]) == (label == IS_RANDOM) for a, b, label in found)


def test_full_sentences_are_packed_up_to_the_length_within_documents():
    found = sequences_of(build([[8, 8, 8, 3], [30], [22, 1]], pairs="none"))
    spans = sorted((a[0] - FIRST_ID, len(a)) for a, b, label in found if not b and label == NO_LABEL)
    assert spans == [(0, 16), (16, 11), (27, 22), (49, 8), (57, 22), (79, 1)]  # the sentence of 30 is cut at 22


def test_short_targets_apply_to_full_sentences_only_when_asked():
    lengths = [[1] * 300 for _ in range(10)]
    full = [len(a) for a, _, _ in sequences_of(build(lengths, pairs="none"))]
    short = [len(a) for a, _, _ in sequences_of(build(lengths, pairs="none", short_sequence_probability=1.0))]
    assert sorted(set(full)) == [300 % 22, 22]
    assert np.mean(short) < 20


def test_duplicates_pair_the_text_differently_each_time():
    lengths = random_lengths(3)
    once, thrice = build(lengths, duplicates=1), build(lengths, duplicates=3)
    assert len(thrice.input_ids) > 2 * len(once.input_ids)
    assert len(set(sequences_of(thrice))) > 2 * len(once.input_ids)


def test_the_order_is_shuffled_by_the_seed_and_the_same_for_the_same_seed():
    lengths = random_lengths(4)
    first, again, other = build(lengths, seed=1), build(lengths, seed=1), build(lengths, seed=2)
    assert np.array_equal(first.input_ids, again.input_ids)
    assert not np.array_equal(first.input_ids[:5], other.input_ids[:5])
    begins = [a[0] for a, _, _ in sequences_of(build([[20] * 50, [20] * 50], pairs="none"))]
    assert begins != sorted(begins)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pairs", ["nsp", "sop", "none"])
@pytest.mark.parametrize("lengths", [[], [[]], [[], [], []]])
def test_a_bucket_without_text_gives_no_rows(lengths, pairs, packed):
    rows = build(lengths, pairs=pairs, packed=packed)
    assert rows.input_ids.shape == (0, 24)
    assert rows.next_sentence_labels.shape == (0, 8 if packed else 1)


def test_a_lone_document_has_no_random_partner():
    labels = {label for *_, label in sequences_of(build([[], [6] * 60]))}
    assert labels == {IS_NEXT}
    ((a, b, label),) = sequences_of(build([[9]]))
    assert (len(a), b, label) == (9, (), NO_LABEL)
    ((a, b, label),) = sequences_of(build([[99]]))
    assert (len(a), b, label) == (21, (), NO_LABEL)


def test_documents_of_one_sentence_are_paired_with_another():
    found = sequences_of(build([[5]] * 9))
    assert len(found) == 9
    assert all(label == IS_RANDOM and a != b for a, b, label in found)
    assert all(label == NO_LABEL and not b for _, b, label in sequences_of(build([[5]] * 9, pairs="sop")))


def test_overlong_sentences_are_cut_to_the_length():
    for a, b, _ in sequences_of(build([[500, 400], [700]])):
        assert len(a) + len(b) == 21
        assert min(len(a), len(b)) == 10


def test_words_start_behind_special_tokens_and_where_the_documents_say():
    rows = build(random_lengths(6))
    real = rows.sequence_ids > 0
    special = np.isin(rows.input_ids, (SPECIAL["cls"], SPECIAL["sep"])) & real
    after = np.roll(special, 1, axis=1)
    expected = ((rows.input_ids - FIRST_ID) % 3 != 1) | special | after
    assert np.array_equal(rows.word_starts, expected & real)
    assert (rows.input_ids[~real] == SPECIAL["pad"]).all()


@pytest.mark.parametrize("pairs", ["nsp", "sop", "none"])
def test_packing_changes_places_only(pairs):
    lengths = random_lengths(8, documents=60, longest=4)
    settings = {"pairs": pairs, "short_sequence_probability": 1.0}
    plain = build(lengths, **settings)
    packed = build(lengths, packed=True, max_sequences_per_row=4, **settings)
    assert sorted(sequences_of(packed)) == sorted(sequences_of(plain))
    assert len(packed.input_ids) < 0.9 * len(plain.input_ids)
    used = packed.sequence_ids.max(axis=1)
    assert 2 <= used.max() <= 4
    first_lengths = (packed.sequence_ids == 1).sum(axis=1)
    assert (np.diff(first_lengths) > 0).any()  # the packer's order, longest first, is not the rows' order
    absent = np.arange(4) >= used[:, None]
    assert (packed.next_sentence_labels[absent] == NO_LABEL).all()
    assert (packed.sequence_starts[absent] == 0).all()


def test_rows_survive_the_records():
    config = InstanceConfig("test", sequence_length=24, packed=True)
    rows = build_rows(documents_of(random_lengths(9)), config, SPECIAL, 5000, 1)
    record_format = config.record_format(5000)
    decoded = decode_rows(encode_rows(rows, record_format), record_format)
    for field in ("input_ids", "segment_ids", "word_starts", "sequence_ids", "sequence_starts", "next_sentence_labels"):
        assert np.array_equal(getattr(decoded, field), getattr(rows, field)), field
