"""A report: a table, pictures and notes; as Markdown, CSV and PNG files and as one page of HTML that needs no network.

The page reads on a phone, where each row of the table becomes a block of its own, and on paper.
"""

import base64
import dataclasses
import html
import io
import os
from collections.abc import Sequence

from etils import epath
from matplotlib.figure import Figure

from bert_jax.reports.results_table import ResultsTable

MARKDOWN, CSV, PAGE = "table.md", "table.csv", "report.html"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of a report.

    Attributes:
        name: of its file, without .png.
        caption: that says what it shows, for those who do not see it too.
        figure: with a canvas.
    """

    name: str
    caption: str
    figure: Figure

    def png(self) -> bytes:
        """Return the file's content."""
        image = io.BytesIO()
        self.figure.savefig(image, format="png", dpi="figure")
        return image.getvalue()


@dataclasses.dataclass(frozen=True)
class Report:
    """All of a report.

    Attributes:
        title: of the table.
        source: paper and table that it stands beside.
        table: the results.
        pictures: in their order; none of what has no result.
        notes: sentences below the table.
    """

    title: str
    source: str
    table: ResultsTable
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


Facts = Sequence[tuple[str, str]]


def write_report(directory: str | os.PathLike[str], report: Report, facts: Facts) -> list[str]:
    """Write table.md, table.csv, a PNG a picture, and report.html; return the names of the files.

    Args:
        directory: where to.
        report: what.
        facts: how it came to be, name and value: time, command, commit.
    """
    folder = epath.Path(directory)
    images = [(picture, picture.png()) for picture in report.pictures]
    files = {
        MARKDOWN: markdown(report, facts).encode(),
        CSV: report.table.csv_text().encode(),
        **{f"{picture.name}.png": image for picture, image in images},
        PAGE: page(report, images, facts).encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return list(files)


def markdown(report: Report, facts: Facts) -> str:
    """Return the report as Markdown."""
    pictures = "".join(f"\n![{picture.caption}]({picture.name}.png)\n" for picture in report.pictures)
    notes = "".join(f"- {note}\n" for note in report.notes)
    listed = "".join(f"- {name}: {value}\n" for name, value in facts)
    return f"# {report.title}\n\nBeside {report.source}.\n\n{report.table.markdown()}\n{notes}{listed}{pictures}"


def page(report: Report, images: Sequence[tuple[Picture, bytes]], facts: Facts) -> str:
    """Return the report as one page of HTML; the pictures are in it."""
    figures = "".join(_figure(picture, image) for picture, image in images)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in report.notes)
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts)
    title = html.escape(report.title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="source">Beside {html.escape(report.source)}.</p>
{_table(report.table)}
<ul>{notes}</ul>
{figures}
<dl>{listed}</dl>
</main>
</body>
</html>
"""


def _figure(picture: Picture, image: bytes) -> str:
    data = base64.b64encode(image).decode("ascii")
    caption = html.escape(picture.caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption></figure>\n'
    )


def _table(table: ResultsTable) -> str:
    head = "".join(f'<th scope="col">{html.escape(column.title)}</th>' for column in table.columns)
    rows = "".join(f"<tr>{_row(table, number)}</tr>\n" for number in range(len(table.rows)))
    return f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>'


def _row(table: ResultsTable, number: int) -> str:
    cells = []
    texts = table.texts()[number]
    for place, (column, cell, (main, beside)) in enumerate(zip(table.columns, table.rows[number], texts, strict=True)):
        kind = ' class="missing"' if not cell.text and not cell.values else ""
        small = f"<small>{html.escape(beside)}</small>" if beside else ""
        title = html.escape(column.title)
        if place == 0:
            cells.append(f'<th scope="row">{html.escape(main)}{small}</th>')
        else:
            cells.append(f'<td data-title="{title}"{kind}><span>{html.escape(main)}{small}</span></td>')
    return "".join(cells)


_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 16px/1.45 system-ui, sans-serif; overflow-wrap: break-word; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; line-height: 1.2; margin: .5rem 0; }
.source { color: #555; margin: 0 0 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .55rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
thead th { border-bottom: 2px solid #333; vertical-align: bottom; }
tbody th, thead th:first-child { text-align: left; min-width: 6em; }
td { white-space: nowrap; }
small { display: block; color: #666; font-size: .85em; white-space: normal; }
.missing { color: #666; font-style: italic; white-space: normal; }
ul { padding-left: 1.2rem; }
figure { margin: 1.5rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .85rem; color: #444; }
dd { margin: 0; overflow-wrap: anywhere; }
@media screen and (max-width: 44rem) {
  thead { display: none; }
  table, tbody, tr, th, td { display: block; }
  tr { border: 1px solid #ccc; border-radius: .4rem; margin: 0 0 .8rem; padding: .3rem .6rem; }
  tbody th { font-size: 1rem; border-bottom: 1px solid #333; padding: .3rem 0; }
  td { display: flex; justify-content: space-between; gap: 1rem; padding: .25rem 0; white-space: normal; }
  td::before { content: attr(data-title); color: #555; text-align: left; }
  tr td:last-child { border-bottom: 0; }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { font-size: 9pt; }
  main { max-width: none; padding: 0; }
  .table { overflow: visible; }
  table { font-size: 7.5pt; }
  tr { break-inside: avoid; }
  thead { display: table-header-group; }
  img { max-height: 150mm; }
}
"""
