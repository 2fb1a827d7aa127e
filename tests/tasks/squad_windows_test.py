"""Word pieces know their characters, and windows cover a passage."""

from itertools import pairwise

import numpy as np
import pytest

from bert_jax.corpus.vocabulary import WordPiece, WordPieceSettings
from bert_jax.tasks.squad_windows import (
    PassageEncoder,
    PassageWindow,
    by_question,
    find_pieces,
    max_context,
    plan_spans,
)
from tests.conftest import VOCABULARY

CASED = WordPiece(VOCABULARY, WordPieceSettings(do_lower_case=False, strip_accents=False))
TOKENIZER = WordPiece(VOCABULARY)
TEXTS = [
    "The cat sat on the mat.",
    "Caf\u00e9 na\u00efve, e\u0301t\u00e9",  # accents, composed and not
    "a\u200bb c\u00a0d\u202fe\tf\n g",  # dropped characters and white space of all kinds
    "\u03a3\u039f\u03a6\u039f\u03a3. \u0130stanbul \ud55c\uae00",  # a final sigma, an I that becomes two, Hangul
    "x\u4e2dy $5.50 (U.S.) \ufffd \u0301",
    "",
    " \n",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tokenizer", [TOKENIZER, CASED])
def test_pieces_are_the_tokenizers_and_in_order(tokenizer, text):
    passage = PassageEncoder(tokenizer).encode(text)
    assert passage.ids.tolist() == tokenizer.encode(text).tolist()
    assert (passage.starts < passage.ends).all()
    assert (np.diff(passage.starts) >= 0).all()
    assert passage.first_pieces[-1] == len(passage.ids)


def test_a_piece_is_cut_from_the_text_with_case_and_accents():
    passage = PassageEncoder(TOKENIZER).encode("The Caf\u00e9 (e\u0301t\u00e9)!")
    pieces = TOKENIZER.tokens(passage.ids)
    cuts = [passage.cut(index, index) for index in range(len(pieces))]
    assert list(zip(pieces, cuts, strict=True)) == [
        ("the", "The"), ("c", "C"), ("##a", "a"), ("##f", "f"), ("##e", "\u00e9"), ("[UNK]", "("),
        ("e", "e"), ("##t", "t"), ("##e", "\u00e9"), ("[UNK]", ")"), ("[UNK]", "!"),
    ]  # fmt: skip
    assert passage.cut(1, 4) == "Caf\u00e9"
    assert passage.cut(6, 8) == "e\u0301t\u00e9"


@pytest.mark.parametrize(
    ("pieces", "room", "stride"), [(0, 5, 2), (5, 5, 2), (6, 5, 2), (40, 7, 3), (40, 7, 9), (9, 4, 4)]
)
def test_every_piece_is_in_a_window_and_most_central_in_one(pieces, room, stride):
    spans = plan_spans(pieces, room, stride)
    assert spans[0][0] == 0
    assert spans[-1][1] == pieces
    assert all(stop - start <= room for start, stop in spans)
    assert all(later[0] - earlier[0] == min(stride, room) for earlier, later in pairwise(spans))
    counts = np.zeros(pieces, int)
    for (start, stop), mask in zip(spans, max_context(spans), strict=True):
        assert len(mask) == stop - start
        counts[start:stop] += mask
    assert (counts == 1).all()


def test_context_is_the_smaller_side():
    first, second = max_context([(0, 6), (3, 9)])
    # Piece 4: 1 on its right in the first window, 1 on its left in the second: the first wins a tie.
    assert first.tolist() == [True, True, True, True, True, False]
    assert second.tolist() == [False, False, True, True, True, True]
    # Piece 214: 85 on its right in the first, 86 on its left in the second, which is 118 pieces shorter.
    first, second = max_context([(0, 300), (128, 310)])
    assert (first[214], first[215]) == (True, False)


def find(text, answer, start=None, tokenizer=TOKENIZER):
    passage = PassageEncoder(tokenizer).encode(text)
    start = text.index(answer) if start is None else start
    span = find_pieces(passage, start, answer, tokenizer.encode(answer))
    return span and passage.cut(*span)


def test_an_answer_is_narrowed_to_its_pieces():
    assert find("the (cat) sat", "cat") == "cat"
    assert find("on 1895-1943 the", "1895") == "1895"
    assert find("on 1895-1943 the", "1943") == "1943"  # the same piece, [UNK]
    assert find("the cats sat", "cat") == "cats"[:3]
    assert find("mats, cat", "at") == "mats,"  # "at" starts with another piece inside a word
    assert find("the cat, sat on", "cat, sat") == "cat, sat"
    assert find("the cat sat", "dog", 4) is None
    assert find("a \u200b b", "\u200b") is None
    assert find("a b", " ", 1) is None


def test_questions_are_runs_of_rows():
    windows = [PassageWindow(question, 0, 1, 2) for question in (0, 0, 1, 3, 3)]
    assert list(by_question(windows)) == [(0, 2), (2, 3), (3, 5)]
    assert list(by_question([])) == []


@pytest.mark.shared
def test_pieces_of_real_passages_are_the_tokenizers(shared_data):
    import gzip
    import json

    content = json.loads(gzip.decompress((shared_data / "squad" / "dev-v1.1.json.gz").read_bytes()))
    texts = [paragraph["context"] for article in content["data"][:12] for paragraph in article["paragraphs"]]
    for name in ("uncased", "cased"):
        tokenizer = WordPiece.from_vocab_file(shared_data / "vocab" / f"bert-base-{name}-vocab.txt")
        encoder = PassageEncoder(tokenizer)
        for text in texts:
            passage = encoder.encode(text)
            assert passage.ids.tolist() == tokenizer.encode(text).tolist()
