"""The same numbers on one device and on eight; `XLA_FLAGS=--xla_force_host_platform_device_count=8` fakes them."""

import jax
import numpy as np
import pytest

from bert_jax.input.placement import place_batch
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.mesh import MeshConfig
from bert_jax.training.step import split_rows
from tests.training.tiny import assert_trees_equal, host_batch, largest_difference, make_parts

pytestmark = pytest.mark.multidevice
MODEL = {"dropout": 0.2, "vocab_size": 64, "num_attention_heads": 4}
MESHES = [MeshConfig(8, 1, 1), MeshConfig(1, 8, 1), MeshConfig(2, 2, 2)]


def parts_on(mesh=None):
    return make_parts(mesh, devices=jax.devices() if mesh else None, **MODEL)


def train(parts, steps=3, microbatches=1):
    step, state, losses = parts.step(microbatches), parts.state(), []
    for number in range(steps):
        state, metrics = step(state, place_batch(host_batch(number), parts.mesh), parts.hyper)
        losses.append(float(metrics["loss"][0]))
    return state, losses


@pytest.fixture(scope="module")
def one_device():
    return train(parts_on())


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: f"{mesh.data}x{mesh.fsdp}x{mesh.tensor}")
def test_eight_devices_have_the_loss_of_one_with_dropout(mesh, one_device):
    parts = parts_on(mesh)
    state, losses = train(parts)
    np.testing.assert_allclose(losses, one_device[1], atol=1e-5)
    assert largest_difference(state.params, one_device[0].params) <= 1e-5
    words = state.params["embeddings"]["word_embeddings"]
    shard = (64 // mesh.tensor, 16 // mesh.fsdp)
    assert words.addressable_shards[0].data.shape == shard
    assert state.opt_state.mu["embeddings"]["word_embeddings"].sharding == words.sharding


def test_microbatches_are_the_same_on_any_number_of_devices_and_move_no_rows():
    _, expected = train(parts_on(), steps=1, microbatches=2)
    parts = parts_on(MeshConfig(4, 1, 2))
    _, losses = train(parts, steps=1, microbatches=2)
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    rows = jax.ShapeDtypeStruct((8, 12), np.int32, sharding=place_batch(host_batch(), parts.mesh)["input_ids"].sharding)
    program = str(jax.jit(lambda rows: split_rows(rows, 2)).lower(rows).compile().as_text())
    assert not any(word in program for word in ("all-to-all", "all-gather", "collective-permute"))


def test_a_checkpoint_comes_back_on_another_mesh(tmp_path, one_device):
    checkpoints = Checkpoints(tmp_path, max_to_keep=1)
    parts = parts_on(MeshConfig(1, 2, 4))
    state = parts.state()
    checkpoints.save(1, state, {})
    checkpoints.wait()
    other = parts_on(MeshConfig(4, 2, 1))
    restored, _ = checkpoints.restore(1, other.abstract)
    checkpoints.close()
    assert_trees_equal(restored, state)
    words = restored.params["embeddings"]["word_embeddings"]
    assert words.addressable_shards[0].data.shape == (64, 8)


def test_a_vocabulary_that_the_mesh_does_not_divide_stays_whole():
    parts = make_parts(MeshConfig(1, 1, 8), devices=jax.devices(), vocab_size=61)
    assert parts.abstract.params["embeddings"]["word_embeddings"].sharding.is_fully_replicated
