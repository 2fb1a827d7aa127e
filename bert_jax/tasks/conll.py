"""Files of words in columns, one a line, with blank lines between sentences, as the CoNLL tasks write them.

Read from the raw file, because the data sets' loaders drop what a document is: TFDS and Hugging Face read `-DOCSTART-`
as a blank line. Source: CoNLL-2003 (Tjong Kim Sang & De Meulder 2003); Universal NER's `.iob2` files.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

from bert_jax.tasks import iob
from bert_jax.tasks.tables import find_file
from bert_jax.tasks.text_lines import read_lines

_DOCUMENT_START = "-DOCSTART-"
# Universal Dependencies' comments; "# O" is the word "#".
_COMMENT = re.compile(r"#\s*(newdoc|newpar)\b|#\s*[\w.:]+\s*=")


@dataclasses.dataclass(frozen=True)
class Sentence:
    """Words with their tags.

    Attributes:
        words: as in the file.
        tags: IOB2, one a word; () of a file read without them.
        line: of the first word, from 1.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


@dataclasses.dataclass(frozen=True)
class ConllFile:
    """A file's sentences.

    Attributes:
        path: that was read.
        documents: sentences of each document; no document is empty.
        has_boundaries: the file says where documents begin; without, all sentences are in one document.
        converted: words whose tag was changed to IOB2.
    """

    path: Path
    documents: tuple[tuple[Sentence, ...], ...]
    has_boundaries: bool
    converted: int

    @property
    def sentences(self) -> list[Sentence]:
        """All sentences in order."""
        return [sentence for document in self.documents for sentence in document]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where a line has its word and its tag, from 0; a negative number counts from the last.

    Attributes:
        word: column of the words.
        tag: column of the tags; None = there are none.
        comments: lines that begin with # are comments, all of them.
    """

    word: int
    tag: int | None
    comments: bool = False


def read_conll(
    path: str | os.PathLike[str],
    token_column: int | None = None,
    tag_column: int | None = None,
    with_tags: bool = True,
) -> ConllFile:
    """Read a file, plain or gzipped.

    Args:
        path: columns set apart by tabs, or else by spaces; blank lines end sentences; `-DOCSTART-` lines and
            `# newdoc` comments begin documents.
        token_column: of the words, from 0; None is the first, or the second where the first counts the words of every
            sentence from 1 (Universal NER).
        tag_column: of the tags; None is the last, or the third where the words are counted.
        with_tags: False reads words alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line without the columns, an unknown tag, or no sentence at all, with file and line.
    """
    found = find_file(Path(path))
    lines = [line.strip(" \t") for line in read_lines(found)]
    columns = _find_columns(lines, token_column, tag_column, with_tags)
    documents: list[list[Sentence]] = [[]]
    has_boundaries, converted = False, 0
    for words, tags, line in _read_sentences(found, lines, columns):
        if not words:
            has_boundaries = True
            documents.append([])
            continue
        as_iob2 = iob.to_iob2(tags)
        converted += sum(new != old for new, old in zip(as_iob2, tags, strict=True))
        documents[-1].append(Sentence(tuple(words), tuple(as_iob2), line))
    filled = tuple(tuple(document) for document in documents if document)
    if not filled:
        raise ValueError(
            f"{found} has no sentence: it takes a word and its tag a line, and blank lines between sentences"
        )
    return ConllFile(found, filled, has_boundaries, converted)


def _split(line: str) -> list[str]:
    """Return a line's columns; other white space than tabs and spaces is part of a word."""
    return re.split("\t" if "\t" in line else " +", line)


def _find_columns(lines: list[str], word: int | None, tag: int | None, with_tags: bool) -> Columns:
    numbered = _is_numbered(lines)
    tag = tag if tag is not None else 2 if numbered else -1
    return Columns(word if word is not None else int(numbered), tag if with_tags else None, comments=numbered)


def _is_numbered(lines: list[str]) -> bool:
    """Return whether the first of several columns counts the words of every sentence from 1."""
    expected, most = 1, 0
    for line in lines:
        if not line:
            expected = 1
        elif not line.startswith("#"):
            number, *others = _split(line)
            if number != str(expected) or not others:
                return False
            expected += 1
            most = max(most, expected)
    return most > 2


def _read_sentences(path: Path, lines: list[str], columns: Columns) -> Iterator[tuple[list[str], list[str], int]]:
    """Yield words, tags and first line of every sentence; no words where a document begins."""
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        comment = line.startswith("#") and (columns.comments or _COMMENT.match(line) is not None)
        starts_document = re.match(r"#\s*newdoc\b", line) if comment else line.startswith(_DOCUMENT_START)
        if words and (not line or starts_document):
            yield words, tags, number - len(words)
            words, tags = [], []
        if starts_document:
            yield [], [], number
        elif line and not comment:
            word, tag = _read_word(path, number, line, columns)
            words.append(word)
            tags += [tag] if columns.tag is not None else []


def _read_word(path: Path, number: int, line: str, columns: Columns) -> tuple[str, str]:
    fields = _split(line)
    needed = 1 + max(columns.word, 0 if columns.tag is None else columns.tag if columns.tag >= 0 else 1)
    if len(fields) < needed:
        raise ValueError(
            f"{path}:{number}: {line!r} has {len(fields)} column(s), a word and its tag need {needed}; columns are set "
            "apart by tabs or spaces, config.data.token_column and tag_column say which they are, from 0"
        )
    word = fields[columns.word]
    tag = "" if columns.tag is None else fields[columns.tag]
    if columns.tag is not None and not iob.is_tag(tag):
        raise ValueError(
            f"{path}:{number}: the tag of {word!r} is {tag!r}; accepted: {iob.ACCEPTED_TAGS}; "
            f"config.data.tag_column says which of the {len(fields)} columns it is, from 0"
        )
    return word, tag
