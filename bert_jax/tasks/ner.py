"""Named entities: words in CoNLL columns, a tag for each, entity scores as conlleval's.

Source: Devlin et al. 2018, section 5.3: cased words, the first word piece of a word is tagged, the document around a
sentence is context. Differs: several sentences of a document share a row where they leave context to each other.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.special import softmax

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks import iob
from bert_jax.tasks.conll import ConllFile, read_conll
from bert_jax.tasks.context_windows import plan_windows
from bert_jax.tasks.encode import join
from bert_jax.tasks.sentences import order_labels
from bert_jax.tasks.task import EncodedRows, HeldOut, Outputs, Task, TaskData

Item = TypeVar("Item")

NO_LABEL = -1
METRICS = ("f1", "precision", "recall", "token_accuracy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NerData(TaskData):
    """What `config.data` of named entities has.

    Attributes:
        train: file in CoNLL columns, plain or .gz.
        dev: likewise; its f1 chooses the best checkpoint.
        test: likewise; scored too. None = there is none.
        document_context: rows are filled with the same document's sentences on both sides. Of a file that does not say
            where documents begin, each sentence is a row by itself, as it is with False.
        sentences_per_row: sentences whose words a row of document context scores, at most; 0 = as many as leave a
            quarter of the row on either side to context.
        token_column: of the words, from 0; None = found (`tasks/conll.py`).
        tag_column: of the tags; None = the last, or found.
    """

    train: str
    dev: str
    test: str | None = None
    document_context: bool = True
    sentences_per_row: int = 0
    token_column: int | None = None
    tag_column: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        super().__post_init__()
        for name in ("train", "dev"):
            if not getattr(self, name):
                raise ValueError(f"config.data.{name} is empty; give a file of words and tags in columns")
        for name, lowest in (("sentences_per_row", 0), ("token_column", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"config.data.{name} is {value}; use {lowest} or more")


@dataclasses.dataclass(frozen=True)
class WordRows:
    """Rows of word pieces that score every word of some sentences once, in order.

    Attributes:
        rows: encoded, without targets.
        positions: int64 [own words] a row: where their first pieces are.
        split_sentences: sentences whose words are not all in one row.
    """

    rows: EncodedRows
    positions: Sequence[np.ndarray]
    split_sentences: int


def make_task(data: NerData, tokenizer: WordPiece, labels: tuple[str, ...] = ()) -> Task:
    """Read and encode training and held-out files.

    Labels are O, then B- and I- of the types of the training file, sorted; `labels` gives another order of these.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is malformed; the message has file and line.
    """
    paths = {"train": data.train, "dev": data.dev} | ({"test": data.test} if data.test else {})
    files = {split: read_conll(path, data.token_column, data.tag_column) for split, path in paths.items()}
    own_labels = label_names({tag[2:] for sentence in files["train"].sentences for tag in sentence.tags} - {""})
    labels = order_labels(own_labels, labels)
    words = {split: _encode_file(file, data, tokenizer) for split, file in files.items()}
    notes = [note for split, file in files.items() for note in _notes(split, file, words[split], data)]
    held_out = {}
    for split, file in files.items():
        if split == "train":
            continue
        held_out[split] = HeldOut(_with_labels(words[split], file, labels), _scorer(file, words[split], labels))
        unknown = sorted({tag[2:] for sentence in file.sentences for tag in sentence.tags if tag not in labels} - {""})
        if unknown:
            line = next(s.line for s in file.sentences if any(tag[2:] in unknown for tag in s.tags))
            notes.append(
                f"{split}: no sentence of {files['train'].path} has the type {', '.join(unknown)}, first met in the "
                f"sentence at {file.path}:{line}; such entities count as missed"
            )
    return Task(
        name="ner",
        head="tokens",
        labels=labels,
        train=_with_labels(words["train"], files["train"], labels),
        held_out=held_out,
        best_metric="f1",
        notes=tuple(notes),
        facts={split: _counts(file, words[split]) for split, file in files.items()},
    )


def label_names(types: set[str]) -> tuple[str, ...]:
    """Return O, then B- and I- of every type, sorted by type."""
    return (iob.OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(types) for prefix in "BI"))


def encode_documents(
    documents: Sequence[Sequence[Sequence[str]]],
    tokenizer: WordPiece,
    max_seq_length: int,
    sentences_per_row: int = 0,
) -> WordRows:
    """Return rows that score every word of documents of sentences of words once.

    A word is encoded by itself; one without any piece is [UNK], pieces beyond a row are cut. For sentences without
    context make each a document.
    """
    room = max_seq_length - 2
    sentences = [sentence for document in documents for sentence in document]
    encoded = tokenizer.encode_many([word for sentence in sentences for word in sentence])
    unknown = np.array([tokenizer.special_ids["unk"]], np.int32)
    pieces = [ids[:room] if len(ids) else unknown for ids in encoded]
    sizes = np.array([len(ids) for ids in pieces], np.int64)
    input_ids, segment_ids, positions = [], [], []
    first_word = split = 0
    for document in documents:
        ends = np.cumsum([len(sentence) for sentence in document])
        document_sizes = sizes[first_word : first_word + ends[-1]]
        windows = plan_windows(document_sizes, ends, room, sentences_per_row)
        for start, stop, own_start, own_stop in windows:
            ids, segments = join([np.concatenate(pieces[first_word + start : first_word + stop])], tokenizer)
            first_pieces = 1 + np.cumsum(document_sizes[start:stop]) - document_sizes[start:stop]
            input_ids.append(ids)
            segment_ids.append(segments)
            positions.append(first_pieces[own_start - start : own_stop - start])
        inside = {int(np.searchsorted(ends, w.own_stop)) for w in windows if w.own_stop not in ends}
        split += len(inside)
        first_word += int(ends[-1])
    truncated = sum(len(ids) > room for ids in encoded)  # words; a row has one at most
    return WordRows(EncodedRows(input_ids, segment_ids, truncated=truncated), positions, split)


def split_text(text: str, tokenizer: WordPiece) -> list[str]:
    """Return a plain text's words, much as CoNLL's: punctuation at a word's ends is apart, inside a word it is left."""
    words: list[str] = []
    for word in text.split():
        begin, end = 0, len(word)
        while begin < end and tokenizer.stands_alone(word[begin]):
            begin += 1
        while begin < end and tokenizer.stands_alone(word[end - 1]):
            end -= 1
        words += [*word[:begin], *filter(None, [word[begin:end]]), *word[end:]]
    return words


def predicted_tags(words: WordRows, outputs: Outputs, labels: Sequence[str]) -> list[str]:
    """Return the most probable tag of every word, in order."""
    return [str(labels[index]) for index in _word_logits(words, outputs).argmax(axis=-1)]


def predictions(
    sentences: Sequence[Sequence[str]], words: WordRows, outputs: Outputs, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what is found in each sentence, for JSON.

    Returns:
        Its words, the tag of each and the probability of that tag, and entities (type, text, words `start` up to
        `stop`).
    """
    tags = _by_sentence(predicted_tags(words, outputs, labels), sentences)
    highest = softmax(_word_logits(words, outputs), axis=-1).max(axis=-1)
    found = []
    for sentence, own, sure in zip(sentences, tags, _by_sentence(highest.tolist(), sentences), strict=True):
        spans = [
            {"type": kind, "start": start, "stop": stop, "text": " ".join(sentence[start:stop])}
            for kind, start, stop in iob.entities(own)
        ]
        found.append({"words": list(sentence), "tags": own, "probabilities": sure, "entities": spans})
    return found


def score_tags(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return precision, recall and f1 of entities as conlleval's (shares, not percent), and token_accuracy."""
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support  # slow to import

    gold, predicted = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    no_warning: Any = 0  # annotated as a text there
    scores = precision_recall_fscore_support(gold, predicted, average="micro", zero_division=no_warning)
    precision, recall, f1 = np.array(scores[:3], np.float64).tolist()
    pairs = [pair for tags in zip(gold, predicted, strict=True) for pair in zip(*tags, strict=True)]
    right = sum(expected == got for expected, got in pairs)
    accuracy = right / max(len(pairs), 1)
    return dict(zip(METRICS, (f1, precision, recall, accuracy), strict=True))


def _encode_file(file: ConllFile, data: NerData, tokenizer: WordPiece) -> WordRows:
    documents = [[sentence.words for sentence in document] for document in file.documents]
    if not (data.document_context and file.has_boundaries):
        documents = [[sentence] for document in documents for sentence in document]
    return encode_documents(documents, tokenizer, data.max_seq_length, data.sentences_per_row)


def _with_labels(words: WordRows, file: ConllFile, labels: tuple[str, ...]) -> EncodedRows:
    ids = {label: index for index, label in enumerate(labels)}
    tags = iter([ids.get(tag, NO_LABEL) for sentence in file.sentences for tag in sentence.tags])
    targets = []
    for row, positions in zip(words.rows.input_ids, words.positions, strict=True):
        target = np.full(len(row), NO_LABEL, np.int32)
        target[positions] = [next(tags) for _ in positions]
        targets.append(target)
    return dataclasses.replace(words.rows, token_targets={"label_ids": targets})


def _scorer(file: ConllFile, words: WordRows, labels: tuple[str, ...]) -> Callable[[Outputs], dict[str, float]]:
    gold = [sentence.tags for sentence in file.sentences]

    def score(outputs: Outputs) -> dict[str, float]:
        if not all(np.isfinite(logits).all() for logits in outputs["logits"]):
            return dict.fromkeys(METRICS, float("nan"))
        return score_tags(gold, _by_sentence(predicted_tags(words, outputs, labels), gold))

    return score


def _word_logits(words: WordRows, outputs: Outputs) -> np.ndarray:
    """Return what the head says at every word's first piece, float64 [words, labels]."""
    rows = zip(outputs["logits"], words.positions, strict=True)
    return np.concatenate([np.asarray(logits, np.float64)[positions] for logits, positions in rows])


def _by_sentence(of_words: list[Item], sentences: Sequence[Sequence[str]]) -> list[list[Item]]:
    ends = np.cumsum([len(sentence) for sentence in sentences])
    return [of_words[end - len(sentence) : end] for end, sentence in zip(ends, sentences, strict=True)]


def _counts(file: ConllFile, words: WordRows) -> dict[str, int]:
    return {
        "documents": len(file.documents) if file.has_boundaries else 0,
        "sentences": len(file.sentences),
        "words": sum(len(sentence.words) for sentence in file.sentences),
        "entities": sum(len(iob.entities(sentence.tags)) for sentence in file.sentences),
        "rows": len(words.rows),
        "split_sentences": words.split_sentences,
    }


def _notes(split: str, file: ConllFile, words: WordRows, data: NerData) -> list[str]:
    notes = []
    if file.converted:
        notes.append(f"{split}: {file.converted} tags of {file.path} were converted to IOB2")
    if data.document_context and not file.has_boundaries:
        notes.append(f"{split}: {file.path} does not say where documents begin; each sentence is a row by itself")
    if words.split_sentences:
        notes.append(
            f"{split}: {words.split_sentences} sentences are longer than {data.max_seq_length} tokens and were split"
        )
    if words.rows.truncated:
        notes.append(f"{split}: {words.rows.truncated} words are longer than a row and were cut")
    return notes
