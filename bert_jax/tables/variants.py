"""Variants of pretraining: rows that differ in the task or in the masks, columns of dev scores.

Source: Devlin et al. 2019, Table 5 (pretraining tasks) and Table 8 (masks).
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bert_jax.config import choose
from bert_jax.input.masking import NEXT
from bert_jax.models.bert import named_size
from bert_jax.reports.page import Picture, Report
from bert_jax.reports.result_plots import Axis, Point, Series, bars
from bert_jax.reports.results_table import Cell, Column, ResultsTable
from bert_jax.tables.cost import Estimate, ner_flops
from bert_jax.tables.finetuning import TASKS, Finetuning, finetuned
from bert_jax.tables.inputs import check_corpus, check_files, check_tasks
from bert_jax.tables.outcomes import score_cell
from bert_jax.tables.plan import Plan
from bert_jax.tables.pretraining import Model, Pretraining, pretrained, row_length
from bert_jax.tables.published import TABLE_5, TABLE_8
from bert_jax.tables.tagging import Tagging, Vectors, tagged
from bert_jax.tables.unit import Unit

FEATURES = "ner_features"  # the column of taggers on frozen vectors, the last four layers side by side
_CONCAT = Vectors("-4,-3,-2,-1", "concat", 4)
_LTR = {"objective.next_sentence": False, "model.causal": True, "masking.unit": NEXT}


class Variant(NamedTuple):
    """A row: its title, how its pretraining and its fine-tuning differ, and whose pretraining it shares."""

    title: str
    pretraining: Mapping[str, Any]
    same_as: str = ""
    with_bilstm: bool = False


ABLATIONS = {
    "base": Variant("BERT", {}),
    "no_nsp": Variant("No NSP", {"objective.next_sentence": False}),
    "ltr_no_nsp": Variant("LTR & No NSP", _LTR),
    "ltr_no_nsp_bilstm": Variant("LTR & No NSP + BiLSTM", _LTR, same_as="ltr_no_nsp", with_bilstm=True),
}
PUBLISHED = {"ablations": ("BERT's Table 5 (dev sets)", TABLE_5), "masking": ("BERT's Table 8 (dev sets)", TABLE_8)}


@dataclasses.dataclass(frozen=True)
class Variants:
    """The config of the table.

    Attributes:
        table: "variants".
        name: of its directory.
        preset: its name, for people.
        title: of the report.
        size: of every row, "layers-hidden-heads".
        rows: of ABLATIONS; or masks, "80-10-10" (percent of the chosen tokens that become [MASK], stay, become
            random), or "rate-40" (percent of the tokens that are chosen).
        published: of PUBLISHED.
        columns: of TASKS; "ner_features" is a tagger on frozen vectors.
        data: directory that the files of `tagging` are in, which the column "ner" reads too; "" = as they stand.
        bilstm_cells: of each direction, of rows "+ BiLSTM"; the paper does not say.
        remarks: sentences below the table.
        pretraining, finetuning, tagging, estimate: see their classes.
    """

    table: str
    name: str
    preset: str
    title: str
    size: str
    rows: tuple[str, ...]
    published: str
    columns: tuple[str, ...]
    data: str
    bilstm_cells: int
    remarks: tuple[str, ...]
    pretraining: Pretraining
    finetuning: Finetuning
    tagging: Tagging
    estimate: Estimate

    def __post_init__(self) -> None:
        """Refuse unknown rows and columns."""
        choose("config.published", self.published, PUBLISHED)
        named_size(self.size)
        if not self.rows or not self.columns:
            raise ValueError(f"config.rows is {self.rows}, config.columns {self.columns}; name one or more of each")
        for row in self.rows:
            variant(row)
        for column in self.columns:
            choose("config.columns", column, (*TASKS, FEATURES))

    @functools.cached_property
    def _tagging(self) -> Tagging:
        return self.tagging.within(self.data)

    @functools.cached_property
    def _finetuning(self) -> Finetuning:
        return self.finetuning.with_ner(self._tagging.files)

    def check(self) -> None:
        """See `Table`."""
        check_corpus(self.pretraining.corpus, self.pretraining.all_instances)
        check_tasks(self._finetuning, (column for column in self.columns if column != FEATURES))
        if FEATURES in self.columns:
            check_files(self._tagging.files)

    def units(self) -> list[Unit]:
        """Return all that the table is made of, row by row."""
        return [self._unit(row, column) for row in self.rows for column in self.columns]

    def report(self, plan: Plan) -> Report:
        """Return the table of what there is."""
        source, published = PUBLISHED[self.published]
        titles = [TASKS[column].title if column in TASKS else "NER features F1" for column in self.columns]
        columns = (Column("pretraining"), *(Column(title, "%", is_score=True) for title in titles))
        rows = []
        for row in self.rows:
            values = published.get(row, {})
            cells = [
                score_cell(plan, self._unit(row, column), _metric(column), values.get(column, math.nan))
                for column in self.columns
            ]
            rows.append((Cell(text=variant(row).title), *cells))
        table = ResultsTable(columns, tuple(rows))
        model = self.pretraining.model(self.size)
        notes = (
            f"Every row: {model.num_hidden_layers} layers, {model.hidden_size} wide, {model.num_attention_heads} "
            f"heads, {self.pretraining.tokens / 1e6:,.1f}M tokens; dev scores, mean ± the sample's standard deviation "
            f"of {self.finetuning.restarts} restart{'s' * (self.finetuning.restarts > 1)} of fine-tuning.",
            *self.remarks,
        )
        return Report(self.title, source, table, self._pictures(rows), notes)

    def _model(self, row: str) -> Model:
        row = variant(row).same_as or row
        return pretrained(self.pretraining, row, self.size, changes=variant(row).pretraining)

    def _unit(self, row: str, column: str) -> Unit:
        model, sizes = self._model(row), self.pretraining.model(self.size)
        if column == FEATURES:
            # Positions behind those of the pretraining's rows were never trained.
            length = row_length(self.pretraining.last_instances)
            return tagged(self._tagging, f"{column}-{row}", model, _CONCAT, sizes.hidden_size, length)
        changes = {"bilstm_cells": self.bilstm_cells} if variant(row).with_bilstm else {}
        named = dataclasses.replace(model, name=row)  # rows that share a pretraining have units of their own
        unit = finetuned(self._finetuning, named, column, sizes, changes)
        if column != "ner":
            return unit
        times = self.finetuning.num_epochs * self.finetuning.restarts
        return dataclasses.replace(unit, flops=ner_flops(sizes, float(self.tagging.words * times)))

    def _pictures(self, rows: list[tuple[Cell, ...]]) -> tuple[Picture, ...]:
        """Return a bar chart a column that has values."""
        pictures = []
        published = PUBLISHED[self.published][1]
        for number, column in enumerate(self.columns, 1):
            done = [(row, cells) for row, cells in zip(self.rows, rows, strict=True) if cells[number].values]
            if not done:
                continue
            ours = tuple(Point(0.0, cells[number].mean, cells[0].text, cells[number].std) for _, cells in done)
            paper = tuple(
                Point(0.0, published.get(row, {}).get(column, math.nan), cells[0].text) for row, cells in done
            )
            title = TASKS[column].title if column in TASKS else "NER features F1"
            series = Series(f"ours ({self.preset})", ours), Series("paper", paper)
            figure = bars(title, Axis(f"dev {title}, %"), *series)
            pictures.append(Picture(column, f"{title} by variant of pretraining.", figure))
        return tuple(pictures)


def variant(row: str) -> Variant:
    """Return the variant of a row's name.

    Raises:
        ValueError: there is none of that name.
    """
    if row in ABLATIONS:
        return ABLATIONS[row]
    shares = re.fullmatch(r"(\d+)-(\d+)-(\d+)", row)
    if shares and sum(map(int, shares.groups())) == 100:
        mask, same, random = map(int, shares.groups())
        changes = {"masking.mask_token_fraction": mask / 100, "masking.random_token_fraction": random / 100}
        return Variant(f"{mask} % [MASK], {same} % same, {random} % random", changes)
    rate = re.fullmatch(r"rate-(\d+)", row)
    if rate and 0 < int(rate[1]) <= 100:
        return Variant(f"{rate[1]} % of the tokens", {"masking.masked_fraction": int(rate[1]) / 100})
    raise ValueError(
        f"config.rows has {row!r}; it takes {', '.join(ABLATIONS)}, MASK-SAME-RANDOM in percent of 100 such as "
        "80-10-10, or rate-PERCENT such as rate-40"
    )


def _metric(column: str) -> str:
    return TASKS[column].metric if column in TASKS else "f1"
