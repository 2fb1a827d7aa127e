"""The effect of model size: sizes → held-out perplexity and scores, beside BERT's Table 6 or the 24 smaller BERTs.

Source: Devlin et al. 2019, Table 6 ("LM (ppl)", and dev accuracy averaged over 5 random restarts of fine-tuning);
google-research/bert README, 11 March 2020.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

from bert_jax.config import choose
from bert_jax.models.bert import BertConfig, named_size
from bert_jax.reports.page import Picture, Report
from bert_jax.reports.result_plots import Axis, Point, Series, scatter
from bert_jax.reports.results_table import Cell, Column, ResultsTable
from bert_jax.tables.cost import Estimate, bert_parameters, format_flops
from bert_jax.tables.finetuning import TASKS, Finetuning, finetuned
from bert_jax.tables.inputs import check_corpus, check_size, check_tasks
from bert_jax.tables.outcomes import evaluated, evaluation_cell, score_cell
from bert_jax.tables.plan import Plan
from bert_jax.tables.pretraining import Model, Pretraining, evaluation, given, parse_pairs, pretrained
from bert_jax.tables.published import SMALL_BERTS, TABLE_6
from bert_jax.tables.unit import Unit
from bert_jax.training.throughput import BERT_FORMULA


class Published(NamedTuple):
    """Values to stand beside: of which table, on which split, by size."""

    source: str
    split: str
    values: Mapping[str, Mapping[str, float]]


PUBLISHED = {
    "table_6": Published("BERT's Table 6 (Devlin et al. 2019, dev sets)", "dev", TABLE_6),
    "small_berts": Published("the 24 smaller BERTs (google-research/bert README; GLUE test sets)", "test", SMALL_BERTS),
}
PERPLEXITY = "eval/mlm_perplexity"
UNIGRAM = "eval/unigram_perplexity"


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """The config of the table.

    Attributes:
        table: "model_size".
        name: of its directory.
        preset: its name, for people.
        title: of the report.
        sizes: rows, "layers-hidden-heads".
        published: of PUBLISHED.
        stands_for: "1-96-3=3-768-12,…": the published size that a row stands beside; default: the same.
        checkpoints: "12-768-12=hf:DIR,…": rows that take a checkpoint in place of pretraining.
        remarks: sentences below the table.
        pretraining, finetuning, estimate: see their classes.
    """

    table: str
    name: str
    preset: str
    title: str
    sizes: tuple[str, ...]
    published: str
    stands_for: str
    checkpoints: str
    remarks: tuple[str, ...]
    pretraining: Pretraining
    finetuning: Finetuning
    estimate: Estimate

    def __post_init__(self) -> None:
        """Refuse unknown sizes."""
        choose("config.published", self.published, PUBLISHED)
        if not self.sizes:
            raise ValueError("config.sizes is empty; give layers-hidden-heads, such as 3-768-12")
        for size in self.sizes:
            named_size(size)
        parse_pairs(self.stands_for, "config.stands_for")  # of rows that may have been left out
        for size in parse_pairs(self.checkpoints, "config.checkpoints"):
            choose("the size in config.checkpoints", size, self.sizes)

    def check(self) -> None:
        """See `Table`."""
        check_corpus(self.pretraining.corpus, self.pretraining.all_instances)
        check_tasks(self.finetuning, self.finetuning.tasks)
        for size, address in parse_pairs(self.checkpoints, "config.checkpoints").items():
            check_size(address, f"{size} in config.checkpoints", named_size(size))

    def units(self) -> list[Unit]:
        """Return all that the table is made of: first every size's perplexity, then the scores."""
        evaluations = [unit for size in self.sizes for unit in self._evaluations(size)]
        return evaluations + [self._score(size, task) for task in self.finetuning.tasks for size in self.sizes]

    def report(self, plan: Plan) -> Report:
        """Return the table of what there is."""
        tasks = self.finetuning.tasks
        titles = ("size", "L", "H", "A", "parameters", "training FLOPs", "tokens")
        columns = [*map(Column, titles), Column("perplexity", digits=2, is_score=True)]
        columns += [Column(TASKS[task].title, "%", is_score=True) for task in tasks]
        rows = tuple(self._row(plan, size) for size in self.sizes)
        return Report(
            title=self.title,
            source=PUBLISHED[self.published].source,
            table=ResultsTable(tuple(columns), rows),
            pictures=self._pictures(rows),
            notes=(*self._notes(plan), *self.remarks),
        )

    def _models(self, size: str) -> list[Model]:
        """Return the checkpoints of a row, one a pretraining seed."""
        address = parse_pairs(self.checkpoints, "config.checkpoints").get(size)
        if address is not None:
            return [given(size, address)]
        return [pretrained(self.pretraining, size, size, seed) for seed in range(self.pretraining.seeds)]

    def _evaluations(self, size: str) -> list[Unit]:
        return [evaluation(self.pretraining, model) for model in self._models(size)]

    def _score(self, size: str, task: str) -> Unit:
        return finetuned(self.finetuning, self._models(size)[0], task, self.pretraining.model(size))

    def _paper(self, size: str) -> Mapping[str, float]:
        stands_for = parse_pairs(self.stands_for, "config.stands_for")
        return PUBLISHED[self.published].values.get(stands_for.get(size, size), {})

    def _row(self, plan: Plan, size: str) -> tuple[Cell, ...]:
        sizes = named_size(size)
        numbers = [sizes[name] for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")]
        is_given = self._models(size)[0].given
        trained = ["given", "given"] if is_given else [
            format_flops(self.pretraining.flops(size)), f"{self.pretraining.tokens / 1e6:,.1f}M"
        ]  # fmt: skip
        texts = [size, *map(str, numbers), f"{bert_parameters(self.pretraining.model(size)):,}", *trained]
        paper = self._paper(size)
        perplexity = evaluation_cell(plan, self._evaluations(size), PERPLEXITY, paper.get("perplexity", math.nan))
        scores = [
            score_cell(plan, self._score(size, task), TASKS[task].metric, paper.get(task, math.nan))
            for task in self.finetuning.tasks
        ]
        return (*(Cell(text=text) for text in texts), perplexity, *scores)

    def _notes(self, plan: Plan) -> list[str]:
        restarts, seeds = self.finetuning.restarts, self.pretraining.seeds
        split = PUBLISHED[self.published].split
        notes = [
            "Parameters are those of the pretrained model, with pooler and both heads; FLOPs by the formula "
            f"{BERT_FORMULA}; tokens are positions, padding included.",
            f"Perplexity is that of masked words of held-out documents; scores are dev scores, mean ± the sample's "
            f"standard deviation of {restarts} restart{'s' * (restarts > 1)} of fine-tuning"
            + (f"; published scores are of the {split} sets." if split != "dev" else "."),
        ]
        if seeds > 1:
            notes.append(f"Perplexity is the mean ± deviation of {seeds} pretrainings; scores begin from the first.")
        for size in self.sizes:
            row = evaluated(plan, self._evaluations(size)[0])
            if UNIGRAM in row:
                notes.append(f"Token frequencies alone have perplexity {row[UNIGRAM]:,.0f} on the same masked words.")
                break
        if {"6-768-3", "6-768-12"} <= {self._stands_for(size) for size in self.sizes}:
            notes.append("Rows 2 and 3 of the paper's table have equal parameters and differ in heads alone.")
        return notes

    def _stands_for(self, size: str) -> str:
        return parse_pairs(self.stands_for, "config.stands_for").get(size, size)

    def _pictures(self, rows: tuple[tuple[Cell, ...], ...]) -> tuple[Picture, ...]:
        """Return perplexity against parameters and FLOPs, and scores against perplexity, of what there is."""
        perplexities = dict(zip(self.sizes, (row[7] for row in rows), strict=True))
        done = [size for size in self.sizes if perplexities[size].values]
        if not done:
            return ()
        pictures = []
        y = Axis("perplexity of held-out masked words", log=True)
        for name, title, ours, paper in (
            ("perplexity_parameters", "parameters", self._parameters, _paper_parameters),
            ("perplexity_flops", "training FLOPs", self.pretraining.flops, _paper_flops),
        ):
            known = [size for size in done if name != "perplexity_flops" or not self._models(size)[0].given]
            mine = tuple(
                Point(float(ours(size)), perplexities[size].mean, size, perplexities[size].std) for size in known
            )
            theirs = tuple(Point(float(paper(size)), row["perplexity"], size) for size, row in TABLE_6.items())
            figure = scatter(
                f"Perplexity against {title}", Axis(title, log=True), y,
                (Series(f"ours ({self.preset})", mine), Series("BERT's Table 6", theirs)),
            )  # fmt: skip
            caption = f"Perplexity against {title}, both logarithmic; the paper's corpus and vocabulary are others."
            pictures.append(Picture(name, caption, figure))
        series = []
        for number, task in enumerate(self.finetuning.tasks):
            points = [(perplexities[size].mean, rows[self.sizes.index(size)][8 + number], size) for size in done]
            found = tuple(Point(x, cell.mean, size, cell.std) for x, cell, size in points if cell.values)
            series.append(Series(TASKS[task].title, found, joined=False))
        if any(one.points for one in series):
            x = Axis("perplexity of held-out masked words", log=True)
            figure = scatter("Dev score against perplexity", x, Axis("dev score, %"), series)
            pictures.append(Picture("score_perplexity", "Dev scores against perplexity, a point a size.", figure))
        return tuple(pictures)

    def _parameters(self, size: str) -> int:
        return bert_parameters(self.pretraining.model(size))


def _paper_model(size: str) -> BertConfig:
    return BertConfig(**named_size(size), vocab_size=30_522)


def _paper_parameters(size: str) -> int:
    return bert_parameters(_paper_model(size))


def _paper_flops(size: str) -> float:
    """Return the FLOPs of the paper's schedule by our formula: 90 % of 1M steps of 256 rows at 128 tokens, then 512."""
    paper = Pretraining(
        recipe="paper", preset="paper", corpus="", instances="nsp-128", batch_size=256, num_steps=900_000,
        warmup_steps=10_000, predictions=20, instances_2="nsp-512", num_steps_2=100_000,
    )  # fmt: skip
    return paper.flops(size)
