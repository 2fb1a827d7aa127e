"""What tests share: a small WordPiece vocabulary, and the hash of rows as the golden files write them."""

import hashlib
import json

from bert_jax.corpus.vocabulary import WordPiece, WordPieceSettings

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["un", "##aff", "##able", "the", "house", "##s", ",", "'", "[", "]", "mask", "a", "##a"]
PIECES += ["σ", "##ς", "中", "文"]


def make_wordpiece(pieces=PIECES, **settings):
    return WordPiece([*SPECIALS, *pieces], WordPieceSettings(**settings))


def digest(rows):
    """The sha256 of statically masked rows, without padding."""
    found = []
    for row in range(len(rows.input_ids)):
        size, masked = int(rows.sequence_ids[row].sum()), int(rows.num_masked[row])
        found.append(
            {
                "ids": rows.input_ids[row, :size].tolist(),
                "seg": rows.segment_ids[row, :size].tolist(),
                "pos": rows.masked_lm_positions[row, :masked].tolist(),
                "lab": rows.masked_lm_ids[row, :masked].tolist(),
                "nsp": int(rows.next_sentence_labels[row, 0]),
            }
        )
    return hashlib.sha256(json.dumps(found, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
