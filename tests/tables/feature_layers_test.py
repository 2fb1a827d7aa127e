import json

import pytest

from bert_jax.tables.kinds import make_plan, make_table
from bert_jax.tables.plan import Record, write_record
from configs.tables import feature_layers


def table(**overrides):
    config = feature_layers.get_config("preset=laptop")
    config.update_from_flattened_dict({"checkpoint": "hf:DIR", "data": "ner"} | overrides)
    return make_table(config)


def test_each_row_reads_its_layers(tmp_path):
    plan = make_plan(table(), tmp_path)
    layers = {
        unit.name: [flag.partition("=")[2] for flag in unit.arguments if "features.layers" in flag]
        for unit in plan.units
    }
    assert layers["tagger-sum_all"] == ["1,2,3,4,5,6"]
    assert layers["tagger-static"] == ["word_embeddings"]
    assert "--config.features.combine=concat" in plan.unit("tagger-concat_last_four").arguments
    assert "--config.data.train=ner/wnut17/wnut17train.conll" in plan.unit("ner-bert").arguments


def test_elmo_is_pretrained_by_a_unit_unless_it_is_given(tmp_path):
    plan = make_plan(table(), tmp_path)
    assert [need.name for need in plan.unit("tagger-elmo").needs] == ["pretrain-elmo"]
    given = make_plan(table(elmo_checkpoint="elmo:DIR"), tmp_path)
    assert given.unit("tagger-elmo").needs == ()
    assert "--config.features.checkpoint=elmo:DIR" in given.unit("tagger-elmo").arguments


def test_dev_and_test_scores_and_a_bar_a_row(tmp_path):
    one = table()
    plan = make_plan(one, tmp_path)
    directory = plan.unit("tagger-last").directory(tmp_path)
    (directory / "restarts" / "trials").mkdir(parents=True)
    write_record(directory, Record("done", (), 3, 1.0, "", ""))
    for seed, f1 in enumerate((0.30, 0.32, 0.34)):
        result = {"overrides": {"seed": seed}, "last": {"f1": f1, "test/f1": f1 - 0.1}}
        (directory / "restarts" / "trials" / f"seed{seed}.json").write_text(json.dumps(result))
    report = one.report(plan)
    row = next(row for row in report.table.rows if row[0].text == "last hidden")
    assert [cell.main(1) for cell in row[1:]] == ["32.0 ± 2.0", "22.0 ± 2.0"]
    assert [picture.name for picture in report.pictures] == ["layers"]


def test_a_table_without_a_model_is_refused():
    with pytest.raises(ValueError, match=r"config\.checkpoint is empty"):
        table(checkpoint="")
