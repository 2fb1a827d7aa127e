"""Whole words and their ids, for language models over words: ELMo's vocabulary.

Source: allenai/bilm-tf `data.py` (Vocabulary), whose files have a word a line: `<S>`, `</S>`, `<UNK>`, then words by
falling count. The vocabulary is what a model predicts; what it reads are characters, of any word.
"""

import dataclasses
import functools
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath
from jaxtyping import Int32, Int64

from bert_jax.config import choose
from bert_jax.corpus.characters import BEGIN_TOKEN, END_TOKEN, MAX_CHARACTERS
from bert_jax.corpus.vocabulary import SETTINGS_FILE, SPECIAL_TOKENS, VOCAB_FILE, WordPiece, WordPieceSettings

UNKNOWN = "<UNK>"
MARKS = (BEGIN_TOKEN, END_TOKEN, UNKNOWN)
BEGIN_ID, END_ID, UNKNOWN_ID = range(3)
SPLITTINGS = ("basic", "whitespace")
KIND = "words"

# BERT's cased basic tokenizer: its pieces are not used, only what splits text to words.
_BASIC = WordPiece(list(SPECIAL_TOKENS.values()), WordPieceSettings(do_lower_case=False, strip_accents=False))


@dataclasses.dataclass(frozen=True)
class WordSettings:
    """What `settings.json` says beside `vocab.txt`.

    Attributes:
        splitting: how text becomes words: "basic" splits at whitespace and around punctuation, as BERT's cased
            tokenizer; "whitespace" is for text whose words are set apart already, as bilm-tf's.
        max_characters_per_token: ids of a word, its two marks included.
        kind: the kind of vocabulary, for readers of the file.
    """

    splitting: str = "basic"
    max_characters_per_token: int = MAX_CHARACTERS
    kind: str = KIND

    def __post_init__(self) -> None:
        """Refuse settings of another kind of vocabulary."""
        choose("splitting", self.splitting, SPLITTINGS)
        if self.kind != KIND:
            raise ValueError(f"the tokenizer's kind is {self.kind!r}; this reads {KIND!r}")


class WordVocabulary:
    """Words with their ids.

    Attributes:
        words: in the order of their ids, `MARKS` first.
        settings: how text becomes words.
    """

    def __init__(self, words: Sequence[str], settings: WordSettings | None = None) -> None:
        """Build from words.

        Raises:
            ValueError: the marks are not the first three.
        """
        self.words = list(words)
        self.settings = settings or WordSettings()
        if tuple(self.words[:3]) != MARKS:
            raise ValueError(
                f"the vocabulary begins with {self.words[:3]}; a vocabulary of words has one a line, the first three "
                f"are {', '.join(MARKS)}"
            )
        self._id_of = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "WordVocabulary":
        """Read `vocab.txt` and `settings.json` of a `tokenizer/` directory.

        Raises:
            FileNotFoundError: one of the files is missing.
            ValueError: another kind of vocabulary, or unknown settings.
        """
        paths = [epath.Path(directory) / name for name in (VOCAB_FILE, SETTINGS_FILE)]
        for path in paths:
            if not path.exists():
                raise FileNotFoundError(
                    f"{path} does not exist: a vocabulary of words is {VOCAB_FILE} and {SETTINGS_FILE}; "
                    "`python -m launch.prepare` with a set such as stream-20 makes one"
                )
        values = json.loads(paths[1].read_text(encoding="utf-8"))
        if values.get("kind") != KIND:
            raise ValueError(f"{paths[1]} is of kind {values.get('kind')!r}; a vocabulary of {KIND!r} is read here")
        known = {field.name for field in dataclasses.fields(WordSettings)}
        if values.keys() - known:
            raise ValueError(
                f"{paths[1]} has unknown settings {sorted(values.keys() - known)}; accepted: {', '.join(sorted(known))}"
            )
        return cls(paths[0].read_text(encoding="utf-8").removesuffix("\n").split("\n"), WordSettings(**values))

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `vocab.txt` and `settings.json`; the directory is made."""
        path = epath.Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        (path / VOCAB_FILE).write_bytes("".join(f"{word}\n" for word in self.words).encode())
        settings = json.dumps(dataclasses.asdict(self.settings), indent=2)
        (path / SETTINGS_FILE).write_text(settings + "\n", encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """The number of ids, the marks' included."""
        return len(self.words)

    def ids(self, words: Sequence[str]) -> Int32[np.ndarray, " words"]:
        """Return the ids of words, `UNKNOWN_ID` for those that are in no place of the vocabulary."""
        find = self._id_of.get
        return np.fromiter((find(word, UNKNOWN_ID) for word in words), np.int32, len(words))

    def split(self, sentence: str) -> list[str]:
        """Return a sentence's words as `settings.splitting` says."""
        return split_words(sentence, self.settings.splitting)

    def count_ids(self, counts: Counter[str], num_sentences: int) -> Int64[np.ndarray, " vocab"]:
        """Return how often each id is to be predicted in a text with these words, read forward: `</S>` ends sentences.

        Args:
            counts: of words.
            num_sentences: with one word or more.
        """
        found = np.zeros(self.vocab_size, np.int64)
        np.add.at(found, self.ids(list(counts)), np.fromiter(counts.values(), np.int64, len(counts)))
        found[END_ID] = num_sentences
        return found


def choose_words(counts: Counter[str], vocab_size: int, min_count: int) -> list[str]:
    """Return the words of a vocabulary: the marks, then the most frequent words, equal counts in the words' order.

    Args:
        counts: of the words of a text.
        vocab_size: the most words, marks included.
        min_count: a rarer word is left out.
    """
    frequent = [(-count, word) for word, count in counts.items() if count >= min_count and word not in MARKS]
    return [*MARKS, *(word for _, word in sorted(frequent)[: vocab_size - len(MARKS)])]


def split_words(sentence: str, splitting: str) -> list[str]:
    """Return a sentence's words; what a text spells as a mark of the sentence's begin or end becomes `<UNK>`."""
    if splitting == "whitespace":
        return [UNKNOWN if word in MARKS else word for word in sentence.split()]
    words: list[str] = []
    for chunk in sentence.split():
        words += _parts(chunk)  # no mark is among them: their brackets stand alone
    return words


def count_words(sentences: Iterable[str], splitting: str) -> tuple[Counter[str], int]:
    """Return how often each word occurs, and the number of sentences with a word."""
    counts: Counter[str] = Counter()
    num_sentences = 0
    for sentence in sentences:
        words = split_words(sentence, splitting)
        counts.update(words)
        num_sentences += bool(words)
    return counts, num_sentences


@functools.lru_cache(maxsize=1 << 18)
def _parts(chunk: str) -> tuple[str, ...]:
    return tuple(_BASIC.split_word(chunk))
