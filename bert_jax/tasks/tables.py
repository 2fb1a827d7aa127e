"""A task's table → rows by column, each with its file and line: TSV, CSV, JSON lines; plain or .gz."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.tasks.text_lines import read_lines


class Row(NamedTuple):
    """A row of a table: its cells by column, and `file:line`."""

    cells: dict[str, Any]
    where: str


def find_file(path: Path) -> Path:
    """Return the path, or the path with .gz where only that exists.

    Raises:
        FileNotFoundError: there is neither.
    """
    for found in (path, path.with_name(f"{path.name}.gz")):
        if found.is_file():
            return found
    raise FileNotFoundError(f"{path} does not exist, and neither does {path.name}.gz")


def read_tsv(path: Path, columns: Sequence[str] = (), malformed_allowed: int = 0) -> tuple[list[Row], int]:
    """Read tab-separated lines without quoting; blank ones are left out.

    Args:
        path: the file.
        columns: their names, of a file without a header; () = the first line has them.
        malformed_allowed: so many lines may have another number of columns; they are left out.

    Returns:
        Its rows, and how many lines were left out.

    Raises:
        ValueError: a line has another number of columns, once too often; or there is no row.
    """
    lines = [*read_lines(path)]
    names = list(columns) or lines[0].split("\t")
    first = 0 if columns else 1
    rows: list[Row] = []
    malformed: list[str] = []
    for number, line in enumerate(lines[first:], first + 1):
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) == len(names):
            rows.append(Row(dict(zip(names, cells, strict=True)), f"{path}:{number}"))
            continue
        malformed.append(f"{path}:{number}: {len(cells)} columns instead of {len(names)} ({', '.join(names)})")
        if len(malformed) > malformed_allowed:
            more = f"; {len(malformed)} lines are malformed, up to {malformed_allowed} are left out"
            raise ValueError(malformed[0] + more * bool(malformed_allowed))
    if not rows:
        raise ValueError(f"{path} has a header and no row")
    return rows, len(malformed)


def read_csv(path: Path) -> list[Row]:
    """Read a table with quotes and a header, separated by commas (by semicolons where the header has no comma).

    Cells beyond the header's names must be empty.

    Raises:
        ValueError: a row has too many or too few cells, a quote is not closed, or there is no row.
    """
    lines = [*read_lines(path)]
    delimiter = ";" if ";" in lines[0] and "," not in lines[0] else ","
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter)
    rows: list[Row] = []
    names: list[str] = []
    start = 0
    try:
        for cells in reader:
            where, start = f"{path}:{start + 1}", reader.line_num
            if not names:
                names = [cell.strip() for cell in cells]
            elif cells:
                if start == len(lines) and cells[-1].endswith("\n"):
                    _refuse_open_quote(lines, where, delimiter)
                rows.append(Row(_name_cells(names, cells, where), where))
    except csv.Error as error:
        raise ValueError(f"{path}:{start + 1}: {error}") from None
    if not rows:
        raise ValueError(f"{path} has a header and no row")
    return rows


def _name_cells(names: list[str], cells: list[str], where: str) -> dict[str, str]:
    """Return the cells by their names; columns without a name are dropped."""
    cells = cells + [""] * sum(not name for name in names[len(cells) :])
    if len(cells) < len(names) or any(cells[len(names) :]):
        raise ValueError(
            f"{where}: {len(cells)} cells instead of {len(names)} ({', '.join(names)}); a text with a comma or a quote "
            'is written "in quotes", a quote inside as ""'
        )
    return {name: cell for name, cell in zip(names, cells, strict=False) if name}


def _refuse_open_quote(lines: list[str], where: str, delimiter: str) -> None:
    """Refuse a last row that takes all lines to the end of the file into its text."""
    first = int(where.rpartition(":")[2])
    try:
        list(csv.reader((f"{line}\n" for line in lines[first - 1 :]), delimiter=delimiter, strict=True))
    except csv.Error:
        raise ValueError(f"{where}: a quote opens here and is not closed; a quote in a text is written twice") from None


def read_json_lines(path: Path) -> list[Row]:
    """Read one JSON object a line."""
    return [Row(cells, where) for cells, where in parse_json_lines(read_lines(path), str(path))]


def parse_json_lines(lines: Iterable[str], origin: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the object of every line that is not blank, and `origin:line`.

    Raises:
        ValueError: a line is no object.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{origin}:{number}: not JSON ({error}); a line is an object, {{...}}") from None
        if not isinstance(cells, dict):
            raise ValueError(f"{origin}:{number}: {type(cells).__name__} instead of an object, {{...}}")
        yield cells, f"{origin}:{number}"
