import dataclasses
import hashlib
import itertools
import threading

import numpy as np
import pytest

from bert_jax.corpus import records
from bert_jax.input.instances import open_instances
from bert_jax.input.loader import DataConfig, evaluation_batches, measure_rows_per_second, train_batches
from bert_jax.input.masking import MaskingConfig

# sha256 of the first 1,000 global batches of 8 of `tiny_instances`, seed 11. It holds data order and masks: update it
# only when both are meant to change, which makes runs from before impossible to resume exactly.
GOLDEN = "f63d0bd99ed0f2724f43b6766b87e7e96fca0f438ec4b511585318a80ab371b1"
NAMES = {
    "input_ids": ("int32", 32),
    "input_mask": ("int32", 32),
    "segment_ids": ("int32", 32),
    "position_ids": ("int32", 32),
    "sequence_ids": ("int32", 32),
    "sequence_starts": ("int32", 1),
    "masked_lm_positions": ("int32", 6),
    "masked_lm_ids": ("int32", 6),
    "masked_lm_weights": ("float32", 6),
    "next_sentence_labels": ("int32", 1),
    "next_sentence_weights": ("float32", 1),
}


def load(corpus, num_batches, name="nsp-32", batch_size=8, first_step=0, rows=None, num_threads=0, seed=11, **masking):
    instances = open_instances(corpus, name, "train")
    data = DataConfig(str(corpus), name, batch_size, num_threads=num_threads, prefetch_batches=6)
    masking = MaskingConfig(**{"max_predictions_per_row": 6, **masking})
    batches = train_batches(instances, data, masking, seed, first_step, rows or slice(0, batch_size))
    loaded = list(itertools.islice(batches, num_batches))
    batches.close()
    return loaded


def evaluate(corpus, batch_size, name="nsp-32", seed=0, rows=None, **arguments):
    instances = open_instances(corpus, name, "validation")
    masking = MaskingConfig(max_predictions_per_row=6)
    return list(evaluation_batches(instances, batch_size, masking, seed, rows or slice(0, batch_size), **arguments))


def digest(batches):
    sha256 = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            sha256.update(np.ascontiguousarray(batch[name]).tobytes())
    return sha256.hexdigest()


def record_numbers(corpus, batches, name="nsp-32"):
    """Return which stored row each row of the batches is, found by its unmasked tokens."""
    instances = open_instances(corpus, name, "train")
    stored = {ids.tobytes(): index for index, ids in enumerate(instances.read(np.arange(len(instances))).input_ids)}
    numbers = []
    for batch in batches:
        for row, ids in enumerate(batch["input_ids"].copy()):
            count = int(batch["masked_lm_weights"][row].sum())
            ids[batch["masked_lm_positions"][row, :count]] = batch["masked_lm_ids"][row, :count]
            numbers.append(stored[ids.tobytes()])
    return numbers


@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_the_first_thousand_batches_have_the_golden_hash(tiny_instances, num_threads):
    assert digest(load(tiny_instances, 1000, num_threads=num_threads)) == GOLDEN


@pytest.mark.parametrize("num_hosts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_hosts_together_load_the_golden_batches(tiny_instances, num_hosts):
    size = 8 // num_hosts
    parts = [load(tiny_instances, 1000, rows=slice(host * size, (host + 1) * size)) for host in range(num_hosts)]

    together = [
        {name: np.concatenate([part[name] for part in step]) for name in NAMES} for step in zip(*parts, strict=True)
    ]
    assert digest(together) == GOLDEN


def test_a_run_that_starts_at_step_500_loads_the_golden_batches(tiny_instances):
    assert digest(load(tiny_instances, 500) + load(tiny_instances, 500, first_step=500, num_threads=2)) == GOLDEN


def test_starting_late_reads_nothing_before(tiny_instances, monkeypatch):
    instances = open_instances(tiny_instances, "nsp-32", "train")
    asked = []
    read = type(instances).read
    monkeypatch.setattr(type(instances), "read", lambda self, indices: asked.append(indices) or read(self, indices))
    batches = train_batches(instances, DataConfig("", "", 8, 0), MaskingConfig(), 0, 10**12, slice(0, 8))

    next(batches)

    assert len(asked) == 1


def test_batches_have_the_promised_arrays(tiny_instances):
    [batch] = load(tiny_instances, 1)

    assert {name: (array.dtype.name, array.shape[1]) for name, array in batch.items()} == NAMES
    assert {len(array) for array in batch.values()} == {8}


@pytest.mark.parametrize("batch_size", [8, 101, 250])
def test_every_record_comes_once_an_epoch(tiny_instances, batch_size):
    # 101 rows and batches of 8 straddle epochs; batches of 250 hold two and a half.
    epochs = 5
    batches = load(tiny_instances, -(-epochs * 101 // batch_size), batch_size=batch_size)

    numbers = record_numbers(tiny_instances, batches)[: epochs * 101]
    orders = [tuple(numbers[epoch * 101 : (epoch + 1) * 101]) for epoch in range(epochs)]
    assert all(sorted(order) == list(range(101)) for order in orders)
    assert len(set(orders)) == epochs


def test_order_and_masks_do_not_depend_on_how_rows_fall_into_batches(tiny_instances):
    small, large = load(tiny_instances, 60, batch_size=4), load(tiny_instances, 20, batch_size=12)

    for name in NAMES:
        joined = [np.concatenate([batch[name] for batch in batches]) for batches in (small, large)]
        assert (joined[0] == joined[1]).all(), name


def test_the_order_does_not_depend_on_masking(tiny_instances):
    token, ngram = load(tiny_instances, 20), load(tiny_instances, 20, unit="ngram", masked_fraction=0.1)

    assert record_numbers(tiny_instances, token) == record_numbers(tiny_instances, ngram)


def test_another_seed_is_another_order(tiny_instances):
    orders = [record_numbers(tiny_instances, load(tiny_instances, 10, seed=seed)) for seed in (0, 1)]

    assert orders[0] != orders[1]


def test_packed_rows_restart_positions_at_each_sequence(make_instances):
    corpus = make_instances(name="packed", sequence_length=64, max_sequences_per_row=4)
    for batch in load(corpus, 3, name="packed"):
        for row in range(8):
            sequences = batch["sequence_ids"][row]
            for sequence in range(1, sequences.max() + 1):
                places = np.flatnonzero(sequences == sequence)
                assert batch["position_ids"][row, places].tolist() == list(range(len(places)))
                assert batch["sequence_starts"][row, sequence - 1] == places[0]
            assert not batch["position_ids"][row, sequences == 0].any()
            present = np.arange(1, 5) <= sequences.max()
            assert batch["next_sentence_weights"][row].tolist() == present.tolist()
            assert (batch["next_sentence_labels"][row] <= 1).all()
            assert (batch["input_mask"][row] == (sequences > 0)).all()


def test_sets_without_pairs_have_no_next_sentence_weight(make_instances):
    [batch] = load(make_instances(name="none-32", pairs="none"), 1, name="none-32")

    assert not batch["next_sentence_weights"].any()
    assert not batch["next_sentence_labels"].any()


def test_static_masks_are_the_stored_ones_in_every_epoch(make_instances):
    corpus = make_instances(name="google-32", static_predictions=5)
    instances = open_instances(corpus, "google-32", "train")
    stored = instances.read(np.arange(101))
    assert stored.masked_lm_positions is not None
    assert stored.masked_lm_ids is not None
    assert stored.num_masked is not None
    by_tokens = {ids.tobytes(): row for row, ids in enumerate(stored.input_ids)}

    for batch in load(corpus, 30, name="google-32"):
        for row in range(8):
            number = by_tokens[batch["input_ids"][row].tobytes()]
            assert (batch["masked_lm_positions"][row] == stored.masked_lm_positions[number]).all()
            assert (batch["masked_lm_ids"][row] == stored.masked_lm_ids[number]).all()
            assert batch["masked_lm_weights"][row].sum() == stored.num_masked[number]


@pytest.mark.parametrize(
    ("batch_size", "max_rows", "num_rows"), [(4, None, 13), (13, None, 13), (50, None, 13), (4, 6, 6)]
)
def test_evaluation_has_every_row_once_in_stored_order(tiny_instances, batch_size, max_rows, num_rows):
    batches = evaluate(tiny_instances, batch_size, max_rows=max_rows)

    stored = open_instances(tiny_instances, "nsp-32", "validation").read(np.arange(num_rows))
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in NAMES}
    assert len(batches) == -(-num_rows // batch_size)
    assert {array.shape[0] for batch in batches for array in batch.values()} == {batch_size}
    assert (joined["segment_ids"][:num_rows] == stored.segment_ids).all()
    assert (joined["sequence_ids"][:num_rows] == stored.sequence_ids).all()
    assert (joined["masked_lm_weights"][:num_rows].sum(axis=1) > 0).all()
    assert not any(array[num_rows:].any() for array in joined.values())


def test_evaluation_masks_are_always_the_same(tiny_instances):
    assert digest(evaluate(tiny_instances, 4)) == digest(evaluate(tiny_instances, 4))


def test_evaluation_on_two_hosts_is_that_of_one(tiny_instances):
    whole = evaluate(tiny_instances, 8)
    parts = [evaluate(tiny_instances, 8, rows=rows) for rows in (slice(0, 4), slice(4, 8))]

    together = [
        {name: np.concatenate([part[name] for part in step]) for name in NAMES} for step in zip(*parts, strict=True)
    ]
    assert digest(together) == digest(whole)


def test_closing_ends_the_threads(tiny_instances):
    instances = open_instances(tiny_instances, "nsp-32", "train")
    batches = train_batches(instances, DataConfig("", "", 8, 3, 9), MaskingConfig(), 0, 0, slice(0, 8))
    next(batches)
    prefetching = [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]
    assert prefetching

    batches.close()

    for thread in prefetching:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in prefetching)


def test_an_error_in_a_thread_reaches_the_consumer_and_ends_the_threads(tiny_instances):
    instances = open_instances(tiny_instances, "nsp-32", "train")
    wrong_size = dataclasses.replace(instances.manifest.record_format, sequence_length=16)
    directory = tiny_instances / "instances" / "nsp-32"
    records.write_manifest(directory, dataclasses.replace(instances.manifest, record_format=wrong_size))

    before = set(threading.enumerate())

    with pytest.raises(ValueError, match=r"array_record, record \d+, has 99 bytes"):
        load(tiny_instances, 1, num_threads=2)

    started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_threads": -1}, "num_threads is -1"),
        ({"num_threads": 4, "prefetch_batches": 3}, "use prefetch_batches of 4 or more"),
    ],
)
def test_a_config_that_cannot_load_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"corpus": "c", "instances": "i", "batch_size": 8, **config})


@pytest.mark.parametrize("rows", [slice(0, 9), slice(4, 4), slice(None), slice(0, 8, 2), slice(-4, 4)])
def test_rows_outside_the_global_batch_are_refused_at_the_door(tiny_instances, rows):
    instances = open_instances(tiny_instances, "nsp-32", "train")

    with pytest.raises(ValueError, match=r"part of slice\(0, 8\)"):
        train_batches(instances, DataConfig("", "", 8), MaskingConfig(), 0, 0, rows)
    with pytest.raises(ValueError, match=r"part of slice\(0, 8\)"):
        evaluation_batches(instances, 8, MaskingConfig(), 0, rows)


def test_a_negative_first_step_and_no_evaluation_rows_are_refused(tiny_instances):
    instances = open_instances(tiny_instances, "nsp-32", "train")

    with pytest.raises(ValueError, match="first_step is -1"):
        train_batches(instances, DataConfig("", "", 8), MaskingConfig(), 0, -1, slice(0, 8))
    with pytest.raises(ValueError, match="max_rows is 0"):
        evaluation_batches(instances, 8, MaskingConfig(), 0, slice(0, 8), max_rows=0)


def test_the_rate_is_measured(tiny_instances):
    instances = open_instances(tiny_instances, "nsp-32", "train")

    measured = measure_rows_per_second(instances, DataConfig("", "", 8), MaskingConfig(), 0, num_batches=20)

    assert measured["rows"] == 160
    assert measured["rows_per_second"] > 0
    assert measured["sequence_length"] == 32
