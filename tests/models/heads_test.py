import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models.heads import BertForPreTraining
from tests.models.tiny import VOCAB_SIZE, model_inputs, random_params, tiny_batch, tiny_config


@pytest.fixture(scope="module")
def logits():
    model, batch = BertForPreTraining(tiny_config()), tiny_batch()
    return jax.jit(model.apply)({"params": random_params(model, batch)}, *model_inputs(model, batch))


def test_logits_are_float32_and_at_the_masked_positions(logits):
    assert logits.masked_lm_logits.shape == (3, 4, VOCAB_SIZE)
    assert logits.next_sentence_logits.shape == (3, 1, 2)
    assert logits.masked_lm_logits.dtype == logits.next_sentence_logits.dtype == jnp.float32


def test_padded_vocabulary_changes_no_logit_and_never_wins(logits):
    model, batch = BertForPreTraining(tiny_config(vocab_size_multiple=64)), tiny_batch()
    params = random_params(BertForPreTraining(tiny_config()), batch)
    # Padding rows of both signs: were they counted, one of them would win by far.
    rows = ((0, 64 - VOCAB_SIZE),)
    words = params["embeddings"]["word_embeddings"]
    padding = jnp.array([100.0, -100.0, 0.0])[:, None] * jnp.ones(words.shape[1])
    params["embeddings"]["word_embeddings"] = jnp.concatenate([words, padding])
    params["heads"]["masked_lm"]["bias"] = jnp.pad(params["heads"]["masked_lm"]["bias"], rows, constant_values=1e4)
    padded = jax.jit(model.apply)({"params": params}, *model_inputs(model, batch)).masked_lm_logits
    np.testing.assert_allclose(padded[..., :VOCAB_SIZE], logits.masked_lm_logits, rtol=1e-5, atol=1e-5)
    probabilities = np.asarray(jax.nn.softmax(padded))
    assert (probabilities[..., VOCAB_SIZE:] == 0).all()


def test_without_next_sentence_there_are_no_such_logits():
    model, batch = BertForPreTraining(tiny_config(), next_sentence=False), tiny_batch()
    shapes = jax.eval_shape(model.apply, {"params": random_params(model, batch)}, *model_inputs(model, batch))
    assert shapes.next_sentence_logits is None
