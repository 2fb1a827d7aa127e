import dataclasses
import gc
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from bert_jax.training import checkpoint
from bert_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    DamagedCheckpointError,
    committed_steps,
    resolve,
)
from bert_jax.training.state import TrainState
from tests.faults.disks import DISKS

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax, of what it gave up


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()  # or it is told in some later test, of another file


def make_state(value):
    return TrainState(
        step=jnp.int32(value),
        params={"layers": {"kernel": jnp.full((4, 2), value, jnp.float32)}},
        opt_state={"mu": {"layers": {"kernel": jnp.full((4, 2), -value, jnp.float32)}}},
        carry={},
        skipped_steps=jnp.int32(0),
    )


def abstract_of(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def meta(loss=None):
    return {"data_fingerprint": "f", "evaluation": None if loss is None else {"eval/loss": loss}}


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    yield checkpoints
    checkpoints.close()


def test_a_state_comes_back_with_its_meta(checkpoints):
    checkpoints.save(3, make_state(3), meta(1.5))
    checkpoints.wait()
    state, found = checkpoints.restore(3, abstract_of(make_state(0)))
    jax.tree.map(np.testing.assert_array_equal, state, make_state(3))
    assert found["step"] == 3
    assert found["evaluation"] == {"eval/loss": 1.5}


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    for step, loss in ((1, 5.0), (2, 3.0), (3, 4.0)):
        checkpoints.save(step, make_state(step), meta(loss))
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)  # what was best is read back from the disk
    for step in (4, 5):
        checkpoints.save(step, make_state(step), meta())
    checkpoints.wait()
    checkpoints.close()
    assert committed_steps(tmp_path) == [2, 4, 5]
    assert resolve(f"run:{tmp_path}").step == 5
    assert resolve(f"run:{tmp_path}@best").step == 2
    assert resolve(f"run:{tmp_path}@4").step == 4


def test_a_metric_of_which_more_is_better_chooses_the_best_and_keeps_it(tmp_path):
    checkpoints = Checkpoints(tmp_path, max_to_keep=1)
    by = {"best_by": {"metric": "eval/f1", "higher_is_better": True}}
    for step, score in ((1, 0.5), (2, 0.7), (3, 0.6)):
        checkpoints.save(step, make_state(step), by | {"evaluation": {"eval/f1": score}})
    checkpoints.wait()
    checkpoints.close()
    assert committed_steps(tmp_path) == [2, 3]
    assert resolve(f"run:{tmp_path}@best").step == 2


def test_an_evaluation_made_up_for_counts_for_the_best(checkpoints, tmp_path):
    for step, loss in ((1, 2.0), (2, None)):
        checkpoints.save(step, make_state(step), meta(loss))
    checkpoints.wait()
    checkpoints.amend(2, {"evaluation": {"eval/loss": 1.0}, "evaluation_pending": False})
    assert resolve(f"run:{tmp_path}@best").step == 2
    _, found = checkpoints.restore(2, abstract_of(make_state(0)))
    assert (found["step"], found["evaluation"]) == (2, {"eval/loss": 1.0})


def test_a_directory_may_have_an_at_sign_in_its_name(tmp_path):
    checkpoints = Checkpoints(tmp_path / "exp@v2", max_to_keep=2)
    checkpoints.save(3, make_state(3), meta(1.0))
    checkpoints.wait()
    checkpoints.close()
    for end in ("", "@3", "@best"):
        assert resolve(f"run:{tmp_path}/exp@v2{end}").step == 3


def test_parameters_load_alone(checkpoints, tmp_path):
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    (tmp_path / "config.json").write_text(json.dumps({"seed": 1}))
    params = checkpoint.load_params(f"run:{tmp_path}@3")
    np.testing.assert_array_equal(params["layers"]["kernel"], np.full((4, 2), 3.0))
    assert checkpoint.load_config(f"run:{tmp_path}") == {"seed": 1}


def test_a_half_written_checkpoint_is_neither_seen_nor_left(tmp_path):
    half = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp" / "params"
    half.mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    assert checkpoints.latest_step() is None
    checkpoints.save(8, make_state(8), meta())  # waits for the cleaning
    checkpoints.wait()
    checkpoints.close()
    assert not half.exists()
    assert committed_steps(tmp_path) == [8]


def test_a_deletion_that_was_interrupted_is_finished(checkpoints, tmp_path):
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    half = tmp_path / "checkpoints" / "2.deleted"
    (half / "params").mkdir(parents=True)
    assert committed_steps(tmp_path) == [3]
    Checkpoints(tmp_path, max_to_keep=2).close()
    assert not half.exists()


def test_nothing_is_deleted_before_its_successor_is_whole(checkpoints, monkeypatch):
    for step in (1, 2):
        checkpoints.save(step, make_state(step), meta())
    checkpoints.wait()
    with monkeypatch.context() as patch:
        break_writing(patch, "background")
        checkpoints.save(3, make_state(3), meta())
        with pytest.raises(CheckpointError):
            checkpoints.wait()
    assert checkpoints.latest_step() == 2
    assert committed_steps(checkpoints._directory.parent) == [1, 2]


def break_writing(monkeypatch, where):
    """Let every save fail, at once or when the background thread renames what it wrote."""

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    if where == "background":
        monkeypatch.setattr(ocp.path.atomicity.AtomicRenameTemporaryPath, "finalize", fail)
    else:
        monkeypatch.setattr(ocp.CheckpointManager, "save", fail)


@pytest.mark.parametrize("where", ["background", "save"])
def test_a_failed_save_is_told_once_not_advertised_and_does_not_block_later_ones(checkpoints, monkeypatch, where):
    checkpoints.save(1, make_state(1), meta())
    checkpoints.wait()
    with monkeypatch.context() as patch:
        break_writing(patch, where)
        checkpoints.save(2, make_state(2), meta())
        while (message := checkpoints.failure()) is None:
            pass
        assert "No space left" in message
        assert checkpoints.failure() is None
    assert checkpoints.latest_step() == 1
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    assert checkpoints.latest_step() == 3


def test_two_failures_in_a_row_stop_the_run(checkpoints, monkeypatch):
    break_writing(monkeypatch, "save")
    checkpoints.save(1, make_state(1), meta())
    with pytest.raises(CheckpointError, match="two checkpoints in a row"):
        checkpoints.save(2, make_state(2), meta())


def test_a_last_save_that_failed_fails_the_run(checkpoints, monkeypatch):
    break_writing(monkeypatch, "save")
    checkpoints.save(1, make_state(1), meta())
    with pytest.raises(CheckpointError, match="lacks the last step: a checkpoint was not written"):
        checkpoints.wait()


def test_a_damaged_checkpoint_names_itself_and_the_way_out(checkpoints, tmp_path):
    for step in (2, 3):
        checkpoints.save(step, make_state(step), meta())
    checkpoints.wait()
    for file in (tmp_path / "checkpoints" / "3" / "params" / "d").iterdir():
        file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(
        CheckpointError, match=r"(?s)checkpoints/3 cannot be restored.*or resume from step 2 with --fall_back"
    ):
        checkpoints.restore(3, abstract_of(make_state(0)))


def damages(content):
    """Yield (what was done, damaged content): cut short, empty, and a bit flipped at several places."""
    yield "cut", content[: len(content) // 2]
    yield "emptied", b""
    for place in (0, len(content) // 3, len(content) - 1):
        yield f"flipped at {place}", content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


@pytest.mark.slow
def test_damage_to_any_file_is_noticed_or_harmless(checkpoints, tmp_path):
    noise = jax.random.normal(jax.random.key(0), (64, 64))  # does not compress: its bytes are stored as they are
    state = dataclasses.replace(make_state(3), params={"layers": {"kernel": noise}})
    checkpoints.save(3, state, meta(1.5))
    checkpoints.wait()
    _, wanted = checkpoints.restore(3, abstract_of(state))
    noticed = set()
    files = [path for path in (tmp_path / "checkpoints" / "3").rglob("*") if path.is_file() and path.stat().st_size]
    for path in files:
        content = path.read_bytes()
        for damage, damaged in damages(content):
            path.write_bytes(damaged)
            try:
                found, found_meta = checkpoints.restore(3, abstract_of(state))
            except CheckpointError as error:
                assert "checkpoints/3" in str(error)  # noqa: PT017 - where nothing is raised is no failure
                noticed.add(path)
            else:
                jax.tree.map(np.testing.assert_array_equal, found, state)
                assert found_meta == wanted, (path, damage)
        path.write_bytes(content)
    largest = max(files, key=lambda path: path.stat().st_size)
    assert {largest, tmp_path / "checkpoints" / "3" / "meta" / "metadata"} <= noticed


def test_parameters_that_are_not_those_saved_are_not_loaded(checkpoints, tmp_path, monkeypatch):
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", lambda *args: {"layers": {"kernel": np.float32(4)}})
    with pytest.raises(DamagedCheckpointError, match=r"checkpoints/3/params is not what was saved: layers/kernel"):
        checkpoint.load_params(f"run:{tmp_path}")


def test_a_checkpoint_without_checksums_is_restored(checkpoints, tmp_path):
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    path = tmp_path / "checkpoints" / "3" / "meta" / "metadata"
    old = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("checksums", "digest")}
    path.write_text(json.dumps(old))
    state, _ = checkpoints.restore(3, abstract_of(make_state(0)))
    jax.tree.map(np.testing.assert_array_equal, state, make_state(3))


def test_a_changed_meta_is_not_believed(checkpoints, tmp_path):
    checkpoints.save(3, make_state(3), meta(1.5))
    checkpoints.wait()
    path = tmp_path / "checkpoints" / "3" / "meta" / "metadata"
    path.write_text(path.read_text().replace("1.5", "1.1"))
    with pytest.raises(DamagedCheckpointError, match=r"3/meta/metadata is not what was saved; .*--fall_back"):
        checkpoints.read_meta(3)
    Checkpoints(tmp_path, max_to_keep=2).close()  # the runs after it begin all the same


def test_a_step_that_was_set_aside_does_not_count_and_may_be_saved_again(checkpoints, tmp_path):
    for step in (2, 3):
        checkpoints.save(step, make_state(step), meta())
    checkpoints.wait()
    assert checkpoints.step_before(3) == 2
    assert checkpoints.set_aside(3).name == "3.damaged"
    assert checkpoints.set_aside(3) is None  # as another process finds it
    assert checkpoints.latest_step() == 2
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    assert committed_steps(tmp_path) == [2, 3]


@pytest.mark.parametrize("disk", DISKS)
def test_a_disk_that_takes_nothing_is_told_and_what_it_began_never_counts(tmp_path, disk):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    checkpoints.save(1, make_state(1), meta())
    checkpoints.wait()
    with DISKS[disk](tmp_path / "checkpoints"):
        checkpoints.save(2, make_state(2), meta())
        while (message := checkpoints.failure()) is None:
            pass
    assert {"full": "File too large", "read-only": "Permission denied"}[disk] in message
    assert checkpoints.latest_step() == 1
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    assert committed_steps(tmp_path) == [1, 3]
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    checkpoints.save(4, make_state(4), meta())  # waits for the cleaning
    checkpoints.wait()
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]


def test_a_checkpoint_of_another_model_is_not_taken_for_damaged(checkpoints):
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    other = dataclasses.replace(make_state(0), params={"layers": {"bias": jnp.zeros(2)}})
    with pytest.raises(CheckpointError, match="params lacks layers/bias; params has besides layers/kernel;") as raised:
        checkpoints.restore(3, abstract_of(other))
    assert not isinstance(raised.value, DamagedCheckpointError)
    wider = dataclasses.replace(make_state(0), params={"layers": {"kernel": jnp.zeros((4, 3))}})
    with pytest.raises(CheckpointError, match="it is of another model") as raised:
        checkpoints.restore(3, abstract_of(wider))
    assert not isinstance(raised.value, DamagedCheckpointError)


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(checkpoints, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    for broken, method in ((ocp.CheckpointManager, "restore"), (type(epath.Path(tmp_path)), "read_text")):
        with monkeypatch.context() as patch:
            patch.setattr(broken, method, refuse)
            with pytest.raises(CheckpointError, match=r"3.* cannot be re.*Permission.*then try again") as raised:
                checkpoints.restore(3, abstract_of(make_state(0)))
        assert not isinstance(raised.value, DamagedCheckpointError)
    (tmp_path / "checkpoints" / "3" / "meta" / "metadata").unlink()
    with pytest.raises(DamagedCheckpointError):
        checkpoints.read_meta(3)


def test_one_of_several_processes_ends_with_the_first_failure(checkpoints, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(CheckpointError, match=r"a checkpoint was not written .*No space left.* free some space"):
        checkpoints.save(1, make_state(1), meta())


def test_too_little_memory_is_not_taken_for_damage(checkpoints, monkeypatch):
    def restore(*args, **kwargs):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")

    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    monkeypatch.setattr(ocp.CheckpointManager, "restore", restore)
    with pytest.raises(CheckpointError, match="the devices have too little memory") as raised:
        checkpoints.restore(3, abstract_of(make_state(0)))
    assert "damaged" not in str(raised.value)


def test_parameters_alone_are_not_resumed_from(checkpoints, tmp_path):
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    shutil.rmtree(tmp_path / "checkpoints" / "3" / "train_state")
    with pytest.raises(ValueError, match=r"parameters only.*--config\.init_from=run:"):
        checkpoints.latest_step()
    assert checkpoint.load_params(f"run:{tmp_path}").keys() == {"layers"}


def test_another_format_is_refused(checkpoints, tmp_path):
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    path = tmp_path / "checkpoints" / "3" / "meta" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="format version 99, this code reads 1"):
        checkpoints.restore(3, abstract_of(make_state(0)))


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("runs/demo", ValueError, "use run:DIR"),
        ("hf:owner/name", ValueError, "use run:DIR"),
        ("run:", ValueError, "use run:DIR"),
        ("run:{path}/none", FileNotFoundError, "has no checkpoint"),
        ("run:{path}@4", FileNotFoundError, r"use @best or one of \[3\]"),
        ("run:{path}@best", FileNotFoundError, "no checkpoint of the run was evaluated"),
    ],
)
def test_a_wrong_address_says_what_there_is(checkpoints, tmp_path, address, error, text):
    checkpoints.save(3, make_state(3), meta())
    checkpoints.wait()
    with pytest.raises(error, match=text):
        resolve(address.format(path=tmp_path))
