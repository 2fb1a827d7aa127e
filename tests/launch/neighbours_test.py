import json

import pytest

from tests.launch.programs import run_launcher
from tests.tasks.tiny_tasks import write_model


@pytest.mark.entry
def test_contexts_are_listed_and_drawn(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat\nno word\na cat on the mat\nthe cat sat on it\n")
    done = run_launcher(
        "neighbours",
        f"--checkpoint={write_model(tmp_path / 'bert')}",
        f"--corpus_text={tmp_path}/a.txt",
        "--word=cat",
        "--context=A cat on the mat",
        "--top_k=2",
        "--format=json",
        f"--picture={tmp_path}/a.png",
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    value = json.loads(line)
    assert value["query"] == {"line": None, "position": 1, "words": ["a", "cat", "on", "the", "mat"]}
    assert value["neighbours"][0]["line"] == 3
    assert value["neighbours"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert len(value["neighbours"]) == 2
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.entry
def test_errors_are_one_line_and_a_status(tmp_path):
    done = run_launcher("neighbours", "--checkpoint=elmo:none", f"--corpus_text={tmp_path}/none", "--word=cat")
    assert done.returncode == 1
    assert "neighbours: " in done.stderr
    assert "is not a file" in done.stderr
    assert "Traceback" not in done.stderr
