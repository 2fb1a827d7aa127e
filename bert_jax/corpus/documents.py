"""Documents, and the readers of text formats that the standard library can open.

A reader takes one input file and yields its documents in their order. It runs in the one process that reads, so it
does no more than find where documents begin and end; what costs time (markup, wrapping, sentences) is done by the
workers, see `sources.py`. Every reader takes plain, `.gz` and `.bz2` files.
"""

import bz2
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bert_jax.corpus.remote import AnyPath

BLOCK_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 32 << 20  # an input without document boundaries must not fill the memory
DEFAULT_ROWS_PER_DOCUMENT = 200  # of kind `lines`: about the sentences of a book's chapter
BOM = b"\xef\xbb\xbf"

_BLANK_LINES = re.compile(rb"\n[ \t\r\f\v]*\n(?:[ \t\r\f\v]*\n)*")
_DOC_TAG = re.compile(rb"<doc\b[^>]*>")
_DOC_TITLE = re.compile(rb'title="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Document:
    """One document as it was read.

    Attributes:
        text: paragraphs, one a line, or what the source's `extract` turns into that.
        title: "" when the source has none.
        origin: where it begins (`file:line` or `file, record n`), for messages.
        sentences_given: each line of `text` is one sentence already.
    """

    text: str
    title: str
    origin: str
    sentences_given: bool = False


@dataclass(frozen=True)
class SourceConfig:
    """Where documents come from.

    Attributes:
        kind: a key of `sources.KINDS`.
        path: a file, a directory (all its files of the kind's suffixes), a glob, or several with commas between;
            for kind `tfds` a name such as `wikipedia/20230601.en` or `…:train`.
        name: in counts and messages; the kind if empty.
        column: the text's key in jsonl, parquet and tfds.
        rows_per_document: kinds `lines` and `parquet`, where a line or row is one sentence: how many make a document.
        data_dir: kind `tfds`: where it is prepared; the environment's TFDS_DATA_DIR if empty.
    """

    kind: str
    path: str = ""
    name: str = ""
    column: str = "text"
    rows_per_document: int = 0
    data_dir: str = ""


class CorruptInputError(ValueError):
    """An input that cannot be read to its end; the message has the file and the position."""


class InputLog:
    """What readers report beside documents: how far they are, and what they could not read.

    Attributes:
        bytes_read: bytes of the input files (compressed, if they are) consumed so far.
        num_corrupt: how many times `corrupt` was called; 0 in mode "stop".
        messages: the first few of those reports.
    """

    MAX_MESSAGES = 20

    def __init__(self, on_error: str = "stop") -> None:
        self.on_error = on_error
        self.bytes_read = 0
        self.num_corrupt = 0
        self.messages: list[str] = []

    def corrupt(self, origin: str, reason: str) -> None:
        """Report an unreadable place: raise CorruptInputError, or count it when on_error is "skip"."""
        message = f"{origin}: {reason}"
        if self.on_error != "skip":
            raise CorruptInputError(f"{message}; repair the file, or go on without it by on_error=skip")
        self.num_corrupt += 1
        if len(self.messages) < self.MAX_MESSAGES:
            self.messages.append(message)

    def take_reports(self) -> tuple[int, list[str]]:
        """Return how many places were corrupt and the first messages since the last call."""
        taken = self.num_corrupt, self.messages
        self.num_corrupt, self.messages = 0, []
        return taken


def open_input(path: AnyPath, raw: Any) -> io.BufferedIOBase:
    """Return a stream of the decompressed bytes of `raw`; the suffix of `path` says how it is compressed."""
    if path.suffix == ".gz":
        return gzip.open(raw)
    if path.suffix == ".bz2":
        return bz2.open(raw)
    return raw


def read_blocks(path: AnyPath, log: InputLog) -> Iterator[bytes]:
    """Yield the decompressed file in blocks of at most BLOCK_BYTES, without a byte order mark.

    A truncated or damaged compressed file is reported at the byte up to which it could be read.
    """
    position = 0
    consumed = log.bytes_read
    with path.open("rb") as raw:
        stream = open_input(path, raw)
        while True:
            try:
                block = stream.read(BLOCK_BYTES)
            except (EOFError, OSError, zlib.error) as error:
                log.corrupt(f"{path}, byte {position} of the decompressed text", f"{error or type(error).__name__}")
                return
            log.bytes_read = consumed + raw.tell()
            if not block:
                return
            yield block.removeprefix(BOM) if position == 0 else block
            position += len(block)


def read_lines(path: AnyPath, log: InputLog) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line without its newline) of a file."""
    number, rest = 0, b""
    for block in read_blocks(path, log):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        for line in lines:
            number += 1
            yield number, line
    if rest:
        yield number + 1, rest


def decode(data: bytes, origin: str, log: InputLog) -> str | None:
    """Decode UTF-8; report other bytes and return None when errors are skipped."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        log.corrupt(f"{origin}, byte {error.start} of the document", f"not UTF-8 ({error.reason})")
        return None


def read_sentences(path: AnyPath, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Read Google's format: one sentence a line, blank lines between documents."""
    line, rest = 1, b""
    for block in read_blocks(path, log):
        # A separator may be cut by the block's end, so the text behind the last whole one waits for the next block.
        rest += block
        start = 0
        for match in _BLANK_LINES.finditer(rest):
            if match.end() == len(rest):
                break
            yield from _given_sentences(rest[start : match.start()], path, line, log)
            line += rest.count(b"\n", start, match.end())
            start = match.end()
        rest = rest[start:]
        if len(rest) > MAX_DOCUMENT_BYTES:
            raise ValueError(
                f"{path}:{line}: no blank line within {MAX_DOCUMENT_BYTES >> 20} MB; in kind=sentences blank lines "
                "separate documents; text without them is kind=lines, which cuts documents of rows_per_document lines"
            )
    yield from _given_sentences(rest, path, line, log)


def _given_sentences(data: bytes, path: AnyPath, line: int, log: InputLog) -> Iterator[Document]:
    if data.strip():
        text = decode(data, f"{path}:{line}", log)
        if text is not None:
            yield Document(text, "", f"{path}:{line}", sentences_given=True)


def read_verbatim(paths: Iterable[tuple[int, AnyPath]], log: InputLog) -> Iterator[tuple[int, Document]]:
    """Read Google's format as create_pretraining_data.py does; yield (a file's number, document that begins in it).

    One document stays open from file to file, so a file that does not end in an empty line is joined to the next; a
    line is empty when `str.strip` leaves nothing of it, so one of U+00A0 or U+3000 alone is, too.

    Args:
        paths: files in their order; the numbers need not differ.
        log: as for every reader.
    """
    lines: list[str] = []
    first, origin = 0, ""
    for file, path in paths:
        for number, data in read_lines(path, log):
            line = decode(data, f"{path}:{number}", log)
            if line is None:
                continue
            if line.strip():
                if not lines:
                    first, origin = file, f"{path}:{number}"
                lines.append(line)
            elif lines:
                yield first, Document("\n".join(lines), "", origin, sentences_given=True)
                lines = []
    if lines:
        yield first, Document("\n".join(lines), "", origin, sentences_given=True)


def read_sentence_lines(path: AnyPath, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Read one sentence a line without document boundaries; a document is `source.rows_per_document` lines."""
    rows_per_document = source.rows_per_document or DEFAULT_ROWS_PER_DOCUMENT
    lines: list[bytes] = []
    first = 1
    for number, line in read_lines(path, log):
        lines.append(line)
        if len(lines) == rows_per_document:
            yield from _given_sentences(b"\n".join(lines), path, first, log)
            lines, first = [], number + 1
    yield from _given_sentences(b"\n".join(lines), path, first, log)


def read_book(path: AnyPath, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Read a whole file as one document: UTF-8 with or without a byte order mark, else Latin-1."""
    data = bytearray()
    for block in read_blocks(path, log):
        data += block
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ValueError(
                f"{path}: more than {MAX_DOCUMENT_BYTES >> 20} MB; in kind=books a file is one document; one with many "
                "is kind=sentences, with blank lines between them, or kind=lines"
            )
    if not data.strip():
        return
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    yield Document(text, path.name.split(".")[0], f"{path}:1")


def read_jsonl(path: AnyPath, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Read one JSON object a line: the text under `source.column`, optionally a `title`."""
    for number, line in read_lines(path, log):
        if not line.strip():
            continue
        origin = f"{path}:{number}"
        try:
            record = json.loads(line)
        except ValueError as error:  # also bytes that are not UTF-8
            log.corrupt(origin, f"not a JSON object ({error})")
            continue
        if not isinstance(record, dict) or not isinstance(record.get(source.column), str):
            keys = ", ".join(record) if isinstance(record, dict) else "none"
            log.corrupt(
                origin, f"no text under the key {source.column!r} (it has {keys}; set config.sources[0].column)"
            )
            continue
        yield Document(record[source.column], str(record.get("title") or ""), origin)


def read_wikiextractor(path: AnyPath, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Read WikiExtractor's text: `<doc … title="…">`, the title, a blank line, one paragraph a line, `</doc>`."""
    lines: list[bytes] | None = None
    title, start = "", 0
    for number, line in read_lines(path, log):
        if line.startswith(b"<doc") and _DOC_TAG.match(line):
            if lines is not None:
                log.corrupt(f"{path}:{start}", f"<doc> is not closed before the next one at line {number}")
            found = _DOC_TITLE.search(line)
            title = found[1].decode("utf-8", "replace") if found else ""
            lines, start = [], number
        elif line.startswith(b"</doc>"):
            if lines is None:
                log.corrupt(f"{path}:{number}", "</doc> without a <doc>")
                continue
            text = decode(b"\n".join(lines), f"{path}:{start}", log)
            if text is not None:
                # The first line repeats the title, which is no sentence.
                yield Document(text.lstrip("\n").removeprefix(title), title, f"{path}:{start}")
            lines = None
        elif lines is not None:
            lines.append(line)
        elif line.strip():
            log.corrupt(f"{path}:{number}", "text outside of <doc>; is the file WikiExtractor's output?")
    if lines is not None:
        log.corrupt(f"{path}:{start}", "the file ends within this <doc>")
