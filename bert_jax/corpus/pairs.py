"""Instances: which spans of a bucket's documents become sequences, and with which sentence-pair label.

Source: google-research/bert `create_pretraining_data.py` ("nsp"); Lan et al. 2020 (ALBERT) §3.1 ("sop"); Liu et al.
2019 (RoBERTa) §4.2, DOC-SENTENCES ("none").
Differs, outside mode `google`: the random document is drawn from the others at once, where Google tries ten times and
then takes what it has; a single sentence that can have no partner (one document, or "sop") stands alone without a
label, where Google pairs it with its own document; all draws come from `Random.random()`, whose stream Python promises.
Sentences are lengths and offsets here: no token is touched before all rows are known.
"""

from bisect import bisect_left, bisect_right
from random import Random

import numpy as np

from bert_jax.corpus.google_instances import google_rows
from bert_jax.corpus.instances import InstanceConfig, Places, Sequences, lay_out, permutation
from bert_jax.corpus.packing import pack_lengths
from bert_jax.corpus.records import IS_NEXT, IS_RANDOM, NO_LABEL, Rows
from bert_jax.corpus.vocabulary import TokenizedDocuments

_Span = tuple[int, int]
_MANTISSA = 1 << 53  # random() is a multiple of 2^-53: 53 fair coins


def build_rows(
    documents: TokenizedDocuments,
    config: InstanceConfig,
    special_ids: dict[str, int],
    vocab_size: int,
    seed: int,
) -> Rows:
    """Return one bucket's rows, shuffled; a function of its arguments alone.

    Args:
        documents: of one bucket; documents without sentences are passed over. None at all gives no rows.
        config: what to build.
        special_ids: ids of `pad`, `cls`, `sep` and `mask`.
        vocab_size: ids that a static random replacement is drawn from (mode "google" only).
        seed: 0 or more; already folded with what tells this bucket and split from others.
    """
    if config.mode == "google":
        return google_rows(documents, config, special_ids, vocab_size, seed)
    sequences = _sample_sequences(documents, config, Random(seed))
    order = permutation(len(sequences.labels), seed)
    if not config.packed:
        places = Places(order, np.zeros_like(order), np.zeros_like(order), len(order))
        return lay_out(documents, sequences, places, config, special_ids)
    return lay_out(documents, sequences, _pack(sequences.lengths, order, config, seed), config, special_ids)


def _pack(lengths: np.ndarray, order: np.ndarray, config: InstanceConfig, seed: int) -> Places:
    """Pack in a random order (equal lengths would meet their neighbours in the text) and shuffle the rows."""
    row, column = np.zeros_like(order), np.zeros_like(order)
    row[order], column[order] = pack_lengths(lengths[order], config.sequence_length, config.max_sequences_per_row)
    num_rows = int(row.max(initial=-1)) + 1
    by_place = np.lexsort((column, row))
    sorted_row = row[by_place]
    number = np.zeros_like(order)
    number[by_place] = np.arange(len(order)) - np.searchsorted(sorted_row, sorted_row)
    return Places(permutation(num_rows, seed + 1)[row], column, number, num_rows)


def _sample_sequences(documents: TokenizedDocuments, config: InstanceConfig, rng: Random) -> Sequences:
    """Go through all documents `duplicates` times."""
    sentence_offsets: list[int] = documents.sentence_offsets.tolist()
    bounds = documents.document_offsets
    begins, ends = bounds[:-1], bounds[1:]
    spans = list(zip(begins[ends > begins].tolist(), ends[ends > begins].tolist(), strict=True))
    flat: list[int] = []
    for _ in range(config.duplicates):
        for index in range(len(spans)):
            target = config.max_tokens
            if rng.random() < config.short_probability:
                target = 2 + int(rng.random() * (config.max_tokens - 1))
            if config.pairs == "none":
                _full_sentences(sentence_offsets, spans[index], target, flat)
            else:
                _pairs_of_document(sentence_offsets, spans, index, target, config, rng, flat)
    return Sequences(*np.array(flat, np.int64).reshape(-1, 5).T)


def _full_sentences(offsets: list[int], document: _Span, target: int, flat: list[int]) -> None:
    """Append the document's sequences: as many whole sentences as fit; a longer sentence is cut into full sequences."""
    begin, last = offsets[document[0]], offsets[document[1]]
    sentence = document[0]
    while begin < last:
        sentence = bisect_right(offsets, begin + target, sentence, document[1] + 1) - 1
        end = offsets[sentence] if offsets[sentence] > begin else begin + target
        flat += (begin, end, end, end, NO_LABEL)
        begin = end


def _pairs_of_document(
    offsets: list[int],
    spans: list[_Span],
    index: int,
    target: int,
    config: InstanceConfig,
    rng: Random,
    flat: list[int],
) -> None:
    """Append the pairs of one document, as create_instances_from_document chooses them.

    A chunk is the sentences up to `target` tokens; A its first few sentences, B the others (then both are used up) or
    sentences of another document (then the others are handed back, and begin the next chunk).
    """
    random, max_tokens = rng.random, config.max_tokens
    sentence, last = spans[index]
    while sentence < last:
        begin = offsets[sentence]
        end = bisect_left(offsets, begin + target, sentence + 1, last)
        count = end - sentence
        middle = sentence + 1 + int(random() * (count - 1)) if count > 1 else end
        a, b, label = (begin, offsets[middle]), (offsets[middle], offsets[end]), IS_NEXT
        if config.pairs == "sop":
            sentence = end
            label = IS_RANDOM if count > 1 and random() < 0.5 else IS_NEXT
        elif len(spans) > 1 and (count == 1 or random() < 0.5):
            other = int(random() * (len(spans) - 1))
            first, stop = spans[other + (other >= index)]
            first += int(random() * (stop - first))
            filled = offsets[first] + target - (a[1] - a[0])
            b, label = (offsets[first], offsets[bisect_left(offsets, filled, first + 1, stop)]), IS_RANDOM
            sentence = middle
        else:
            sentence = end
        a, b = _truncate_pair(a, b, max_tokens, rng)
        if config.pairs == "sop" and label == IS_RANDOM:
            a, b = b, a
        flat += (*a, *b, label if b[0] < b[1] else NO_LABEL)


def _truncate_pair(a: _Span, b: _Span, max_tokens: int, rng: Random) -> tuple[_Span, _Span]:
    """Take tokens from the longer span (of equal ones, B) until both fit, from the front or back by a coin each."""
    a_length, b_length = a[1] - a[0], b[1] - b[0]
    excess = a_length + b_length - max_tokens
    if excess <= 0:
        return a, b
    difference = abs(a_length - b_length)
    from_longer = min(excess, difference)
    both = excess - from_longer  # once they are equally long they take turns, B first
    from_a = (from_longer if a_length > b_length else 0) + both // 2
    return _cut(a, from_a, rng), _cut(b, excess - from_a, rng)


def _cut(span: _Span, count: int, rng: Random) -> _Span:
    """Take `count` tokens off the ends, each from the front or the back with equal chance."""
    front = 0
    for remaining in range(count, 0, -53):
        coins = int(rng.random() * _MANTISSA) & ((1 << min(remaining, 53)) - 1)
        front += coins.bit_count()
    return span[0] + front, span[1] - (count - front)
