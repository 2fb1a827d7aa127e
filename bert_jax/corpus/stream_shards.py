"""Instances stage of word streams: buckets of sentences → a vocabulary, then ArrayRecord shards of windows.

As `shards.py` has it: a bucket's shards depend on the config and the bucket alone, are written under another name and
renamed, and `manifest.json`, written last, makes the set exist. The vocabulary lies in the set's own `tokenizer/`: a
corpus may have sets of other sizes, and WordPiece besides.
"""

import functools
import shutil
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.corpus.buckets import SPLITS, bucket_file, read_bucket, write_json
from bert_jax.corpus.progress import Progress
from bert_jax.corpus.records import MANIFEST, write_manifest
from bert_jax.corpus.shards import done_file, read_notes, write_records
from bert_jax.corpus.streams import StreamConfig, StreamManifest, cut_windows, read_in_order, read_stream_manifest
from bert_jax.corpus.word_vocabulary import WordSettings, WordVocabulary, choose_words, count_words
from bert_jax.corpus.workers import Workers


@dataclass(frozen=True)
class StreamShardsConfig:
    """What a worker needs to know for any bucket.

    Attributes:
        directory: the corpus.
        num_buckets: of the documents stage, and so the number of shards a split.
        streams: the sets to build.
        seed: the corpus', for the manifests.
    """

    directory: Path
    num_buckets: int
    streams: tuple[StreamConfig, ...]
    seed: int


def prepare_streams(
    config: StreamShardsConfig, config_fingerprint: str, workers: Workers, progress: Progress
) -> list[StreamManifest]:
    """Build the sets, or what is missing of them, and return their manifests."""
    for stream in config.streams:
        directory = config.directory / "instances" / stream.name
        if (directory / MANIFEST).exists():
            continue
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / "tokenizer").exists():
            _make_vocabulary(config, stream, workers, progress)
        progress.start(stream.name, config.num_buckets, "bucket")
        for _ in workers.map(functools.partial(build_window_bucket, config, stream), range(config.num_buckets)):
            progress.add(1)
        finish_stream(config, stream, config_fingerprint)
    return [read_stream_manifest(config.directory / "instances" / stream.name) for stream in config.streams]


def _make_vocabulary(config: StreamShardsConfig, stream: StreamConfig, workers: Workers, progress: Progress) -> None:
    """Write the set's tokenizer/ and token_counts.npy."""
    directory = config.directory / "instances" / stream.name
    counts: Counter[str] = Counter()
    num_sentences = 0
    progress.start("words", config.num_buckets, "bucket")
    for found, sentences in workers.map(functools.partial(count_bucket, config, stream), range(config.num_buckets)):
        counts.update(found)
        num_sentences += sentences
        progress.add(1)
    write_vocabulary(directory, stream, counts, num_sentences)


def write_vocabulary(directory: Path, stream: StreamConfig, counts: Counter[str], num_sentences: int) -> None:
    """Write a set's tokenizer/ and token_counts.npy by the counts of the train split's words.

    Raises:
        ValueError: there is no word.
    """
    if not counts:
        raise ValueError(f"the train split of the corpus has no word, so {stream.name} has nothing to predict")
    words = choose_words(counts, stream.vocab_size, stream.min_count)
    vocabulary = WordVocabulary(words, WordSettings(stream.splitting))
    np.save(directory / "token_counts.npy", vocabulary.count_ids(counts, num_sentences))
    temporary = directory / "tokenizer.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    vocabulary.save(temporary)
    temporary.rename(directory / "tokenizer")


def count_bucket(config: StreamShardsConfig, stream: StreamConfig, bucket: int) -> tuple[Counter[str], int]:
    """Return how often each word occurs in a bucket's train split, and its sentences."""
    documents = read_bucket(bucket_file(config.directory / "documents", "train", bucket, config.num_buckets))
    return count_words(chain.from_iterable(documents), stream.splitting)


def build_window_bucket(config: StreamShardsConfig, stream: StreamConfig, bucket: int) -> None:
    """Write a bucket's shards, if they are not there."""
    note = done_file(config.directory, stream.name, bucket)
    if note.exists():
        return
    done: dict[str, Any] = {"shards": {}, "counts": {}}
    for split in SPLITS:
        file = bucket_file(config.directory / "documents", split, bucket, config.num_buckets)
        documents = read_bucket(file)
        forward, backward, num_sentences = read_in_order(documents, stream.splitting)
        records = cut_windows(forward, backward, stream.words_per_window)
        done["counts"][split] = {
            "rows": len(records),
            "sequences": num_sentences,
            "real_tokens": len(records) * stream.words_per_window,
            "documents": len(documents),
        }
        if records:  # an empty split of a bucket has no file
            shard = write_records(note.parent / f"{file.stem}.array_record", records)
            done["shards"][split] = [shard.file, shard.num_records, shard.sha256]
    write_json(note, done)


def finish_stream(config: StreamShardsConfig, stream: StreamConfig, config_fingerprint: str) -> None:
    """Write the manifest and remove the notes of the buckets."""
    directory = config.directory / "instances" / stream.name
    notes = [done_file(config.directory, stream.name, bucket) for bucket in range(config.num_buckets)]
    splits, counts = read_notes(notes)
    manifest = StreamManifest(
        name=stream.name,
        words_per_window=stream.words_per_window,
        vocab_size=WordVocabulary.load(directory / "tokenizer").vocab_size,
        seed=config.seed,
        config_fingerprint=config_fingerprint,
        splits=splits,
        counts=counts,
    )
    write_manifest(directory, manifest)
    for note in notes:
        note.unlink()
