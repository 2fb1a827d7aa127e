import itertools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.training.best import BestBy
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.checksums import checksums
from bert_jax.training.loop import Session, Trace, TrainConfig, is_due, train
from bert_jax.training.mesh import MeshConfig, make_mesh
from bert_jax.training.metrics import MetricWindow, NonFiniteError, Reporter
from bert_jax.training.optimizers import OptimizerConfig
from bert_jax.training.state import TrainState, make_hyper

MESH = make_mesh(MeshConfig(data=1), jax.devices()[:1])


class Recorder:
    """Parts of a run that only write down when they are called."""

    def __init__(self, bad_steps=(), nonfinite_state_at=None, stop_at=None, stop_evaluation_at=None):
        self.events, self.metas, self.said, self.bad_steps, self.stop_at = [], {}, [], bad_steps, stop_at
        self.nonfinite_state_at, self.stop_evaluation_at, self.done = nonfinite_state_at, stop_evaluation_at, 0
        self.failure: str | None = None

    def batches(self, first):
        for number in range(first, 1000):
            self.events.append(f"batch {number}")
            yield {"x": jnp.zeros(())}

    def step(self, state, batch, hyper):
        self.done = number = int(state.step) + 1
        self.events.append(f"step {number}")
        value = np.nan if number == self.nonfinite_state_at else 1.0
        pairs = {"loss": (1.0, 1.0), "nonfinite": (float(number in self.bad_steps), 1.0), "real_tokens": (2.0, 1.0)}
        metrics = {name: (jnp.float32(total), jnp.float32(count)) for name, (total, count) in pairs.items()}
        return make_state(number, value), metrics

    def evaluate(self, state, interrupted):
        self.events.append(f"evaluate {int(state.step)}")
        return None if self.done == self.stop_evaluation_at else {"eval/loss": 3.0}

    def interrupted(self):
        return self.done == self.stop_at

    def session(self, **options):
        return Session(
            evaluate=options.pop("evaluate", self.evaluate),
            eval_every_steps=options.pop("eval_every_steps", 4),
            checkpoints=FakeCheckpoints(self),
            data_fingerprint="f",
            reporter=FakeReporter(self),
            interrupted=self.interrupted,
            **options,
        )


class FakeCheckpoints(Checkpoints):
    def __init__(self, recorder):
        self.recorder = recorder

    def save(self, step, state, meta):
        checksums(state.params)
        self.recorder.events.append(f"save {step}")
        self.recorder.metas[step] = meta

    def amend(self, step, changes):
        self.recorder.events.append(f"amend {step}")
        self.recorder.metas[step] = self.recorder.metas.get(step, {}) | changes

    def latest_step(self):
        return max(self.recorder.metas, default=None)

    def failure(self):
        return self.recorder.failure if self.recorder.events[-1] == "wait" else None

    def wait(self):
        self.recorder.events.append("wait")


class FakeReporter(Reporter):
    def __init__(self, recorder):
        self.recorder = recorder

    def train(self, step, window):
        assert window.seconds > 0
        self.recorder.events.append(f"log {step} of {window.steps}")

    def evaluation(self, step, row, seconds):
        pass

    def say(self, text):
        self.recorder.said.append(text)


def make_state(step, value=1.0):
    return TrainState(jnp.int32(step), {"w": jnp.float32(value)}, {}, {}, jnp.int32(0))


def run(recorder, num_steps, first=0, save_every=4, log_every=3, on_nonfinite="stop", **options):
    config = TrainConfig(num_steps, log_every_steps=log_every, save_every_steps=save_every, on_nonfinite=on_nonfinite)
    hyper = make_hyper(OptimizerConfig(), num_steps, 0, MESH)
    recorder.done = first
    session = recorder.session(first_step=first, **options)
    return train(make_state(first), recorder.step, recorder.batches(first), hyper, config, session)


@pytest.mark.parametrize("at", [8, 9], ids=["before a save", "before a row"])
def test_a_run_that_must_not_write_any_more_stops_instead(at):
    recorder = Recorder()

    def lost():
        if recorder.done >= at:
            raise RuntimeError("the lease is lost")

    with pytest.raises(RuntimeError, match="lease is lost"):
        run(recorder, num_steps=20, before_writing=lost)
    assert list(recorder.metas) == [4, 8][: at - 7]
    assert "log 9 of 3" not in recorder.events


def test_the_order_of_the_loop():
    recorder = Recorder()
    _, complete = run(recorder, num_steps=6)
    assert complete
    assert recorder.events == [
        "batch 0", "step 1", "batch 1", "step 2", "batch 2", "step 3", "log 3 of 3", "batch 3", "step 4",
        "evaluate 4", "save 4", "batch 4", "step 5", "batch 5", "step 6", "log 6 of 3", "evaluate 6", "save 6", "wait",
    ]  # fmt: skip


def test_a_restored_step_is_neither_evaluated_nor_saved_again():
    recorder = Recorder()
    run(recorder, num_steps=6, first=4)
    assert recorder.events[:2] == ["batch 4", "step 5"]
    assert recorder.events[-3:] == ["evaluate 6", "save 6", "wait"]


def test_a_complete_run_does_nothing():
    recorder = Recorder()
    run(recorder, num_steps=6, first=6)
    assert recorder.events == ["wait"]
    assert recorder.said == []


def test_a_run_says_how_long_its_saves_held_it_up(monkeypatch):
    looks = itertools.count()  # at the clock; the time between two grows
    clock = types.SimpleNamespace(perf_counter=lambda: float(next(looks) ** 2))
    monkeypatch.setattr("bert_jax.training.loop.time", clock)
    recorder = Recorder()
    run(recorder, num_steps=8, evaluate=None)
    [line] = recorder.said
    said = r"2 saves held the steps up for (.*) s, (.*)% of the time; the first, with what it compiled, for (.*) s"
    [found] = re.findall(said, line)
    total, share, first = map(float, found)
    assert 0 < 2 * first < total
    assert 0 < share < 100


def test_what_failed_behind_the_last_save_is_told():
    recorder = Recorder()
    recorder.failure = "an old checkpoint was not deleted"
    run(recorder, num_steps=8)
    assert recorder.said[-1] == "warning: an old checkpoint was not deleted"


def test_the_open_window_is_saved_and_resumed():
    first, second = Recorder(), Recorder()
    run(first, num_steps=9)
    assert first.metas[4]["window"]["seconds"] > 0  # or the rates of the first row after resuming would be too high
    window = MetricWindow(first.metas[4]["window"])
    assert window.steps == 1  # logged at 3, saved at 4
    run(second, num_steps=9, first=4, window=window)
    assert [event for event in second.events if event.startswith("log")] == ["log 6 of 3", "log 9 of 3"]


def test_an_interrupted_run_saves_at_once_and_evaluates_after_resuming():
    first, second = Recorder(stop_at=4), Recorder()
    _, complete = run(first, num_steps=8)
    assert not complete
    assert first.events[-3:] == ["step 4", "save 4", "wait"]
    assert first.metas[4]["evaluation_pending"]
    second.metas[4] = first.metas[4]
    run(second, num_steps=8, first=4, evaluation_pending=True)
    assert second.events[:3] == ["evaluate 4", "amend 4", "batch 4"]
    assert second.metas[4]["evaluation"] == {"eval/loss": 3.0}
    assert not second.metas[4]["evaluation_pending"]


def test_an_interruption_breaks_an_evaluation_off_which_is_then_pending():
    first, second = Recorder(stop_evaluation_at=8), Recorder(stop_evaluation_at=8)
    _, complete = run(first, num_steps=12)
    assert not complete
    assert first.events[-3:] == ["evaluate 8", "save 8", "wait"]
    assert first.metas[8]["evaluation_pending"]
    _, complete = run(second, num_steps=12, first=8, evaluation_pending=True)
    assert not complete
    assert second.events == ["evaluate 8", "wait"]  # it is pending still


def test_a_run_without_held_out_text_is_saved_only():
    recorder = Recorder()
    run(recorder, num_steps=4, evaluate=None)
    assert recorder.events[-2:] == ["save 4", "wait"]
    assert not recorder.metas[4]["evaluation_pending"]


def test_an_evaluation_without_the_metric_that_the_best_goes_by_is_an_error():
    with pytest.raises(ValueError, match=r"goes by eval/perplexity; an evaluation has \['eval/loss'\]"):
        run(Recorder(), num_steps=4, best_by=BestBy("eval/perplexity"))


def test_a_checkpoint_carries_the_evaluation_of_its_step():
    recorder = Recorder()
    run(recorder, num_steps=8, save_every=2)
    assert recorder.metas[4]["evaluation"] == {"eval/loss": 3.0}
    assert recorder.metas[2]["evaluation"] is None
    assert not recorder.metas[2]["evaluation_pending"]


def test_a_non_finite_loss_stops_the_run_before_the_next_save_and_names_the_step():
    recorder = Recorder(bad_steps=(6, 7))
    with pytest.raises(NonFiniteError, match=r"step 6 is not finite; the last good checkpoint, step 4, is kept"):
        run(recorder, num_steps=12, log_every=100)
    assert list(recorder.metas) == [4]
    assert recorder.events[-1] == "step 8"


def test_skipping_goes_on_and_saves():
    recorder = Recorder(bad_steps=(6, 7))
    run(recorder, num_steps=8, on_nonfinite="skip")
    assert list(recorder.metas) == [4, 8]
    assert recorder.metas[8]["window"]["totals"]["nonfinite"] == 2


def test_a_state_that_is_not_finite_is_not_saved_even_if_all_losses_were():
    recorder = Recorder(nonfinite_state_at=8)
    with pytest.raises(NonFiniteError, match=r"after step 8 is not finite \(w\) and was not saved; the last good"):
        run(recorder, num_steps=12)
    assert list(recorder.metas) == [4]


@pytest.mark.parametrize(("step", "every", "due"), [(0, 5, False), (5, 5, True), (6, 5, False), (5, 0, False)])
def test_is_due(step, every, due):
    assert is_due(step, every) == due


@pytest.mark.parametrize("text", ["10", "a:b", "15:10", ":3"])
def test_a_wrong_profiler_window_is_refused_with_an_example(text, tmp_path):
    with pytest.raises(ValueError, match="such as 10:15"):
        Trace.parse(text, tmp_path)
    assert Trace.parse("", tmp_path) is None


def test_a_wrong_number_in_the_config_is_refused():
    with pytest.raises(ValueError, match=r"config\.train\.log_every_steps is 0; use 1 or more"):
        TrainConfig(10, log_every_steps=0)
