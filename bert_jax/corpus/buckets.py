"""Documents stage: sources → buckets of sentences, duplicates dropped, split into train and validation.

Two passes. Scatter: this process reads the sources in order, workers clean, split and hash, and this process appends
each document to the bucket that its content's hash names. Settle: a bucket at a time, duplicates are dropped and
documents go to `train-00003-of-00064.txt` or `validation-00003-of-00064.txt`, in Google's format: one sentence a
line, an empty line behind each document. Equal documents meet in one bucket, so no pass needs to know them all.

    <corpus>/documents/scatter/00003.raw, journal.json   while it goes on; a killed run continues from them
    <corpus>/documents/{train,validation}-*.txt, manifest.json   the result
"""

import functools
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax.config import fingerprint
from bert_jax.corpus.documents import CorruptInputError, Document, InputLog, SourceConfig, read_verbatim
from bert_jax.corpus.progress import Progress
from bert_jax.corpus.remote import AnyPath, as_path, file_sha256
from bert_jax.corpus.sentences import document_sentences
from bert_jax.corpus.sources import Inputs, extract, read_input, sized_inputs
from bert_jax.corpus.workers import Workers

SCHEMA_VERSION = 1
SPLITS = ("train", "validation")
CHUNK_CHARACTERS = 1 << 20  # of text handed to a worker at once
COMMIT_BYTES = 32 << 20  # of text between two entries of the journal: what a killed run may have to do again

# Stands before each document in a bucket, with the source's number; cleaning leaves no such character in a text.
_MARK = b"\x01"

Counts = Counter[str]
Position = tuple[int, int, int]  # source, input of it, documents of that


@dataclass(frozen=True)
class DocumentsConfig:
    """What the documents stage depends on.

    Attributes:
        sources: read in this order.
        num_buckets: how many parts; one is worked on in memory (200 MB and 10 times its text), so 64 MB at the most.
        validation_fraction: of the documents, chosen by the hash of their content.
        on_error: "stop" at a corrupt input, or "skip" and count it.
        verbatim: neither clean nor drop duplicates; what mode `google` needs to be Google's bit for bit.
        seed: the corpus', for the manifest; nothing here is drawn at random.
    """

    sources: tuple[SourceConfig, ...]
    num_buckets: int
    validation_fraction: float
    on_error: str
    verbatim: bool = False
    seed: int = 0


def bucket_file(directory: Path, split: str, bucket: int, num_buckets: int) -> Path:
    """Return the file with a bucket's documents of one split."""
    return directory / f"{split}-{bucket:05d}-of-{num_buckets:05d}.txt"


def read_bucket(path: AnyPath) -> list[list[str]]:
    """Return the documents of a bucket file, each a list of sentences."""
    text = path.read_bytes().decode("utf-8")  # read_text would look for other line ends, at a tenth of the speed
    return [document.split("\n") for document in text.split("\n\n") if document]


def prepare_documents(config: DocumentsConfig, directory: Path, workers: Workers, progress: Progress) -> dict[str, Any]:
    """Make `directory` (documents/) of the sources, or continue it; return its manifest.

    Raises:
        CorruptInputError: an input cannot be read and on_error is "stop".
        ValueError, FileNotFoundError: sources that do not exist or are of no known kind.
    """
    manifest = directory / "manifest.json"
    if manifest.exists():
        return read_documents_manifest(manifest)
    scatter_directory = directory / "scatter"
    scatter_directory.mkdir(parents=True, exist_ok=True)
    journal = _scatter(config, scatter_directory, workers, progress)
    settle = functools.partial(settle_bucket, directory, config)
    progress.start("documents", config.num_buckets, "bucket")
    settled = []
    for found in workers.map(settle, range(config.num_buckets)):
        settled.append(found)
        progress.add(1)
    values = describe_documents(config, journal.inputs, journal.counts, journal.messages, settled)
    write_json(manifest, values)
    shutil.rmtree(scatter_directory)
    return values


def describe_documents(
    config: DocumentsConfig, inputs: Inputs, counts: list[Counts], messages: list[str], settled: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what documents/manifest.json says; `settled` is of `settle_bucket`, for all buckets in order."""
    per_source = [Counter(found) for found in counts]
    for found in settled:
        for source, more in enumerate(found["counts"]):
            per_source[source] += Counter(more)
    return {
        "schema_version": SCHEMA_VERSION,
        "config_fingerprint": fingerprint(config),
        "seed": config.seed,
        "num_buckets": config.num_buckets,
        "sources": [
            {"name": source.name or source.kind, "kind": source.kind, "path": source.path, **found}
            for source, found in zip(config.sources, per_source, strict=True)
        ],
        "corrupt": messages,
        "inputs": inputs,
        "splits": {split: [found["files"][split] for found in settled] for split in SPLITS},
    }


def read_documents_manifest(path: AnyPath) -> dict[str, Any]:
    """Return what documents/manifest.json says; raise ValueError for one of another schema version."""
    values = json.loads(path.read_text())
    version = values.get("schema_version", SCHEMA_VERSION)  # the first manifests had none
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}; prepare the corpus again"
        )
    return values


def has_begun(directory: AnyPath) -> bool:
    """Tell whether `directory` (documents/) holds anything that was read."""
    return (directory / "manifest.json").exists() or (directory / "scatter" / "journal.json").exists()


def changed_inputs(sources: tuple[SourceConfig, ...], manifest: dict[str, Any]) -> list[str]:
    """Return a sentence for each source whose inputs are not those, by name and size, that were read."""
    messages = []
    for source, then in zip(sources, manifest.get("inputs", []), strict=False):
        try:
            [now] = sized_inputs((source,))
        except FileNotFoundError:
            continue  # a corpus outlives its inputs
        different = sorted({tuple(entry) for entry in then} ^ set(now))
        if different:
            messages.append(
                f"the inputs of {source.name or source.kind} are not those that were read ({len(then)} then, "
                f"{len(now)} now; {different[0][0]} is new, gone or of another size)"
            )
    return messages


def write_json(path: AnyPath, values: Any) -> None:
    """Write a JSON file by rename, so that it is whole or absent."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


class _Journal:
    """How far scattering is: what is in the bucket files, and which documents these are.

    Attributes:
        position: (source, input, documents of it) from which reading goes on.
        sizes: the bytes of each bucket's file that belong to it.
        counts: for each source what was counted up to there.
        messages: of inputs that were skipped.
        finished: everything was read.
    """

    def __init__(self, path: Path, inputs: Inputs, num_buckets: int) -> None:
        self.path = path
        self.inputs = inputs
        self.position: Position = (0, 0, 0)
        self.sizes = [0] * num_buckets
        self.counts: list[Counts] = [Counter() for _ in inputs]
        self.messages: list[str] = []
        self.finished = False
        if path.exists():
            self._load(json.loads(path.read_text()))

    def _load(self, values: dict[str, Any]) -> None:
        if [[tuple(entry) for entry in entries] for entries in values["inputs"]] != self.inputs:
            raise ValueError(
                f"the source files are not those that {self.path} began with ({sum(map(len, values['inputs']))} then, "
                f"{sum(map(len, self.inputs))} now); restore them, or remove the corpus directory and begin again"
            )
        files = [self.path.parent / f"{bucket:05d}.raw" for bucket in range(len(self.sizes))]
        on_disk = [file.stat().st_size if file.exists() else 0 for file in files]
        if not values["finished"] and any(a < b for a, b in zip(on_disk, values["sizes"], strict=True)):
            return  # the machine went down before the files were on disk: begin again
        self.position = tuple(values["position"])
        self.sizes = values["sizes"]
        self.counts = [Counter(counts) for counts in values["counts"]]
        self.messages = values["messages"]
        self.finished = values["finished"]

    def cut_files(self) -> None:
        """Cut what was appended behind the journal's last entry."""
        for bucket, size in enumerate(self.sizes):
            file = self.path.parent / f"{bucket:05d}.raw"
            with file.open("ab") as stream:
                stream.truncate(size)

    def commit(self, parts: dict[int, list[bytes]]) -> None:
        """Append to the bucket files, then note that it was done."""
        for bucket, data in sorted(parts.items()):
            with (self.path.parent / f"{bucket:05d}.raw").open("ab") as stream:
                stream.writelines(data)
            self.sizes[bucket] += sum(map(len, data))
        parts.clear()
        names = ("inputs", "position", "sizes", "counts", "messages", "finished")
        write_json(self.path, {name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Chunk:
    """Documents of one source for a worker, and where reading stands behind them."""

    source: int
    documents: list[Document]
    position: Position
    bytes_read: int
    num_corrupt: int
    messages: list[str]


@dataclass(frozen=True)
class Scattered:
    """What a worker made of a chunk: for each bucket its documents as bytes."""

    chunk: Chunk  # without its documents
    parts: dict[int, bytes]
    num_bytes: int
    num_empty: int


def _scatter(config: DocumentsConfig, directory: Path, workers: Workers, progress: Progress) -> _Journal:
    inputs = sized_inputs(config.sources)
    journal = _Journal(directory / "journal.json", inputs, config.num_buckets)
    if journal.finished:
        return journal
    journal.cut_files()
    progress.start("reading", sum(size for paths in inputs for _, size in paths), "B")
    parts: dict[int, list[bytes]] = {}
    pending = 0
    split = functools.partial(split_chunk, config)
    for scattered in workers.map(split, read_chunks(config, inputs, journal.position)):
        chunk = scattered.chunk
        for bucket, data in scattered.parts.items():
            parts.setdefault(bucket, []).append(data)
        journal.position = chunk.position
        journal.counts[chunk.source] += Counter(corrupt=chunk.num_corrupt, empty=scattered.num_empty)
        journal.messages += chunk.messages[: max(0, InputLog.MAX_MESSAGES - len(journal.messages))]
        progress.to(chunk.bytes_read)
        progress.num_bytes += scattered.num_bytes
        pending += scattered.num_bytes
        if pending >= COMMIT_BYTES:
            journal.commit(parts)
            pending = 0
    journal.finished = True
    journal.commit(parts)
    return journal


def read_chunks(config: DocumentsConfig, inputs: Inputs, position: Position) -> Iterator[Chunk]:
    """Read all sources from `position` on; a chunk never mixes two sources."""
    log = InputLog(config.on_error)
    documents: list[Document] = []
    size = 0
    if config.verbatim:
        read = _read_verbatim(inputs, position, log)
    else:
        read = _read_sources(config.sources, inputs, position, log)
    for source, here, document in read:
        if document is not None:
            documents.append(document)
            size += len(document.text)
        if size >= CHUNK_CHARACTERS or document is None:
            yield Chunk(source, documents, here, log.bytes_read, *log.take_reports())
            documents, size = [], 0


# The source's number, the position behind a document, and the document; None at the end of the source.
_Read = Iterator[tuple[int, Position, Document | None]]


def _read_sources(sources: tuple[SourceConfig, ...], inputs: Inputs, position: Position, log: InputLog) -> _Read:
    first_source, first_input, skipped = position
    for source_number, source in enumerate(sources):
        if source_number < first_source:
            log.bytes_read += sum(size for _, size in inputs[source_number])
            continue
        for input_number, (path, size) in enumerate(inputs[source_number]):
            if (source_number, input_number) < (first_source, first_input):
                log.bytes_read += size
                continue
            resumed = (source_number, input_number) == (first_source, first_input)
            for number, document in enumerate(read_input(source, as_path(path), log), 1):
                if resumed and number <= skipped:
                    if number == skipped:
                        log.take_reports()  # they are in the journal
                    continue
                yield source_number, (source_number, input_number, number), document
        yield source_number, (source_number, len(inputs[source_number]), 0), None


def _read_verbatim(inputs: Inputs, position: Position, log: InputLog) -> _Read:
    """Read as one stream, whose documents go on from file to file; a position in it is (0, 0, documents)."""
    skipped = position[2]
    files = [(source, as_path(path)) for source, paths in enumerate(inputs) for path, _ in paths]
    source = number = 0
    for number, (begins_in, document) in enumerate(read_verbatim(files, log), 1):
        if number <= skipped:
            if number == skipped:
                log.take_reports()
            continue
        if begins_in != source:
            yield source, (0, 0, number - 1), None
            source = begins_in
        yield source, (0, 0, number), document
    yield source, (0, 0, number), None


def split_chunk(config: DocumentsConfig, chunk: Chunk) -> Scattered:
    """Clean and split a chunk's documents, and route them to buckets by the hash of their content."""
    source = config.sources[chunk.source]
    log = InputLog(config.on_error)
    parts: dict[int, list[bytes]] = {}
    num_empty = 0
    head = b"%b%d\n" % (_MARK, chunk.source)
    for document in chunk.documents:
        try:
            document = extract(source, document, log)
            sentences = document_sentences(document.text, document.sentences_given, config.verbatim)
        except CorruptInputError:
            raise
        except Exception as error:  # a library that stumbles over a document must name it
            log.corrupt(document.origin, f"{type(error).__name__}: {error}")
            continue
        if not sentences:
            num_empty += 1
            continue
        body = "\n".join(sentences).encode("utf-8", "replace")
        parts.setdefault(_hash(body) % config.num_buckets, []).append(head + body + b"\n")
    num_corrupt, messages = log.take_reports()
    joined = {bucket: b"".join(data) for bucket, data in parts.items()}
    behind = Chunk(
        chunk.source, [], chunk.position, chunk.bytes_read, chunk.num_corrupt + num_corrupt, chunk.messages + messages
    )
    return Scattered(behind, joined, sum(map(len, joined.values())), num_empty)


def _hash(body: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(body, digest_size=16).digest(), "little")


def settle_bucket(directory: Path, config: DocumentsConfig, bucket: int) -> dict[str, Any]:
    """Drop duplicates of one bucket and split it; return `counts` for each source and `files` for each split."""
    raw = directory / "scatter" / f"{bucket:05d}.raw"
    done = raw.with_suffix(".json")
    if done.exists():
        return json.loads(done.read_text())
    seen: set[int] = set()
    kept: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    counts: list[Counts] = []
    for entry in raw.read_bytes().split(_MARK)[1:]:
        head, _, body = entry[:-1].partition(b"\n")
        while len(counts) <= int(head):
            counts.append(Counter())
        source = counts[int(head)]
        digest = _hash(body)
        if digest in seen and not config.verbatim:
            source["duplicates"] += 1
            continue
        seen.add(digest)
        # The bucket took the hash's low end; the split takes its high end.
        split = "validation" if digest / 2**128 < config.validation_fraction else "train"
        kept[split].append(body)
        num_sentences = body.count(b"\n") + 1
        source.update(documents=1, sentences=num_sentences, words=body.count(b" ") + num_sentences, bytes=len(body))
        source[f"{split}_documents"] += 1
    files: dict[str, dict[str, Any]] = {}
    for split, bodies in kept.items():
        file = bucket_file(directory, split, bucket, config.num_buckets)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as stream:
            stream.writelines(body + b"\n\n" for body in bodies)
        files[split] = {"file": file.name, "num_documents": len(bodies), "sha256": file_sha256(temporary)}
        os.replace(temporary, file)
    values = {"counts": counts, "files": files}
    write_json(done, values)
    raw.unlink()
    return values
