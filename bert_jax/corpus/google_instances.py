"""Mode `google`: the instances of create_pretraining_data.py, bit for bit, static masks included.

Source: google-research/bert `create_pretraining_data.py`: one `random.Random(seed)` draws everything in sequence
(document order, pairs, masks, instance order), so this is one process, in memory, over a whole corpus.
Differs: nothing in the rows. Tokens are ids (a random replacement is any id of the vocabulary, where Google draws the
piece), and the stream is that of `randint` and `shuffle`, which Python has kept but not promised: a golden hash guards
it.
"""

import dataclasses
from itertools import pairwise
from random import Random

import numpy as np

from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.records import IS_NEXT, IS_RANDOM, Rows
from bert_jax.corpus.vocabulary import TokenizedDocuments

_Token = tuple[int, bool]  # id, and whether it starts a word
_Sentence = list[_Token]


@dataclasses.dataclass(frozen=True)
class _Instance:
    tokens: list[_Token]  # unmasked, with [CLS] and [SEP]
    input_ids: list[int]  # masked
    num_first: int  # tokens of segment 0
    masked_positions: list[int]
    label: int


def google_rows(
    documents: TokenizedDocuments,
    config: InstanceConfig,
    special_ids: dict[str, int],
    vocab_size: int,
    seed: int,
) -> Rows:
    """Return all rows of a corpus in Google's order, masked (`input_ids`), with the masked tokens beside them.

    Args:
        documents: the whole corpus, in the order of its files; documents without sentences are dropped first.
        config: a set of mode "google".
        special_ids: ids of `pad`, `cls`, `sep` and `mask`.
        vocab_size: random replacements are drawn from all ids below it.
        seed: Google's --random_seed.
    """
    assert config.mode == "google"
    rng = Random(seed)
    texts = _as_lists(documents)
    rng.shuffle(texts)
    builder = _Builder(config, special_ids, vocab_size, rng)
    instances = [
        instance
        for _ in range(config.duplicates)
        for index in range(len(texts))
        for instance in builder.instances_of_document(texts, index)
    ]
    rng.shuffle(instances)
    return _as_rows(instances, config, special_ids)


class _Builder:
    """Draws instances in the released code's order; every draw counts."""

    def __init__(self, config: InstanceConfig, special_ids: dict[str, int], vocab_size: int, rng: Random) -> None:
        self._config, self._rng, self._vocab_size = config, rng, vocab_size
        self._cls, self._sep = (special_ids["cls"], True), (special_ids["sep"], True)
        self._mask_id = special_ids["mask"]

    def instances_of_document(self, texts: list[list[_Sentence]], index: int) -> list[_Instance]:
        """Cut a document into chunks and make each a pair."""
        rng, document, max_tokens = self._rng, texts[index], self._config.max_tokens
        target = max_tokens
        if rng.random() < self._config.short_probability:
            target = rng.randint(2, max_tokens)
        instances: list[_Instance] = []
        chunk: list[_Sentence] = []
        size = position = 0
        while position < len(document):
            chunk.append(document[position])
            size += len(document[position])
            if position == len(document) - 1 or size >= target:
                a_end = rng.randint(1, len(chunk) - 1) if len(chunk) >= 2 else 1
                a = [token for sentence in chunk[:a_end] for token in sentence]
                label = IS_RANDOM if len(chunk) == 1 or rng.random() < 0.5 else IS_NEXT
                if label == IS_RANDOM:
                    b = self._random_text(texts, index, target - len(a))
                    position -= len(chunk) - a_end  # the unused sentences come again
                else:
                    b = [token for sentence in chunk[a_end:] for token in sentence]
                self._truncate_pair(a, b)
                instances.append(self._mask([self._cls, *a, self._sep], [*b, self._sep], label))
                chunk, size = [], 0
            position += 1
        return instances

    def _random_text(self, texts: list[list[_Sentence]], index: int, size: int) -> _Sentence:
        other = index
        for _ in range(10):
            other = self._rng.randint(0, len(texts) - 1)
            if other != index:
                break
        text: _Sentence = []
        for sentence in texts[other][self._rng.randint(0, len(texts[other]) - 1) :]:
            text += sentence
            if len(text) >= size:
                break
        return text

    def _truncate_pair(self, a: _Sentence, b: _Sentence) -> None:
        while len(a) + len(b) > self._config.max_tokens:
            longer = a if len(a) > len(b) else b
            del longer[0 if self._rng.random() < 0.5 else -1]

    def _mask(self, first: _Sentence, second: _Sentence, label: int) -> _Instance:
        """Mask at random; the draws are those of create_masked_lm_predictions."""
        config, rng = self._config, self._rng
        tokens = first + second
        specials = (0, len(first) - 1, len(tokens) - 1)
        units: list[list[int]] = []
        for position, (_, starts_word) in enumerate(tokens):
            if position in specials:
                continue
            if config.whole_word and units and not starts_word:
                units[-1].append(position)  # over a [SEP] too, when the truncation left a `##` piece behind it
            else:
                units.append([position])
        rng.shuffle(units)
        count = min(config.max_predictions_per_sequence, max(1, round(len(tokens) * config.masked_fraction)))
        input_ids = [token for token, _ in tokens]
        masked: list[int] = []
        for unit in units:
            if len(masked) >= count:
                break
            if len(masked) + len(unit) > count:
                continue
            for position in unit:
                if rng.random() < 0.8:
                    input_ids[position] = self._mask_id
                elif rng.random() >= 0.5:
                    input_ids[position] = rng.randint(0, self._vocab_size - 1)
                masked.append(position)
        return _Instance(tokens, input_ids, len(first), sorted(masked), label)


def _as_lists(documents: TokenizedDocuments) -> list[list[_Sentence]]:
    tokens = list(zip(documents.input_ids.tolist(), documents.word_starts.tolist(), strict=True))
    offsets, bounds = documents.sentence_offsets.tolist(), documents.document_offsets.tolist()
    return [
        [tokens[offsets[sentence] : offsets[sentence + 1]] for sentence in range(begin, end)]
        for begin, end in pairwise(bounds)
        if end > begin
    ]


def _as_rows(instances: list[_Instance], config: InstanceConfig, special_ids: dict[str, int]) -> Rows:
    count, length, predictions = len(instances), config.sequence_length, config.max_predictions_per_sequence
    rows = Rows(
        input_ids=np.full((count, length), special_ids["pad"], np.int32),
        segment_ids=np.zeros((count, length), np.int32),
        word_starts=np.zeros((count, length), bool),
        sequence_ids=np.zeros((count, length), np.int32),
        sequence_starts=np.zeros((count, 1), np.int32),
        next_sentence_labels=np.array([[instance.label] for instance in instances], np.int32).reshape(count, 1),
        masked_lm_positions=np.zeros((count, predictions), np.int32),
        masked_lm_ids=np.zeros((count, predictions), np.int32),
        num_masked=np.array([len(instance.masked_positions) for instance in instances], np.int32),
    )
    assert rows.masked_lm_positions is not None
    assert rows.masked_lm_ids is not None
    for row, instance in enumerate(instances):
        size, masked = len(instance.tokens), instance.masked_positions
        rows.input_ids[row, :size] = instance.input_ids
        rows.segment_ids[row, instance.num_first : size] = 1
        rows.word_starts[row, :size] = [starts_word for _, starts_word in instance.tokens]
        rows.sequence_ids[row, :size] = 1
        rows.masked_lm_positions[row, : len(masked)] = masked
        rows.masked_lm_ids[row, : len(masked)] = [instance.tokens[position][0] for position in masked]
    return rows
