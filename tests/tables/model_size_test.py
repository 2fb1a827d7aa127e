import json
import os
from typing import Any

import pytest

from bert_jax.tables.kinds import make_plan, make_table
from bert_jax.tables.outcomes import trials
from bert_jax.tables.plan import Record, write_record
from configs.tables import model_size, small_berts


def table(config_file: Any = model_size, preset: Any = "laptop", **overrides):
    config = config_file.get_config(f"preset={preset}")
    config.update_from_flattened_dict(overrides)
    return make_table(config)


def finish(plan, name, state="done", reason="", restarts=0):
    directory = plan.unit(name).directory(plan.table)
    directory.mkdir(parents=True, exist_ok=True)
    write_record(directory, Record(state, (), restarts, 1.0, reason, ""))
    return directory


def evaluated(plan, size, perplexity):
    row = {"eval/mlm_perplexity": perplexity, "eval/unigram_perplexity": 1146.0}
    (finish(plan, f"perplexity-{size}") / "output.txt").write_text(json.dumps(row))


def scored(plan, name, *scores):
    directory = finish(plan, name, restarts=len(scores)) / "restarts" / "trials"
    directory.mkdir(parents=True)
    for seed, score in enumerate(scores):
        result = {"overrides": {"seed": seed}, "last": {"accuracy": score}}
        result |= {"failed": "degenerate: the same prediction for every row"} if score is None else {}
        (directory / f"{seed}.json").write_text(json.dumps(result))


def test_without_results_every_place_says_not_run(tmp_path):
    plan = make_plan(table(), tmp_path)
    report = table().report(plan)
    assert len(report.table.rows) == 6
    assert all(cell.main(1) == "not run" for row in report.table.rows for cell in row[7:])
    assert not report.pictures


def test_results_stand_beside_the_papers_values_with_mean_spread_and_difference(tmp_path):
    one = table()
    plan = make_plan(one, tmp_path)
    evaluated(plan, "4-48-3", 200.0)
    scored(plan, "mrpc-4-48-3", 0.70, 0.72, None)
    scored(plan, "sst2-4-48-3", 0.80)
    finish(plan, "sst2-4-48-3", "failed", "out of memory")
    finish(plan, "pretrain-8-64-4", "failed", "the loss is not finite")
    report = one.report(plan)
    rows = {
        row[0].text: dict(zip([c.title for c in report.table.columns], row, strict=True)) for row in report.table.rows
    }
    assert rows["4-48-3"]["perplexity"].beside(2) == "paper 3.99, difference +196.01"
    mrpc = rows["4-48-3"]["MRPC"]
    assert mrpc.main(1) == "71.0 ± 1.4"
    left_out = "1 of 3 left out (degenerate: the same prediction for every row)"
    assert mrpc.beside(1) == f"{left_out}, paper 86.7, difference −15.7"
    assert rows["4-48-3"]["SST-2"].beside(1).startswith("failed: out of memory, 1 of 3 runs, ")
    assert rows["8-64-4"]["SICK"].main(1) == "blocked: pretrain-8-64-4 failed"
    assert any("1,146" in note for note in report.notes)
    assert [picture.name for picture in report.pictures] == [
        "perplexity_parameters", "perplexity_flops", "score_perplexity",
    ]  # fmt: skip


def test_a_seed_that_was_trained_twice_counts_once(tmp_path):
    one = table()
    plan = make_plan(one, tmp_path)
    scored(plan, "mrpc-4-48-3", 0.70, 0.72)
    again = plan.unit("mrpc-4-48-3").directory(plan.table) / "restarts" / "trials" / "named_otherwise.json"
    again.write_text(json.dumps({"overrides": {"seed": 1}, "last": {"accuracy": 0.74}}))
    os.utime(again, (2e9, 2e9))
    assert [trial["last"]["accuracy"] for trial in trials(plan, plan.unit("mrpc-4-48-3"))] == [0.70, 0.74]


def test_a_new_size_or_seed_changes_no_other_unit():
    keys = {unit.name: unit.key for unit in table().units()}
    more = {unit.name: unit.key for unit in table(sizes=("1-48-3", "3-48-3"), **{"finetuning.restarts": 9}).units()}
    assert "sick-3-48-3" in more
    assert {name: key for name, key in more.items() if name in keys} == {n: keys[n] for n in more if n in keys}
    assert {unit.restarts for unit in table(**{"finetuning.restarts": 9}).units() if unit.launcher == "sweep"} == {9}


def test_a_changed_pretraining_changes_all_that_comes_of_it():
    keys, changed = (
        {unit.name: unit.key for unit in table(**{"pretraining.more": more}).units()}
        for more in ("", "--config.seed=3")
    )
    assert not set(keys.values()) & set(changed.values())


def test_a_given_checkpoint_takes_the_place_of_pretraining(tmp_path):
    one = table(preset="paper", checkpoints="12-768-12=hf:DIR,3-768-12=run:runs/three")
    plan = make_plan(one, tmp_path)
    names = [unit.name for unit in plan.units]
    assert "convert-12-768-12" in names
    assert not [name for name in names if name.startswith(("pretrain-12-768-12", "pretrain-3-"))]
    assert "--checkpoint=run:runs/three" in plan.unit("perplexity-3-768-12").arguments
    given = one.report(plan).table.rows[0]
    assert [cell.text for cell in given[5:7]] == ["given", "given"]


def test_a_given_checkpoint_has_no_place_on_an_axis_of_training_flops(tmp_path):
    one = table(preset="paper", checkpoints="12-768-12=hf:DIR")
    plan = make_plan(one, tmp_path)
    evaluated(plan, "12-768-12", 4.5)
    evaluated(plan, "3-768-12", 6.5)
    labels = {
        picture.name: [text.get_text() for text in picture.figure.axes[0].texts]
        for picture in one.report(plan).pictures
    }
    # Ours and the paper's six.
    assert (len(labels["perplexity_parameters"]), len(labels["perplexity_flops"])) == (8, 7)


def test_two_phases_follow_each_other(tmp_path):
    two = make_plan(table(preset="paper"), tmp_path).unit("pretrain-6-768-3-512")
    (one,) = two.needs
    assert one.name == "pretrain-6-768-3"
    assert f"--config.init_from={one.run_address}" in two.arguments


def test_unknown_sizes_are_refused():
    with pytest.raises(ValueError, match=r"the size in config.checkpoints is '5-5-5'"):
        table(checkpoints="5-5-5=hf:DIR")
    with pytest.raises(ValueError, match="it takes NAME=VALUE"):
        table(checkpoints="hf:DIR")


def test_the_24_smaller_berts_have_a_row_each(tmp_path):
    one = table(small_berts, "paper")
    report = one.report(make_plan(one, tmp_path))
    assert len(report.table.rows) == 24
    assert report.table.rows[0][0].text == "2-128-2"
    assert sum(cell.published == 83.2 for row in report.table.rows for cell in row) == 1
