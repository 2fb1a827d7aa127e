"""create_pretraining_data.py, bit for bit: its published sample, and a text of our own under a golden hash."""

import json
import random

import numpy as np
import pytest

from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.pairs import build_rows
from bert_jax.corpus.vocabulary import WordPiece
from tests.corpus.golden import digest


def google_config(**changes):
    return InstanceConfig("google", **{"mode": "google", "duplicates": 5, **changes})


def own_text(seed=0):
    """Documents of words of one to three pieces, and their vocabulary."""
    rng = random.Random(seed)
    stems, ends = ["ba", "ko", "mi", "ru", "ze"], ["##la", "##ne"]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *stems, *ends, "."]

    def word():
        return rng.choice(stems) + "".join(rng.choice(("la", "ne")) for _ in range(rng.choice([0, 0, 1, 2])))

    def sentence():
        return " ".join(word() for _ in range(rng.randint(2, 12))) + "."

    return WordPiece(vocab), [[sentence() for _ in range(rng.choice([0, 1, 4, 9]))] for _ in range(12)]


def own_rows(seed=12345, **changes):
    wordpiece, documents = own_text()
    config = google_config(sequence_length=32, max_predictions_per_sequence=5, **changes)
    return build_rows(wordpiece.encode_documents(documents), config, wordpiece.special_ids, wordpiece.vocab_size, seed)


def masks_of(rows, row):
    """A row's tokens, its masked tokens, their positions and ids."""
    masked = int(rows.num_masked[row])
    assert not rows.masked_lm_positions[row, masked:].any()
    return (
        int(rows.sequence_ids[row].sum()),
        masked,
        rows.masked_lm_positions[row, :masked],
        rows.masked_lm_ids[row, :masked],
    )


@pytest.mark.parametrize(
    ("whole_word", "expected"),
    [
        (False, "a96456155677d259a8f5b47a1c297d6fae8784251fb6072c8a5aada7f49c4e39"),
        (True, "a04ebb831e2c2f950ab6f6d4eb91cea658ba15576729bf4aed383a2ae6926516"),
    ],
)
def test_own_text_has_its_golden_instances(whole_word, expected):
    """Made by the builder while it reproduced the original's sample; a change here breaks mode `google`."""
    assert digest(own_rows(whole_word=whole_word)) == expected


def test_masks_are_where_they_are_said_to_be():
    rows = own_rows()
    again = own_rows(seed=1)
    assert digest(rows) != digest(again)
    assert rows.input_ids.max() < own_text()[0].vocab_size
    for row in range(len(rows.input_ids)):
        size, masked, positions, ids = masks_of(rows, row)
        assert masked == min(5, max(1, round(size * 0.15)))
        assert (np.diff(positions) > 0).all()
        assert not np.isin(ids, (2, 3)).any()
        assert not rows.segment_ids[row, size:].any()


def test_whole_words_are_masked_together():
    rows = own_rows(whole_word=True)
    for row in range(len(rows.input_ids)):
        masked = set(masks_of(rows, row)[2].tolist())
        for position in masked:
            after = position + 1
            inside = after < 32 and rows.sequence_ids[row, after] and not rows.word_starts[row, after]
            assert not inside or after in masked


def test_a_text_without_documents_gives_no_rows():
    wordpiece, _ = own_text()
    rows = build_rows(wordpiece.encode_documents([[]]), google_config(), wordpiece.special_ids, 13, 1)
    assert rows.input_ids.shape == (0, 128)
    assert rows.next_sentence_labels.shape == (0, 1)


@pytest.mark.shared
@pytest.mark.parametrize(("key", "whole_word"), [("token", False), ("wwm", True)])
def test_the_published_sample_has_the_originals_instances(key, whole_word, shared_data):
    golden = json.loads((shared_data / "fixtures" / "golden_pretrain_sample.json").read_text())[key]
    wordpiece = WordPiece.from_vocab_file(shared_data / "vocab" / "bert-base-uncased-vocab.txt")
    text = (shared_data / "fixtures" / "bert_sample_text.txt").read_text(encoding="utf-8")
    documents = wordpiece.encode_documents([document.split("\n") for document in text.split("\n\n")])
    rows = build_rows(
        documents, google_config(whole_word=whole_word), wordpiece.special_ids, wordpiece.vocab_size, 12345
    )
    assert len(rows.input_ids) == golden["n"]
    assert digest(rows) == golden["sha256"]
