from bert_jax.corpus.books import extract_book
from bert_jax.corpus.documents import Document, InputLog


def paragraphs(text):
    return extract_book(Document(text, "", "book:1"), InputLog()).text.split("\n")


def test_hard_wrapped_lines_are_joined_to_paragraphs():
    assert paragraphs("One line\r\nand its rest.\r\n\r\nTwo.\r\n") == ["One line and its rest.", "Two."]


def test_a_paragraph_a_line_stays_so():
    long_line = "word " * 40 + "end."
    assert paragraphs(f"{long_line}\nShort.\n{long_line}") == [long_line, "Short.", long_line]


def test_gutenbergs_header_and_licence_are_cut():
    head, tail = "*** START OF THE PROJECT GUTENBERG EBOOK X ***", "*** END OF THIS PROJECT GUTENBERG EBOOK X ***"
    assert paragraphs(f"Licence\n{head}\nText.\n{tail}\nMore") == ["Text."]


def test_markdown_headings_rules_and_emphasis_lose_their_marks():
    assert paragraphs("# Title\nIt _is_ **so** a_b_c.\n\n-----\n\n* * *\n\nEnd.") == [
        "Title",
        "It is so a_b_c.",
        "End.",
    ]
