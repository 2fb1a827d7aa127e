import multiprocessing.util
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


def interrupt_the_starting(monkeypatch):
    # Ctrl-C in the moment in which a worker was started and has not been told yet what to do.
    spawn = multiprocessing.util.spawnv_passfds

    def interrupted(path, args, passfds):
        process = spawn(path, args, passfds)
        if any("spawn_main" in str(arg) for arg in args):  # a worker, not what watches the semaphores
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        return process

    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", interrupted)


def test_an_interrupt_waits_until_the_workers_have_started(monkeypatch, capfd):
    interrupt_the_starting(monkeypatch)
    with pytest.raises(KeyboardInterrupt), Workers(2) as workers:
        list(workers.map(slow_square, range(4)))
    time.sleep(0.5)  # for one that was left alone to say so
    assert "Traceback" not in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def blocked_signals(_):
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_workers_are_not_interrupted():
    with Workers(2) as workers:
        assert all(signal.SIGINT in blocked for blocked in workers.map(blocked_signals, range(4)))
    assert signal.SIGINT not in blocked_signals(None)
