"""Many configs on many topologies: results kept as JSON lines, and their table in a document.

A cell that was compiled with the same versions is not compiled again, so a matrix that is stopped goes on.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bert_jax.tpu.topologies import Topology, parse_topology

BEGIN, END = "<!-- table of compile_check -->", "<!-- end of the table -->"
HEAD = (
    "config, rows a chip", "topology", "remat, dtype", "HBM, GiB", "moved, GB", "FLOPs a byte", "bound a step, ms",
    "limited by", "MFU at most", "sequences/s at most",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
    """One config on one topology.

    Attributes:
        config: `FILE.py:arg=value,…`, with ` --config.key=value` behind it for each change.
        topology: an accelerator type.
        rows_per_chip: of the global batch, in place of the config's.
        num_slices: of that topology.
    """

    config: str
    topology: str
    rows_per_chip: int
    num_slices: int = 1

    @property
    def slices(self) -> Topology:
        """Return what its topology names."""
        return parse_topology(self.topology, self.num_slices)

    def holds(self, result: dict[str, Any]) -> bool:
        """Return whether a result is this cell's."""
        cell = (result["config"], result["topology"], result["rows_per_chip"])
        return cell == (self.config, self.slices.name, self.rows_per_chip)


def fill(
    cells: Iterable[Cell], results: Path, versions: dict[str, str], check: Callable[[Cell], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a result for each cell, those of `results` with the same versions unchanged; others are added to the file.

    Args:
        cells: in the table's order.
        results: JSON lines.
        versions: of this environment.
        check: compiles.
    """
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    kept = [result for result in map(json.loads, lines) if result["versions"] == versions]
    table = []
    for cell in cells:
        found = next((result for result in kept if cell.holds(result)), None)
        if found is None:
            found = check(cell)
            kept.append(found)
            temporary = results.with_suffix(".tmp")  # a kill while it is written loses none of the hours before
            temporary.write_text("".join(json.dumps(result) + "\n" for result in kept), encoding="utf-8")
            temporary.replace(results)
        table.append(found)
    return table


def table(results: Iterable[dict[str, Any]]) -> str:
    """Return the Markdown table of results of `check`."""
    rows = [HEAD, ("---",) * len(HEAD), *map(_row, results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_table(document: Path, text: str) -> None:
    """Put a table between the document's two marks.

    Raises:
        ValueError: it has no marks.
    """
    old = document.read_text(encoding="utf-8")
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        raise ValueError(f"{document} has no place for the table; it takes the lines {BEGIN} and {END}, once each")
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    name = result["config"].split(":", 1)[-1]
    name = name if result["config"].startswith("configs/bert.py") else result["config"]
    head = (
        f"`{name}`, {result['rows_per_chip']:g} × {result['sequence_length']}",
        result["topology"],
        f"{result['remat']}, {result['dtype']}",
    )
    available = f"of {result['hbm_available_bytes'] / 2**30:.2f}"
    if not result["fits"]:
        used = result["hbm_used_bytes"]
        return (*head, f"{used / 2**30:.1f} {available}" if used else f"more {available}", *(["does not fit"] * 6))
    bounds = result["roofline"]
    return (
        *head,
        f"{result['hbm_used_bytes'] / 2**30:.2f} {available}",
        f"{result['hbm_bytes'] / 1e9:.1f} ({result['bytes_accessed'] / 1e9:.1f})",
        f"{result['arithmetic_intensity']:.0f}",
        f"{bounds['seconds_per_step'] * 1e3:.1f}",
        bounds["limited_by"],
        f"{bounds['mfu']:.0%}",
        f"{bounds['tokens_per_second'] / result['sequence_length']:,.0f}",
    )
