import json
import threading

import pytest

from bert_jax.training import lease
from bert_jax.training.lease import EXPIRES_SECONDS, HEARTBEAT_SECONDS, Lease, LeaseLostError, WorkdirInUseError
from tests.fake_bucket import FakeBucket

PATH = "gs://b/runs/one"


class Clock:
    """A clock that stands still but for `sleep`, which does what others do in that time."""

    def __init__(self, ahead=0.0):
        self.now, self.ahead, self.meanwhile = 1000.0, ahead, lambda: None

    def time(self):
        return 1e9 + self.now + self.ahead

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.meanwhile()


@pytest.fixture
def clock():
    return Clock()


def notes(bucket):
    return {name: json.loads(value) for name, value in sorted(bucket.items())}


def abandon(held):
    """End a lease as kill -9 does: no heartbeat any more, and nothing said."""
    held._stop.set()
    held._heart.join()


def test_a_second_run_is_refused_while_the_first_lives_and_let_in_when_it_has_ended(bucket, clock):
    first = Lease(PATH, clock)
    clock.meanwhile = first.renew
    with pytest.raises(WorkdirInUseError, match=r"gs://b/runs/one is in use by process \d+ on \S+, which said so 0 s"):
        Lease(PATH, clock)
    first.close()
    before = clock.now
    second = Lease(PATH, clock)
    assert clock.now == before
    second.check()
    second.close()
    assert list(bucket) == ["b/runs/one/lock/00000002.json"]


def test_a_dead_owner_is_waited_for_as_long_as_it_may_be_alive_and_no_longer(bucket, clock):
    abandon(Lease(PATH, clock))
    clock.now += 60
    Lease(PATH, clock).close()
    assert EXPIRES_SECONDS < clock.now - 1000 < EXPIRES_SECONDS + 2 * lease._POLL_SECONDS


def test_an_owner_that_has_long_been_dead_is_not_waited_for(bucket, clock):
    abandon(Lease(PATH, clock))
    clock.now += EXPIRES_SECONDS + 1
    before = clock.now
    Lease(PATH, clock).close()
    assert clock.now == before


def test_a_dead_owner_whose_clock_was_ahead_is_found_out_by_its_silence(bucket, clock):
    abandon(Lease(PATH, Clock(ahead=3600.0)))
    before = clock.now
    Lease(PATH, clock).close()
    assert EXPIRES_SECONDS < clock.now - before < EXPIRES_SECONDS + 2 * lease._POLL_SECONDS


def test_of_two_contenders_for_a_dead_owners_directory_one_gets_it(bucket, clock, monkeypatch):
    abandon(Lease(PATH, clock))
    clock.now += EXPIRES_SECONDS + 1
    both_saw_it_free = threading.Barrier(2)
    create = Lease._create

    def create_together(self):
        both_saw_it_free.wait(timeout=10)
        create(self)

    monkeypatch.setattr(Lease, "_create", create_together)
    outcomes = []

    def contend():
        try:
            outcomes.append(Lease(PATH, clock))
        except WorkdirInUseError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=contend) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    [refusal] = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert "is in use by process" in refusal
    winner.check()
    winner.close()


def test_an_owner_that_slept_too_long_learns_that_another_one_took_over(bucket, clock):
    sleeper = Lease(PATH, clock)
    clock.now += EXPIRES_SECONDS + 1
    other = Lease(PATH, clock)
    with pytest.raises(LeaseLostError, match=r"lease of gs://b/runs/one is lost: process \d+ on \S+ owns it now"):
        sleeper.check()
    before = notes(bucket)
    sleeper.close()
    assert notes(bucket) == before, "who lost the directory writes nothing there"
    other.check()
    other.close()


def test_a_lease_is_lost_when_the_bucket_is_out_of_reach_for_too_long_and_not_before(bucket, clock, monkeypatch):
    held = Lease(PATH, clock)

    def fail(*args, **kwargs):
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(held._store, "ls", fail)
        clock.now += EXPIRES_SECONDS - 1
        held.check()
        clock.now += 2
        with pytest.raises(LeaseLostError, match=r"not be renewed for 90 s \(OSError: no route to host\)"):
            held.check()
    held.check()  # within reach again, and nobody came
    held.close()


def test_a_request_that_was_sent_twice_is_no_other_owner(bucket, clock, monkeypatch):
    write = FakeBucket.pipe_file

    def answer_is_lost(self, path, value, mode="overwrite"):
        write(self, path, value)
        raise FileExistsError(path)

    with monkeypatch.context() as patch:
        patch.setattr(FakeBucket, "pipe_file", answer_is_lost)
        held = Lease(PATH, clock)
    held.close()


def test_the_heart_beats_by_itself_and_stops_at_the_end(bucket, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    held = Lease(PATH)
    first, beaten = notes(bucket), threading.Event()
    renew = held.renew

    def observed():
        renew()
        beaten.set()

    monkeypatch.setattr(held, "renew", observed)
    assert beaten.wait(timeout=10)
    assert notes(bucket) != first
    held.close()
    assert not held._heart.is_alive()
    assert [note["released"] for note in notes(bucket).values()] == [True]


def test_an_owner_has_several_heartbeats_before_it_is_taken_for_dead():
    assert EXPIRES_SECONDS >= 5 * HEARTBEAT_SECONDS
