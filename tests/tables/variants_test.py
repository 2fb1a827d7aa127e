import pytest

from bert_jax.tables.kinds import make_plan, make_table
from bert_jax.tables.variants import variant
from configs.tables import ablations, masking


def test_the_left_to_right_model_predicts_every_next_token(tmp_path):
    plan = make_plan(make_table(ablations.get_config("preset=laptop")), tmp_path)
    flags = plan.unit("pretrain-ltr_no_nsp").arguments
    assert {
        "--config.model.causal=True", "--config.masking.unit=next", "--config.objective.next_sentence=False",
        "--config.masking.max_predictions_per_row=63",
    } <= set(flags)  # fmt: skip


def test_the_bilstm_is_fine_tuned_from_the_same_checkpoint(tmp_path):
    plan = make_plan(make_table(ablations.get_config("preset=laptop")), tmp_path)
    plain, with_bilstm = plan.unit("sick-ltr_no_nsp"), plan.unit("sick-ltr_no_nsp_bilstm")
    assert plain.needs == with_bilstm.needs
    assert set(with_bilstm.arguments) - set(plain.arguments) == {"--config.bilstm_cells=128"}
    assert "pretrain-ltr_no_nsp_bilstm" not in [unit.name for unit in plan.units]


@pytest.mark.parametrize(("preset", "length"), [("laptop", 64), ("one_gpu", 128), ("paper", 512)])
def test_taggers_read_no_position_that_was_not_trained(preset, length, tmp_path):
    plan = make_plan(make_table(masking.get_config(f"preset={preset}")), tmp_path)
    assert f"--config.features.max_seq_length={length}" in plan.unit("ner_features-80-10-10").arguments


@pytest.mark.parametrize("config", [ablations, masking])
def test_all_rows_of_the_paper_have_its_values(config, tmp_path):
    table = make_table(config.get_config("preset=paper"))
    rows = table.report(make_plan(table, tmp_path)).table.rows
    paper = [[cell.published for cell in row[1:]] for row in rows]
    with_values = [values for values in paper if values[0] == values[0]]
    assert len(with_values) == {ablations: 4, masking: 6}[config]
    assert with_values[0] == {ablations: [84.4, 88.4, 86.7, 92.7, 88.5], masking: [84.2, 95.4, 94.9]}[config]


def test_masks_are_named_by_their_shares_or_their_rate():
    assert variant("80-20-0").pretraining == {
        "masking.mask_token_fraction": 0.8,
        "masking.random_token_fraction": 0.0,
    }
    assert variant("rate-40").pretraining == {"masking.masked_fraction": 0.4}
    for wrong in ("80-20-10", "rate-0", "nsp"):
        with pytest.raises(ValueError, match=r"config\.rows has"):
            variant(wrong)


def test_a_higher_rate_has_room_for_its_predictions(tmp_path):
    plan = make_plan(make_table(masking.get_config("preset=laptop")), tmp_path)
    assert "--config.masking.max_predictions_per_row=26" in plan.unit("pretrain-rate-40").arguments
    assert "--config.masking.max_predictions_per_row=10" in plan.unit("pretrain-80-10-10").arguments
