"""A plan for people: every unit, where it stands, what it costs and its command."""

import shlex

from bert_jax.tables.cost import Estimate, format_flops, format_hours
from bert_jax.tables.plan import Plan, Status
from bert_jax.tables.unit import Unit


def plan_lines(plan: Plan, estimate: Estimate, command: str) -> list[str]:
    """Return the plan as lines.

    Args:
        plan: to list.
        estimate: of the cost.
        command: that runs the whole plan, to which `--unit` is added for one.
    """
    statuses = {unit.name: plan.status(unit) for unit in plan.units}
    left = [unit for unit in plan.units if statuses[unit.name].state != "done"]
    width = max(len(unit.name) for unit in plan.units)
    lines = [f"{len(plan.units)} units in {plan.table}, {len(left)} to run; by the estimate {estimate.describe()}:", ""]
    lines += [f"{_line(unit, statuses[unit.name], estimate, width)}" for unit in plan.units]
    for name, units in (("all", list(plan.units)), ("to run", left)):
        flops = sum(unit.flops for unit in units)
        seconds = sum(estimate.seconds(unit.flops) for unit in units)
        lines.append(f"{name:<{width}}  {format_flops(flops):>8} FLOPs  {format_hours(seconds):>9}")
    lines += ["", "Commands, each by itself (a unit needs those named behind it to be done):", ""]
    lines += [f"{command} --unit={unit.name}{_needs(unit)}" for unit in left]
    lines += ["", "What they run:", ""]
    return lines + [shlex.join(["python", *unit.command(plan.table)]) for unit in left]


def _line(unit: Unit, status: Status, estimate: Estimate, width: int) -> str:
    took = f", took {format_hours(status.seconds)}" if status.seconds else ""
    reason = f": {status.reason}" if status.reason else ""
    cost = f"{format_flops(unit.flops):>8} FLOPs  {format_hours(estimate.seconds(unit.flops)):>9}"
    return f"{unit.name:<{width}}  {cost}  {status.state}{took}{reason}"


def _needs(unit: Unit) -> str:
    return f"  # needs {', '.join(need.name for need in unit.needs)}" if unit.needs else ""
