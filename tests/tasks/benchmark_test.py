import pytest

from bert_jax.tasks.benchmark import measure_finetuning
from tests.tasks.tiny_tasks import make_config, write_files, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "hf")


@pytest.mark.slow
def test_the_figure_counts_rows_tokens_and_padding(model, tmp_path):
    config, said = make_config("glue", model, write_files("glue", tmp_path)), []
    figure = measure_finetuning(config, timed_steps=5, pad_all=True, say=said.append)
    padded, seconds = figure["padded"], 5 * figure["seconds_per_step"]
    assert padded["lengths"] == [32]
    assert figure["lengths"] < [32]
    # 36 rows in an epoch of 5 steps, 40 with those that fill the last one; the same rows are padded to 32.
    tokens = 40 * figure["lengths"][0]
    assert figure["examples_per_second"] * seconds == pytest.approx(36)
    assert figure["real_tokens_per_second"] * seconds * figure["positions_per_real_token"] == pytest.approx(tokens)
    ratio = padded["positions_per_real_token"] / figure["positions_per_real_token"]
    assert ratio == pytest.approx(32 / figure["lengths"][0])
    assert figure["bucketing_speedup"] == pytest.approx(padded["seconds_per_step"] / figure["seconds_per_step"])
    assert figure["compile_seconds"] > figure["seconds_per_step"]
    assert [line.partition(":")[0] for line in said] == [
        f"lengths ({figure['lengths'][0]} tokens)",
        "lengths (32 tokens)",
    ]
    for name in ("batch_size", "optimizer", "device_kind", "versions", "hidden_dropout_prob", "task", "init_from"):
        assert name in figure


def test_no_steps_are_refused(model, tmp_path):
    config = make_config("glue", model, write_files("glue", tmp_path))
    with pytest.raises(ValueError, match="--timed_steps is 0; use 1 or more"):
        measure_finetuning(config, timed_steps=0, pad_all=False, say=lambda line: None)
