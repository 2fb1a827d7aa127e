"""Lines of UTF-8 text, one at a time, each with its number: from a file, plain or .gz, or from the standard input."""

import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

STDIN = "-"
_BOM = b"\xef\xbb\xbf"


def read_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines' numbers, from 1, and their texts without ends; a byte order mark is dropped.

    Args:
        source: a path, or "-", the standard input.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not UTF-8, the gzip is damaged, or there is no line.
    """
    number = 0
    try:
        for number, data in enumerate(_raw_lines(source), 1):
            data = data.removeprefix(_BOM) if number == 1 else data
            yield number, _decode(data.removesuffix(b"\n").removesuffix(b"\r"), f"{_name(source)}:{number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{source} cannot be unpacked: {error}; fetch it again") from None
    if not number:
        raise ValueError(f"{_name(source)} is empty; give a text a line")


def count_lines(source: str) -> int | None:
    """Return how many lines a file has, after a look at each: an hour of work is not to end at a byte that is no UTF-8.

    Returns:
        None for the standard input, which can be read once.

    Raises:
        FileNotFoundError, ValueError: see `read_lines`.
    """
    return None if source == STDIN else sum(1 for _ in read_lines(source))


def _raw_lines(source: str) -> Iterator[bytes]:
    if source == STDIN:
        yield from sys.stdin.buffer
        return
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give one with a text a line, or {STDIN} for the standard input")
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: the byte 0x{data[error.start]:02x} is not UTF-8; convert the text, for example with "
            "`iconv -f WINDOWS-1252 -t UTF-8`"
        ) from None


def _name(source: str) -> str:
    return "standard input" if source == STDIN else source
