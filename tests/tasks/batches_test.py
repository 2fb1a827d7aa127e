import itertools

import jax
import numpy as np
import pytest

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.models.bert import BertConfig
from bert_jax.objectives.downstream import DownstreamObjective
from bert_jax.tasks.batches import Schedule, choose_lengths, collate, held_out_batches, train_batches
from bert_jax.tasks.glue import GlueData, make_task
from bert_jax.tasks.held_out import HeldOutRunner
from bert_jax.tasks.task import EncodedRows
from bert_jax.training.mesh import MeshConfig, make_mesh
from tests.models.tiny import SIZES, VOCAB_SIZE, random_params

EVERY = slice(None)


def realistic_lengths(rows=1000):
    """Return lengths much as RTE's pairs have them: a few dozen tokens, a long tail, 128 at most."""
    return np.clip(np.random.default_rng(0).lognormal(4.0, 0.45, rows).astype(np.int64), 4, 128)


def make_rows(lengths, choices=1, **fields):
    rng = np.random.default_rng(1)
    ids = [rng.integers(5, VOCAB_SIZE, length).astype(np.int32) for length in lengths for _ in range(choices)]
    return EncodedRows(ids, [(np.arange(len(row)) > 2).astype(np.int32) for row in ids], choices=choices, **fields)


def epoch(schedule, seed, number=0):
    first = number * schedule.steps_per_epoch
    return [schedule.step(step, seed) for step in range(first, first + schedule.steps_per_epoch)]


@pytest.mark.parametrize(("rows", "batch_size"), [(1000, 32), (96, 32), (33, 32), (5, 32), (7, 1)])
def test_every_row_comes_once_an_epoch(rows, batch_size):
    schedule = Schedule(realistic_lengths(rows), batch_size, 6)
    for number in range(3):
        steps = epoch(schedule, seed=3, number=number)
        taken = np.concatenate([numbers for _, numbers in steps])
        assert all(len(numbers) == batch_size for _, numbers in steps)
        assert sorted(taken[taken >= 0]) == list(range(rows))
        assert all(schedule.lengths[numbers[numbers >= 0]].max() <= length for length, numbers in steps)


def test_shapes_do_not_depend_on_the_seed_and_rows_do():
    schedule = Schedule(realistic_lengths(), 32, 6)
    one, other = epoch(schedule, seed=1), epoch(schedule, seed=2)
    assert [length for length, _ in one] == [length for length, _ in other]
    assert any((a != b).any() for (_, a), (_, b) in zip(one, other, strict=True))
    assert [length for length, _ in one] != [length for length, _ in epoch(schedule, seed=1, number=1)]


def test_a_batch_is_a_function_of_seed_and_step():
    lengths = realistic_lengths(100)
    rows, schedule = make_rows(lengths, targets={"label_ids": np.arange(100, dtype=np.int32)}), Schedule(lengths, 8, 4)
    whole = list(itertools.islice(train_batches(rows, schedule, 5, 0, EVERY), 30))
    resumed = list(itertools.islice(train_batches(rows, Schedule(lengths, 8, 4), 5, 17, EVERY), 13))
    for expected, batch in zip(whole[17:], resumed, strict=True):
        jax.tree.map(np.testing.assert_array_equal, batch, expected)
    half = next(train_batches(rows, schedule, 5, 0, slice(4, 8)))
    np.testing.assert_array_equal(half["input_ids"], whole[0]["input_ids"][4:])


@pytest.mark.parametrize("max_buckets", [1, 2, 6, 100])
def test_there_are_at_most_so_many_lengths(max_buckets):
    schedule = Schedule(realistic_lengths(), 32, max_buckets)
    lengths = {length for length, _ in epoch(schedule, seed=0)}
    assert lengths == {bucket.length for bucket in schedule.buckets}
    assert len(lengths) <= max_buckets
    assert schedule.tokens_per_epoch == sum(32 * length for length, _ in epoch(schedule, seed=0))


def test_most_positions_are_real():
    lengths = realistic_lengths()
    schedule = Schedule(lengths, 32, 6)
    assert lengths.sum() >= 0.8 * schedule.tokens_per_epoch
    assert Schedule(lengths, 32, 1).tokens_per_epoch > 1.8 * schedule.tokens_per_epoch


def test_the_lengths_chosen_cost_least():
    longest = np.array([8, 8, 16, 16, 24, 40, 64, 64])

    def cost(lengths):
        return sum(min(length for length in lengths if length >= own) for own in longest)

    for count in (1, 2, 3, 4):
        best = min(cost({64, *others}) for others in itertools.combinations({*longest.tolist()} - {64}, count - 1))
        assert cost(choose_lengths(longest, count)) == best


def test_padding_is_marked_and_weighs_nothing():
    labels = [np.array([1, -1, 2], np.int32), np.array([0, 1], np.int32)]
    rows = make_rows([3, 2], token_targets={"label_ids": labels}, targets={"row": np.array([7, 9], np.int32)})
    batch = collate(rows, np.array([1, -1, 0]), 4)
    assert batch["row_weights"].tolist() == [1, 0, 1]
    assert batch["input_mask"].tolist() == [[1, 1, 0, 0], [0] * 4, [1, 1, 1, 0]]
    assert batch["label_ids"].tolist() == [[0, 1, -1, -1], [-1] * 4, [1, -1, 2, -1]]
    assert batch["row"].tolist() == [9, 0, 7]
    assert (batch["input_ids"][batch["input_mask"] == 0] == 0).all()
    choices = collate(make_rows([3, 2], choices=2), np.array([0, -1]), 8)
    assert choices["input_ids"].shape == (2, 2, 8)


def test_held_out_rows_come_once_each():
    rows = make_rows(realistic_lengths(70))
    found = list(held_out_batches(rows, 16, 3, EVERY))
    numbers = np.concatenate([part for part, _ in found])
    assert sorted(numbers[numbers >= 0]) == list(range(70))
    assert len({batch["input_ids"].shape for _, batch in found}) <= 3


@pytest.mark.parametrize("head", ["sentences", "span"])
def test_a_rows_logits_do_not_depend_on_its_bucket(head):
    rows = make_rows([5, 20, 12])
    objective = DownstreamObjective(BertConfig(**{**SIZES, "num_hidden_layers": 1}), head, 3)
    params = random_params(objective.model, collate(rows, np.arange(3), 24))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    results = [HeldOutRunner(objective, 1, max_buckets, mesh).run(params, rows) for max_buckets in (1, 3)]
    alone, together = [result.outputs() for result in results if result is not None]
    assert alone.keys() == together.keys()
    for name, values in alone.items():
        for value, expected in zip(together[name], values, strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-5)


@pytest.mark.shared
@pytest.mark.parametrize(("task", "fewer"), [("mrpc", 1.9), ("sst2", 4.0)])
def test_few_positions_of_real_rows_are_padding(shared_data, task, fewer):
    tokenizer = WordPiece.from_vocab_file(shared_data / "vocab" / "bert-base-uncased-vocab.txt")
    data = GlueData(task=task, directory=str(shared_data / "glue"))
    lengths = make_task(data, tokenizer).train.lengths
    schedule = Schedule(lengths, data.batch_size, data.max_buckets)
    assert lengths.sum() >= 0.8 * schedule.tokens_per_epoch
    assert data.max_seq_length * len(lengths) >= fewer * schedule.tokens_per_epoch
