"""TensorBoard's event file, written by the thread that trains.

tensorboardX' own `SummaryWriter` writes in the background; where that fails, as on a full disk, its queue fills up and
the next row waits for ever. Written here, an error is raised where it can be told.
"""

import time
from typing import Any

import numpy as np
from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import directory_check
from tensorboardX.summary import scalar

_EVENTS: Any = event_pb2  # whose classes are made as it is loaded, out of a type checker's sight
_SUMMARIES: Any = summary_pb2
FLUSH_SECONDS = 30.0  # in a bucket each flush uploads the whole file


class TensorBoard:
    """An event file in a run's directory, one for each start."""

    def __init__(self, workdir: epath.Path, restored_step: int) -> None:
        """Begin a file; what earlier ones have of steps beyond the restored one is hidden."""
        directory_check(str(workdir))
        self._events = EventsWriter(str(workdir / "events"))
        start = _EVENTS.SessionLog(status=_EVENTS.SessionLog.START)
        self._events.write_event(_EVENTS.Event(step=restored_step + 1, session_log=start))
        self._flush()

    def write(self, row: dict[str, Any]) -> None:
        """Add the numbers of a row of metrics.jsonl."""
        summary = _SUMMARIES.Summary()
        for name, value in row.items():
            if name != "step" and value is not None:
                summary.MergeFrom(scalar(name, np.float64(value)))
        self._events.write_event(_EVENTS.Event(wall_time=time.time(), step=row["step"], summary=summary))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._events.close()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        self._events.flush()
