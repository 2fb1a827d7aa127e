import os
import signal
import time

import pytest

from bert_jax.corpus.workers import Workers


def slow_square(number):
    time.sleep(0.02 * (number % 3))
    return number * number


def die(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number):
    raise ValueError(f"bad {number}")


def process_of(number):
    return os.getpid()


@pytest.mark.parametrize("num_processes", [1, 2])
def test_results_come_in_the_order_of_the_items(num_processes):
    with Workers(num_processes) as workers:
        assert list(workers.map(slow_square, range(12))) == [number * number for number in range(12)]
        assert workers.peak_memory_bytes > 10**7
        with pytest.raises(ValueError, match="bad 0"):
            list(workers.map(fail, range(3)))


def test_items_are_taken_as_results_are():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    with Workers(2) as workers:
        next(workers.map(slow_square, items()))
        assert len(taken) < 10


def test_a_worker_that_dies_is_told_of():
    with Workers(2) as workers, pytest.raises(RuntimeError, match=r"worker process died.*--num_processes=2"):
        list(workers.map(die, range(5)))


def test_one_process_is_this_one():
    with Workers(1) as workers:
        assert list(workers.map(process_of, [0])) == [os.getpid()]


def test_no_processes_are_refused():
    with pytest.raises(ValueError, match="num_processes is 0"):
        Workers(0)
