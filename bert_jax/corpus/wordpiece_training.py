"""A WordPiece vocabulary trained on text: the same text gives the same `vocab.txt`, always.

Source: pieces are merged by how often they meet (byte-pair encoding over characters, `tokenizers`' trainer); Google's
own trainer was never released. The special tokens stand where Google's vocabularies have them.
Differs from `tokenizers`' WordPieceTrainer: that one numbers `##` characters in the order of a randomly seeded hash
table, and ties between merges are broken by these numbers. Here a character inside a word is a code point of its own
before the library sees it, so every number is by code point and the result depends on the counts alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

from bert_jax.corpus.vocabulary import SPECIAL_TOKENS, WordPiece, WordPieceSettings

MAX_ALPHABET = 1000  # characters; the rarer ones become [UNK]
_MAX_OCCURRENCES = 1 << 25  # fed to the trainer; larger counts are scaled down to it
_MAX_COUNTED_WORDS = 1 << 20  # distinct words held while counting
_FIRST, _INSIDE = 0x100000, 0xF0000  # private planes: the n-th character at a word's start, and inside a word


def train_wordpiece(
    texts: Iterable[str],
    vocab_size: int,
    do_lower_case: bool = True,
    num_unused: int = 99,
    max_alphabet: int = MAX_ALPHABET,
) -> WordPiece:
    """Train a vocabulary.

    Args:
        texts: lines or documents, in an order that is the same each time.
        vocab_size: pieces with the special ones; met exactly.
        do_lower_case: lower the text and strip accents (uncased).
        num_unused: [unusedN] pieces between [PAD] and [UNK]; 99 gives the special tokens the ids that Google's have.
        max_alphabet: characters kept at most, the most frequent ones, and no more than a third of the pieces.

    Raises:
        ValueError: the text has too few different pieces for vocab_size, or vocab_size no room for the characters.
    """
    settings = WordPieceSettings(do_lower_case=do_lower_case, strip_accents=do_lower_case)
    specials = [
        SPECIAL_TOKENS["pad"],
        *(f"[unused{number}]" for number in range(num_unused)),
        *(SPECIAL_TOKENS[name] for name in ("unk", "cls", "sep", "mask")),
    ]
    splitter = WordPiece(specials, settings)
    counts = _count_words(texts, splitter)
    room = vocab_size - len(specials)
    alphabet = _alphabet(counts, max(min(max_alphabet, room // 3), 1))
    index = {character: number for number, character in enumerate(alphabet)}
    forms = [chr(_FIRST + number) for number in range(len(alphabet))]
    forms += [
        chr(_INSIDE + number) for number, character in enumerate(alphabet) if not splitter.stands_alone(character)
    ]
    if len(forms) > room:
        raise ValueError(
            f"vocab_size {vocab_size} has no room for {len(specials)} special pieces and {len(forms)} characters; "
            f"ask for at least {len(specials) + len(forms)}, or for fewer unused pieces or characters"
        )
    pieces = _merge(_private_words(counts, index), forms, room)
    vocab = specials + [_public_piece(piece, alphabet) for piece in pieces]
    if len(vocab) != vocab_size:
        raise ValueError(
            f"the text has pieces for a vocabulary of {len(vocab)}, not {vocab_size}; "
            f"use vocab_size={len(vocab)} or less, or give more text"
        )
    return WordPiece(vocab, settings)


def _count_words(texts: Iterable[str], splitter: WordPiece) -> dict[str, int]:
    """Count words as WordPiece sees them, in bounded memory: beyond a million, words seen once are forgotten."""
    counts: Counter[str] = Counter()
    raw: Counter[str] = Counter()

    def settle() -> None:
        for word, count in raw.items():
            for part in splitter.split_word(word):
                counts[part] += count
        raw.clear()
        if len(counts) > _MAX_COUNTED_WORDS:
            for word in [word for word, count in counts.items() if count == 1]:
                del counts[word]

    for text in texts:
        raw.update(splitter.split_words([text])[0])
        if len(raw) > _MAX_COUNTED_WORDS:
            settle()
    settle()
    longest = splitter.settings.max_input_chars_per_word
    total = sum(counts.values())
    if total > _MAX_OCCURRENCES:
        counts = Counter({word: count * _MAX_OCCURRENCES // total for word, count in counts.items()})
    return {word: counts[word] for word in counts if counts[word] > 0 and len(word) <= longest}


def _alphabet(counts: dict[str, int], size: int) -> list[str]:
    """Return the most frequent characters, sorted by code point."""
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    # A lone surrogate has no UTF-8 form, so it cannot be a piece.
    usable = [character for character in characters if not 0xD800 <= ord(character) <= 0xDFFF]
    return sorted(sorted(usable, key=lambda character: (-characters[character], character))[:size])


def _private_words(counts: dict[str, int], index: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Yield every word that the alphabet covers, in private characters, with its count."""
    for word, count in counts.items():
        if all(character in index for character in word):
            inside = (chr(_INSIDE + index[character]) for character in word[1:])
            yield chr(_FIRST + index[word[0]]) + "".join(inside), count


def _public_piece(piece: str, alphabet: list[str]) -> str:
    inside = ord(piece[0]) < _FIRST
    text = "".join(alphabet[ord(form) - (_FIRST if ord(form) >= _FIRST else _INSIDE)] for form in piece)
    return f"##{text}" if inside else text


def _merge(words: Iterable[tuple[str, int]], forms: list[str], size: int) -> list[str]:
    """Return up to `size` pieces in the order in which merging made them, the characters first."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, show_progress=False, special_tokens=[], initial_alphabet=forms
    )
    tokenizer.train_from_iterator(_occurrences(words), trainer)
    vocab = tokenizer.get_vocab(with_added_tokens=False)
    return sorted(vocab, key=vocab.__getitem__)


def _occurrences(words: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Yield each word as often as it occurs (the library counts by itself), a few thousand a string."""
    for word, count in words:
        for begin in range(0, count, 4096):
            yield f"{word} " * min(4096, count - begin)
