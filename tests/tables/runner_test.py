import os
import signal
import subprocess
import threading
import time

import pytest

from bert_jax.tables.plan import Plan
from bert_jax.tables.runner import Runner
from bert_jax.training.workdir import WorkdirInUseError, take_lock
from tests.tables.scripts import script

COUNT = "open('{here}/runs', 'a').write('x')"


def run(plan):
    lines = []
    with Runner(plan, lines.append) as runner:
        runner.run_all()
    return runner, lines


def states(plan):
    return {unit.name: plan.status(unit).state for unit in plan.units}


def test_units_run_once_and_in_order(tmp_path):
    first = script("first", f"{COUNT}; print('result')")
    second = script("second", f"open('{{units}}/{first.key}/output.txt').read(); {COUNT}", [first])
    plan = Plan.of([second], tmp_path)
    run(plan)
    runner, lines = run(plan)
    assert states(plan) == {"first": "done", "second": "done"}
    assert not lines
    assert not runner.stopped
    assert [(unit.directory(tmp_path) / "runs").read_text() for unit in plan.units] == ["x", "x"]
    assert (first.directory(tmp_path) / "output.txt").read_text() == "result\n"


def test_a_failed_unit_leaves_its_reason_and_the_rest_goes_on(tmp_path):
    bad = script("bad", "raise ValueError('no such corpus')")
    plan = Plan.of([script("after", "pass", [bad]), script("other", "pass")], tmp_path)
    _, lines = run(plan)
    assert states(plan) == {"bad": "failed", "after": "blocked", "other": "done"}
    assert plan.status(bad).reason == "ValueError: no such corpus"
    assert any("after: not run, since bad is not done" in line for line in lines)


def test_a_failed_unit_is_tried_again_by_the_next_call(tmp_path):
    flaky = script("flaky", "import os, sys; sys.exit(0 if os.path.exists('{here}/mended') else 3)")
    plan = Plan.of([flaky], tmp_path)
    run(plan)
    assert plan.status(flaky).reason.startswith("$ python")  # all that the log has
    (flaky.directory(tmp_path) / "mended").touch()
    run(plan)
    assert plan.status(flaky).state == "done"


def test_a_signal_stops_the_unit_that_runs_and_the_next_call_goes_on(tmp_path):
    code = (
        "import os, signal, sys, time\n"
        "def save(*_): open('{here}/saved', 'w'); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "if os.path.exists('{here}/saved'): sys.exit(0)\n"
        "open('{here}/ready', 'w'); time.sleep(60)"
    )
    slow = script("slow", code)
    plan = Plan.of([slow, script("next", "pass")], tmp_path)

    def stop():
        while not (slow.directory(tmp_path) / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    runner, _ = run(plan)
    assert runner.stopped
    assert states(plan) == {"slow": "stopped", "next": "not run"}
    run(plan)
    assert states(plan) == {"slow": "done", "next": "done"}


def test_a_signal_that_comes_while_a_unit_is_started_stops_it(tmp_path, monkeypatch):
    start = subprocess.Popen

    def signalled(*arguments, **values):
        process = start(*arguments, **values)
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", signalled)
    slow = script("slow", "import time; time.sleep(10)")
    plan = Plan.of([slow], tmp_path)
    run(plan)
    assert states(plan) == {"slow": "stopped"}


def test_a_unit_is_run_by_one_process_at_a_time(tmp_path):
    unit = script("one", "pass")
    unit.directory(tmp_path).mkdir(parents=True)
    lock = take_lock(unit.directory(tmp_path))
    assert lock is not None
    with lock, Runner(Plan.of([unit], tmp_path), print) as runner, pytest.raises(WorkdirInUseError):
        runner.run(unit)


def test_a_unit_that_another_process_runs_does_not_keep_the_others(tmp_path):
    busy = script("busy", "pass")
    busy.directory(tmp_path).mkdir(parents=True)
    plan = Plan.of([busy, script("other", "pass")], tmp_path)
    lock = take_lock(busy.directory(tmp_path))
    assert lock is not None
    with lock:
        _, lines = run(plan)
    assert states(plan) == {"busy": "not run", "other": "done"}
    assert any("left to whoever runs it" in line for line in lines)


def test_a_unit_that_was_done_meanwhile_is_not_run_again(tmp_path):
    unit = script("one", COUNT)
    plan = Plan.of([unit], tmp_path)
    run(plan)
    with Runner(plan, print) as runner:
        assert runner.run(unit).state == "done"
    assert (unit.directory(tmp_path) / "runs").read_text() == "x"


def test_what_a_failed_conversion_left_is_not_in_the_way(tmp_path):
    code = "import os; os.mkdir('{here}/run'); assert os.path.exists('{here}/mended')"
    unit = script("convert", code, begins_anew=True)
    plan = Plan.of([unit], tmp_path)
    run(plan)
    (unit.directory(tmp_path) / "mended").touch()
    run(plan)
    assert plan.status(unit).state == "done"
