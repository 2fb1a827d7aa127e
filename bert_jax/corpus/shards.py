"""Instances stage: buckets of sentences → ArrayRecord shards of rows, for every instance set of the corpus.

A bucket is tokenised once and all sets are made of it. What a bucket becomes depends on the config, the seed and the
bucket alone. Each shard is written under another name and renamed; a small file beside the shards says that a bucket
is done, so a killed run does the other buckets only; `manifest.json`, written last, makes the set exist.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from bert_jax.corpus.buckets import SPLITS, bucket_file, read_bucket, write_json
from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.pairs import build_rows
from bert_jax.corpus.progress import Progress
from bert_jax.corpus.records import (
    MANIFEST,
    InstanceManifest,
    RecordFormat,
    Rows,
    Shard,
    encode_rows,
    read_manifest,
    write_manifest,
)
from bert_jax.corpus.remote import AnyPath, file_sha256
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.corpus.workers import Workers

# One record a group, so that a row is read without its neighbours; see docs/performance.md for the compression.
WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclass(frozen=True)
class ShardsConfig:
    """What a worker needs to know for any bucket.

    Attributes:
        directory: the corpus.
        num_buckets: of the documents stage, and so the number of shards a split.
        instances: the sets to build.
        seed: the corpus'; folded with set, split and bucket.
    """

    directory: Path
    num_buckets: int
    instances: tuple[InstanceConfig, ...]
    seed: int


def prepare_instances(
    config: ShardsConfig, config_fingerprint: str, workers: Workers, progress: Progress
) -> list[InstanceManifest]:
    """Build the instance sets, or what is missing of them, and return their manifests."""
    tokenizer = WordPiece.load(config.directory / "tokenizer")
    directories = [config.directory / "instances" / instance.name for instance in config.instances]
    unfinished = [
        instance
        for instance, directory in zip(config.instances, directories, strict=True)
        if not (directory / MANIFEST).exists()
    ]
    for instance in unfinished:
        (config.directory / "instances" / instance.name).mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(config, instances=tuple(unfinished))
    text = (config.directory / "documents").glob("*.txt")
    progress.start("instances", sum(file.stat().st_size for file in text) if unfinished else 0, "B")
    buckets = range(config.num_buckets if unfinished else 0)
    for num_bytes in workers.map(functools.partial(build_bucket, config), buckets):
        progress.add(num_bytes)
    for instance in unfinished:
        finish_set(config, instance, tokenizer, config_fingerprint)
    return [read_manifest(directory) for directory in directories]


def verify_shards(corpus: AnyPath) -> tuple[int, list[AnyPath]]:
    """Hold every shard of documents and instance sets against the sha256 in its manifest.

    Returns:
        How many shards there should be, and those that are missing or differ.

    Raises:
        FileNotFoundError: no corpus, or one that was not prepared to its end.
    """
    if not (corpus / MANIFEST).exists():
        raise FileNotFoundError(f"{corpus} has no {MANIFEST}: it is no corpus that was prepared to its end")
    shards = [
        (manifest.parent / shard["file"], shard["sha256"])
        for manifest in [*corpus.glob(f"documents/{MANIFEST}"), *sorted(corpus.glob(f"instances/*/{MANIFEST}"))]
        for split in json.loads(manifest.read_text()).get("splits", {}).values()  # the first documents/ had none
        for shard in split
    ]
    return len(shards), [path for path, sha256 in shards if not path.exists() or file_sha256(path) != sha256]


def fold_seed(seed: int, *names: str | int) -> int:
    """Return a seed of 63 bits for a part of the work, far from those of the other parts."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def write_shard(path: Path, rows: Rows, rows_format: RecordFormat) -> Shard:
    """Write rows as one ArrayRecord file; see `write_records`."""
    return write_records(path, encode_rows(rows, rows_format))


def write_records(path: Path, records: list[bytes]) -> Shard:
    """Write records as one ArrayRecord file, by rename, and return its entry for the manifest."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    writer = ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
    for record in records:
        writer.write(record)
    writer.close()
    sha256 = file_sha256(temporary)
    os.replace(temporary, path)
    return Shard(path.name, len(records), sha256)


def count_rows(rows: Rows, num_documents: int) -> dict[str, int]:
    """Return the counts of a split that a manifest holds."""
    return {
        "rows": len(rows.input_ids),
        "sequences": int(rows.sequence_ids.max(axis=1, initial=0).sum()),
        "real_tokens": int(np.count_nonzero(rows.sequence_ids)),
        "documents": num_documents,
    }


def count_maskable(rows: Rows, special_ids: dict[str, int], vocab_size: int) -> np.ndarray:
    """Return int64 [vocab_size]: how often each token stands where a mask may."""
    input_ids = rows.input_ids
    if rows.num_masked is not None:  # mode `google` has masked them: put back what stood there
        assert rows.masked_lm_positions is not None
        assert rows.masked_lm_ids is not None
        row, mask = np.nonzero(np.arange(rows.masked_lm_ids.shape[1]) < rows.num_masked[:, None])
        input_ids = input_ids.copy()
        input_ids[row, rows.masked_lm_positions[row, mask]] = rows.masked_lm_ids[row, mask]
    # No text is encoded as [PAD], [CLS] or [SEP], so the positions of these need not be looked up.
    counts = np.bincount(input_ids.ravel(), minlength=vocab_size).astype(np.int64)
    counts[[special_ids["pad"], special_ids["cls"], special_ids["sep"]]] = 0
    return counts


@functools.lru_cache(maxsize=1)
def _load_tokenizer(directory: Path) -> WordPiece:
    return WordPiece.load(directory)  # kept by the process, with its cache of words, over all buckets


def done_file(corpus: Path, name: str, bucket: int) -> Path:
    """Return the note that says that a bucket of a set is done; it holds `shards` and `counts` by split."""
    return corpus / "instances" / name / f"bucket-{bucket:05d}.json"


def read_notes(notes: list[Path]) -> tuple[dict[str, tuple[Shard, ...]], dict[str, dict[str, int]]]:
    """Return the shards and the counts of each split, over all buckets."""
    shards: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for note in notes:
        values = json.loads(note.read_text())
        for split in SPLITS:
            counts[split].update(values["counts"][split])
            if split in values["shards"]:
                shards[split].append(Shard(*values["shards"][split]))
    return {split: tuple(shards[split]) for split in SPLITS}, {split: dict(counts[split]) for split in SPLITS}


def build_bucket(config: ShardsConfig, bucket: int) -> int:
    """Write a bucket's shards of all sets that lack them; return the bytes of its text."""
    files = {split: bucket_file(config.directory / "documents", split, bucket, config.num_buckets) for split in SPLITS}
    num_bytes = sum(file.stat().st_size for file in files.values())
    notes = {each.name: done_file(config.directory, each.name, bucket) for each in config.instances}
    todo = [instance for instance in config.instances if not notes[instance.name].exists()]
    if not todo:
        return num_bytes
    tokenizer = _load_tokenizer(config.directory / "tokenizer")
    done: dict[str, dict[str, Any]] = {instance.name: {"shards": {}, "counts": {}} for instance in todo}
    for split, file in files.items():
        documents = tokenizer.encode_documents(read_bucket(file))
        for instance in todo:
            # Google's one generator is seeded with --random_seed itself.
            seed = config.seed if instance.mode == "google" else fold_seed(config.seed, instance.name, split, bucket)
            rows = build_rows(documents, instance, tokenizer.special_ids, tokenizer.vocab_size, seed)
            entry = done[instance.name]
            entry["counts"][split] = count_rows(rows, len(documents.document_offsets) - 1)
            if split == "train":
                counts = count_maskable(rows, tokenizer.special_ids, tokenizer.vocab_size)
                np.save(notes[instance.name].with_suffix(".npy"), counts)
            if len(rows.input_ids):  # an empty split of a bucket has no file
                path = notes[instance.name].parent / f"{file.stem}.array_record"
                shard = write_shard(path, rows, instance.record_format(tokenizer.vocab_size))
                entry["shards"][split] = [shard.file, shard.num_records, shard.sha256]
            del rows
    for instance in todo:
        write_json(notes[instance.name], done[instance.name])
    return num_bytes


def finish_set(config: ShardsConfig, instance: InstanceConfig, tokenizer: WordPiece, config_fingerprint: str) -> None:
    """Write token_counts.npy and the manifest, and remove the notes of the buckets."""
    directory = config.directory / "instances" / instance.name
    notes = [done_file(config.directory, instance.name, bucket) for bucket in range(config.num_buckets)]
    token_counts = np.zeros(tokenizer.vocab_size, np.int64)
    for note in notes:
        token_counts += np.load(note.with_suffix(".npy"))
    splits, counts = read_notes(notes)
    manifest = InstanceManifest(
        name=instance.name,
        record_format=instance.record_format(tokenizer.vocab_size),
        pairs=instance.pairs,
        masking="static" if instance.mode == "google" else "online",
        seed=config.seed,
        config_fingerprint=config_fingerprint,
        special_ids=tokenizer.special_ids,
        splits=splits,
        counts=counts,
    )
    np.save(directory / "token_counts.npy", token_counts)
    write_manifest(directory, manifest)
    for note in notes:
        note.unlink()
        note.with_suffix(".npy").unlink()
