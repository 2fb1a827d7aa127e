import jax
import pytest
from jax.sharding import PartitionSpec

from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.training.mesh import MeshConfig, make_mesh
from bert_jax.training.sharding import LOGICAL_AXES, boxed_shardings, partition_spec
from tests.models.tiny import tiny_config

MESH_SHAPE = {"data": 2, "fsdp": 2, "tensor": 4}


@pytest.mark.parametrize(
    ("names", "shape", "spec"),
    [
        (("vocab", "embed"), (64, 16), PartitionSpec(("tensor",), ("fsdp",))),
        (("layers", "embed", "mlp"), (3, 16, 64), PartitionSpec(None, ("fsdp",), ("tensor",))),
        (("batch", "length", "embed"), (8, 12, 16), PartitionSpec(("data", "fsdp"), None, None)),
        ((None, "embed"), (12, 16), PartitionSpec(None, ("fsdp",))),
    ],
)
def test_logical_axes_become_mesh_axes_each_used_once(names, shape, spec):
    undivided = []
    assert partition_spec(names, shape, MESH_SHAPE, undivided) == spec
    assert undivided == []


def test_an_axis_that_the_mesh_does_not_divide_stays_whole_and_is_told():
    undivided = []
    spec = partition_spec(("vocab", "embed"), (61, 16), MESH_SHAPE, undivided)
    assert spec == PartitionSpec(None, ("fsdp",))
    assert undivided == ["axis vocab of size 61 stays whole: tensor = 4 does not divide it"]


def test_the_table_is_short_and_knows_every_axis_that_the_model_names():
    assert len(LOGICAL_AXES) <= 12
    objective = MaskedLmObjective(tiny_config())
    shardings = boxed_shardings(objective.abstract_params(), make_mesh(MeshConfig(data=1)))
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(shardings))
