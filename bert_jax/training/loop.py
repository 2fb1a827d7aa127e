"""The training loop. Its order is a contract (docs/architecture.md), and a test holds it.

1. Evaluate if due. 2. Save if due. 3. Take the next batch. 4. Dispatch the step. 5. Log if due. The host waits for the
device in 1, 2 and 5 only. 1 and 2 are skipped for a step that was just restored. After the last step: evaluate, save.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from bert_jax.config import choose
from bert_jax.training.best import BestBy
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.checksums import NotFiniteError
from bert_jax.training.metrics import MetricWindow, NonFiniteError, Reporter
from bert_jax.training.patience import Patience
from bert_jax.training.state import Batch, Hyper, TrainState
from bert_jax.training.step import ON_NONFINITE, TrainStep


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long to train, and what happens how often.

    Attributes:
        num_steps: updates; also where the learning rate reaches 0.
        microbatches: parts a batch is computed in, to save memory.
        log_every_steps: 1 or more.
        save_every_steps: 0 = only after the last step.
        keep_checkpoints: newest ones kept, besides the best by evaluation loss.
        on_nonfinite: "stop", or "skip" the update and count it.
        reference_curve: a file of configs/curves to show beside the loss; "" = none.
    """

    num_steps: int
    microbatches: int = 1
    log_every_steps: int = 100
    save_every_steps: int = 1000
    keep_checkpoints: int = 3
    on_nonfinite: str = "stop"
    reference_curve: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        choose("config.train.on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        least = {"num_steps": 1, "microbatches": 1, "log_every_steps": 1, "save_every_steps": 0, "keep_checkpoints": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"config.train.{name} is {getattr(self, name)}; use {lowest} or more")


@dataclasses.dataclass
class Session:
    """What the loop calls, and where the run stands when the loop begins.

    Attributes:
        evaluate: (state, whether to break off) → the `eval/` row, None if it was broken off; None: never.
        eval_every_steps: 0 = only after the last step.
        checkpoints: where to save.
        data_fingerprint: of the training data, for the checkpoints' meta.
        reporter: where rows go.
        interrupted: whether to save and leave.
        before_writing: raises if the run must not write any more.
        best_by: what the best checkpoint is the best by.
        patience: when to end before the last step.
        first_step: updates already done.
        window: the open one, restored or empty.
        evaluation_pending: the restored step was saved in a hurry, before its evaluation.
        trace: the window to profile.
    """

    evaluate: Callable[[TrainState, Callable[[], bool]], dict[str, float] | None] | None
    eval_every_steps: int
    checkpoints: Checkpoints
    data_fingerprint: str
    reporter: Reporter
    interrupted: Callable[[], bool] = lambda: False
    before_writing: Callable[[], None] = lambda: None
    best_by: BestBy = dataclasses.field(default_factory=BestBy)
    patience: Patience = dataclasses.field(default_factory=Patience)
    first_step: int = 0
    window: MetricWindow = dataclasses.field(default_factory=MetricWindow)
    evaluation_pending: bool = False
    trace: "Trace | None" = None


def is_due(step: int, every: int) -> bool:
    """Return whether something that is done every so many steps is due after `step` updates; never for every 0."""
    return every > 0 and step > 0 and step % every == 0


def train(
    state: TrainState,
    step: TrainStep,
    batches: Iterator[Batch],
    hyper: Hyper,
    config: TrainConfig,
    session: Session,
) -> tuple[TrainState, bool]:
    """Train until `config.num_steps` updates were done, or until the session is interrupted.

    Args:
        state: after `session.first_step` updates; it is donated.
        step: compiled.
        batches: placed on the mesh, beginning with batch `session.first_step`.
        hyper: of the run.
        config: how long and how often.
        session: the rest.

    Returns:
        The last state, saved; and whether the run is complete (or its patience is at an end).

    Raises:
        NonFiniteError: names the first bad step; what was saved before it stays.
        CheckpointError: checkpoints cannot be written.
    """
    window, done, clock, saving = session.window, session.first_step, _Clock(), _Saving()
    while True:
        last = done >= config.num_steps
        restored = done == session.first_step
        interrupted = session.interrupted()
        due = session.evaluate is not None and done > 0 and (last or is_due(done, session.eval_every_steps))
        pending = due and (session.evaluation_pending if restored else True)

        # (1) Evaluate. An interrupted run has seconds left: it breaks off and saves, and the resumed one evaluates.
        row: dict[str, float] | None = None
        if pending and not interrupted:
            _fold(window, config, session)
            with clock.paused():
                row = _evaluate(state, done, session)
            interrupted = row is None
            last = last or session.patience.exhausted

        # (2) Save state and open window together, after all metrics up to here were found finite.
        if not restored and (last or interrupted or is_due(done, config.save_every_steps)):
            _fold(window, config, session)
            window.seconds += clock.restart()
            with clock.paused(), saving.timed():
                meta = {"window": window.to_plain(), "evaluation": row, "evaluation_pending": pending and row is None}
                _save(state, done, meta, session)
        if last or interrupted:
            break
        if session.trace:
            session.trace.at(done, state)

        # (3) The only line that moves the data.
        batch = next(batches)

        # (4) Dispatch; the device may be several steps behind.
        state, metrics = step(state, batch, hyper)
        if restored:
            clock.restart()  # the first call compiled
        done += 1
        window.add(done, metrics)

        # (5) Log: one wait for the whole window.
        if is_due(done, config.log_every_steps) or done == config.num_steps:
            _fold(window, config, session)
            window.seconds += clock.restart()
            _report(done, window, session)
    if session.trace:
        session.trace.stop(state)
    saving.tell(session.reporter)
    session.checkpoints.wait()
    if failure := session.checkpoints.failure():  # a deletion's, or an earlier save's that no row told yet
        session.reporter.say(f"warning: {failure}")
    return state, not interrupted


def _report(done: int, window: MetricWindow, session: Session) -> None:
    session.before_writing()
    session.reporter.train(done, window)
    window.clear()
    if failure := session.checkpoints.failure():
        session.reporter.say(f"warning: {failure}; the next save tries again")


def _fold(window: MetricWindow, config: TrainConfig, session: Session) -> None:
    first_bad = window.fold()
    if first_bad is not None and config.on_nonfinite == "stop":
        raise NonFiniteError(f"the loss or a gradient of step {first_bad} is not finite; {_advice(session)}")


def _advice(session: Session) -> str:
    kept = session.checkpoints.latest_step()
    where = "nothing was saved before it" if kept is None else f"the last good checkpoint, step {kept}, is kept"
    return (
        f"{where}. The same command would fail again: lower config.optim.peak_learning_rate in a new --workdir "
        "(init_from that checkpoint), or go on with --config.train.on_nonfinite=skip"
    )


def _evaluate(state: TrainState, done: int, session: Session) -> dict[str, float] | None:
    assert session.evaluate is not None
    started = time.perf_counter()
    row = session.evaluate(state, session.interrupted)
    if row is None:
        return None
    if session.best_by.metric not in row:
        raise ValueError(f"the best checkpoint goes by {session.best_by.metric}; an evaluation has {sorted(row)}")
    session.before_writing()
    session.reporter.evaluation(done, row, time.perf_counter() - started)
    session.patience.add(row)
    if done == session.first_step:  # the checkpoint is there already, saved in a hurry
        changes = {"evaluation": row, "evaluation_pending": False, "patience": session.patience.to_plain()}
        session.checkpoints.amend(done, changes)
    return row


def _save(state: TrainState, done: int, meta: dict[str, Any], session: Session) -> None:
    meta |= {"data_fingerprint": session.data_fingerprint, "best_by": dataclasses.asdict(session.best_by)}
    meta |= {"patience": session.patience.to_plain()}
    session.before_writing()
    try:
        session.checkpoints.save(done, state, meta)
    except NotFiniteError as error:  # finite losses do not prove it, and the last update has not met a loss yet
        raise NonFiniteError(
            f"the state after step {done} is not finite ({error}) and was not saved; {_advice(session)}"
        ) from error


class Trace:
    """A profiler window: traces the steps from `first` up to `last`, for TensorBoard or Perfetto."""

    def __init__(self, first: int, last: int, directory: os.PathLike[str]) -> None:
        """Trace into `directory`."""
        self._first, self._last, self._directory, self._running = first, last, directory, False

    @classmethod
    def parse(cls, text: str, directory: os.PathLike[str]) -> "Trace | None":
        """Return the window of `10:15` (steps 10 to 14, counted from 0); None for "".

        Raises:
            ValueError: not two numbers, or an empty window.
        """
        if not text:
            return None
        first, colon, last = text.partition(":")
        if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last)):
            raise ValueError(f"--profile_steps={text!r}; use FIRST:LAST, such as 10:15, with FIRST < LAST")
        return cls(int(first), int(last), directory)

    def at(self, step: int, state: TrainState) -> None:
        """Begin or end the trace before batch `step`; waits for the device at both ends."""
        if step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(os.fspath(self._directory))
            self._running = True
        elif step >= self._last:
            self.stop(state)

    def stop(self, state: TrainState) -> None:
        """End the trace if it runs."""
        if self._running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False


class _Clock:
    """Seconds since `restart`, without those that were paused."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def restart(self) -> float:
        """Return the seconds, and begin again."""
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        return seconds

    def paused(self) -> "_Pause":
        """Return a context whose time does not count."""
        return _Pause(self)

    def forget(self, seconds: float) -> None:
        """Take seconds off."""
        self._started += seconds


class _Saving:
    """How long saves held the steps up. What they write in the background shows in the rates of the steps instead."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count a save."""
        before = time.perf_counter()
        yield
        self._seconds.append(time.perf_counter() - before)

    def tell(self, reporter: Reporter) -> None:
        """Say it, if there were saves; the share is of all time since the loop began."""
        if count := len(self._seconds):
            seconds, saves = sum(self._seconds), f"{count} save{'s' * (count > 1)}"
            share = seconds / (time.perf_counter() - self._started)
            first = f"; the first, with what it compiled, for {self._seconds[0]:.3f} s" if count > 1 else ""
            reporter.say(f"{saves} held the steps up for {seconds:.3f} s, {share:.2%} of the time{first}")


class _Pause:
    def __init__(self, clock: _Clock) -> None:
        self._clock, self._started = clock, 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._clock.forget(time.perf_counter() - self._started)
