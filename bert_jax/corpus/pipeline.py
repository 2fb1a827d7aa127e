"""The steps from sources to instance sets, in order; each finds what is done and does the rest.

    sources → documents/ (buckets.py) → tokenizer/ (vocabulary.py) → instances/<name>/ (shards.py) → manifest.json

A run that stopped anywhere, even by `kill -9`, is continued by the same call. A directory is of one config: another
config is refused with the difference, save that instance sets can be added and `on_error` changed. What nothing was
made of yet may change too: the tokenizer before there is one, everything before anything was read.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax.config import build, choose, differences, fingerprint, to_plain
from bert_jax.corpus.buckets import (
    DocumentsConfig,
    bucket_file,
    changed_inputs,
    has_begun,
    prepare_documents,
    read_bucket,
    write_json,
)
from bert_jax.corpus.documents import SourceConfig
from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.progress import Progress
from bert_jax.corpus.records import InstanceManifest
from bert_jax.corpus.remote import AnyPath, is_object_store
from bert_jax.corpus.shards import ShardsConfig, prepare_instances
from bert_jax.corpus.sources import KINDS, estimate_text_bytes
from bert_jax.corpus.stream_shards import StreamShardsConfig, prepare_streams
from bert_jax.corpus.streams import StreamConfig, StreamManifest
from bert_jax.corpus.vocabulary import TokenStatistics, WordPiece
from bert_jax.corpus.wordpiece_training import train_wordpiece
from bert_jax.corpus.workers import Workers

SCHEMA_VERSION = 1
BUCKET_BYTES = 16 << 20  # of text, as far as it can be estimated: a process then takes under 0.5 GB
MAX_BUCKET_BYTES = 64 << 20  # a process takes 200 MB and 10 times its bucket, and 1 GB is the most
MAX_CHOSEN_BUCKETS = 1 << 16
STATISTICS_BYTES = 4_000_000  # of text from which [UNK] rate and pieces per word are measured

# What files are called until they are whole, see write_json, write_shard and write_manifest.
_TEMPORARIES = tuple(
    f"{name}.[0-9]*.tmp" for name in ("config", "manifest", "documents/*", "documents/scatter/*", "instances/*/*")
)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The vocabulary: a given one, or one trained on the train split.

    Attributes:
        vocab_file: a `vocab.txt`; "" trains one.
        vocab_size: pieces of a trained vocabulary, special tokens included.
        do_lower_case: lower and strip accents; None decides by the given vocabulary, and is True for a trained one.
        sample_megabytes: of text that is trained on, an equal part of each bucket.
    """

    vocab_file: str = ""
    vocab_size: int = 30_522
    do_lower_case: bool | None = None
    sample_megabytes: float = 200.0


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """Everything a corpus depends on.

    Attributes:
        sources: what it is made of, in order.
        instances: the instance sets.
        tokenizer: given or trained.
        num_buckets: shards a split, see DocumentsConfig; 0 takes one for about 16 MB of text, by the inputs' size.
        validation_fraction: share of the documents held out, 0 to below 1.
        seed: of all random choices.
        on_error: "stop" or "skip".
        streams: the sets of word windows, whose vocabularies are their own; without `instances`, no tokenizer is made.
    """

    sources: tuple[SourceConfig, ...]
    instances: tuple[InstanceConfig, ...]
    tokenizer: TokenizerConfig
    num_buckets: int
    validation_fraction: float
    seed: int = 0
    on_error: str = "stop"
    streams: tuple[StreamConfig, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be prepared."""
        choose("on_error", self.on_error, ("stop", "skip"))
        if not self.sources or not (self.instances or self.streams):
            raise ValueError("a corpus takes one source or more and one instance set or more; got none")
        for source in self.sources:
            choose("source kind", source.kind, KINDS)
        if not 0 <= self.num_buckets <= 99_999:
            raise ValueError(f"num_buckets is {self.num_buckets}; it takes 1 to 99999, or 0 for a number by size")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; it takes 0 to below 1")
        names = [instance.name for instance in (*self.instances, *self.streams)]
        if len(set(names)) < len(names):
            raise ValueError(f"instance sets are named {', '.join(names)}; each takes a name of its own")
        if self.is_google:
            kinds = {source.kind for source in self.sources}
            modes = {instance.mode for instance in self.instances}
            if self.num_buckets != 1 or self.validation_fraction or kinds != {"sentences"} or modes != {"google"}:
                raise ValueError(
                    "mode 'google' is one stream of random numbers over Google's own format: it takes num_buckets=1, "
                    "validation_fraction=0, sources of kind 'sentences' and no instance set of another mode"
                )

    @property
    def is_google(self) -> bool:
        """Some instance set is of mode `google`."""
        return any(instance.mode == "google" for instance in self.instances)

    @property
    def documents(self) -> DocumentsConfig:
        """The part that the documents stage depends on."""
        return DocumentsConfig(
            self.sources, self.num_buckets, self.validation_fraction, self.on_error, self.is_google, self.seed
        )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `prepare` did, for the summary and the benchmark.

    Attributes:
        manifest: the corpus' manifest.json.
        instances: the manifests of its sets.
        megabytes: of clean text in the corpus, 10^6 bytes.
        seconds: of this call.
        continued: an earlier call began the corpus, so `seconds` is not the time of all of it.
        processes: worker processes.
        peak_memory_bytes: the largest resident memory of any process.
        warnings: what the user should know.
    """

    manifest: dict[str, Any]
    instances: list[InstanceManifest | StreamManifest]
    megabytes: float
    seconds: float
    continued: bool
    processes: int
    peak_memory_bytes: int
    warnings: tuple[str, ...]


def prepare(config: CorpusConfig, directory: Path, num_processes: int, show_progress: bool = False) -> Prepared:
    """Make a corpus of `config` in `directory`, or continue it.

    Args:
        config: what to make.
        directory: `<corpus>`; made if absent.
        num_processes: workers; the result does not depend on it.
        show_progress: bars on the terminal.

    Raises:
        CorruptInputError: an input cannot be read to its end (on_error "stop").
        ValueError: the directory holds a corpus of another config, or no corpus; or the config asks for what does not
            go, such as too few buckets.
        RuntimeError: another process is at work in the directory, or a worker died.
        FileNotFoundError: a source or vocabulary that does not exist.
    """
    started = time.perf_counter()
    config = check_config(config, directory)
    directory.mkdir(parents=True, exist_ok=True)
    continued = _has_begun(directory)
    seconds: dict[str, float] = {}
    with (
        only_process(directory),
        contextlib.closing(Progress(show_progress)) as progress,
        Workers(num_processes) as workers,
    ):
        config = claim(config, directory)
        for pattern in _TEMPORARIES:
            for half_written in directory.glob(pattern):
                half_written.unlink()
        documents = prepare_documents(config.documents, directory / "documents", workers, progress)
        changed = changed_inputs(config.sources, documents)
        seconds["documents"] = time.perf_counter() - started
        tokenizer = prepare_tokenizer(config, directory, progress) if config.instances else {}
        seconds["tokenizer"] = time.perf_counter() - started - seconds["documents"]
        instances: list[InstanceManifest | StreamManifest] = []
        if config.instances:
            shards = ShardsConfig(directory, config.num_buckets, config.instances, config.seed)
            instances += prepare_instances(shards, fingerprint(config), workers, progress)
        windows = StreamShardsConfig(directory, config.num_buckets, config.streams, config.seed)
        instances += prepare_streams(windows, fingerprint(config), workers, progress)
        total = time.perf_counter() - started
        seconds["instances"] = total - sum(seconds.values())
        peak_memory_bytes = workers.peak_memory_bytes
        measured = {"seconds": seconds, "processes": num_processes, "peak_memory_bytes": peak_memory_bytes}
        names = [instance.name for instance in instances]
        manifest = write_manifest(config, directory, documents, tokenizer, names, {**measured, "continued": continued})
    megabytes = sum(source.get("bytes", 0) for source in documents["sources"]) / 1e6
    advice = f"the corpus holds what was read then; to begin again, remove {directory} and run the same command"
    warnings = tuple(f"{sentence}; {advice}" for sentence in changed)
    return Prepared(manifest, instances, megabytes, total, continued, num_processes, peak_memory_bytes, warnings)


def write_manifest(
    config: CorpusConfig,
    directory: AnyPath,
    documents: dict[str, Any],
    tokenizer: dict[str, Any],
    instances: list[str],
    measured: dict[str, Any],
) -> dict[str, Any]:
    """Write the corpus' manifest.json, last of all, and return it.

    Args:
        config: of the corpus.
        directory: of the corpus.
        documents: the manifest of its documents.
        tokenizer: its kind and statistics.
        instances: names of its sets.
        measured: what making it took; a manifest that is there keeps its own.
    """
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "config": to_plain(config),
        "documents": {key: documents[key] for key in ("num_buckets", "sources", "corrupt")},
        "tokenizer": tokenizer,
        "instances": instances,
        "measured": measured,
    }
    path = directory / "manifest.json"
    if path.exists():  # what the first run took says more than what adding a set, or nothing, took
        manifest["measured"] = json.loads(path.read_text())["measured"]
    write_json(path, manifest)
    return manifest


def check_config(config: CorpusConfig, directory: AnyPath) -> CorpusConfig:
    """Refuse, before anything is written, what would stop a later stage; return the config with a number of buckets.

    What is done already is not looked at again: a corpus outlives its sources and its vocabulary's file.
    """
    old = _stored_config(directory)
    if config.tokenizer.vocab_file and not has_tokenizer(directory):
        WordPiece.from_vocab_file(config.tokenizer.vocab_file)
    if old is None or not _has_begun(directory):
        return dataclasses.replace(config, num_buckets=_choose_num_buckets(config))
    return dataclasses.replace(config, num_buckets=config.num_buckets or old.num_buckets)


def _stored_config(directory: AnyPath) -> CorpusConfig | None:
    """Return the config that the directory was begun with; keys that came later have their defaults."""
    path = directory / "config.json"
    if not path.exists():
        return None
    try:
        return build(CorpusConfig, json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(
            f"{path} is no corpus' config, or one of a later version ({error}); give another directory (--corpus)"
        ) from None


def _has_begun(directory: AnyPath) -> bool:
    return has_begun(directory / "documents") or has_tokenizer(directory)  # documents may have been removed since


def has_tokenizer(directory: AnyPath) -> bool:
    """Tell whether a corpus' tokenizer/ is whole."""
    return (directory / "tokenizer" / "statistics.json").exists()


@contextlib.contextmanager
def only_process(directory: AnyPath) -> Iterator[None]:
    """Hold the directory against a second run; the system lets go of it when this process ends, however it does.

    One in a bucket is not held: nothing can be locked there.
    """
    if is_object_store(directory):
        yield
        return
    with (directory / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"another process prepares {directory} just now; wait for it, or give another directory (--corpus)"
            ) from None
        yield


def claim(config: CorpusConfig, directory: AnyPath) -> CorpusConfig:
    """Write config.json, or refuse a directory that was begun with another config; return the config to work with.

    That has all instance sets that the directory has.
    """
    old = _stored_config(directory)
    if old is not None and _has_begun(directory):
        sets = {instance.name: instance for instance in old.instances}
        wanted = {instance.name: instance for instance in config.instances}
        there = _comparable(old, list(sets.values()), old.streams)
        streams = {stream.name: stream for stream in config.streams}
        same_streams = tuple(streams.get(stream.name, stream) for stream in old.streams)
        now = _comparable(config, [wanted.get(name, instance) for name, instance in sets.items()], same_streams)
        if not has_tokenizer(directory):
            there["tokenizer"] = now["tokenizer"]
        found = differences(there, now)
        if found:
            lines = "".join(f"\n  {name}: {then!r} there, {value!r} now" for name, (then, value) in found.items())
            raise ValueError(
                f"{directory} holds a corpus of another config:{lines}\nuse the same values, or another directory "
                "(--corpus); instance sets can be added to a corpus, but not changed"
            )
        streams = {stream.name: stream for stream in (*old.streams, *config.streams)}
        config = dataclasses.replace(
            config, instances=tuple({**sets, **wanted}.values()), streams=tuple(streams.values())
        )
    write_json(directory / "config.json", to_plain(config))
    return config


def _comparable(
    config: CorpusConfig, instances: list[InstanceConfig], streams: tuple[StreamConfig, ...]
) -> dict[str, Any]:
    """Return the plain values that must not change, the instance sets by name."""
    sets = {
        instance.name: to_plain(instance) | {"short_sequence_probability": instance.short_probability}
        for instance in instances
    }
    by_name = {stream.name: to_plain(stream) for stream in streams}
    return {**to_plain(config), "instances": sets, "streams": by_name, "on_error": ""}


def _choose_num_buckets(config: CorpusConfig) -> int:
    """Return the config's number of buckets, or the power of two that makes buckets of 8 to 16 MB.

    Rows of all passes over a bucket are in memory together, so text that is gone through twice counts twice.

    Raises:
        ValueError: a bucket would not fit into 1 GB (mode `google` is all in memory by its nature).
        FileNotFoundError, ValueError: sources that are not there, or of no known kind.
    """
    passes = max((instance.duplicates for instance in config.instances), default=1)
    size = sum(map(estimate_text_bytes, config.sources)) * passes
    wanted = 1 << max(0, math.ceil(math.log2(max(size, 1) / BUCKET_BYTES)))
    num_buckets = config.num_buckets or min(wanted, MAX_CHOSEN_BUCKETS)
    if size > num_buckets * MAX_BUCKET_BYTES and not config.is_google:
        raise ValueError(
            f"num_buckets is {num_buckets}, for about {size / 1e6:,.0f} MB of text (times duplicates): a process would "
            f"take over 1 GB of memory; set it to {math.ceil(size / MAX_BUCKET_BYTES)} or more, or to 0 for a number "
            "by the size"
        )
    return num_buckets


def prepare_tokenizer(config: CorpusConfig, directory: Path, progress: Progress) -> dict[str, Any]:
    """Make tokenizer/ if it is not there; return what the manifest says of it."""
    final = directory / "tokenizer"
    if has_tokenizer(directory):
        return json.loads((final / "statistics.json").read_text())
    asked = config.tokenizer
    if asked.vocab_file:
        tokenizer = WordPiece.from_vocab_file(asked.vocab_file, do_lower_case=asked.do_lower_case)
    else:
        progress.start(f"vocabulary of {asked.vocab_size}", 1, "run")
        sample = _sample(config, directory, int(asked.sample_megabytes * 1e6))
        texts = (sentence for document in sample for sentence in document)
        tokenizer = train_wordpiece(texts, asked.vocab_size, do_lower_case=asked.do_lower_case is not False)
        progress.add(1)
    sample = list(_sample(config, directory, STATISTICS_BYTES))
    found: TokenStatistics = tokenizer.statistics(tokenizer.encode_documents(sample))
    values = {
        "kind": tokenizer.settings.kind,
        "vocab_size": tokenizer.vocab_size,
        "unknown_rate": found.unknown_rate,
        "pieces_per_word": found.pieces_per_word,
    }
    temporary = directory / "tokenizer.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    tokenizer.save(temporary)
    write_json(temporary / "statistics.json", values)
    temporary.rename(final)
    return values


def _sample(config: CorpusConfig, directory: Path, num_bytes: int) -> Iterator[list[str]]:
    """Yield documents of the train split, about `num_bytes` in all, the first ones of each bucket."""
    for bucket in range(config.num_buckets):
        size = 0
        for document in read_bucket(bucket_file(directory / "documents", "train", bucket, config.num_buckets)):
            yield document
            size += sum(map(len, document))
            if size >= num_bytes / config.num_buckets:
                break
