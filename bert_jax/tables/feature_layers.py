"""Which layer's vectors are best: frozen features into a BiLSTM tagger, beside fine-tuning, ELMo and static vectors.

Source: Devlin et al. 2019 §5.3 and Table 7, CoNLL-2003 named entities.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

from bert_jax.config import choose
from bert_jax.models.bert import BertConfig
from bert_jax.models.elmo import named_size
from bert_jax.reports.page import Picture, Report
from bert_jax.reports.result_plots import Axis, Point, Series, bars
from bert_jax.reports.results_table import Cell, Column, ResultsTable
from bert_jax.tables.cost import Estimate, ner_flops
from bert_jax.tables.finetuning import Finetuning, finetuned
from bert_jax.tables.inputs import check_corpus, check_files, check_size
from bert_jax.tables.outcomes import score_cell
from bert_jax.tables.plan import Plan
from bert_jax.tables.pretraining import Model
from bert_jax.tables.published import TABLE_7
from bert_jax.tables.tagging import ElmoPretraining, Tagging, Vectors, pretrained_elmo, tagged
from bert_jax.tables.unit import Unit

FINETUNED, ELMO, STATIC = "finetuned", "elmo", "static"


class Row(NamedTuple):
    """A row's title, and its vectors; None = fine-tuning."""

    title: str
    vectors: Vectors | None


@dataclasses.dataclass(frozen=True)
class FeatureLayers:
    """The config of the table.

    Attributes:
        table: "feature_layers".
        name: of its directory.
        preset: its name, for people.
        title: of the report.
        rows: of `_rows`.
        checkpoint: address of the BERT.
        num_layers: Transformer layers of it.
        hidden_size: of it, for the cost.
        data: directory that the files of `tagging` are in; "" = as they stand.
        elmo_checkpoint: address of an ELMo; "" = it is pretrained by a unit.
        remarks: sentences below the table.
        elmo, tagging, finetuning, estimate: see their classes.
    """

    table: str
    name: str
    preset: str
    title: str
    rows: tuple[str, ...]
    checkpoint: str
    num_layers: int
    hidden_size: int
    data: str
    elmo_checkpoint: str
    remarks: tuple[str, ...]
    elmo: ElmoPretraining
    tagging: Tagging
    finetuning: Finetuning
    estimate: Estimate

    def __post_init__(self) -> None:
        """Refuse unknown rows, and rows of no model."""
        if not self.rows:
            raise ValueError(f"config.rows is empty; it takes {', '.join(self._rows())}")
        for row in self.rows:
            choose("config.rows", row, self._rows())
        if not self.checkpoint and set(self.rows) - {ELMO}:
            raise ValueError("config.checkpoint is empty; give the BERT: run:DIR, hf:DIR or google:PREFIX")

    @functools.cached_property
    def _tagging(self) -> Tagging:
        """The config's, with whole paths; fine-tuning takes the same files."""
        return self.tagging.within(self.data)

    def check(self) -> None:
        """See `Table`."""
        check_files(self._tagging.files)
        if set(self.rows) - {ELMO}:
            sizes = {"num_hidden_layers": self.num_layers, "hidden_size": self.hidden_size}
            check_size(self.checkpoint, "config.num_layers and config.hidden_size", sizes)
        if ELMO in self.rows and not self.elmo_checkpoint:
            check_corpus(self.elmo.corpus, (self.elmo.instances,))

    def units(self) -> list[Unit]:
        """Return all that the table is made of, row by row."""
        return [self._unit(row) for row in self.rows]

    def report(self, plan: Plan) -> Report:
        """Return the table of what there is."""
        columns = [Column("system"), Column("dev F1", "%", is_score=True)]
        if self.tagging.test:
            columns.append(Column("test F1", "%", is_score=True))
        rows = []
        for row in self.rows:
            unit = self._unit(row)
            cells = [score_cell(plan, unit, "f1", TABLE_7.get(row, math.nan))]
            if self.tagging.test:
                cells.append(score_cell(plan, unit, "test/f1"))
            rows.append((Cell(text=self._rows()[row].title), *cells))
        tagging = self._tagging
        notes = (
            f"Vectors are frozen, those of a word's first piece; the tagger is a BiLSTM of {tagging.layers} "
            f"layer{'s' * (tagging.layers > 1)} of {tagging.cells} cells a direction, without CRF; weighted sums are "
            "learned with it.",
            f"F1 of entities as conlleval's, after the last epoch; mean ± the sample's standard deviation of "
            f"{tagging.restarts} restart{'s' * (tagging.restarts > 1)}. Files: {tagging.train}, {tagging.dev}. The "
            "paper's values are of CoNLL-2003, with BERT-Base and its best of some settings.",
            *self.remarks,
        )
        table = ResultsTable(tuple(columns), tuple(rows))
        return Report(self.title, "BERT's Table 7 (CoNLL-2003, dev)", table, self._pictures(rows), notes)

    def _rows(self) -> dict[str, Row]:
        everything = ",".join(map(str, range(1, self.num_layers + 1)))
        return {
            FINETUNED: Row("fine-tuned BERT", None),
            "concat_last_four": Row("concat last four hidden", Vectors("-4,-3,-2,-1", "concat", 4)),
            "sum_last_four": Row("weighted sum last four hidden", Vectors("-4,-3,-2,-1")),
            "sum_all": Row(f"weighted sum all {self.num_layers} layers", Vectors(everything)),
            "second_to_last": Row("second-to-last hidden", Vectors("-2")),
            "last": Row("last hidden", Vectors("-1")),
            "embeddings": Row("embeddings", Vectors("0")),
            ELMO: Row("ELMo, weighted sum all layers", Vectors("all")),
            STATIC: Row("static vectors (word embeddings alone)", Vectors("word_embeddings")),
        }

    def _unit(self, row: str) -> Unit:
        bert, vectors = Model("bert", self.checkpoint, ()), self._rows()[row].vectors
        if vectors is None:
            unit = finetuned(self.finetuning.with_ner(self._tagging.files), bert, "ner", None)
            sizes = BertConfig(**_sizes(self.num_layers, self.hidden_size), vocab_size=1)
            times = self.finetuning.num_epochs * self.finetuning.restarts
            return dataclasses.replace(unit, flops=ner_flops(sizes, float(self.tagging.words * times)))
        if row == ELMO:
            model = (
                Model("elmo", self.elmo_checkpoint, (), given=True)
                if self.elmo_checkpoint
                else pretrained_elmo(self.elmo)
            )
            width = 2 * named_size(self.elmo.size)["projection_dim"]
            return tagged(self._tagging, f"tagger-{row}", model, vectors, width)
        return tagged(self._tagging, f"tagger-{row}", bert, vectors, self.hidden_size)

    def _pictures(self, rows: list[tuple[Cell, ...]]) -> tuple[Picture, ...]:
        done = [(row, cells) for row, cells in zip(self.rows, rows, strict=True) if cells[1].values]
        if not done:
            return ()
        ours = tuple(Point(0.0, cells[1].mean, cells[0].text, cells[1].std) for _, cells in done)
        paper = tuple(Point(0.0, TABLE_7.get(row, math.nan), cells[0].text) for row, cells in done)
        series = Series(f"ours ({self.preset})", ours), Series("paper (CoNLL-2003)", paper)
        figure = bars("Entity F1 by the vectors that a tagger reads", Axis("dev F1, %"), *series)
        return (Picture("layers", "Dev F1 of named entities, a bar for each choice of vectors.", figure),)


def _sizes(layers: int, hidden_size: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden_size,
        "num_attention_heads": 1,  # which costs the same
        "intermediate_size": 4 * hidden_size,
    }
