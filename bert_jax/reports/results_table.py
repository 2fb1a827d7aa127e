"""A table of results beside published ones: terminal, Markdown, CSV, and rows for a page.

A cell has values (one a restart), a published value, or a reason why it has none; nothing is left blank.
"""

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Sequence

NOT_RUN = "not run"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: at its head.
        unit: in its CSV head, such as "%".
        digits: behind the point.
        is_score: whether its cells have a spread, a count, a published value and a difference.
    """

    title: str
    unit: str = ""
    digits: int = 1
    is_score: bool = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """What stands in one place.

    Attributes:
        text: of a cell that is no score.
        values: of a score, one a restart.
        planned: restarts that there will be; 0 = as many as there are values.
        published: nan if there is none.
        missing: why there is no value.
        remark: what more there is to say, such as "1 of 5 left out (degenerate: the same prediction for every row)".
    """

    text: str = ""
    values: tuple[float, ...] = ()
    planned: int = 0
    published: float = math.nan
    missing: str = ""
    remark: str = ""

    @property
    def mean(self) -> float:
        """Over restarts; nan without a value."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """The sample's (n - 1); nan below two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def difference(self) -> float:
        """Mean less published value."""
        return self.mean - self.published

    def main(self, digits: int) -> str:
        """Return the value as people read it, or why there is none."""
        if self.text:
            return self.text
        if not self.values:
            return self.missing or NOT_RUN
        spread = "" if math.isnan(self.std) else f" ± {self.std:.{digits}f}"
        return f"{self.mean:,.{digits}f}{spread}"

    def beside(self, digits: int) -> str:
        """Return what stands below the value: how many restarts are missing, the published value, the difference."""
        parts = [self.remark] if self.remark else []
        if self.values and len(self.values) < self.planned:
            parts.append(f"{len(self.values)} of {self.planned} runs")
        if not math.isnan(self.published):
            parts.append(f"paper {self.published:.{digits}f}")
            if self.values:
                parts.append(f"difference {self.difference:+,.{digits}f}".replace("-", "−"))
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class ResultsTable:
    """Columns and rows.

    Attributes:
        columns: from left to right; the first names the row.
        rows: a cell for each column.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        """Hold rows against columns."""
        assert all(len(row) == len(self.columns) for row in self.rows)

    def texts(self) -> list[list[tuple[str, str]]]:
        """Return every cell's main text and what stands below it."""
        return [
            [
                (cell.main(column.digits), cell.beside(column.digits))
                for cell, column in zip(row, self.columns, strict=True)
            ]
            for row in self.rows
        ]

    def markdown(self) -> str:
        """Return the table as Markdown; what stands below a value is in its cell's second line."""
        ruler = [":--" if number == 0 else "--:" for number in range(len(self.columns))]
        rows = [["<br>".join(filter(None, cell)) for cell in row] for row in self.texts()]
        lines = [[column.title for column in self.columns], ruler, *rows]
        return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)

    def terminal_lines(self) -> list[str]:
        """Return the table as plain text: values alone, without what stands below them."""
        rows = [[column.title for column in self.columns], *[[main for main, _ in row] for row in self.texts()]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, ["-" * width for width in widths])
        lines = []
        for row in rows:
            first, *others = zip(row, widths, strict=True)
            lines.append("  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]).rstrip())
        return lines

    def csv_text(self) -> str:
        """Return the table as CSV: numbers in full precision, one column for each number."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        header: list[str] = []
        for column in self.columns:
            title = f"{column.title} ({column.unit})" if column.unit else column.title
            more = ("std", "runs", "paper", "difference", "remark") if column.is_score else ()
            header += [title, *(f"{column.title} {name}" for name in more)]
        writer.writerow(header)
        for row in self.rows:
            line: list[str] = []
            for cell, column in zip(row, self.columns, strict=True):
                line += _score_fields(cell) if column.is_score else [cell.main(column.digits)]
            writer.writerow(line)
        return text.getvalue()


def _score_fields(cell: Cell) -> Sequence[str]:
    main = repr(cell.mean) if cell.values else cell.missing or NOT_RUN
    numbers = (cell.std, len(cell.values) if cell.values else math.nan, cell.published, cell.difference)
    return [main, *("" if math.isnan(number) else repr(number) for number in numbers), cell.remark]
