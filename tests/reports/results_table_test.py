import csv
import io
import math

from bert_jax.reports.results_table import Cell, Column, ResultsTable

TABLE = ResultsTable(
    (Column("size"), Column("MRPC", "%", is_score=True)),
    (
        (Cell(text="a|b"), Cell(values=(80.0, 82.0), planned=3, published=84.0)),
        (Cell(text="c"), Cell(missing="failed: no memory")),
        (Cell(text="d"), Cell()),
    ),
)


def test_a_cell_has_mean_spread_published_value_and_difference():
    (_, (main, beside)), *others = TABLE.texts()
    assert main == "81.0 ± 1.4"
    assert beside == "2 of 3 runs, paper 84.0, difference −3.0"
    assert [row[1] for row in others] == [("failed: no memory", ""), ("not run", "")]


def test_markdown_has_a_line_a_row_and_escapes_bars():
    lines = TABLE.markdown().splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("| a\\|b | 81.0 ± 1.4<br>2 of 3 runs")


def test_csv_has_numbers_in_full_and_a_word_where_there_is_none():
    rows = list(csv.DictReader(io.StringIO(TABLE.csv_text())))
    assert float(rows[0]["MRPC (%)"]) == 81.0
    assert math.isclose(float(rows[0]["MRPC std"]), math.sqrt(2))
    assert [rows[0][f"MRPC {name}"] for name in ("runs", "paper", "difference")] == ["2", "84.0", "-3.0"]
    assert [row["MRPC (%)"] for row in rows[1:]] == ["failed: no memory", "not run"]


def test_the_terminal_has_columns_of_one_width():
    lines = TABLE.terminal_lines()
    assert lines[0].endswith("MRPC")
    assert len(lines[2]) <= len(lines[1]) == len(lines[3])
