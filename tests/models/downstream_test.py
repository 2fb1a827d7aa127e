import jax
import pytest

from bert_jax.interop import name_map
from bert_jax.objectives.downstream import DownstreamObjective
from tests.models.tiny import tiny_config


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
