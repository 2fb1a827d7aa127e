"""Reproduce a table of the papers: `python -m launch.table --config=configs/tables/model_size.py:preset=laptop`.

A table is a plan of units, each a command of its own: pretrain, evaluate, fine-tune. Runs those that are not done, one
after the other, then writes table.md, table.csv, pictures and report.html into the table's directory. The same command
goes on where an interrupted one was; a unit that is done is never run again, one that failed is tried again.

    --plan       lists the units, where they stand, their cost and their commands, and runs none
    --unit=NAME  runs one unit, whose needs are done: for any scheduler, on several machines
    --collect    writes the table of what there is, and runs none

Exit codes: 0 done, 75 asked to stop (the unit that ran has saved), 1 an error or a unit that failed.
"""

import shlex
import sys
import time
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from bert_jax.config import parse_flags
from bert_jax.corpus.remote import is_object_store
from bert_jax.reports.page import PAGE, write_report
from bert_jax.tables.kinds import Table, make_plan, make_table
from bert_jax.tables.listing import plan_lines
from bert_jax.tables.plan import Plan
from bert_jax.tables.runner import Runner
from bert_jax.training.checkpoint import CheckpointError
from bert_jax.training.preemption import EXIT_CODE
from bert_jax.training.workdir import WorkdirInUseError, git_commit, take_lock

CONFIG = config_flags.DEFINE_config_file("config", None, "Which table: configs/tables/FILE.py:preset=NAME")
WORKDIR = flags.DEFINE_string("workdir", None, "The table's directory; default runs/<table>-<preset>.")
PLAN = flags.DEFINE_bool("plan", False, "List the units, and run none.")
UNIT = flags.DEFINE_string("unit", "", "Run this unit only, by its name.")
COLLECT = flags.DEFINE_bool("collect", False, "Write the table of what there is, and run none.")


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; config values are set by --config.key=value")
    if CONFIG.value is None:
        raise app.UsageError("--config is missing; such as --config=configs/tables/model_size.py:preset=laptop")
    try:
        table = make_table(CONFIG.value)
        plan = make_plan(table, directory())
        if PLAN.value:
            print("\n".join(plan_lines(plan, table.estimate, own_command())))
            return 0
        if COLLECT.value:
            collect(table, plan)
            return 0
        return run_unit(plan, UNIT.value) if UNIT.value else run_plan(table, plan)
    except (ValueError, FileNotFoundError, WorkdirInUseError, CheckpointError) as error:
        print(f"table: {error}", file=sys.stderr)
        return 1


def run_plan(table: Table, plan: Plan) -> int:
    """Run what is left of a plan, and write the table."""
    if any(plan.status(unit).state != "done" for unit in plan.units):
        table.check()
    plan.table.mkdir(parents=True, exist_ok=True)
    with take_lock(plan.table), Runner(plan, say) as runner:
        runner.run_all()
    collect(table, plan)
    if runner.stopped:
        say("stopped; the same command goes on")
        return EXIT_CODE
    left = [unit.name for unit in plan.units if plan.status(unit).state != "done"]
    if left:
        say(f"not done: {', '.join(left)}; the same command tries again")
    return 1 if left else 0


def run_unit(plan: Plan, name: str) -> int:
    """Run one unit, unless it is done."""
    unit = plan.unit(name)
    status = plan.status(unit)
    if status.state == "done":
        say(f"{name}: done before, in {status.seconds:,.0f} s")
        return 0
    waits_for = plan.unfinished_needs(unit)
    if waits_for:
        raise ValueError(f"{name} needs {', '.join(waits_for)}, which is not done; run that with --unit first")
    with Runner(plan, say) as runner:
        record = runner.run(unit)
    return {"done": 0, "stopped": EXIT_CODE}.get(record.state, 1)


def collect(table: Table, plan: Plan) -> None:
    """Write the table and print it."""
    plan.table.mkdir(parents=True, exist_ok=True)
    report = table.report(plan)
    done = sum(plan.status(unit).state == "done" for unit in plan.units)
    seconds = sum(plan.status(unit).seconds for unit in plan.units)
    facts = (
        ("units done", f"{done} of {len(plan.units)}, {seconds:,.0f} s together"),
        ("command", own_command()),
        ("commit", git_commit() or "not known"),
        ("written", time.strftime("%Y-%m-%d %H:%M")),
    )
    names = write_report(plan.table, report, facts)
    print("\n".join(report.table.terminal_lines()))
    say(f"wrote {', '.join(names)} to {plan.table}; open {plan.table / PAGE}")


def directory() -> Path:
    """Return the table's directory: the same for all settings, since every unit's directory knows its own."""
    if WORKDIR.value and is_object_store(WORKDIR.value):
        raise ValueError(
            f"--workdir is {WORKDIR.value}, but a table's programs write their logs to a disk; give a local directory "
            "and copy it when it is done: gcloud storage rsync --recursive DIR gs://…"
        )
    if WORKDIR.value:
        return Path(WORKDIR.value)
    config = CONFIG.value
    return Path("runs") / f"{config.get('name', config.get('table', 'table'))}-{config.get('preset', '')}"


def own_command() -> str:
    """Return the command that runs the whole plan."""
    ours, given = ("plan", "collect", "unit"), []
    words = iter(sys.argv[1:])
    for word in words:
        name = word.lstrip("-").partition("=")[0]
        if name not in ours:
            given.append(word)
        elif name == "unit" and "=" not in word:
            next(words, None)  # its value, given as a word of its own
    return shlex.join(["python", "-m", "launch.table", *given])


def say(line: str) -> None:
    """Write a line for the user."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
