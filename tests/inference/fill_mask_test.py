import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.inference.fill_mask import Candidate, MaskFiller, Query, encode_query
from bert_jax.interop import huggingface, name_map
from bert_jax.interop.weights import Weights
from bert_jax.models.bert import BertConfig
from bert_jax.models.heads import BertForPreTraining
from bert_jax.objectives.masked_lm import MaskedLmObjective

WORDS = ["the", "cat", "sat", "on", "mat", "##s", ".", "dog", "ran"]
TOKENIZER = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
CONFIG = BertConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=12, vocab_size_multiple=8,
)  # fmt: skip


def random_params(objective: MaskedLmObjective):
    """Parameters of a size that makes the probabilities differ; to draw them by numpy compiles nothing."""
    rng = np.random.default_rng(0)
    shapes = meta.unbox(objective.abstract_params())
    return jax.tree.map(lambda leaf: jnp.array(rng.normal(size=leaf.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def params():
    return random_params(MaskedLmObjective(CONFIG))


@pytest.fixture(scope="module")
def filler(params):
    return MaskFiller(BertForPreTraining(CONFIG), params, TOKENIZER, top_k=TOKENIZER.vocab_size, batch_size=2)


def expected_probabilities(params, ids, segments, position):
    """The model alone on one row without padding, and softmax in numpy: [vocabulary], [2]."""
    row = jnp.array([ids])
    ones = jnp.ones_like(row)
    output: Any = jax.jit(BertForPreTraining(CONFIG).apply)(
        {"params": params},
        input_ids=row,
        input_mask=ones,
        segment_ids=jnp.array([segments]),
        position_ids=jnp.arange(len(ids))[None],
        sequence_ids=ones,
        sequence_starts=jnp.zeros((1, 1), jnp.int32),
        masked_lm_positions=jnp.array([[position]]),
    )

    def softmax(logits):
        exponentials = np.exp(np.asarray(logits, np.float64) - np.max(logits))
        return exponentials / exponentials.sum()

    return softmax(output.masked_lm_logits[0, 0, : CONFIG.vocab_size]), softmax(output.next_sentence_logits[0, 0])


def test_a_text_is_split_at_its_masks_before_the_tokenizer_sees_it():
    encoded = encode_query(Query("The [MASK] sat.[MASK]"), TOKENIZER, 12)
    tokens = TOKENIZER.tokens(encoded.input_ids.tolist())
    assert tokens == ["[CLS]", "the", "[MASK]", "sat", ".", "[MASK]", "[SEP]"]
    assert encoded.mask_positions.tolist() == [2, 5]
    assert encoded.segment_ids.tolist() == [0] * 7


def test_a_pair_has_two_segments():
    encoded = encode_query(Query("the cat", "[MASK] ran"), TOKENIZER, 12)
    assert TOKENIZER.tokens(encoded.input_ids.tolist()) == ["[CLS]", "the", "cat", "[SEP]", "[MASK]", "ran", "[SEP]"]
    assert encoded.segment_ids.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_candidates_are_the_most_probable_pieces(filler, params):
    (answer,) = filler.answers([Query("the [MASK] sat")])
    ids = encode_query(Query("the [MASK] sat"), TOKENIZER, 12).input_ids
    probabilities, _ = expected_probabilities(params, ids, [0] * 5, position=2)
    best = np.argsort(-probabilities)
    assert [candidate.token_id for candidate in answer.masks[0]] == best.tolist()
    assert [candidate.token for candidate in answer.masks[0]] == TOKENIZER.tokens(best.tolist())
    np.testing.assert_allclose([c.probability for c in answer.masks[0]], probabilities[best], atol=1e-5)
    assert answer.is_next is None


def test_is_next_is_the_first_class(filler, params):
    (answer,) = filler.answers([Query("the cat sat.", "the dog ran")])
    encoded = encode_query(answer.query, TOKENIZER, 12)
    _, is_next = expected_probabilities(params, encoded.input_ids, encoded.segment_ids, position=0)
    assert abs(is_next[0] - 0.5) > 0.05  # else the classes could be swapped unseen
    assert answer.is_next == pytest.approx(is_next[0], abs=1e-5)
    assert answer.masks == ()


def test_padding_and_company_change_nothing(filler):
    queries = [Query("[MASK]"), Query("the cat sat on the [MASK]."), Query("the [MASK]", "the dog [MASK].")]
    together = list(filler.answers(queries))  # batches of two
    assert [answer.query for answer in together] == queries
    alone = [next(iter(filler.answers([query]))) for query in queries]
    assert [len(answer.masks) for answer in together] == [1, 1, 2]
    for one, other in zip(together, alone, strict=True):
        for left, right in zip(one.masks, other.masks, strict=True):
            assert [c.token for c in left] == [c.token for c in right]
            np.testing.assert_allclose([c.probability for c in left], [c.probability for c in right], atol=1e-6)


def test_all_pieces_together_have_probability_one(filler):
    (answer,) = filler.answers([Query("the [MASK]")])
    assert sorted(c.token_id for c in answer.masks[0]) == list(range(TOKENIZER.vocab_size))
    assert sum(c.probability for c in answer.masks[0]) == pytest.approx(1.0, abs=1e-5)


def test_filled_glues_the_piece_that_continues_a_word(filler):
    (answer,) = filler.answers([Query("the cat [MASK] [MASK].", "[MASK] ran")])
    masks = [[Candidate(token, TOKENIZER.vocab.index(token), 1.0)] for token in ("##s", "sat", "dog")]
    answer = dataclasses.replace(answer, masks=tuple(map(tuple, masks)))
    assert answer.filled == "the cats sat. ||| dog ran"


def test_queries_are_read_batch_by_batch(filler):
    read = []

    def endless():
        while True:
            read.append(1)
            yield Query("[MASK]")

    answers = filler.answers(endless())
    next(answers)
    assert len(read) == 2


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            Query("the cat", origin="line 3: "),
            r"^line 3: 'the cat' has no \[MASK\]; put \[MASK\] in place of each word",
        ),
        (Query("[MASK]" + " cat" * 10), r"has 13 tokens with \[CLS\] and \[SEP\], the model takes 12; give less text"),
    ],
)
def test_what_cannot_be_answered_is_refused(filler, query, message):
    with pytest.raises(ValueError, match=message):
        list(filler.answers([query]))


def test_the_longest_text_fits(filler):
    (answer,) = filler.answers([Query("[MASK]" + " cat" * 9)])
    assert len(answer.masks) == 1


def test_a_model_without_next_sentences_fills_masks_of_pairs_only():
    params = random_params(MaskedLmObjective(CONFIG, next_sentence=False))
    filler = MaskFiller(BertForPreTraining(CONFIG, next_sentence=False), params, TOKENIZER)
    (answer,) = filler.answers([Query("the [MASK]", "the dog")])
    assert answer.is_next is None
    assert len(answer.masks) == 1
    with pytest.raises(ValueError, match="pretrained without next sentences and cannot judge a pair"):
        list(filler.answers([Query("the cat", "the dog")]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 0}, "top_k is 0; it takes 1 to 14"),
        ({"top_k": 15}, "top_k is 15; it takes 1 to 14"),
        ({"batch_size": 0}, "batch_size is 0; it takes 1 or more"),
        ({"tokenizer": WordPiece(TOKENIZER.vocab[:-1])}, "the model has 14 pieces and its tokenizer 13"),
    ],
)
def test_settings_that_make_no_sense_are_refused(filler, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(filler, **changes)


@pytest.mark.parametrize(
    ("line", "query"),
    [
        (" the [MASK] ", Query("the [MASK]")),
        ("a b ||| c", Query("a b", "c")),
        ("a|||b", Query("a", "b")),
    ],
)
def test_a_line_is_a_text_or_a_pair(line, query):
    assert Query.parse(line) == query


@pytest.mark.parametrize("line", ["a ||| b ||| c", "a |||", "||| b", ""])
def test_a_line_that_is_neither_is_refused(line):
    with pytest.raises(ValueError, match=r"line 2: .* is neither one text nor a pair"):
        Query.parse(line, origin="line 2: ")


def test_a_checkpoint_of_another_system_is_read_by_its_address(filler, params, tmp_path):
    huggingface.write(Weights(CONFIG, name_map.flatten(jax.device_get(params)), TOKENIZER), tmp_path / "mine")
    loaded = MaskFiller.load(f"hf:{tmp_path / 'mine'}", top_k=3)
    query = Query("the [MASK] sat", "the dog ran")
    (found,), (expected,) = loaded.answers([query]), filler.answers([query])
    assert [each.token for each in found.masks[0]] == [each.token for each in expected.masks[0][:3]]
    assert found.is_next == pytest.approx(expected.is_next, rel=1e-5)


def test_a_model_without_the_head_is_refused(params, tmp_path):
    encoder = {name: value for name, value in name_map.flatten(jax.device_get(params)).items() if "heads" not in name}
    huggingface.write(Weights(CONFIG, encoder, TOKENIZER), tmp_path / "mine")
    with pytest.raises(ValueError, match="no head that guesses masked words"):
        MaskFiller.load(f"hf:{tmp_path / 'mine'}")
