import numpy as np
import pytest

from bert_jax.input import hashing


def test_draws_of_key_zero_are_the_published_splitmix64_stream():
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]

    assert hashing.draw(np.zeros(1, np.uint64), 3)[0].tolist() == published


def test_a_draw_at_a_place_is_that_element_of_the_draws():
    keys = hashing.fold(1, np.arange(5))

    assert hashing.draw_at(keys, np.array([3, 0, 7, 7, 2])).tolist() == [
        hashing.draw(keys, 8)[row, place] for row, place in enumerate([3, 0, 7, 7, 2])
    ]


def test_keys_differ_for_every_seed_and_part():
    parts = np.repeat(np.arange(50), 50), np.tile(np.arange(50), 50)

    keys = np.concatenate([hashing.fold(seed, *parts) for seed in (0, 1, -1, 2**64 - 2)])

    assert len(np.unique(keys)) == 4 * 2500


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 10, 63, 64, 65, 1000, 4097])
def test_an_epoch_is_a_permutation(size):
    for epoch in range(3):
        order = hashing.permute(np.arange(size), np.full(size, epoch), size, seed=7)

        assert sorted(order.tolist()) == list(range(size))


def test_epochs_and_seeds_have_orders_of_their_own():
    ranks = np.arange(1000)
    orders = [hashing.permute(ranks, np.full(1000, epoch), 1000, seed) for seed in range(3) for epoch in range(3)]

    # Two random orders agree in one place on average.
    agreements = [int((a == b).sum()) for number, a in enumerate(orders) for b in orders[:number]]
    assert max(agreements) < 8


@pytest.mark.parametrize("size", [2, 3, 5, 12])
def test_every_record_is_as_likely_at_every_rank(size):
    epochs = 6000
    orders = np.stack([hashing.permute(np.full(epochs, rank), np.arange(epochs), size, 0) for rank in range(size)])

    counts = np.stack([np.bincount(at_rank, minlength=size) for at_rank in orders])
    expected = epochs / size
    # [ranks, records]; chi-square over (size - 1)² degrees of freedom, mean (size - 1)², variance twice that.
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < (size - 1) ** 2 + 5 * np.sqrt(2) * (size - 1)


def test_neighbours_in_a_shuffled_epoch_are_not_neighbours_on_disk():
    size = 100_000
    order = hashing.permute(np.arange(size), np.zeros(size, np.int64), size, seed=3)

    # The mean distance of two random records is size / 3, and two are adjacent with probability 2 / size.
    distances = np.abs(np.diff(order))
    assert abs(distances.mean() - size / 3) < 0.02 * size
    assert (distances == 1).sum() < 12
