"""Books: from a file as it lies in a library to paragraphs, one a line."""

import re
from collections.abc import Iterator

from bert_jax.corpus.documents import Document, InputLog

_GUTENBERG_START = re.compile(r"\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG[^*]*\*\*\*[^\n]*\n?", re.IGNORECASE)
_GUTENBERG_END = re.compile(r"\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6}\s+")
_RULE = re.compile(r"^\s*(?:[-_=*~#]\s*){3,}$")
_EMPHASIS = re.compile(r"(?<!\w)([_*]{1,3})(\S(?:[^_*]*\S)?)\1(?!\w)")

# A text is taken for hard-wrapped when at most one line in a hundred is longer than this; Gutenberg wraps at 72.
WRAPPED_LINE_CHARACTERS = 100


def extract_book(document: Document, log: InputLog) -> Document:
    """Return a book without Gutenberg's header and licence, with one paragraph a line."""
    text = document.text.replace("\r\n", "\n").replace("\r", "\n")
    start = _GUTENBERG_START.search(text)
    if start:
        text = text[start.end() :]
    end = _GUTENBERG_END.search(text)
    if end:
        text = text[: end.start()]
    return Document("\n".join(_paragraphs(text)), document.title, document.origin)


def _paragraphs(text: str) -> Iterator[str]:
    lines = [line.strip() for line in text.split("\n")]
    long_lines = sum(len(line) > WRAPPED_LINE_CHARACTERS for line in lines)
    wrapped = long_lines * 100 <= len(lines)
    paragraph: list[str] = []
    for line in [*lines, ""]:
        heading = _HEADING.match(line)
        is_break = not line or heading or _RULE.match(line)
        if paragraph and (is_break or not wrapped):
            yield _EMPHASIS.sub(r"\2", " ".join(paragraph))
            paragraph = []
        if heading:
            yield line[heading.end() :]
        elif not is_break:
            paragraph.append(line)
