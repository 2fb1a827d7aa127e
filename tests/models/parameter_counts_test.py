"""Every size is held to its exact number of parameters; nothing is allocated."""

import math

import jax
import pytest

from bert_jax.models.bert import VOCAB_SIZES, BertConfig, named_size
from bert_jax.objectives.masked_lm import MaskedLmObjective

# Encoder alone, with pooler, with both pretraining heads (decoder tied). The sums of 109,482,240, 108,310,272,
# 335,141,888 and 333,579,264 are those that others report for the released models.
UNCASED = {
    "L2-H128": (4_369_408, 4_385_920, 4_433_468),
    "L2-H256": (9_525_248, 9_591_040, 9_688_380),
    "L2-H512": (22_196_224, 22_458_880, 22_754_108),
    "L2-H768": (38_012_928, 38_603_520, 39_227_708),
    "L4-H128": (4_765_952, 4_782_464, 4_830_012),
    "L4-H256": (11_104_768, 11_170_560, 11_267_900),
    "L4-H512": (28_500_992, 28_763_648, 29_058_876),
    "L4-H768": (52_188_672, 52_779_264, 53_403_452),
    "L6-H128": (5_162_496, 5_179_008, 5_226_556),
    "L6-H256": (12_684_288, 12_750_080, 12_847_420),
    "L6-H512": (34_805_760, 35_068_416, 35_363_644),
    "L6-H768": (66_364_416, 66_955_008, 67_579_196),
    "L8-H128": (5_559_040, 5_575_552, 5_623_100),
    "L8-H256": (14_263_808, 14_329_600, 14_426_940),
    "L8-H512": (41_110_528, 41_373_184, 41_668_412),
    "L8-H768": (80_540_160, 81_130_752, 81_754_940),
    "L10-H128": (5_955_584, 5_972_096, 6_019_644),
    "L10-H256": (15_843_328, 15_909_120, 16_006_460),
    "L10-H512": (47_415_296, 47_677_952, 47_973_180),
    "L10-H768": (94_715_904, 95_306_496, 95_930_684),
    "L12-H128": (6_352_128, 6_368_640, 6_416_188),
    "L12-H256": (17_422_848, 17_488_640, 17_585_980),
    "L12-H512": (53_720_064, 53_982_720, 54_277_948),
    "L12-H768": (108_891_648, 109_482_240, 110_106_428),
    "tiny": (4_369_408, 4_385_920, 4_433_468),
    "mini": (11_104_768, 11_170_560, 11_267_900),
    "small": (28_500_992, 28_763_648, 29_058_876),
    "medium": (41_110_528, 41_373_184, 41_668_412),
    "base": (108_891_648, 109_482_240, 110_106_428),
    "large": (334_092_288, 335_141_888, 336_226_108),
}
CASED = {
    "base": (107_719_680, 108_310_272, 108_932_934),
    "large": (332_529_664, 333_579_264, 334_661_958),
}
TABLE_6 = {  # with pooler, with both heads
    "3-768-12": (45_691_392, 46_315_580),
    "6-768-3": (66_955_008, 67_579_196),
    "6-768-12": (66_955_008, 67_579_196),
    "12-768-12": (109_482_240, 110_106_428),
    "12-1024-16": (183_987_200, 185_071_420),
    "24-1024-16": (335_141_888, 336_226_108),
}


def count(name, casing, **options):
    """The parameters without the heads and the pooler, without the heads, and all."""
    config = BertConfig(vocab_size=VOCAB_SIZES[casing], **named_size(name), **options)
    params = MaskedLmObjective(config).abstract_params()
    sizes = {part: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for part, tree in params.items()}
    assert set(sizes) == {"embeddings", "layers", "pooler", "heads"}
    encoder = sizes["embeddings"] + sizes["layers"]
    return encoder, encoder + sizes["pooler"], sum(sizes.values())


@pytest.mark.parametrize("name", UNCASED)
def test_uncased_sizes(name):
    assert count(name, "uncased") == UNCASED[name]


@pytest.mark.parametrize("name", CASED)
def test_cased_sizes(name):
    assert count(name, "cased") == CASED[name]


@pytest.mark.parametrize("name", TABLE_6)
def test_table_6_sizes(name):
    assert count(name, "uncased")[1:] == TABLE_6[name]


def test_padding_the_vocabulary_adds_its_rows_and_biases():
    assert count("tiny", "uncased", vocab_size_multiple=128)[2] == UNCASED["tiny"][2] + (30_592 - 30_522) * (128 + 1)


def test_without_next_sentence_there_is_no_pooler():
    config = BertConfig(vocab_size=100, **named_size("tiny"))
    params = MaskedLmObjective(config, next_sentence=False).abstract_params()
    assert set(params) == {"embeddings", "layers", "heads"}
    assert set(params["heads"]) == {"masked_lm"}


def test_every_parameter_has_a_logical_name_for_each_axis():
    params = MaskedLmObjective(BertConfig(vocab_size=100, **named_size("tiny"))).abstract_params()
    names = {"embed", "heads", "head_dim", "mlp", "vocab", "layers", None}
    for leaf in jax.tree.leaves(params, is_leaf=lambda leaf: hasattr(leaf, "names")):
        assert len(leaf.names) == len(leaf.value.shape)
        assert set(leaf.names) <= names
        used = [name for name in leaf.names if name is not None]
        assert len(set(used)) == len(used)  # one mesh axis cannot split two axes of an array
    assert params["layers"]["attention"]["query"]["kernel"].names == ("layers", "embed", "heads", "head_dim")
