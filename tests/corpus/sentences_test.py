import pytest

from bert_jax.corpus.sentences import clean, document_sentences, split_sentences


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("He ran. She sat! Why? 3 men left.", ["He ran.", "She sat!", "Why?", "3 men left."]),
        ("Mr. Smith met Dr. Jones at 5 p.m. and left.", ["Mr. Smith met Dr. Jones at 5 p.m. and left."]),
        ("J. R. Smith of the U.S. Congress spoke. He left.", ["J. R. Smith of the U.S. Congress spoke.", "He left."]),
        ("It cost 3.5 million, e.g. much... He said so.", ["It cost 3.5 million, e.g. much...", "He said so."]),
        ('"Go." "Why?" (He asked.) Then he left', ['"Go."', '"Why?"', "(He asked.)", "Then he left"]),
        ("Él vino. ¿Por qué? Äpfel.", ["Él vino.", "¿Por qué?", "Äpfel."]),
        ("我来了。你呢？「好。」他说", ["我来了。", "你呢？", "「好。」", "他说"]),
        ("No end", ["No end"]),
        ("", []),
    ],
)
def test_paragraphs_are_split_where_sentences_end(paragraph, sentences):
    assert split_sentences(paragraph) == sentences


def test_splitting_loses_no_character():
    text = "A b. C! D... “E.” F (g). 12 h? i. J"
    assert " ".join(split_sentences(text)) == text


def test_cleaning_normalises_space_and_accents_and_drops_control_characters():
    assert clean("  a\tb\u00a0 c\x01d\u200b \r\ne\u0301") == ["a b cd", "\u00e9"]


def test_cleaning_keeps_letters_of_other_scripts():
    assert clean("日本語 עברית Ünï") == ["日本語 עברית Ünï"]


@pytest.mark.parametrize("text", [" a b\n\nc ", "a  b\nc", "a \nb", "a\n b", "a\tb\n", "", "\n", " "])
def test_clean_text_is_found_clean_as_a_whole_or_by_line(text):
    assert clean(text) == [" ".join(line.split()) for line in text.split("\n")]


def test_given_sentences_are_not_split():
    assert document_sentences("A b. C d.\n\n e \n", sentences_given=True) == ["A b. C d.", "e"]


def test_verbatim_text_is_only_stripped():
    assert document_sentences(" a  b\te\u0301 \n", sentences_given=True, verbatim=True) == ["a  b\te\u0301"]
