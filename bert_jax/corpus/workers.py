"""A pool of processes that maps in order, with a bounded number of items under way."""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """`num_processes` worker processes; with 1, the work is done in this process.

    Attributes:
        num_processes: how many.
        peak_memory_bytes: the largest resident memory that any of the processes had, this one included.
    """

    def __init__(self, num_processes: int) -> None:
        if num_processes < 1:
            raise ValueError(f"num_processes is {num_processes}; it must be 1 or more")
        self.num_processes = num_processes
        self._worker_peak_bytes = 0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._pool is not None:
            # After an error nothing is waited for: what is under way is finished in files that are then renamed.
            self._pool.shutdown(wait=error is None, cancel_futures=True)

    @property
    def peak_memory_bytes(self) -> int:
        """Return the largest resident set of any process so far."""
        return max(self._worker_peak_bytes, _peak_memory_bytes())

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` for every item, in the items' order whatever the number of processes.

        Args:
            function: pickled by name, so a module's function or a `functools.partial` of one.
            items: consumed as results are taken, about two a process ahead.

        Raises:
            RuntimeError: a worker died. What `function` raises is raised here.
        """
        if self.num_processes == 1:
            yield from map(function, items)
            return
        if self._pool is None:
            # Spawned, not forked: array_record and tokenizers run threads, whose locks a fork would copy locked.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.num_processes, context, initializer=_start_worker)
        under_way: collections.deque[Future[tuple[Any, int]]] = collections.deque()
        try:
            for item in items:
                with _interrupts_held():  # an item may start a process
                    under_way.append(self._pool.submit(_call, function, item))
                if len(under_way) > 2 * self.num_processes:
                    yield self._result(under_way.popleft())
            while under_way:
                yield self._result(under_way.popleft())
        except BrokenProcessPool:
            raise RuntimeError(
                "a worker process died, killed from outside or for want of memory; run the same command again, with "
                f"fewer than --num_processes={self.num_processes} if memory is short: it continues where this stopped"
            ) from None

    def _result(self, future: Future[tuple[Any, int]]) -> Any:
        result, peak = future.result()
        self._worker_peak_bytes = max(self._worker_peak_bytes, peak)
        return result


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Answer Ctrl-C after the block; processes started in it never get one: it goes to the whole group.

    A process that its parent starts half, or that is itself interrupted while it starts, ends with a traceback.
    """
    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # Python's handlers run in that thread alone
    # The handler, because another thread may be given the signal; the mask, because children inherit it.
    former = signal.signal(signal.SIGINT, lambda number, _: held.append(number)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, former)
        if held:
            signal.raise_signal(signal.SIGINT)


def _call(function: Callable[[Any], Any], item: Any) -> tuple[Any, int]:
    return function(item), _peak_memory_bytes()


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _start_worker() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a process
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Workers of a parent that was killed would wait for work for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
