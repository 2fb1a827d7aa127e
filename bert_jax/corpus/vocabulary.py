"""WordPiece: text to the ids that BERT's vocabularies mean, and vocabularies trained on a corpus.

Source: google-research/bert `tokenization.py` (BasicTokenizer, WordpieceTokenizer): clean, set ideographs apart, split
on whitespace, lower and strip accents, split punctuation off, then the greedy longest match from the left. The greedy
match is the `tokenizers` library's; what stands before it is written here because the library's normalizer differs
(it drops private-use and unassigned characters, and lowers a final sigma otherwise).
Differs: nothing that changes an id. No token is protected, as in Google's code: the text "[MASK]" is three pieces or
more. A cache of whole words stands in front and never changes a result.
"""

import dataclasses
import json
import os
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from etils import epath
from jaxtyping import Bool, Int32, Int64
from tokenizers.models import WordPiece as GreedyMatch

from bert_jax.corpus.word_cache import WordCache

VOCAB_FILE, SETTINGS_FILE = "vocab.txt", "settings.json"
SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}

_CHUNK_CHARACTERS = 1 << 18  # of text encoded at once: its arrays stay in the processor's cache
_LONG_CHUNK = 1 << 12  # characters from which on arrays beat lists of words
_SIGMA = "\u03a3"

_ASCII_PARTS = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
# tokenization.py's _is_chinese_char: ideographs, neither Hangul nor kana; first and last code points, ascending.
_IDEOGRAPHS = (
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F)),
)
_IDEOGRAPH = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _IDEOGRAPHS) + "]")
# str.split() splits at these control characters; Google's cleaning drops them, which joins their neighbours.
_DROPPED_SPACES = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"
_DROP_SPACES = dict.fromkeys(map(ord, _DROPPED_SPACES))


@dataclasses.dataclass(frozen=True)
class TokenizedDocuments:
    """Documents as flat arrays: document d is sentences `document_offsets[d]` up to `document_offsets[d + 1]`,
    sentence s is tokens `sentence_offsets[s]` up to `sentence_offsets[s + 1]`. No sentence is empty; documents may be.

    Attributes:
        input_ids: int32 [tokens].
        word_starts: bool [tokens]; False for `##` pieces, which continue the word before them.
        sentence_offsets: int64 [sentences + 1], in tokens.
        document_offsets: int64 [documents + 1], in sentences.
    """  # noqa: D205

    input_ids: Int32[np.ndarray, " tokens"]
    word_starts: Bool[np.ndarray, " tokens"]
    sentence_offsets: Int64[np.ndarray, " sentences_and_end"]
    document_offsets: Int64[np.ndarray, " documents_and_end"]


@dataclasses.dataclass(frozen=True)
class TokenStatistics:
    """How well a vocabulary fits a text; statistics of parts add up.

    Attributes:
        num_words: words and punctuation marks, as WordPiece sees them.
        num_pieces: tokens.
        num_unknown: [UNK] tokens, each of them a whole word.
    """

    num_words: int = 0
    num_pieces: int = 0
    num_unknown: int = 0

    @property
    def unknown_rate(self) -> float:
        """The share of words that became [UNK]; 0 without words."""
        return self.num_unknown / max(self.num_words, 1)

    @property
    def pieces_per_word(self) -> float:
        """Tokens a word; 0 without words."""
        return self.num_pieces / max(self.num_words, 1)

    def __add__(self, other: "TokenStatistics") -> "TokenStatistics":
        return TokenStatistics(
            self.num_words + other.num_words, self.num_pieces + other.num_pieces, self.num_unknown + other.num_unknown
        )


@dataclasses.dataclass(frozen=True)
class WordPieceSettings:
    """What `settings.json` says beside `vocab.txt`.

    Attributes:
        do_lower_case: lower the text (uncased and Chinese vocabularies).
        strip_accents: drop combining marks after canonical decomposition; Google does so exactly when it lowers.
        tokenize_chinese_chars: every ideograph is a word of its own.
        max_input_chars_per_word: longer words become [UNK]; 200 in Google's code, 100 in Hugging Face's.
        kind: the kind of vocabulary, for readers of the file.
    """

    do_lower_case: bool = True
    strip_accents: bool = True
    tokenize_chinese_chars: bool = True
    max_input_chars_per_word: int = 200
    kind: str = "wordpiece"

    def __post_init__(self) -> None:
        """Refuse settings of another kind of vocabulary."""
        if self.kind != "wordpiece":
            raise ValueError(f"the tokenizer's kind is {self.kind!r}; this reads 'wordpiece'")
        if self.max_input_chars_per_word < 1:
            raise ValueError(f"max_input_chars_per_word is {self.max_input_chars_per_word}; it must be 1 or more")


class WordPiece:
    """A WordPiece vocabulary with its settings. Use one instance a thread: encoding fills its cache.

    Attributes:
        vocab: the pieces, in the order of their ids.
        settings: how text is cleaned and split.
        special_ids: the ids of `pad`, `unk`, `cls`, `sep` and `mask`.
        is_continuation: bool [vocab_size], True for `##` pieces.
    """

    def __init__(self, vocab: Sequence[str], settings: WordPieceSettings | None = None) -> None:
        """Build from pieces; of a piece that occurs twice the last id counts, as in Google's loader.

        Raises:
            ValueError: a special token is missing.
        """
        self.vocab = list(vocab)
        self.settings = settings or WordPieceSettings()
        self._id_of = {piece: index for index, piece in enumerate(self.vocab)}
        missing = [token for token in SPECIAL_TOKENS.values() if token not in self._id_of]
        if missing:
            raise ValueError(
                f"the vocabulary of {len(self.vocab)} pieces lacks {', '.join(missing)}; a WordPiece vocabulary has "
                f"one piece a line, among them {', '.join(SPECIAL_TOKENS.values())}"
            )
        self.special_ids = {name: self._id_of[token] for name, token in SPECIAL_TOKENS.items()}
        self.is_continuation = np.array([piece.startswith("##") for piece in self.vocab])
        self._greedy = GreedyMatch(
            self._id_of, unk_token="[UNK]", max_input_chars_per_word=self.settings.max_input_chars_per_word
        )
        self._cache = WordCache(self.split_word, self.match_pieces)

    def __reduce__(self) -> tuple[type["WordPiece"], tuple[list[str], WordPieceSettings]]:
        return WordPiece, (self.vocab, self.settings)  # a worker process starts with an empty cache

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "WordPiece":
        """Read `vocab.txt` and `settings.json` of a `tokenizer/` directory.

        Raises:
            FileNotFoundError: one of the files is missing.
            ValueError: unknown settings or a vocabulary without the special tokens.
        """
        path = epath.Path(directory) / SETTINGS_FILE
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist: a tokenizer directory holds {VOCAB_FILE} and {SETTINGS_FILE}; "
                "prepare the corpus, or make one with WordPiece.from_vocab_file(...).save(...)"
            )
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(WordPieceSettings)}
        if values.keys() - known:
            raise ValueError(
                f"{path} has unknown settings {sorted(values.keys() - known)}; accepted: {', '.join(sorted(known))}"
            )
        return cls(_read_vocab(epath.Path(directory) / VOCAB_FILE), WordPieceSettings(**values))

    @classmethod
    def from_vocab_file(cls, path: str | os.PathLike[str], do_lower_case: bool | None = None) -> "WordPiece":
        """Read a released `vocab.txt`.

        Args:
            path: UTF-8, one piece a line; the id is the line number from 0.
            do_lower_case: True for uncased and Chinese vocabularies, False for cased ones. None takes the settings.json
                beside the file, as in the tokenizer/ of a corpus or a run, or else decides from the pieces: a
                vocabulary in which under 1 % of the pieces have an ASCII capital is uncased.
        """
        file = epath.Path(path)
        if do_lower_case is None and file.name == VOCAB_FILE and file.with_name(SETTINGS_FILE).exists():
            return cls.load(file.parent)
        vocab = _read_vocab(file)
        if do_lower_case is None:
            specials = re.compile(r"\[[A-Z]+\]")
            capitals = sum(1 for piece in vocab if re.search("[A-Z]", piece) and not specials.fullmatch(piece))
            do_lower_case = capitals < 0.01 * len(vocab)
        return cls(vocab, WordPieceSettings(do_lower_case=do_lower_case, strip_accents=do_lower_case))

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `vocab.txt` and `settings.json`; the directory is made."""
        path = epath.Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        (path / VOCAB_FILE).write_bytes("".join(f"{piece}\n" for piece in self.vocab).encode())
        (path / SETTINGS_FILE).write_text(
            json.dumps(dataclasses.asdict(self.settings), indent=2) + "\n", encoding="utf-8"
        )

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return len(self.vocab)

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """Return the ids of a text, without [CLS] and [SEP]."""
        return self._encode_sentences([text])[0]

    def encode_words(self, text: str) -> tuple[Int32[np.ndarray, " tokens"], Bool[np.ndarray, " tokens"]]:
        """Return the ids of a text and which of them start a word."""
        ids = self.encode(text)
        return ids, ~self.is_continuation[ids]

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of every text, int32; an empty text gives an empty array."""
        ids, offsets = self._encode_sentences(texts)
        return np.split(ids, offsets[1:-1]) if texts else []

    def encode_documents(self, documents: Sequence[Sequence[str]]) -> TokenizedDocuments:
        """Encode documents of sentences; sentences without tokens are dropped, documents are all kept."""
        ids, offsets = self._encode_sentences(list(chain.from_iterable(documents)))
        document_ends = np.cumsum([0, *map(len, documents)], dtype=np.int64)
        filled = np.diff(offsets) > 0
        filled_before = np.concatenate([[0], np.cumsum(filled)])
        return TokenizedDocuments(
            input_ids=ids,
            word_starts=~self.is_continuation[ids],
            sentence_offsets=np.concatenate([offsets[:1], offsets[1:][filled]]),
            document_offsets=filled_before[document_ends],
        )

    def statistics(self, documents: TokenizedDocuments) -> TokenStatistics:
        """Count words, pieces and [UNK] of encoded documents."""
        return TokenStatistics(
            num_words=int(np.count_nonzero(documents.word_starts)),
            num_pieces=len(documents.input_ids),
            num_unknown=int(np.count_nonzero(documents.input_ids == self.special_ids["unk"])),
        )

    def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Return the pieces of ids."""
        return [self.vocab[index] for index in ids]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return readable text: pieces joined to words, words set apart by a space; [PAD], [CLS], [SEP] left out."""
        hidden = {self.special_ids[name] for name in ("pad", "cls", "sep")}
        return " ".join(self.vocab[index] for index in ids if index not in hidden).replace(" ##", "")

    def split_word(self, word: str) -> list[str]:
        """Return the words and punctuation marks of a text without whitespace, cleaned and lowered as set."""
        if word.isascii() and word.isprintable():
            return _ASCII_PARTS.findall(word.lower() if self.settings.do_lower_case else word)
        parts: list[str] = []
        for part in self._clean_words(word):
            parts += "".join(f" {c} " if _is_punctuation(c) else c for c in part).split()
        return parts

    def _clean_words(self, text: str) -> list[str]:
        """Return the words of any text before punctuation is split off."""
        text = "".join(character for character in text if not _is_dropped(character))
        if self.settings.tokenize_chinese_chars:
            text = _IDEOGRAPH.sub(r" \g<0> ", text)
        words = text.split()
        if self.settings.do_lower_case:
            words = [word.lower() for word in words]
        if self.settings.strip_accents:
            decomposed = (unicodedata.normalize("NFD", word) for word in words)
            words = ["".join(c for c in word if unicodedata.category(c) != "Mn") for word in decomposed]
        return words

    def stands_alone(self, character: str) -> bool:
        """Return whether a character is always a word of its own: punctuation, or an ideograph."""
        ideograph = self.settings.tokenize_chinese_chars and _IDEOGRAPH.fullmatch(character) is not None
        return ideograph or _is_punctuation(character)

    def match_pieces(self, part: str) -> list[int]:
        """Return the ids of one word: the greedy longest match from the left, or [UNK]."""
        whole = self._id_of.get(part)
        if whole is not None and len(part) <= self.settings.max_input_chars_per_word:
            return [whole]
        try:
            return [piece.id for piece in self._greedy.tokenize(part)]
        except UnicodeEncodeError:  # a lone surrogate: in no vocabulary
            return [self.special_ids["unk"]]

    def split_words(self, texts: Sequence[str]) -> tuple[list[str], list[int]]:
        """Split texts at whitespace and around ideographs, into words that can be encoded each by itself.

        Returns:
            The words of all texts, and for every text how many words there are up to its end.
        """
        joined = "\n".join(texts)
        if any(character in joined for character in _DROPPED_SPACES):
            texts = [text.translate(_DROP_SPACES) for text in texts]
        words: list[str] = []
        ends: list[int] = []
        for text in texts:
            if self.settings.tokenize_chinese_chars and not text.isascii():
                text = _IDEOGRAPH.sub(r" \g<0> ", text)
            words += text.split()
            ends.append(len(words))
        return words, ends

    def _encode_sentences(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return int32 ids of all texts, and int64 [texts + 1] offsets into them."""
        parts: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        for chunk in _chunks(texts, _CHUNK_CHARACTERS):
            ids, counts = self._encode_chunk(chunk)
            parts.append(ids)
            lengths.append(counts)
        empty = np.zeros(0, np.int32)
        offsets = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
        return (np.concatenate(parts) if parts else empty), offsets

    def _encode_chunk(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of the texts, int32, and the number of ids of each, int64."""
        lines = self._as_lines(texts)
        if len(lines) < _LONG_CHUNK:
            return self._cache.encode_words(*self.split_words(texts))
        if _SIGMA in lines and self.settings.do_lower_case:
            # It is lowered by what follows it, punctuation too, which will have been split off.
            lines = self._as_lines([" ".join(self._clean_words(text)) if _SIGMA in text else text for text in texts])
        data = lines.encode("utf-8", "surrogatepass").replace(b"\0", b"")
        return self._cache.encode_lines(data.lower() if self.settings.do_lower_case else data)

    def _as_lines(self, texts: Sequence[str]) -> str:
        """Return the texts, a line each."""
        lines = "\n".join(texts) + "\n"
        if lines.count("\n") != len(texts):
            lines = "".join(text.replace("\n", " ") + "\n" for text in texts)
        return _ideographs_apart(lines) if self.settings.tokenize_chinese_chars else lines


def _read_vocab(path: epath.Path) -> list[str]:
    if not path.exists():
        raise FileNotFoundError(f"the vocabulary {path} does not exist; give a vocab.txt with one piece a line")
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # not splitlines: U+2028 is a piece
    return [line.strip() for line in lines]


def _chunks(texts: Sequence[str], characters: int) -> Iterable[Sequence[str]]:
    begin = size = 0
    for end, text in enumerate(texts, 1):
        size += len(text)
        if size >= characters or end == len(texts):
            yield texts[begin:end]
            begin, size = end, 0


def _ideographs_apart(text: str) -> str:
    """Put a space on both sides of every ideograph; in arrays, because Chinese text is nothing else."""
    if text.isascii():
        return text
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    candidates = np.flatnonzero(codes >= _IDEOGRAPHS[0][0])
    bounds = np.array([(first, last + 1) for first, last in _IDEOGRAPHS], np.uint32).ravel()
    inside = np.searchsorted(bounds, codes[candidates], side="right") % 2 == 1
    found = candidates[inside]
    if not len(found):
        return text
    spaced = np.insert(codes, np.stack([found, found + 1], 1).ravel(), ord(" "))
    return spaced.tobytes().decode("utf-32-le", "surrogatepass")


def _is_dropped(character: str) -> bool:
    if character in "\t\n\r":
        return False
    return character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf")


def _is_punctuation(character: str) -> bool:
    if character.isascii():
        return character in string.punctuation
    return unicodedata.category(character).startswith("P")
