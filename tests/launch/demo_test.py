import contextlib
import subprocess

import pytest

from launch import demo

ROW = {
    "step": 9,
    "eval/mlm_accuracy": 0.25,
    "eval/most_frequent_token_accuracy": 0.051,
    "eval/mlm_perplexity": 90.4,
    "eval/unigram_perplexity": 497.1,
    "eval/nsp_accuracy": 0.654,
}


@pytest.fixture
def ran(monkeypatch):
    """The modules that the demo ran; nothing is really run, and pretraining ends with status 75, on Ctrl-C."""
    modules = []

    class Process(contextlib.nullcontext):
        def __init__(self, command):
            super().__init__(self)
            modules.append(command[2])
            self.interrupted = command[2] == "launch.pretrain"
            self.status = 75 if self.interrupted else 0

        def wait(self):
            if self.interrupted:
                self.interrupted = False
                raise KeyboardInterrupt
            return self.status

    monkeypatch.setattr(subprocess, "Popen", Process)
    return modules


def test_the_summary_shows_what_chance_reaches_beside_the_model():
    lines = demo.summary(ROW).splitlines()
    assert "25.0%" in lines[1]
    assert "5.1% (always the most frequent token)" in lines[1]
    assert "90" in lines[2]
    assert "497 (token frequencies)" in lines[2]
    assert "65.4%" in lines[3]


def test_a_command_that_fails_ends_the_demo_with_its_status(ran, capsys):
    with pytest.raises(SystemExit) as stopped:
        demo.main(["demo"])
    assert stopped.value.code == 75
    assert ran == ["launch.prepare", "launch.pretrain"]
    assert "ended with status 75; the demo goes on from there when run again" in capsys.readouterr().out


def test_the_demo_shows_result_and_commands_in_order(ran, monkeypatch, capsys):
    monkeypatch.setattr(demo, "PRETRAIN", ("launch.pretend",))
    monkeypatch.setattr(demo, "read_rows", lambda path: [ROW | {"eval/mlm_accuracy": 0.1}, ROW, {"step": 9}])
    demo.main(["demo"])
    assert ran == ["launch.prepare", "launch.pretend", "launch.fill_mask"]
    shown = capsys.readouterr().out
    assert 0 < shown.index("25.0%") < shown.index("3/3  Fill masks") < shown.index("What to run next")
