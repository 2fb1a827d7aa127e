"""What the units of a plan came to, as cells of a table: read from the files that their commands left."""

import json
import math
from typing import Any

from bert_jax.reports.results_table import NOT_RUN, Cell
from bert_jax.tables.finetuning import RESTARTS
from bert_jax.tables.plan import Plan
from bert_jax.tables.unit import OUTPUT, Unit


def evaluated(plan: Plan, unit: Unit) -> dict[str, Any]:
    """Return the row that an evaluation printed; empty if it is not done."""
    if plan.status(unit).state != "done":
        return {}
    text = (unit.directory(plan.table) / OUTPUT).read_text(encoding="utf-8")
    # The last object that begins a line: whatever a library wrote to standard output stands around it.
    row, _ = json.JSONDecoder().raw_decode(text[text.rfind("\n{") + 1 :])
    return row


def evaluation_cell(plan: Plan, units: list[Unit], metric: str, published: float = math.nan) -> Cell:
    """Return a metric of evaluations, one for each pretraining seed."""
    rows = [evaluated(plan, unit) for unit in units]
    values = tuple(float(row[metric]) for row in rows if metric in row)
    reasons = [plan.status(unit).missing for unit in units]
    return Cell(values=values, planned=len(units), published=published, missing=next(filter(None, reasons), ""))


def trials(plan: Plan, unit: Unit) -> list[dict[str, Any]]:
    """Return the results of a unit's restarts there are, those of the plan's seeds, by seed.

    Of a seed that was trained twice, as under another name of the table's directory, the last counts.
    """
    folder = unit.directory(plan.table) / RESTARTS / "trials"
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    by_seed = {result["overrides"].get("seed", 0): result for result in results}
    return [by_seed[seed] for seed in sorted(by_seed) if seed < unit.restarts]


def score_cell(plan: Plan, unit: Unit, metric: str, published: float = math.nan) -> Cell:
    """Return a score of held-out rows in percent, of the restarts there are; failed ones are counted and left out.

    Args:
        plan: of the unit.
        unit: a sweep over seeds.
        metric: of its results, a share; a split other than the first has a prefix, "test/f1".
        published: to stand beside, in percent.
    """
    ended = trials(plan, unit)
    good = [result for result in ended if not result.get("failed")]
    reasons = [result["failed"] for result in ended if result.get("failed")]
    missing = plan.status(unit).missing or (f"failed: {reasons[0]}" if reasons and not good else "")
    remarks = [f"{len(reasons)} of {len(ended)} left out ({reasons[0]})"] if reasons and good else []
    remarks += [missing] if good and missing not in ("", NOT_RUN) else []
    return Cell(
        values=tuple(100.0 * result["last"][metric] for result in good),
        planned=unit.restarts - len(reasons),
        published=published,
        missing=missing,
        remark=", ".join(remarks),
    )
