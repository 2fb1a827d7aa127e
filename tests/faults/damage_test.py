"""Files that are damaged, disks that take nothing and numbers that are none: each is named, and the run survives it.

Whole runs of either family, in this process. After each fault the run is the one that nothing disturbed, bit for bit,
and so is the order of its data.
"""

import contextlib
import shutil
import time
from typing import Any

import jax
import numpy as np
import pytest

from bert_jax.training import run as run_module
from bert_jax.training import tensorboard
from bert_jax.training.checkpoint import Checkpoints, DamagedCheckpointError, committed_steps
from bert_jax.training.metrics import MetricsFile, NonFiniteError
from bert_jax.training.run import RunOptions, run
from bert_jax.training.tensorboard import TensorBoard
from tests.faults.disks import DISKS, full_disk
from tests.faults.runs import flip_a_bit, largest_numbers, saved
from tests.training import elmo_runs, runs
from tests.training.runs import rows
from tests.training.tiny import assert_trees_equal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # orbax, of what it gave up
]
NUM_STEPS, SAVE_EVERY = 12, 4
RUN: Any = {
    "train.num_steps": NUM_STEPS,
    "train.save_every_steps": SAVE_EVERY,
    "train.log_every_steps": 2,
    "eval.every_steps": 6,
}


@pytest.fixture(scope="module", params=[runs, elmo_runs], ids=["bert", "elmo"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def corpus(family, tmp_path_factory):
    return family.make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Let all runs of the module share what they compile."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    former = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, former, strict=True):
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def uninterrupted(family, corpus, compiled, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    assert family.pretrain(corpus, workdir, **RUN) == 0
    return workdir


def assert_same_run(workdir, expected):
    assert rows(workdir) == rows(expected)
    assert_trees_equal(saved(workdir, NUM_STEPS), saved(expected, NUM_STEPS))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip_a_bit, cut])
def test_a_damaged_checkpoint_is_named_and_the_one_before_resumed_when_told_to(
    family, corpus, uninterrupted, tmp_path, damage, capsys
):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    shutil.rmtree(workdir / "checkpoints" / "12")  # as of a run that was killed before its last save
    damage(largest_numbers(workdir, 8))
    with pytest.raises(DamagedCheckpointError, match=r"(?s)checkpoints/8 .*resume from step 4 with --fall_back"):
        family.pretrain(corpus, workdir, **RUN)
    assert committed_steps(workdir) == [4, 8]  # untouched unless told to
    job = family.make_job(family.build_config(family.tiny_config(corpus, **RUN)))
    assert run(job, workdir, RunOptions(fall_back=True)) == 0
    said = capsys.readouterr().err
    assert "step 8 is damaged and was set aside as " in said
    assert "resuming after step 4" in said
    assert (workdir / "checkpoints" / "8.damaged").is_dir()
    assert committed_steps(workdir) == [4, 8, 12]
    assert_same_run(workdir, uninterrupted)


def test_the_only_checkpoint_is_never_set_aside(family, corpus, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(uninterrupted, workdir)
    for step in (4, 8):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    cut(workdir / "checkpoints" / "12" / "meta" / "metadata")
    job = family.make_job(family.build_config(family.tiny_config(corpus, **RUN)))
    with pytest.raises(DamagedCheckpointError, match=r"12/meta/metadata (cannot be read|is not what was saved)"):
        run(job, workdir, RunOptions(fall_back=True))
    assert committed_steps(workdir) == [12]


@pytest.mark.parametrize("disk", DISKS)
def test_a_save_that_fails_is_told_within_an_interval_and_not_resumed_from(
    family, corpus, uninterrupted, tmp_path, monkeypatch, disk, capsys
):
    save, after = Checkpoints.save, {}

    def save_on_a_bad_disk(self, step, state, meta):
        if step != 8:
            save(self, step, state, meta)
            return
        self._manager.wait_until_finished()
        with DISKS[disk](tmp_path / "checkpoints"):
            save(self, step, state, meta)
            while self._saving is not None and self._manager.is_saving_in_progress():
                time.sleep(0.01)
        after[step] = committed_steps(tmp_path)

    monkeypatch.setattr(Checkpoints, "save", save_on_a_bad_disk)
    assert family.pretrain(corpus, tmp_path, **RUN) == 0
    assert after == {8: [4]}
    assert committed_steps(tmp_path) == [4, 12]
    lines = capsys.readouterr().err.splitlines()
    [told] = [number for number, line in enumerate(lines) if "a checkpoint was not written" in line]
    assert "the next save tries again" in lines[told]
    assert any(line.startswith("step 10/") for line in lines[told - 1 : told + 2])  # of the save that would be after it
    assert_same_run(tmp_path, uninterrupted)


def test_a_log_that_cannot_be_written_is_told_and_loses_no_row(
    family, corpus, uninterrupted, tmp_path, monkeypatch, capsys
):
    for writer in (MetricsFile, TensorBoard):

        def write_on_a_bad_disk(self, row, write=writer.write):
            with full_disk() if row["step"] == 2 else contextlib.nullcontext():  # before the first save
                write(self, row)

        monkeypatch.setattr(writer, "write", write_on_a_bad_disk)
    monkeypatch.setattr(tensorboard, "FLUSH_SECONDS", 0.0)
    assert family.pretrain(corpus, tmp_path, **RUN) == 0
    said = capsys.readouterr().err
    assert said.count("metrics.jsonl was not written; the next row tries again: OSError") == 1
    assert said.count("TensorBoard is not written any more: OSError") == 1
    assert_same_run(tmp_path, uninterrupted)


def test_a_damaged_shard_is_named_and_with_it_whole_again_the_run_goes_on(family, corpus, uninterrupted, tmp_path):
    damaged = tmp_path / "corpus"
    shutil.copytree(corpus, damaged)
    [shard] = damaged.glob("instances/*/train-00001-of-*.array_record")
    whole = shard.read_bytes()
    damaged_shard = bytearray(whole)
    for place in (3000, 4000):  # where records are, of which these few steps read one at least
        damaged_shard[place] ^= 4
    shard.write_bytes(damaged_shard)
    with pytest.raises(ValueError, match=rf"{shard.name}, record \d+, cannot be read.*--verify"):
        family.pretrain(damaged, tmp_path / "run", **RUN)
    trained = max([row["step"] for row in rows(tmp_path / "run")], default=0)
    assert trained - max(committed_steps(tmp_path / "run"), default=0) <= SAVE_EVERY
    shard.write_bytes(whole)
    assert family.pretrain(damaged, tmp_path / "run", **RUN) == 0
    assert_same_run(tmp_path / "run", uninterrupted)


@pytest.fixture
def spoil(monkeypatch):
    """`spoil(step)` makes one weight of that step's batch, counted from 1, not a number."""

    def spoil(step):
        batches, place = iter(range(1, 1_000)), run_module.place_batch

        def spoiled(batch, mesh):
            if next(batches) == step:
                [name] = batch.keys() & {"masked_lm_weights", "target_weights"}
                batch = batch | {name: batch[name].copy()}
                batch[name].flat[0] = np.nan
            return place(batch, mesh)

        monkeypatch.setattr(run_module, "place_batch", spoiled)

    return spoil


def test_a_nan_stops_the_run_before_it_is_saved(family, corpus, uninterrupted, tmp_path, spoil, monkeypatch):
    spoil(step=7)
    with pytest.raises(NonFiniteError, match="step 7 is not finite; the last good checkpoint, step 4, is kept"):
        family.pretrain(corpus, tmp_path, **RUN)
    assert committed_steps(tmp_path) == [4]
    monkeypatch.undo()
    assert family.pretrain(corpus, tmp_path, **RUN) == 0
    assert_same_run(tmp_path, uninterrupted)


def test_a_nan_is_skipped_and_counted_when_told_to(family, corpus, tmp_path, spoil):
    spoil(step=7)
    each: Any = {"train.on_nonfinite": "skip", "train.save_every_steps": 1, "train.keep_checkpoints": NUM_STEPS}
    assert family.pretrain(corpus, tmp_path, **RUN | each) == 0
    skipped = [row["train/skipped_steps"] for row in rows(tmp_path) if "train/skipped_steps" in row]
    assert skipped == [0, 0, 0, 1, 1, 1]
    before, after = (saved(tmp_path, step) for step in (6, 7))
    before["train_state"] |= {"step": 7, "skipped_steps": 1}
    assert_trees_equal(after, before)  # an ELMo's carry too
    assert saved(tmp_path, NUM_STEPS)["train_state"]["skipped_steps"] == 1
