import dataclasses

import jax
import numpy as np
import pytest
from etils import epath

from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.initialize import Source, initialize, merge_params
from bert_jax.training.state import abstract_state, fresh_carry
from tests.training.tiny import assert_trees_equal, make_parts

SCRATCH = Source(init_from="", may_miss=(), tokenizer=None, seed=0, batch_size=8, data_fingerprint="f")


@pytest.fixture(scope="module")
def parts():
    return make_parts()


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", max_to_keep=1)
    yield checkpoints
    checkpoints.close()


def start(parts, checkpoints, source=SCRATCH):
    return initialize(parts.objective, parts.optimizer, parts.abstract, checkpoints, source, parts.mesh)


def test_resuming_goes_before_init_from_and_scratch(parts, checkpoints):
    state = dataclasses.replace(parts.state(seed=3), step=jax.numpy.int32(12))
    checkpoints.save(12, state, {"data_fingerprint": "f", "evaluation_pending": True})
    checkpoints.wait()
    found = start(parts, checkpoints, dataclasses.replace(SCRATCH, init_from="run:nowhere"))
    assert (found.step, found.description, found.evaluation_pending) == (12, "resuming after step 12", True)
    assert_trees_equal(found.state, state)
    with pytest.raises(ValueError, match=r"trained on other data \(fingerprint f, this one g\)"):
        start(parts, checkpoints, dataclasses.replace(SCRATCH, data_fingerprint="g"))


def test_init_from_takes_the_parameters_only(parts, checkpoints, tmp_path):
    other = Checkpoints(tmp_path / "other", max_to_keep=1)
    state = dataclasses.replace(parts.state(seed=3), step=jax.numpy.int32(12))
    other.save(12, state, {})
    other.wait()
    other.close()
    address = f"run:{tmp_path / 'other'}"
    found = start(parts, checkpoints, dataclasses.replace(SCRATCH, init_from=address))
    assert found.description == f"starting from the parameters of {address}"
    assert_trees_equal(found.state.params, state.params)
    assert (int(found.state.step), found.step, found.meta) == (0, 0, {})
    assert all(not leaf.any() for leaf in jax.tree.leaves(jax.device_get(found.state.opt_state)))


def test_init_from_must_have_the_vocabulary_of_the_data(parts, checkpoints, tmp_path):
    other = Checkpoints(tmp_path / "other", max_to_keep=1)
    other.save(12, parts.state(seed=3), {})
    other.wait()
    other.close()
    for directory, vocabulary in (("other", "[PAD]\nthe\n"), ("corpus", "[PAD]\r\nthe\r\n"), ("corpus2", "[PAD]\na\n")):
        (tmp_path / directory / "tokenizer").mkdir(parents=True)
        (tmp_path / directory / "tokenizer" / "vocab.txt").write_text(vocabulary)
    source = dataclasses.replace(SCRATCH, init_from=f"run:{tmp_path / 'other'}")
    start(parts, checkpoints, dataclasses.replace(source, tokenizer=epath.Path(tmp_path) / "corpus" / "tokenizer"))
    with pytest.raises(ValueError, match=r"trained with another vocabulary.*prepare the corpus with"):
        start(parts, checkpoints, dataclasses.replace(source, tokenizer=epath.Path(tmp_path) / "corpus2" / "tokenizer"))


def test_a_new_carry_is_the_objectives(parts, checkpoints, monkeypatch):
    monkeypatch.setattr(type(parts.objective), "init_carry", lambda self, size: {"c": jax.numpy.full((size, 2), 3.0)})
    abstract = abstract_state(parts.objective, parts.optimizer, 8, parts.mesh)
    found = initialize(parts.objective, parts.optimizer, abstract, checkpoints, SCRATCH, parts.mesh)
    np.testing.assert_array_equal(found.state.carry["c"], np.full((8, 2), 3.0))
    assert fresh_carry(parts.objective, 8, parts.mesh)["c"].sharding == found.state.carry["c"].sharding


def test_scratch_is_a_function_of_the_seed(parts, checkpoints):
    first, again = start(parts, checkpoints), start(parts, checkpoints)
    other = start(parts, checkpoints, dataclasses.replace(SCRATCH, seed=1))
    assert first.description == "starting from scratch with seed 0"
    assert_trees_equal(first.state, again.state)
    kernels = [found.state.params["embeddings"]["word_embeddings"] for found in (first, other)]
    assert not np.array_equal(*kernels)


FRESH = {"embeddings": np.zeros((4, 2)), "heads": {"bias": np.zeros(4)}}


def test_allowed_parameters_may_miss_and_extra_ones_are_named():
    loaded = {"embeddings": np.ones((4, 2)), "classifier": {"bias": np.ones(3)}}
    params, notes = merge_params(FRESH, loaded, "run:x", may_miss=("heads",))
    assert_trees_equal(params, {"embeddings": np.ones((4, 2)), "heads": {"bias": np.zeros(4)}})
    assert notes == ["  new, not in the checkpoint: heads/bias", "  in the checkpoint, not used: classifier/bias"]


def test_other_missing_parameters_and_other_shapes_are_refused_all_at_once():
    with pytest.raises(ValueError, match=r"heads/bias is missing\n  embeddings has shape \(5, 2\), the model's is"):
        merge_params(FRESH, {"embeddings": np.ones((5, 2))}, "run:x")


def test_a_start_from_numbers_that_are_not_finite_is_refused(parts, checkpoints):
    loaded = jax.tree.map(np.array, parts.objective.init(0))
    jax.tree.leaves(loaded)[0].flat[0] = np.nan
    with pytest.raises(ValueError, match="not finite in"):
        start(parts, checkpoints, dataclasses.replace(SCRATCH, init_from="run:x", params=loaded))
    unused = jax.tree.map(np.array, parts.objective.init(0)) | {"unused": np.array([np.inf])}
    start(parts, checkpoints, dataclasses.replace(SCRATCH, init_from="run:x", params=unused))
