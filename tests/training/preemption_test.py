import os
import signal

import pytest

from bert_jax.training.preemption import Preemption


def test_sigterm_asks_to_stop_and_the_former_handler_comes_back():
    former = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.requested()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested()
    assert signal.getsignal(signal.SIGTERM) == former


def test_the_second_ctrl_c_is_meant():
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        assert preemption.requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_several_processes_stop_where_they_agreed_to_and_stay_stopped(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.experimental.multihost_utils.reached_preemption_sync_point", lambda number: number == 3)
    preemption = Preemption()
    assert [preemption.requested() for _ in range(5)] == [False, False, True, True, True]
