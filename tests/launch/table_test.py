import csv
import shlex
from pathlib import Path

import pytest

from tests.conftest import write_instances, write_tokenizer
from tests.launch.programs import run_launcher
from tests.tasks.tiny_tasks import write_files


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    directory = tmp_path_factory.mktemp("table")
    write_tokenizer(directory / "corpus")
    write_instances(directory / "corpus", "nsp-32")
    write_files("glue", directory / "glue")
    return [
        "--config=configs/tables/model_size.py:preset=smoke",
        f"--config.pretraining.corpus={directory / 'corpus'}",
        "--config.pretraining.instances=nsp-32",
        "--config.finetuning.tasks=('wnli',)",
        f"--config.finetuning.glue={directory / 'glue'}",
        "--config.sizes=('1-16-2',)",
        "--workdir",
        str(directory / "runs"),
    ]


def table_rows(flags):
    with open(f"{flags[-1]}/table.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.entry
def test_a_plan_is_listed_with_cost_state_and_commands(flags):
    done = run_launcher("table", *flags, "--plan")
    assert done.returncode == 0, done.stderr
    assert "3 units in" in done.stdout
    assert "FLOPs" in done.stdout
    commands = [line for line in done.stdout.splitlines() if "--unit=" in line]
    assert [shlex.split(line, comments=True)[-1] for line in commands] == [
        "--unit=pretrain-1-16-2", "--unit=perplexity-1-16-2", "--unit=wnli-1-16-2",
    ]  # fmt: skip


@pytest.mark.entry
def test_a_unit_waits_for_what_it_needs(flags):
    done = run_launcher("table", *flags, "--unit=wnli-1-16-2")
    assert done.returncode == 1
    assert "table: wnli-1-16-2 needs pretrain-1-16-2, which is not done" in done.stderr


@pytest.mark.slow
@pytest.mark.entry
def test_a_table_is_made_by_unit_and_whole_and_grows_by_a_size(flags):
    one = run_launcher("table", *flags, "--unit=pretrain-1-16-2")
    assert one.returncode == 0, one.stderr
    assert run_launcher("table", *flags, "--collect").returncode == 0
    assert table_rows(flags)[0]["perplexity"] == "not run"
    rest = run_launcher("table", *flags)
    assert rest.returncode == 0, rest.stderr
    assert "pretrain-1-16-2: begins" not in rest.stderr
    (row,) = table_rows(flags)
    assert float(row["perplexity"]) > 1
    assert row["WNLI (%)"] != "not run"  # so small a model may well predict one class
    again = run_launcher("table", *flags)
    assert "begins" not in again.stderr
    # A size that cannot be built is refused before anything runs, and what was there stays.
    more = [flag.replace("('1-16-2',)", "('1-16-2','2-15-2')") for flag in flags]
    grown = run_launcher("table", *more)
    assert grown.returncode == 1
    assert "hidden_size 15 is not divisible" in grown.stderr
    assert table_rows(flags) == [row]
    assert "data:image/png;base64," in Path(f"{flags[-1]}/report.html").read_text(encoding="utf-8")
