import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.interop import name_map
from bert_jax.objectives.downstream import DownstreamObjective
from tests.models.tiny import tiny_batch, tiny_config


@pytest.mark.parametrize(
    ("head", "layer", "shape", "pools"),
    [
        ("sentences", "classifier", (16, 3), True),
        ("tokens", "classifier", (16, 3), False),
        ("span", "span", (16, 2), False),
        ("choices", "classifier", (16, 3), True),
    ],
)
def test_parameters_have_the_names_that_checkpoints_know(head, layer, shape, pools):
    config = tiny_config()
    params = name_map.flatten(jax.eval_shape(DownstreamObjective(config, head, 3).init, 0))
    heads = {name: leaf.shape for name, leaf in params.items() if name.startswith("heads/")}
    assert heads == {f"heads/{layer}/kernel": shape, f"heads/{layer}/bias": shape[1:]}
    assert {name.split("/")[0] for name in params} == {"embeddings", "layers", "heads"} | (
        {"pooler"} if pools else set()
    )
    known = {parameter.ours for parameter in name_map.parameters("huggingface")}
    assert params.keys() <= known


@pytest.mark.parametrize(("head", "shape"), [("sentences", (3, 3)), ("tokens", (3, 12, 3)), ("span", (3, 12, 2))])
def test_a_bilstm_stands_before_the_classifier_and_sees_no_padding(head, shape):
    objective = DownstreamObjective(tiny_config(hidden_dropout_prob=0.0), head, 3, bilstm_cells=4)
    params = objective.init(0)
    assert "pooler" not in params
    assert params["heads"]["span" if head == "span" else "classifier"]["kernel"].shape[0] == 8
    batch = tiny_batch(lengths=(12, 7, 9))
    changed = batch | {"input_ids": jnp.where(batch["input_mask"] > 0, batch["input_ids"], 9)}
    inputs = [[b[name] for name in ("input_ids", "input_mask", "segment_ids")] for b in (batch, changed)]
    logits, others = (np.asarray(objective.model.apply({"params": params}, *values)) for values in inputs)
    assert logits.shape == shape
    real = np.asarray(batch["input_mask"]) > 0 if head != "sentences" else slice(None)
    np.testing.assert_allclose(logits[real], others[real], atol=1e-6)
