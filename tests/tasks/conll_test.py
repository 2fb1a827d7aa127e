"""Words and tags of CoNLL columns, with their documents."""

import gzip

import pytest

from bert_jax.tasks.conll import read_conll

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER

-DOCSTART- -X- O O

Paris NNP I-NP I-LOC
London NNP I-NP B-LOC
"""
UNIVERSAL = """# newdoc id = a
# sent_id = a-1
# text = # Iran
1\t#\tO\t-\t-
2\tIran\tB-LOC\t-\tsomeone

# newdoc id = b
# sent_id = b-1
1\tHere\tO\t-\t-
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="data.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def words_and_tags(file):
    return [[(sentence.words, sentence.tags) for sentence in document] for document in file.documents]


def test_documents_and_iob2_of_conll_2003(write):
    file = read_conll(write(CONLL_2003))
    assert words_and_tags(file) == [
        [
            (("EU", "rejects", "German", "call"), ("B-ORG", "O", "B-MISC", "O")),
            (("Peter", "Blackburn"), ("B-PER", "I-PER")),
        ],
        [(("Paris", "London"), ("B-LOC", "B-LOC"))],
    ]
    assert file.has_boundaries
    assert file.converted == 4
    assert [sentence.line for sentence in file.sentences] == [3, 8, 13]


def test_counted_words_and_comments_of_universal_ner(write):
    file = read_conll(write(UNIVERSAL))
    assert words_and_tags(file) == [[(("#", "Iran"), ("O", "B-LOC"))], [(("Here",), ("O",))]]


def test_tabs_before_spaces_and_other_white_space_is_in_a_word(write):
    file = read_conll(write("\ufeffa\u00a0b\tO\r\n\u2028 c\tB-X\r\n\r\n# \tO\r\n"))
    assert words_and_tags(file) == [[(("a\u00a0b", "\u2028 c"), ("O", "B-X")), (("# ",), ("O",))]]
    assert not file.has_boundaries


def test_columns_can_be_named_and_tags_left_out(write):
    path = write("B-X a O\nI-X b O\n")
    assert words_and_tags(read_conll(path, token_column=1, tag_column=0)) == [[(("a", "b"), ("B-X", "I-X"))]]
    assert words_and_tags(read_conll(write("Only\nwords\n"), with_tags=False)) == [[(("Only", "words"), ())]]


def test_the_gzipped_file_is_read_under_its_plain_name(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a O\n"))
    assert read_conll(tmp_path / "a.txt").documents[0][0].words == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\nb PER\n", r":2: the tag of 'b' is 'PER'; accepted: O, B-TYPE"),
        ("a O\nb\n", r":2: 'b' has 1 column\(s\), a word and its tag need 2"),
        ("-DOCSTART- O\n\n", "has no sentence"),
        ("", "is empty"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_conll(write(text))
    with pytest.raises(FileNotFoundError, match="missing"):
        read_conll("missing.txt")
