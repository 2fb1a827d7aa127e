"""Streams of words, for language models whose state flows from window to window: ELMo's.

Source: allenai/bilm-tf `data.py` (LMDataset, BidirectionalLMDataset). A sentence of n words is n + 1 places: forward
`<S>` and the words are read, the words and `</S>` predicted; backward the sentence is reversed where it stands, `</S>`
is read first and `<S>` predicted last. The order of the sentences is the same in both directions.

    forward    <S> a b c <S> d e …     predicts   a b c </S> d e </S> …
    backward   </S> c b a </S> e d …   predicts   c b a <S> e d <S> …

A record is a window of both: the words that are read and the one behind them, which the last place predicts. Text and
not ids, because a model reads any word's characters, and these are 50 numbers a word.
Differs: documents stay in order, where bilm-tf shuffles the sentences of a file, so that state is worth something
across sentences; the few words behind a bucket's last whole window are left out.
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence

from etils import epath

from bert_jax.config import choose
from bert_jax.corpus.characters import BEGIN_TOKEN, END_TOKEN
from bert_jax.corpus.records import SCHEMA_VERSION, Shard, read_manifest_values
from bert_jax.corpus.word_vocabulary import MARKS, SPLITTINGS, split_words

KIND = "stream"  # of instance set


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """One set of windows of a corpus.

    Attributes:
        name: its directory below `instances/`, such as `stream-20`.
        words_per_window: places a window, 1 or more; bilm-tf's unroll_steps.
        vocab_size: the most words that are predicted, the three marks included.
        min_count: words that the train split has less often are not predicted.
        splitting: see `WordSettings`.
    """

    name: str
    words_per_window: int = 20
    vocab_size: int = 100_000
    min_count: int = 3
    splitting: str = "basic"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        choose("splitting", self.splitting, SPLITTINGS)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"the instance set's name is {self.name!r}; use letters, digits, '.', '-' and '_'")
        lowest = {"words_per_window": 1, "vocab_size": len(MARKS) + 1, "min_count": 1}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ValueError(f"{self.name}: {name} is {getattr(self, name)}; it takes {least} or more")


@dataclasses.dataclass(frozen=True)
class StreamManifest:
    """What `instances/<name>/manifest.json` says of a set of windows; see `InstanceManifest` for the others.

    Attributes:
        name: the set's directory name.
        words_per_window: places a window.
        vocab_size: of `tokenizer/` in the set's directory.
        seed: the corpus'; nothing here is drawn at random.
        config_fingerprint: of the corpus config that made it.
        splits: for "train" and "validation" the shards in their order.
        counts: for each split rows (windows), sequences (sentences), real_tokens (places) and documents.
    """

    name: str
    words_per_window: int
    vocab_size: int
    seed: int
    config_fingerprint: str
    splits: dict[str, tuple[Shard, ...]]
    counts: dict[str, dict[str, int]]
    schema_version: int = SCHEMA_VERSION
    kind: str = KIND

    def num_records(self, split: str) -> int:
        """Return the number of windows of a split."""
        return sum(shard.num_records for shard in self.splits[split])


def read_stream_manifest(directory: str | os.PathLike[str]) -> StreamManifest:
    """Read the manifest of a set of windows; see `records.read_manifest` for the errors."""
    return StreamManifest(**read_manifest_values(epath.Path(directory), KIND))


def read_in_order(documents: Iterable[Sequence[str]], splitting: str) -> tuple[list[str], list[str], int]:
    """Return the words that the forward and the backward direction read, place by place, and the sentences.

    Sentences without a word are no sentences.
    """
    forward: list[str] = []
    backward: list[str] = []
    num_sentences = 0
    for document in documents:
        for sentence in document:
            words = split_words(sentence, splitting)
            if words:
                forward.append(BEGIN_TOKEN)
                forward += words
                backward.append(END_TOKEN)
                backward += reversed(words)
                num_sentences += 1
    return forward, backward, num_sentences


def cut_windows(forward: Sequence[str], backward: Sequence[str], words_per_window: int) -> list[bytes]:
    """Return the records of two streams of one length, whose ends behind the last whole window are left out."""
    assert len(forward) == len(backward)
    # Behind the last sentence stands the mark that would begin the next one.
    forward, backward = [*forward, BEGIN_TOKEN], [*backward, END_TOKEN]
    records = []
    for begin in range(0, len(forward) - words_per_window, words_per_window):
        window = slice(begin, begin + words_per_window + 1)
        records.append(f"{' '.join(forward[window])}\n{' '.join(backward[window])}".encode("utf-8", "ignore"))
    return records


def decode_windows(records: Sequence[bytes], words_per_window: int) -> list[str]:
    """Return the words of records, one behind the other: each record's forward window, then its backward one.

    A window has `words_per_window` words and the one behind them.

    Raises:
        ValueError: a record has another number of words (a corrupt shard, or another set's).
    """
    words = b"\n".join(records).decode("utf-8").replace("\n", " ").split(" ") if records else []
    if len(words) != len(records) * 2 * (words_per_window + 1):
        wrong = [
            place
            for place, record in enumerate(records)
            if [line.count(b" ") for line in record.split(b"\n")] != [words_per_window] * 2
        ]
        raise ValueError(
            f"record {wrong[0]} of the batch does not hold two windows of {words_per_window} words and one; "
            "the shard is corrupt or of another instance set: prepare the corpus again"
        )
    return words
