"""Google's ids, and the cache that must not change them."""

import json
import pickle

import numpy as np
import pytest

from bert_jax.corpus.vocabulary import WordPiece, WordPieceSettings
from tests.corpus.golden import PIECES, SPECIALS, make_wordpiece


def pieces_of(wordpiece, text):
    return wordpiece.tokens(wordpiece.encode(text))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("unaffable", ["un", "##aff", "##able"]),
        ("The  HOUSES,\tthe\n", ["the", "house", "##s", ",", "the"]),
        ("[MASK]", ["[", "mask", "]"]),  # no protected special tokens
        ("thé house's", ["the", "house", "'", "[UNK]"]),
        ("the\u200bhouse", ["[UNK]"]),  # a format character vanishes: "thehouse"
        ("the\x0bhouse the\x85house", ["[UNK]", "[UNK]"]),  # so do these, though str.split() splits there
        ("the\u2028house\u3000the", ["the", "house", "the"]),
        ("the\0\ufffd", ["the"]),
        ("中文the", ["中", "文", "the"]),
        ("ΣΣ", ["σ", "##ς"]),  # lowered as a word: the last sigma is a final one
        ("the\ue000", ["[UNK]"]),  # private use is kept
        ("the \ud800", ["the", "[UNK]"]),
        ("the“house”", ["the", "[UNK]", "house", "[UNK]"]),
        ("", []),
        ("\u200b \u0301", []),
    ],
)
def test_text_becomes_the_pieces_that_googles_code_makes(text, pieces):
    assert pieces_of(make_wordpiece(), text) == pieces


def test_a_word_of_more_than_200_characters_is_unknown():
    assert pieces_of(make_wordpiece(), "a" * 200) == ["a"] + ["##a"] * 199
    assert pieces_of(make_wordpiece(), "a" * 201) == ["[UNK]"]


def test_a_piece_of_more_characters_than_allowed_is_unknown_too():
    assert pieces_of(make_wordpiece(max_input_chars_per_word=4), "the house") == ["the", "[UNK]"]


def test_a_cased_vocabulary_keeps_case_and_accents():
    wordpiece = make_wordpiece(["The", "é"], do_lower_case=False, strip_accents=False)
    assert pieces_of(wordpiece, "The the é") == ["The", "[UNK]", "é"]


def test_word_starts_are_the_pieces_without_hashes():
    ids, starts = make_wordpiece().encode_words("the unaffable houses")
    assert starts.tolist() == [True, True, False, False, True, False]
    assert ids.dtype == np.int32


def test_documents_keep_their_number_and_lose_empty_sentences():
    wordpiece = make_wordpiece()
    documents = wordpiece.encode_documents([["the house", " ", "houses"], [], ["\u200b"], ["the"]])
    assert documents.document_offsets.tolist() == [0, 2, 2, 2, 3]
    assert documents.sentence_offsets.tolist() == [0, 2, 4, 5]
    assert wordpiece.tokens(documents.input_ids) == ["the", "house", "house", "##s", "the"]
    assert documents.word_starts.tolist() == [True, True, True, False, True]


def test_no_documents_give_empty_arrays():
    documents = make_wordpiece().encode_documents([])
    assert documents.input_ids.shape == (0,)
    assert documents.sentence_offsets.tolist() == documents.document_offsets.tolist() == [0]
    assert make_wordpiece().encode_many([]) == []


def test_statistics_count_words_pieces_and_unknown():
    wordpiece = make_wordpiece()
    found = wordpiece.statistics(wordpiece.encode_documents([["unaffable zzz"], ["the"]]))
    assert (found.num_words, found.num_pieces, found.num_unknown) == (3, 5, 1)
    assert (found + found).unknown_rate == pytest.approx(1 / 3)
    assert found.pieces_per_word == pytest.approx(5 / 3)


def test_decode_joins_pieces_and_hides_padding():
    wordpiece = make_wordpiece()
    ids = [2, *wordpiece.encode("unaffable, the houses").tolist(), 4, 3, 0, 0]
    assert wordpiece.decode(ids) == "unaffable , the houses [MASK]"


def test_a_saved_vocabulary_loads_as_it_was(tmp_path):
    wordpiece = make_wordpiece(
        [*PIECES, "x\u2028y"], do_lower_case=False, strip_accents=False, max_input_chars_per_word=7
    )
    wordpiece.save(tmp_path / "tokenizer")
    loaded = WordPiece.load(tmp_path / "tokenizer")
    assert loaded.vocab == wordpiece.vocab
    assert loaded.settings == wordpiece.settings
    assert pieces_of(pickle.loads(pickle.dumps(loaded)), "aaaaaaaa a") == ["[UNK]", "a"]


def test_of_a_piece_that_occurs_twice_the_last_id_counts():
    assert make_wordpiece(["the", "a", "the"]).encode("the").tolist() == [7]


def test_casing_is_told_from_the_pieces_unless_it_is_given(tmp_path):
    for pieces, lower in ((["the", "a"], True), (["The", "a"], False)):
        (tmp_path / "vocab.txt").write_text("\n".join(SPECIALS + pieces) + "\n", encoding="utf-8")
        assert WordPiece.from_vocab_file(tmp_path / "vocab.txt").settings.do_lower_case is lower
        assert WordPiece.from_vocab_file(tmp_path / "vocab.txt", do_lower_case=False).settings.strip_accents is False


def test_a_vocabulary_of_a_run_keeps_the_settings_beside_it(tmp_path):
    settings = WordPieceSettings(do_lower_case=False, strip_accents=False, max_input_chars_per_word=100)
    WordPiece([*SPECIALS, "the"], settings).save(tmp_path)
    assert WordPiece.from_vocab_file(tmp_path / "vocab.txt").settings == settings
    assert WordPiece.from_vocab_file(tmp_path / "vocab.txt", do_lower_case=True).settings.do_lower_case


def test_what_is_wrong_with_a_vocabulary_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"lacks \[MASK\]"):
        WordPiece(SPECIALS[:-1])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        WordPiece.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        WordPiece.from_vocab_file(tmp_path / "vocab.txt")
    make_wordpiece().save(tmp_path)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"lower": True}))
    with pytest.raises(ValueError, match="unknown settings"):
        WordPiece.load(tmp_path)


@pytest.mark.shared
def test_all_golden_rows_have_googles_ids(shared_data):
    rows = json.loads((shared_data / "fixtures" / "golden_wordpiece.json").read_text(encoding="utf-8"))
    loaded = {
        kind: WordPiece.from_vocab_file(shared_data / "vocab" / f"bert-base-{kind}-vocab.txt")
        for kind in ("uncased", "cased")
    }
    assert len(rows) == 60
    for row in rows:
        wordpiece = loaded[row["vocab"]]
        assert wordpiece.encode(row["text"]).tolist() == row["ids"], row["text"]
        assert pieces_of(wordpiece, row["text"]) == row["tokens"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "lower"), [("uncased", True), ("cased", False), ("chinese", True), ("multilingual-cased", False)]
)
def test_released_vocabularies_have_their_casing_and_layout(name, lower, shared_data):
    wordpiece = WordPiece.from_vocab_file(shared_data / "vocab" / f"bert-base-{name}-vocab.txt")
    assert wordpiece.settings.do_lower_case is lower
    assert wordpiece.special_ids == {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
