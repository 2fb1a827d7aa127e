import jax
import pytest
from etils import epath

from bert_jax.training import checkpoint
from bert_jax.training.checkpoint import Checkpoints, committed_steps
from bert_jax.training.damage import (
    DAMAGED,
    CheckpointError,
    DamagedCheckpointError,
    disk_error,
    not_restored,
    withdraw,
)
from tests.training.checkpoint_test import make_state, meta

STEP = epath.Path("checkpoints/8")


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        OSError(5, "Input/output error"),
        MemoryError(),
        ValueError("UNAVAILABLE: Error opening zarr driver: the bucket does not answer"),
        ValueError("PERMISSION_DENIED: no access"),
        RuntimeError("DEADLINE_EXCEEDED: Barrier timed out"),
        type("HttpError", (Exception,), {"__module__": "gcsfs.retry"})("Service Unavailable, 503"),
        jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: Connection reset by peer"),
    ],
)
def test_what_says_nothing_of_the_content_is_no_damage(error):
    wrapped = ValueError("the tree cannot be read")
    wrapped.__cause__ = error
    for each in (error, wrapped):
        found = not_restored(STEP, each, "copy it again")
        assert type(found) is CheckpointError
        assert str(found).endswith("then try again")


def test_the_disks_error_is_found_behind_what_came_of_it():
    full, waited = OSError(28, "No space left on device"), RuntimeError("DEADLINE_EXCEEDED: Barrier timed out")
    waited.__context__ = full
    assert disk_error(waited) is full
    alone = ValueError("no tree")
    assert disk_error(alone) is alone


@pytest.mark.parametrize("error", [FileNotFoundError(2, "no such file"), ValueError("DATA_LOSS: CRC-32C mismatch")])
def test_missing_and_changed_files_are_damage(error):
    found = not_restored(STEP, error, "copy it again")
    assert type(found) is DamagedCheckpointError
    assert str(found).endswith("copy it again")


def test_what_was_set_aside_is_never_replaced(tmp_path):
    kept = []
    for content in ("first", "second", "third"):
        step = epath.Path(tmp_path / "8")
        step.mkdir()
        (step / "content").write_text(content)
        kept.append(withdraw(step, DAMAGED))
    assert [path.name for path in kept] == ["8.damaged", "8.2.damaged", "8.3.damaged"]
    assert [(path / "content").read_text() for path in kept] == ["first", "second", "third"]


def test_of_two_processes_at_once_one_sets_aside_and_nothing_is_lost(tmp_path, monkeypatch):
    step = epath.Path(tmp_path / "8")
    (step / "params").mkdir(parents=True)
    rename = type(step).rename

    def rename_after_another_process(path, target):
        rename(path, target)
        return rename(path, target)

    monkeypatch.setattr(type(step), "rename", rename_after_another_process)
    assert withdraw(step, DAMAGED) is None
    assert (tmp_path / "8.damaged" / "params").is_dir()
    assert withdraw(step, DAMAGED) is None  # it is gone


def test_in_a_bucket_a_step_loses_its_commit_file(bucket):
    step = epath.Path("gs://b/run/checkpoints/8")
    step.mkdir(parents=True)
    for name in ("commit_success.txt", "content"):
        (step / name).write_text("content")
    assert withdraw(step, DAMAGED) is None
    assert [path.name for path in step.iterdir()] == ["content"]


def test_an_old_checkpoint_that_cannot_be_deleted_is_told_and_deleted_by_the_next_save(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, max_to_keep=1)
    checkpoints.save(1, make_state(1), meta())
    checkpoints.save(2, make_state(2), meta())
    checkpoints._manager.wait_until_finished()

    def refused(directory, suffix):
        raise PermissionError(f"no {suffix} for {directory.name}")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "withdraw", refused)
        checkpoints.save(3, make_state(3), meta())
        assert checkpoints.failure() == "an old checkpoint was not deleted (PermissionError: no .deleted for 1)"
        checkpoints.wait()
        assert committed_steps(tmp_path) == [1, 2, 3]
    checkpoints.save(4, make_state(4), meta())
    checkpoints.wait()
    assert committed_steps(tmp_path) == [4]
    checkpoints.close()
