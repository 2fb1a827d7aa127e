import jax
import numpy as np
import pytest

from bert_jax.input.placement import place_batch
from bert_jax.training.evaluation import (
    IN_FLIGHT,
    EvalConfig,
    UnigramBaseline,
    evaluate,
    fetched,
    make_evaluation_step,
)
from tests.training.tiny import host_batch, make_parts

BASELINE = UnigramBaseline(np.log(np.arange(1, 62) / np.arange(1, 62).sum()).astype(np.float32), 17)


@pytest.fixture(scope="module")
def parts():
    return make_parts(dropout=0.5)  # evaluation has none


@pytest.fixture(scope="module")
def run(parts):
    step, params = make_evaluation_step(parts.objective, parts.mesh, BASELINE), parts.state().params

    def run(rows):
        """Evaluate `rows` in batches of 8, the last one filled up with rows of zeros."""
        batches = []
        for first in range(0, len(rows["input_ids"]), 8):
            part = jax.tree.map(lambda array, first=first: array[first : first + 8], rows)
            missing = 8 - len(part["input_ids"])
            part = jax.tree.map(lambda array, n=missing: np.pad(array, ((0, n), *((0, 0),) * (array.ndim - 1))), part)
            batches.append(place_batch(part, parts.mesh))
        return evaluate(step, params, {}, batches)

    return run


def rows_of(*batches):
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches)


def test_a_ragged_tail_counts_each_row_once(run):
    first, second = host_batch(0), host_batch(1)
    tail = jax.tree.map(lambda array: array[:3], second)
    ragged, whole, rest = run(rows_of(first, tail)), run(first), run(tail)
    masked = [batch["masked_lm_weights"].sum() for batch in (first, tail)]
    for name in ("eval/mlm_loss", "eval/mlm_accuracy", "eval/most_frequent_token_accuracy"):
        mean = (whole[name] * masked[0] + rest[name] * masked[1]) / sum(masked)
        np.testing.assert_allclose(ragged[name], mean, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(ragged["eval/nsp_loss"], (whole["eval/nsp_loss"] * 8 + rest["eval/nsp_loss"] * 3) / 11)


def test_an_evaluation_can_be_broken_off(parts):
    step = make_evaluation_step(parts.objective, parts.mesh)
    answers = iter([False, True])
    batches = [place_batch(host_batch(), parts.mesh)] * 3
    assert evaluate(step, parts.state().params, {}, batches, lambda: next(answers)) is None


def test_results_are_fetched_in_order_while_others_are_on_their_way():
    made = []
    found = []
    for value in fetched(made.append(number) or jax.numpy.int32(number) for number in range(3 * IN_FLIGHT)):
        found.append(value)
        assert isinstance(value, np.ndarray)
        assert len(made) == min(len(found) + IN_FLIGHT, 3 * IN_FLIGHT)
    assert found == list(range(3 * IN_FLIGHT))


def test_perplexity_is_the_exponential_of_the_loss_and_there_is_no_dropout(run):
    row = run(host_batch())
    assert row == run(host_batch())
    np.testing.assert_allclose(row["eval/mlm_perplexity"], np.exp(row["eval/mlm_loss"]))


def test_the_baselines_are_of_the_same_masked_positions(run):
    batch = host_batch()
    row, masked = run(batch), batch["masked_lm_ids"][batch["masked_lm_weights"] > 0]
    np.testing.assert_allclose(row["eval/most_frequent_token_accuracy"], np.mean(masked == 17))
    expected = np.exp(-BASELINE.log_probabilities[masked].mean())
    np.testing.assert_allclose(row["eval/unigram_perplexity"], expected, rtol=1e-5)


def test_the_baseline_is_read_from_the_counts_of_the_train_split(tmp_path):
    np.save(tmp_path / "token_counts.npy", np.array([0, 0, 7, 2], np.int64))
    baseline = UnigramBaseline.load(tmp_path)
    assert baseline.most_frequent == 2
    np.testing.assert_allclose(np.exp(baseline.log_probabilities), np.array([1, 1, 8, 3]) / 13, rtol=1e-6)
    with pytest.raises(FileNotFoundError, match="prepare the corpus again"):
        UnigramBaseline.load(tmp_path / "none")


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match=r"config\.eval\.max_rows is -1"):
        EvalConfig(every_steps=0, max_rows=-1, batch_size=8)
