"""The same text gives the same vocabulary, of the size asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bert_jax.corpus import wordpiece_training
from bert_jax.corpus.vocabulary import SPECIAL_TOKENS, WordPiece
from bert_jax.corpus.wordpiece_training import train_wordpiece

ROOT = Path(__file__).parents[2]

# A text with many ties, in which every character occurs inside words too.
TRAIN = """
import hashlib, random
from bert_jax.corpus.wordpiece_training import train_wordpiece
rng = random.Random(3)
words = ["".join(rng.choice("abcdefghij") for _ in range(rng.randint(1, 7))) for _ in range(300)]
texts = [" ".join(rng.choice(words) for _ in range(20)) + "." for _ in range(300)]
vocab = train_wordpiece(texts, 200, num_unused=1).vocab
print(hashlib.sha256("\\n".join(vocab).encode()).hexdigest())
"""
TEXT = ["the houses of the horses", "The hours, the house; unhoused 中文", "onerous foundered under founders"] * 3


def test_the_same_text_gives_the_same_pieces_in_any_process():
    digests = set()
    for threads, hash_seed, parallel in (("1", "0", "true"), ("4", "1", "true"), ("2", "random", "false")):
        environment = os.environ | {
            "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed, "TOKENIZERS_PARALLELISM": parallel
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", TRAIN], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_special_pieces_stand_as_in_googles_vocabularies():
    assert train_wordpiece(TEXT, 150).vocab[:104] == [
        "[PAD]", *(f"[unused{number}]" for number in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"
    ]  # fmt: skip
    assert train_wordpiece(TEXT, 60, num_unused=2).special_ids == {"pad": 0, "unk": 3, "cls": 4, "sep": 5, "mask": 6}


def test_frequent_words_become_whole_pieces_and_the_text_has_no_unknown_words():
    wordpiece = train_wordpiece(TEXT, 60, num_unused=0)
    assert wordpiece.vocab_size == 60
    assert "the" in wordpiece.vocab
    assert "house" in wordpiece.vocab
    assert "##中" not in wordpiece.vocab
    assert wordpiece.special_ids["unk"] not in wordpiece.encode(" ".join(TEXT))


def test_a_literal_special_token_in_the_text_is_not_one():
    wordpiece = train_wordpiece([*TEXT, "[MASK] [MASK]"], 60, num_unused=0)
    assert wordpiece.vocab.count("[MASK]") == 1
    assert wordpiece.special_ids["mask"] not in wordpiece.encode("[MASK]")


def test_case_and_accents_are_kept_for_a_cased_vocabulary():
    assert "T" in train_wordpiece([*TEXT, "Thé"], 60, do_lower_case=False, num_unused=0).vocab


def test_counting_in_bounded_memory_keeps_the_frequent_words(monkeypatch):
    splitter = WordPiece(list(SPECIAL_TOKENS.values()))
    assert wordpiece_training._count_words(TEXT, splitter)["the"] == 12
    monkeypatch.setattr(wordpiece_training, "_MAX_COUNTED_WORDS", 5)
    counts = wordpiece_training._count_words(TEXT, splitter)
    assert counts["the"] == 12
    assert len(counts) <= 5
    monkeypatch.setattr(wordpiece_training, "_MAX_OCCURRENCES", 6)
    assert wordpiece_training._count_words(TEXT, splitter) == {"the": 4}


@pytest.mark.parametrize(
    ("size", "message"), [(5000, "use vocab_size="), (104, "has no room for"), (20, "has no room")]
)
def test_a_size_that_the_text_cannot_give_is_refused(size, message):
    with pytest.raises(ValueError, match=message):
        train_wordpiece(TEXT, size)
