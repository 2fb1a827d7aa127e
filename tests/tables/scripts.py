"""Units that run a line of Python in place of a launcher."""

import dataclasses

from bert_jax.tables.unit import Unit


@dataclasses.dataclass(frozen=True)
class Script(Unit):
    """A unit whose arguments are Python; `{here}` and `{units}` stand for directories."""

    def command(self, table):
        return ["-c", *super().command(table)[2:]]


def script(name, code, needs=(), **values):
    return Script(name, "none", (code,), tuple(needs), **values)
