"""Our BERT against Hugging Face's: outputs, gradients and the first 50 losses, from a small golden file.

`make_torch_golden.py` makes the file with PyTorch. Tests marked `parity` make it again, with the Python that the
environment variable BERT_JAX_TORCH_PYTHON names, and compare; all others need no PyTorch.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import build
from bert_jax.interop import name_map
from bert_jax.models.bert import Bert, BertConfig
from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.training.optimizers import OptimizerConfig, make_optimizer
from bert_jax.training.state import Hyper, make_state
from bert_jax.training.step import make_train_step
from tests.models.tiny import model_inputs, to_device
from tests.parity import tiny_bert

DIRECTORY = Path(__file__).parent
GOLDEN = DIRECTORY / "golden" / "bert_pretraining.npz"
CONFIG = build(BertConfig, tiny_bert.SIZES | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
OBJECTIVE = MaskedLmObjective(CONFIG)


def our_tree(theirs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Turn a dict of Hugging Face's parameters (or of their gradients) into a tree like our parameters."""
    flat, report = name_map.to_ours(theirs, "huggingface", CONFIG)
    assert (report.missing, report.extra) == ((), ())
    return jax.tree.map(jnp.asarray, name_map.nest(flat))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def params():
    return our_tree(tiny_bert.weights())


def test_hidden_states_equal_hugging_faces(golden, params):
    batch = to_device(tiny_bert.batch(0))
    encoder = Bert(CONFIG, keep_hidden=True)
    output: Any = jax.jit(encoder.apply)({"params": params}, *model_inputs(encoder, batch))
    real = np.asarray(batch["input_mask"]) > 0  # padding: theirs counts positions on, ours has position 0
    np.testing.assert_allclose(output.all_hidden[:, real], golden["all_hidden"][:, real], atol=1e-5)


def test_logits_loss_and_gradient_equal_hugging_faces(golden, params):
    batch = to_device(tiny_bert.batch(0))
    model = OBJECTIVE.model

    @jax.jit
    def run(params):
        logits = model.apply({"params": params}, *model_inputs(model, batch))

        def loss(params):
            return OBJECTIVE.loss(params, {}, batch, OBJECTIVE.normalizers(batch), None)[0]

        return logits, *jax.value_and_grad(loss)(params)

    logits, loss, gradient = run(params)
    np.testing.assert_allclose(logits.masked_lm_logits, golden["masked_lm_logits"], atol=1e-5)
    np.testing.assert_allclose(logits.next_sentence_logits[:, 0], golden["next_sentence_logits"], atol=1e-5)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)
    expected = our_tree(
        {name.removeprefix("gradient/"): values for name, values in golden.items() if name.startswith("gradient/")}
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient, expected)


def test_first_50_losses_equal_a_torch_run(golden, params):
    values = dict(tiny_bert.OPTIMIZER)
    hyper = Hyper(
        peak_learning_rate=jnp.float32(values.pop("peak_learning_rate")),
        warmup_steps=jnp.int32(values.pop("warmup_steps")),
        total_steps=jnp.int32(values.pop("total_steps")),
        weight_decay=jnp.float32(values.pop("weight_decay")),
        seed=jnp.uint32(0),
    )
    optimizer = make_optimizer(OptimizerConfig(name="adamw_bert", **values))
    step = jax.jit(make_train_step(OBJECTIVE, optimizer))
    state, losses = make_state(params, optimizer, {}), []
    for number in range(tiny_bert.NUM_STEPS):
        state, metrics = step(state, to_device(tiny_bert.batch(number % tiny_bert.NUM_BATCHES)), hyper)
        losses.append(float(metrics["loss"][0]))
    assert golden["losses"][-1] < 0.1 * golden["losses"][0]  # the run learns: equal losses say something
    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-4)  # 1e-6 was measured


@pytest.mark.parity
def test_torch_makes_the_golden_file_again(golden, tmp_path):
    python = os.environ.get("BERT_JAX_TORCH_PYTHON")
    if not python:
        pytest.skip("BERT_JAX_TORCH_PYTHON does not name a Python that has torch and transformers")
    output = tmp_path / "again.npz"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, DIRECTORY / "make_torch_golden.py", output], check=True, env=environment)
    with np.load(output) as again:
        assert set(again) == set(golden)
        for name in golden:
            np.testing.assert_allclose(again[name], golden[name], rtol=1e-6, atol=1e-7, err_msg=name)
