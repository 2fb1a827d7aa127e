import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.models.tagger import TaggerConfig
from bert_jax.objectives.tagging import TaggingObjective, word_mask
from bert_jax.training.state import Objective

OBJECTIVE = TaggingObjective(TaggerConfig(cells=4, layers=1, dropout=0.0), outputs=3, kept=2, features=5)


def batch(rows=4, words=6):
    rng = np.random.default_rng(0)
    lengths = np.array([6, 3, 5, 0][:rows], np.int32)
    labels = rng.integers(0, 3, (rows, words)).astype(np.int32)
    labels[np.arange(words)[None] >= lengths[:, None]] = -1
    return {
        "vectors": jnp.asarray(rng.normal(size=(rows, 2, words, 5)), jnp.float32),
        "label_ids": jnp.asarray(labels),
        "lengths": jnp.asarray(lengths),
    }


def test_it_is_an_objective():
    assert isinstance(OBJECTIVE, Objective)
    assert jax.tree.structure(OBJECTIVE.init(0)) == jax.tree.structure(OBJECTIVE.abstract_params())


def test_shares_of_microbatches_add_up_to_the_loss():
    params, whole = OBJECTIVE.init(0), batch()
    normalizers = OBJECTIVE.normalizers(whole)
    loss, metrics, _ = OBJECTIVE.loss(params, {}, whole, normalizers, None)
    halves = [jax.tree.map(lambda leaf, rows=rows: leaf[rows], whole) for rows in (slice(0, 2), slice(2, 4))]
    shares = [OBJECTIVE.loss(params, {}, half, normalizers, None)[0] for half in halves]
    np.testing.assert_allclose(sum(shares), loss, rtol=1e-5)
    total, count = metrics["task_loss"]
    assert count == 14
    np.testing.assert_allclose(total / count, loss, rtol=1e-6)


def test_padding_changes_nothing():
    params, short = OBJECTIVE.init(0), batch()
    longer = {
        "vectors": jnp.pad(short["vectors"], ((0, 0), (0, 0), (0, 3), (0, 0)), constant_values=7.0),
        "label_ids": jnp.pad(short["label_ids"], ((0, 0), (0, 3)), constant_values=-1),
        "lengths": short["lengths"],
    }
    losses = [OBJECTIVE.loss(params, {}, b, OBJECTIVE.normalizers(b), None)[0] for b in (short, longer)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_words_are_marked_up_to_each_rows_length():
    assert word_mask(jnp.asarray([2, 0]), 3).tolist() == [[1, 1, 0], [0, 0, 0]]
