"""Lines of UTF-8 text, one at a time: from a file, plain or .gz, or from the standard input."""

import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

STDIN = "-"
_BOM = b"\xef\xbb\xbf"


def read_lines(source: str | Path) -> Iterator[str]:
    """Yield the lines' texts without ends; a byte order mark is dropped.

    Args:
        source: a path, or "-", the standard input.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not UTF-8, the gzip is damaged, or all lines are blank.
    """
    is_empty = True
    try:
        for number, data in enumerate(_raw_lines(source), 1):
            data = data.removeprefix(_BOM) if number == 1 else data
            text = _decode(data.removesuffix(b"\n").removesuffix(b"\r"), f"{_name(source)}:{number}")
            is_empty = is_empty and not text.strip()
            yield text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{source} cannot be unpacked: {error}; fetch it again") from None
    if is_empty:
        raise ValueError(f"{_name(source)} is empty; give lines of text")


def count_lines(source: str) -> int | None:
    """Return how many lines a file has, after a look at each: an hour of work is not to end at a byte that is no UTF-8.

    Returns:
        None for the standard input, which can be read once.

    Raises:
        FileNotFoundError, ValueError: see `read_lines`.
    """
    return None if source == STDIN else sum(1 for _ in read_lines(source))


def _raw_lines(source: str | Path) -> Iterator[bytes]:
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


def _name(source: str | Path) -> str:
    return "standard input" if source == STDIN else str(source)
