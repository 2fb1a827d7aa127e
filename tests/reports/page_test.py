import re
from html.parser import HTMLParser

import pytest

from bert_jax.reports.page import Picture, Report, write_report
from bert_jax.reports.result_plots import Axis, Point, Series, bars, scatter
from bert_jax.reports.results_table import Cell, Column, ResultsTable

VOID = {"meta", "link", "img", "br"}


class Elements(HTMLParser):
    """Notes the attributes that lead somewhere, and whether tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.targets, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.targets += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    points = Series("ours", (Point(1e6, 5.0, "a", 0.2), Point(2e6, 4.0, "b")))
    pictures = (
        Picture("one", "Perplexity & size", scatter("t", Axis("x", log=True), Axis("y"), [points, Series("none", ())])),
        Picture("two", "Bars", bars("t", Axis("F1"), points, Series("paper", (Point(0.0, 6.0, "a"),)))),
    )
    table = ResultsTable((Column("size"), Column("F1", is_score=True)), ((Cell(text="<b>"), Cell()),))
    names = write_report(directory, Report("A <title>", "a paper", table, pictures, ("a note",)), [("commit", "123")])
    return directory, names


def test_a_report_is_markdown_csv_pictures_and_a_page(written):
    directory, names = written
    assert sorted(names) == ["one.png", "report.html", "table.csv", "table.md", "two.png"]
    assert all((directory / name).stat().st_size for name in names)
    assert (directory / "one.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_is_whole_without_network(written):
    text = (written[0] / "report.html").read_text(encoding="utf-8")
    elements = Elements()
    elements.feed(text)
    assert not elements.open
    assert len(elements.targets) == 3  # two pictures, and an empty icon
    assert all(target.startswith("data:") for target in elements.targets)
    assert not re.findall(r"https?://|url\(|@import|<script", text)


def test_the_page_shows_what_is_not_run_and_escapes_the_rest(written):
    elements = Elements()
    elements.feed((written[0] / "report.html").read_text(encoding="utf-8"))
    assert {"<b>", "not run", "A <title>", "a note", "123"} <= set(elements.texts)


def test_the_page_is_made_for_phones_and_for_paper(written):
    text = (written[0] / "report.html").read_text(encoding="utf-8")
    assert 'name="viewport" content="width=device-width' in text
    assert "@media print" in text
    assert 'data-title="F1"' in text  # a cell's name where the head is not shown
