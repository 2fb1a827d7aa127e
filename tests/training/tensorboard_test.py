import struct
from typing import Any

from etils import epath
from tensorboardX.proto import event_pb2

from bert_jax.training import tensorboard
from bert_jax.training.tensorboard import TensorBoard

EVENTS: Any = event_pb2


def read_events(path):
    """Return an event file's events: each is its length, a checksum of that, itself, and a checksum."""
    content, place, events = path.read_bytes(), 0, []
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        events.append(EVENTS.Event.FromString(content[place + 12 : place + 12 + length]))
        place += 12 + length + 4
    return events


def test_a_row_is_an_event_with_its_numbers_and_later_ones_of_the_run_before_are_hidden(tmp_path):
    board = TensorBoard(epath.Path(tmp_path), restored_step=4)
    board.write({"step": 6, "train/loss": 2.5, "perf/mfu": None, "eval/loss": 3})
    board.close()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    version, start, row = read_events(path)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, EVENTS.SessionLog.START)
    assert row.step == 6
    assert {value.tag: value.simple_value for value in row.summary.value} == {"train/loss": 2.5, "eval/loss": 3.0}


def test_rows_are_there_at_the_next_flush(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "FLUSH_SECONDS", 0.0)
    board = TensorBoard(epath.Path(tmp_path), restored_step=0)
    board.write({"step": 1, "train/loss": 2.0})
    (path,) = tmp_path.glob("events.out.tfevents.*")
    assert [event.step for event in read_events(path)] == [0, 1, 1]
    board.close()
