"""A small corpus of word windows, of made-up sentences in which each word says which may follow."""

import random
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.corpus import records
from bert_jax.corpus.shards import write_records
from bert_jax.corpus.streams import StreamManifest, cut_windows, read_in_order
from bert_jax.corpus.word_vocabulary import WordVocabulary, choose_words, count_words
from bert_jax.input.instances import open_windows
from bert_jax.input.loader import Batch, DataConfig
from bert_jax.input.streams import RowGroups, train_stream
from bert_jax.models.elmo import ElmoConfig

WORDS_PER_WINDOW = 5
NAME = f"stream-{WORDS_PER_WINDOW}"
_NUM_SENTENCES = {"train": 120, "validation": 25}


def sentences_of(split: str) -> list[list[str]]:
    """Return the one document of a split: chains through 40 words, each followed by one of three."""
    generator = random.Random(split)
    names = [f"w{number}" for number in range(40)]
    sentences = []
    for _ in range(_NUM_SENTENCES[split]):
        word = int(generator.random() * len(names))
        chain = []
        for _ in range(2 + int(generator.random() * 8)):
            chain.append(names[word])
            word = (word * 3 + int(generator.random() * 3)) % len(names)
        sentences.append(" ".join(chain))
    return [sentences]


def make_stream_corpus(corpus: Path) -> Path:
    """Write `instances/stream-5` with two shards of training windows; return the corpus."""
    directory = corpus / "instances" / NAME
    directory.mkdir(parents=True)
    splits, counts = {}, {}
    for split, num_shards in (("train", 2), ("validation", 1)):
        forward, backward, num_sentences = read_in_order(sentences_of(split), "basic")
        windows = cut_windows(forward, backward, WORDS_PER_WINDOW)
        middle = len(windows) // num_shards
        parts = [windows[:middle], windows[middle:]] if num_shards == 2 else [windows]
        splits[split] = tuple(
            write_records(directory / f"{split}-{number:05d}-of-{num_shards:05d}.array_record", part)
            for number, part in enumerate(parts)
        )
        counts[split] = {"rows": len(windows), "sequences": num_sentences}
    found, num_sentences = count_words(sentences_of("train")[0], "basic")
    vocabulary = WordVocabulary(choose_words(found, 40, 1))  # some words are unknown
    vocabulary.save(directory / "tokenizer")
    np.save(directory / "token_counts.npy", vocabulary.count_ids(found, num_sentences))
    manifest = StreamManifest(NAME, WORDS_PER_WINDOW, vocabulary.vocab_size, 0, "00000000", splits, counts)
    records.write_manifest(directory, manifest)
    return corpus


def tiny_elmo(**overrides: Any) -> ElmoConfig:
    """Return a model of a few thousand parameters."""
    sizes: dict[str, Any] = {"dim": 6, "projection_dim": 5, "filters": ((1, 3), (2, 4)), "character_dim": 4}
    return ElmoConfig(**{**sizes, "n_highway": 1, "dropout": 0.0, **overrides})


def tiny_stream(corpus: Path, batch_size: int, count: int, groups: RowGroups | None = None) -> list[Batch]:
    """Return the first batches of the corpus of `make_stream_corpus`."""
    windows = open_windows(corpus, NAME, "train")
    vocabulary = WordVocabulary.load(windows.directory / "tokenizer")
    config = DataConfig(str(corpus), NAME, batch_size, 0)
    batches = train_stream(windows, vocabulary, config, 0, 0, slice(0, batch_size), groups)
    return [next(batches) for _ in range(count)]
