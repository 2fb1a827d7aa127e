import threading
from collections import Counter

import numpy as np
import pytest

from bert_jax.corpus.characters import CharacterIds
from bert_jax.corpus.streams import read_in_order
from bert_jax.corpus.word_vocabulary import BEGIN_ID, END_ID, WordVocabulary
from bert_jax.input.instances import open_windows
from bert_jax.input.loader import DataConfig
from bert_jax.input.streams import RowGroups, evaluation_stream, forward_targets, train_stream
from tests.word_streams import WORDS_PER_WINDOW, make_stream_corpus, sentences_of

LANES, LENGTH = 6, WORDS_PER_WINDOW


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_stream_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def windows(corpus):
    return open_windows(corpus, "stream-5", "train")


@pytest.fixture(scope="module")
def vocabulary(corpus):
    return WordVocabulary.load(corpus / "instances" / "stream-5" / "tokenizer")


@pytest.fixture
def batches(windows, vocabulary):
    """A function that returns `count` batches from a step on."""

    def take(count, first=0, seed=3, rows=slice(0, LANES), groups=None, num_threads=0):
        config = DataConfig("", "stream-5", LANES, num_threads)
        stream = train_stream(windows, vocabulary, config, seed, first, rows, groups)
        found = [next(stream) for _ in range(count)]
        stream.close()
        return found

    return take


def words_of(batch, name="word_index", groups=None):
    """Return the words that stand in a batch, spelled from their characters; "" where there is none."""
    groups = groups or RowGroups()
    tables = batch["char_ids"]
    found = np.empty(batch[name].shape, object)
    rows_a_part = len(found) * groups.microbatches // len(tables)
    for row in range(len(found)):
        group = row // rows_a_part * groups.microbatches + row % groups.microbatches
        for place, index in enumerate(batch[name][row]):
            found[row, place] = spelled(tables[group, index])
    return found


def spelled(ids):
    if not ids.any():
        return ""
    marks = {257: "<S>", 258: "</S>"}
    inner = [int(char) for char in ids[1:] if char < 259]
    return marks.get(inner[0]) or bytes(char - 1 for char in inner).decode()


def test_a_lane_reads_on_in_both_directions_from_batch_to_batch(batches, windows):
    steps = len(windows) // LANES
    epoch = batches(steps)
    forward, backward, _ = read_in_order(sentences_of("train"), "basic")
    for name, stream in (("word_index", forward), ("word_index_reverse", backward)):
        lanes = np.concatenate([words_of(batch, name) for batch in epoch], axis=1)
        total = len(windows) * LENGTH
        starts = set()
        for lane in lanes:
            around = [stream[place % total] for place in range(2 * total)]
            [start] = [place for place in range(0, total, LENGTH) if around[place : place + len(lane)] == list(lane)]
            starts.add(start // LENGTH)
        first = [lane for lane in starts if (lane - steps) % len(windows) not in starts]
        assert starts == {(first[0] + steps * lane) % len(windows) for lane in range(LANES)}
        assert 0 not in starts, "the epoch begins elsewhere"


def test_targets_are_the_next_words_of_each_direction(batches, vocabulary):
    for batch in batches(3):
        for name, begin, end in (("", BEGIN_ID, END_ID), ("_reverse", END_ID, BEGIN_ID)):
            read = words_of(batch, f"word_index{name}")
            ids, targets = vocabulary.ids(list(read.ravel())).reshape(read.shape), batch[f"target_ids{name}"]
            expected = np.where(ids[:, 1:] == begin, end, ids[:, 1:])
            np.testing.assert_array_equal(targets[:, :-1], expected)
            assert not (targets == begin).any()
        assert (batch["target_weights"] == 1).all()


def test_an_epoch_reads_every_window_once_save_the_remainder(batches, windows):
    steps = len(windows) // LANES
    words = np.array(windows.read(np.arange(len(windows)))).reshape(-1, 2, LENGTH + 1)[:, 0, :LENGTH]
    there = Counter(tuple(row) for row in words)
    epochs = [batches(steps, first=epoch * steps) for epoch in range(2)]
    for epoch in epochs:
        read = Counter(tuple(row) for batch in epoch for row in words_of(batch))
        assert read <= there
        assert read.total() == steps * LANES > len(windows) - LANES
    assert not np.array_equal(words_of(epochs[0][0]), words_of(epochs[1][0]))


def test_a_batch_depends_on_seed_and_step_alone(batches):
    straight = batches(7)
    for batch, again in zip(straight[4:], batches(3, first=4, num_threads=2), strict=True):
        assert batch.keys() == again.keys()
        for name, values in batch.items():
            np.testing.assert_array_equal(values, again[name])
    assert not np.array_equal(straight[0]["target_ids"], batches(1, seed=4)[0]["target_ids"])


@pytest.mark.parametrize("groups", [RowGroups(2), RowGroups(1, 3), RowGroups(2, 3), RowGroups(3, 2)])
def test_groups_of_rows_have_the_same_words(batches, groups):
    [whole], [grouped] = batches(1), batches(1, groups=groups)
    assert grouped["char_ids"].shape == (groups.parts * groups.microbatches, 1 + 60 // grouped["char_ids"].shape[0], 50)
    for name in ("word_index", "word_index_reverse"):
        np.testing.assert_array_equal(words_of(grouped, name, groups), words_of(whole, name))
    for name in ("target_ids", "target_ids_reverse", "target_weights"):
        np.testing.assert_array_equal(grouped[name], whole[name])


def test_hosts_load_their_rows_of_the_global_batch(batches):
    groups = RowGroups(2, 3)
    [whole] = batches(1, groups=groups)
    parts = [batches(1, rows=slice(*rows), groups=groups)[0] for rows in ((0, 3), (3, 6))]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_a_table_names_each_word_once_as_the_encoder_spells_it(batches):
    [batch] = batches(1)
    table = batch["char_ids"][0]
    used = max(batch["word_index"].max(), batch["word_index_reverse"].max()) + 1
    assert not table[0].any()
    assert not table[used:].any()
    assert len({tuple(row) for row in table[:used]}) == used
    words = [spelled(row) for row in table[1:used]]
    np.testing.assert_array_equal(table[1:used], CharacterIds().encode_words(words))
    # Their order is that of their first places, so it depends on nothing else.
    places = np.stack([batch["word_index"], batch["word_index_reverse"]], axis=1).ravel()
    assert list(dict.fromkeys(places.tolist())) == list(range(1, used))


def test_evaluation_reads_every_window_once_from_the_beginning(corpus, vocabulary):
    windows = open_windows(corpus, "stream-5", "validation")
    found = list(evaluation_stream(windows, vocabulary, 5, slice(0, 5)))
    lanes = np.concatenate([words_of(batch) for batch in found], axis=1)
    weights = np.concatenate([batch["target_weights"] for batch in found], axis=1)
    forward, _, _ = read_in_order(sentences_of("validation"), "basic")
    assert weights.sum() == len(windows) * LENGTH
    assert len(windows) % 5, "there is a remainder"
    assert [word for word in lanes.ravel() if word] == forward[: len(windows) * LENGTH]
    np.testing.assert_array_equal(lanes != "", weights > 0)
    targets = np.concatenate([batch["target_ids"] for batch in found], axis=1)
    assert not targets[weights == 0].any()
    first_two = list(evaluation_stream(windows, vocabulary, 1, slice(0, 1), max_windows=2))
    assert len(first_two) == 2


def test_baselines_see_what_is_predicted_forward(corpus, vocabulary):
    windows = open_windows(corpus, "stream-5", "validation")
    batches = evaluation_stream(windows, vocabulary, 1, slice(0, 1))
    expected = np.concatenate([batch["target_ids"].ravel() for batch in batches])
    np.testing.assert_array_equal(forward_targets(windows, vocabulary), expected)
    np.testing.assert_array_equal(forward_targets(windows, vocabulary, 2), expected[: 2 * LENGTH])


def test_threads_do_not_share_a_cache(windows, vocabulary, batches):
    expected = batches(30)
    wrong = []

    def read():
        for batch, other in zip(expected, batches(30, num_threads=3), strict=True):
            if any(not np.array_equal(batch[name], other[name]) for name in batch):
                wrong.append(True)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_more_lanes_than_windows_are_refused(windows, vocabulary):
    with pytest.raises(ValueError, match="fewer than the 1000 lanes"):
        train_stream(windows, vocabulary, DataConfig("", "stream-5", 1000, 0), 0, 0, slice(0, 1000))
