"""Frozen vectors of the words of sentences, one array a sentence, from any BERT or ELMo.

Source: Devlin et al. 2019 §5.3: a word's vector is that of its first piece, read with the maximal document context.
"""

import dataclasses
from typing import Any

import numpy as np

from bert_jax.config import choose
from bert_jax.inference import features
from bert_jax.inference.bert_features import BertFeatures
from bert_jax.inference.feature_rows import Notes
from bert_jax.inference.features import FeatureExtractor
from bert_jax.inference.layer_choice import LayerChoice
from bert_jax.tasks.conll import ConllFile

WORD_EMBEDDINGS = "word_embeddings"  # of config.features.layers: the table alone, without position, segment and context
_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class FeatureSource:
    """Which vectors; `config.features`.

    Attributes:
        checkpoint: address of a BERT or an ELMo.
        layers: numbers from 0, the model's input, or from -1, the last; "all"; or "word_embeddings".
        combine: "none" keeps several layers apart, whose mixture the tagger learns; "concat" puts them side by side.
        pooling: which of a word's pieces are its vector.
        document_context: whether a sentence is read with its document, where the file has documents and the model is a
            BERT.
        max_seq_length: of a BERT's rows; 0 = as long as the model takes.
        dtype: that vectors are kept in, "float32" or "float16"; 12 layers of 768 of 300,000 words are 11 GB of float32.
    """

    checkpoint: str
    layers: str = "-1"
    combine: str = "none"
    pooling: str = "first"
    document_context: bool = True
    max_seq_length: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what is no source."""
        if not self.checkpoint:
            raise ValueError("config.features.checkpoint is empty; give run:DIR, hf:DIR, google:PREFIX or elmo:DIR")
        choose("config.features.combine", self.combine, ("none", "concat"))


@dataclasses.dataclass(frozen=True)
class WordVectors:
    """A model that was opened, and what is wanted of it.

    Attributes:
        source: what is wanted.
        extractor: of the layers.
    """

    source: FeatureSource
    extractor: FeatureExtractor

    @classmethod
    def load(cls, source: FeatureSource) -> "WordVectors":
        """Open the model.

        Raises:
            ValueError, FileNotFoundError: no such checkpoint or layer.
        """
        encoder: Any = features.load(source.checkpoint, source.max_seq_length)
        layers = source.layers
        if layers == WORD_EMBEDDINGS:
            if not isinstance(encoder, BertFeatures):
                raise ValueError(f"{source.checkpoint} is an ELMo, whose layer 0 is its words by themselves: layers=0")
            encoder, layers = _without_context(encoder), "0"
        choice = LayerChoice.parse(layers, encoder.num_outputs, source.combine)
        return cls(source, FeatureExtractor(encoder, choice, source.pooling, source.dtype, _BATCH_SIZE))

    @property
    def shape(self) -> tuple[int, int]:
        """Layers of a word's vector, and their width."""
        return self.extractor.shape

    def of(self, file: ConllFile, notes: Notes) -> list[np.ndarray]:
        """Return [kept, words, width] of every sentence of a file, in order."""
        in_context = self.source.document_context and file.has_boundaries
        groups = file.documents if in_context and isinstance(self.extractor.encoder, BertFeatures) else None
        lines = groups or [(sentence,) for sentence in file.sentences]
        encode = self.extractor.encoder.encode
        encoded = (
            encode(number, [word for sentence in line for word in sentence.words], notes)
            for number, line in enumerate(lines)
        )
        vectors: list[np.ndarray] = []
        for line, found in zip(lines, self.extractor.extract(encoded), strict=True):
            whole = found.vectors if found.vectors.ndim == 3 else found.vectors[None]
            stops = np.cumsum([len(sentence.words) for sentence in line])
            vectors += np.split(whole, stops[:-1], axis=1)
        return vectors


def _without_context(encoder: BertFeatures) -> BertFeatures:
    """Return the model with nothing but words in its input: layer 0 is then the normalised row of the table."""
    weights = encoder.weights
    params = dict(weights.params)
    for name in ("position_embeddings", "token_type_embeddings"):
        params[f"embeddings/{name}"] = np.zeros_like(params[f"embeddings/{name}"])
    return dataclasses.replace(encoder, weights=dataclasses.replace(weights, params=params))
