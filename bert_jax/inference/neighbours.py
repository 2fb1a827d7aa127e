"""A word's contexts by meaning: where its vector is nearest to that of a given context.

Source: Peters et al. 2018 §5.3, Table 4 (nearest neighbours of "play" in its contexts).
Differs: the originals have no such tool; the contexts asked for may be chosen here, so that they stand for all.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.inference.feature_rows import EncodedLine, Notes
from bert_jax.inference.features import FeatureExtractor


@dataclasses.dataclass(frozen=True)
class Occurrence:
    """A word in its context.

    Attributes:
        words: of the line.
        position: of the word among them.
        line: the line's number from 1; 0 of a context that was given.
    """

    words: Sequence[str]
    position: int
    line: int

    def text(self, num_words: int = 6) -> str:
        """Return the word in brackets with up to `num_words` words on either side."""
        start, stop = max(self.position - num_words, 0), self.position + 1 + num_words
        before, after = self.words[start : self.position], self.words[self.position + 1 : stop]
        parts = ["…"] * (start > 0) + [*before, f"[{self.words[self.position]}]", *after]
        return " ".join(parts + ["…"] * (stop < len(self.words)))


class Neighbour(NamedTuple):
    """A context and the cosine of its vector with the query's."""

    occurrence: Occurrence
    similarity: float


@dataclasses.dataclass(frozen=True)
class Senses:
    """The contexts of a word.

    Attributes:
        occurrences: those in the text, then those that were given.
        vectors: float32 [occurrences, width], of length 1.
        queries: numbers of the contexts that are asked for.
        num_in_text: how many occurrences are the text's.
    """

    occurrences: Sequence[Occurrence]
    vectors: np.ndarray
    queries: Sequence[int]
    num_in_text: int

    def neighbours(self, query: int, top_k: int) -> list[Neighbour]:
        """Return the text's contexts that are nearest to an occurrence, the nearest first, itself left out."""
        similarities = self.vectors[: self.num_in_text] @ self.vectors[query]
        order = [int(number) for number in np.argsort(-similarities, kind="stable") if number != query]
        return [Neighbour(self.occurrences[number], float(similarities[number])) for number in order[:top_k]]

    def groups(self) -> np.ndarray:
        """Return for each occurrence the place of the nearest query among `queries`, int64."""
        groups = np.argmax(self.vectors @ self.vectors[list(self.queries)].T, axis=1)
        groups[list(self.queries)] = np.arange(len(self.queries))
        return groups

    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors' two principal components, [occurrences, 2], and the shares of the variance they have."""
        centred = self.vectors - self.vectors.mean(axis=0)
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        left, values = np.pad(left, ((0, 0), (0, 2)))[:, :2], np.pad(values, (0, 2))
        # A component's sign means nothing; fixed, so that the same vectors are the same picture.
        signs = np.sign(left[np.abs(left).argmax(axis=0), [0, 1]])
        return left * values[:2] * np.where(signs == 0, 1, signs), values[:2] ** 2 / max(np.sum(values**2), 1e-30)


@dataclasses.dataclass(frozen=True)
class Search:
    """How far to look.

    Attributes:
        max_contexts: of the text; those behind are not read.
        num_queries: contexts to choose where none is given.
    """

    max_contexts: int = 1000
    num_queries: int = 2

    def __post_init__(self) -> None:
        """Refuse to look for nothing."""
        for name, lowest in (("max_contexts", 2), ("num_queries", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} is {getattr(self, name)}; it takes {lowest} or more")


def find_senses(
    extractor: FeatureExtractor, lines: Iterable[tuple[int, str]], word: str, contexts: Sequence[str], search: Search
) -> Senses:
    """Return the contexts of a word in a text, with their vectors.

    Args:
        extractor: the model; its layers are to be combined, or one.
        lines: number from 1 and text of each line.
        word: as the model splits text, one word; capitals are ignored.
        contexts: texts with the word, to ask for; () chooses some of the text's.
        search: how far to look.

    Raises:
        ValueError: the word is none for the model, a context lacks it, or the text has it less than twice.
    """
    if extractor.shape[0] != 1:
        raise ValueError(f"{extractor.shape[0]} vectors a word cannot be compared; choose one layer, or combine them")
    parts = extractor.encoder.split(word)
    if len(parts) != 1:
        raise ValueError(f"{word!r} is {len(parts)} words for the model ({' '.join(parts)}); give one word")
    given = _given(extractor, contexts, parts[0])
    in_text = list(_occurrences(extractor, lines, parts[0], search.max_contexts))
    if len(in_text) < 2 - bool(given):
        raise ValueError(f"the text has {word!r} {len(in_text)} times; give a larger one, or another word")
    occurrences, found = zip(*in_text, *given, strict=True)
    vectors = np.stack(found)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    queries = range(len(in_text), len(occurrences)) if given else spread(vectors, search.num_queries)
    return Senses(occurrences, vectors, [*queries], len(in_text))


def _given(extractor: FeatureExtractor, contexts: Sequence[str], word: str) -> list[tuple[Occurrence, np.ndarray]]:
    """Return the first occurrence of the word in each context, with its vector."""
    found: dict[int, tuple[Occurrence, np.ndarray]] = {}
    for occurrence, vector in _occurrences(extractor, enumerate(contexts), word, sys.maxsize):
        found.setdefault(occurrence.line, (dataclasses.replace(occurrence, line=0), vector))
    for number, text in enumerate(contexts):
        if number not in found:
            raise ValueError(f"the context {text!r} has no {word!r}; each is a sentence with the word")
    return [found[number] for number in range(len(contexts))]


def spread(vectors: np.ndarray, count: int) -> list[int]:
    """Return numbers of vectors that stand for all: the most central one, then each time the one that brings most.

    What a vector brings is how much nearer it is to all others than those chosen before (the greedy start of PAM,
    Kaufman and Rousseeuw 1990).

    Args:
        vectors: [vectors, width], of length 1.
        count: at most so many.
    """
    similarities = vectors @ vectors.T
    best = np.full(len(vectors), -1.0, np.float32)
    chosen: list[int] = []
    for _ in range(min(count, len(vectors))):
        gains = np.maximum(similarities - best, 0.0).sum(axis=1)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        best = np.maximum(best, similarities[chosen[-1]])
    return chosen


def _occurrences(
    extractor: FeatureExtractor, lines: Iterable[tuple[int, str]], word: str, limit: int
) -> Iterator[tuple[Occurrence, np.ndarray]]:
    """Yield up to `limit` occurrences of a word with their vectors; every line with it is read once."""
    wanted, numbers = word.casefold(), []

    def with_word() -> Iterator[EncodedLine]:
        for number, text in lines:
            if wanted not in text.casefold() and text.isascii():
                continue  # splitting is what takes time
            words = extractor.encoder.split(text)
            if any(each.casefold() == wanted for each in words):
                numbers.append(number)
                yield extractor.encoder.encode(len(numbers) - 1, words, Notes())

    count = 0
    for features in extractor.extract(with_word()):
        vectors = features.vectors.reshape(-1, features.vectors.shape[-1])
        for position, each in enumerate(features.words):
            if each.casefold() == wanted:
                yield Occurrence(features.words, position, numbers[features.index]), vectors[position]
                count += 1
                if count == limit:
                    return
