import pytest

from bert_jax.tables.plan import Plan, Record, write_record
from bert_jax.tables.unit import Unit


def unit(name, *arguments, needs=(), restarts=0):
    return Unit(name, "pretrain", arguments, tuple(needs), restarts)


def ended(plan, one, state="done", reason="", restarts=None):
    directory = one.directory(plan.table)
    directory.mkdir(parents=True, exist_ok=True)
    count = one.restarts if restarts is None else restarts
    write_record(directory, Record(state, (), count, 1.0, reason, ""))


def test_a_unit_comes_once_and_behind_what_it_needs(tmp_path):
    first = unit("first")
    plan = Plan.of([unit("b", needs=[first]), unit("c", needs=[first])], tmp_path)
    assert [one.name for one in plan.units] == ["first", "b", "c"]
    with pytest.raises(ValueError, match=r"--unit is 'fist'; .*did you mean 'first'"):
        plan.unit("fist")


def test_a_changed_command_has_another_directory_and_so_has_what_depends_on_it(tmp_path):
    def two(rate):
        before = unit("before", f"--rate={rate}")
        return before, unit("after", f"--init_from={before.run_address}", needs=[before])

    old, new = two(1), two(2)
    assert [a.key == b.key for a, b in zip(old, new, strict=True)] == [False, False]
    plan = Plan.of(old, tmp_path)
    ended(plan, old[0])
    assert plan.status(old[0]).state == "done"
    assert Plan.of(new, tmp_path).status(new[0]).state == "not run"
    assert old[1].command(tmp_path)[-1] == f"--init_from=run:{tmp_path}/units/{old[0].key}/run"


def test_more_restarts_go_on_in_the_same_directory(tmp_path):
    three, five = unit("sweep", restarts=3), unit("sweep", restarts=5)
    assert three.key == five.key
    plan = Plan.of([three], tmp_path)
    ended(plan, three)
    assert plan.status(three).state == "done"
    assert plan.status(five).state == "not run"
    assert plan.status(unit("sweep", restarts=2)).state == "done"


def test_a_failed_unit_blocks_those_that_need_it_with_its_name(tmp_path):
    first = unit("first")
    second = unit("second", needs=[first])
    third, other = unit("third", needs=[second]), unit("other")
    plan = Plan.of([third, other], tmp_path)
    ended(plan, first, "failed", "out of memory")
    assert plan.status(first).missing == "failed: out of memory"
    assert plan.status(third).missing == "blocked: first failed"
    assert plan.status(other).missing == "not run"
    assert plan.unfinished_needs(second) == ["first"]
