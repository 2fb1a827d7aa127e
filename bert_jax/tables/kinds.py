"""The tables there are, by config.table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bert_jax.config import build, choose, to_plain
from bert_jax.reports.page import Report
from bert_jax.tables.cost import Estimate
from bert_jax.tables.feature_layers import FeatureLayers
from bert_jax.tables.model_size import ModelSize
from bert_jax.tables.plan import Plan
from bert_jax.tables.unit import Unit
from bert_jax.tables.variants import Variants


@runtime_checkable  # the tests execute annotations
class Table(Protocol):
    """What a table is: units, and a report of what they came to."""

    @property
    def estimate(self) -> Estimate:
        """What the plan's cost is reckoned with."""
        ...

    def check(self) -> None:
        """Refuse a corpus, files or checkpoints that are not there, or not what the config says.

        Raises:
            ValueError, FileNotFoundError: says which.
        """
        ...

    def units(self) -> list[Unit]:
        """Return the units that cells are read from; what they need comes with them."""
        ...

    def report(self, plan: Plan) -> Report:
        """Return the table of what there is."""
        ...


TABLES: Mapping[str, type[Any]] = {"model_size": ModelSize, "variants": Variants, "feature_layers": FeatureLayers}


def make_table(section: Any) -> Table:
    """Return the table of a config.

    Raises:
        ValueError: no such table, an unknown key, or a value out of range.
    """
    values = to_plain(section)
    table: Table = build(TABLES[choose("config.table", values.get("table", ""), TABLES)], values)
    return table


def make_plan(table: Table, directory: Path) -> Plan:
    """Return the plan of a table in a directory."""
    return Plan.of(table.units(), directory)
