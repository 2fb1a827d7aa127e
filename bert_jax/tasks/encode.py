"""Texts → rows of word pieces: [CLS] first [SEP], or [CLS] first [SEP] second [SEP]; too long ones are cut.

Source: google-research/bert `run_classifier.py` (convert_single_example, _truncate_seq_pair).
"""

from collections.abc import Sequence

import numpy as np

from bert_jax.corpus.vocabulary import WordPiece


def encode_texts(
    tokenizer: WordPiece, firsts: Sequence[str], seconds: Sequence[str] | None, max_seq_length: int
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Return the rows of texts, or of pairs of texts.

    Args:
        tokenizer: of the model.
        firsts: first text of each row.
        seconds: second ones; None = there are none.
        max_seq_length: tokens, special ones included. Of a pair the longer text loses its last token (the second, if
            both are as long) until they fit.

    Returns:
        input_ids, segment_ids (int32 [tokens] a row), and how many rows were cut.
    """
    encoded = [tokenizer.encode_many(firsts)] + ([] if seconds is None else [tokenizer.encode_many(seconds)])
    input_ids, segment_ids, truncated = [], [], 0
    for parts in zip(*encoded, strict=True):
        room = max_seq_length - 1 - len(parts)
        kept = fit_lengths([len(part) for part in parts], room)
        truncated += sum(kept) < sum(map(len, parts))
        ids, segments = join([part[:size] for part, size in zip(parts, kept, strict=True)], tokenizer)
        input_ids.append(ids)
        segment_ids.append(segments)
    return input_ids, segment_ids, truncated


def join(parts: Sequence[np.ndarray], tokenizer: WordPiece) -> tuple[np.ndarray, np.ndarray]:
    """Return input_ids and segment_ids of [CLS] part [SEP] part [SEP]."""
    pieces = [[tokenizer.special_ids["cls"]]]
    for part in parts:
        pieces += [part, [tokenizer.special_ids["sep"]]]
    sizes = [len(part) + (1 if index else 2) for index, part in enumerate(parts)]
    return np.concatenate(pieces).astype(np.int32), np.repeat(np.arange(len(parts), dtype=np.int32), sizes)


def fit_lengths(lengths: Sequence[int], room: int) -> list[int]:
    """Return how much of one or two texts is kept in `room` tokens, as taking one token off the longer does."""
    if sum(lengths) <= room:
        return list(lengths)
    if len(lengths) == 1:
        return [room]
    first, second = lengths
    half = room // 2
    if second <= half:
        return [room - second, second]
    if first <= room - half:
        return [first, room - first]
    return [room - half, half]
