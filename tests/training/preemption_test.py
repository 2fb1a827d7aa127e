import os
import signal

import pytest

from bert_jax.training.preemption import Preemption


def test_sigterm_asks_to_stop_and_the_former_handler_comes_back():
    former = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.requested(0)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested(1)
    assert signal.getsignal(signal.SIGTERM) == former


def test_the_second_ctrl_c_is_meant():
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        assert preemption.requested(1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
