"""The kinds of sources: how the inputs of each are listed, read (one process) and extracted (the workers)."""

import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from bert_jax.config import choose
from bert_jax.corpus import books, documents, mediawiki, python_docs, tables
from bert_jax.corpus.documents import Document, InputLog, SourceConfig
from bert_jax.corpus.remote import AnyPath, file_bytes, is_object_store, list_files

Inputs = list[list[tuple[str, int]]]  # for each source its inputs, each with its size in bytes

_COMPRESSED = ("", ".gz", ".bz2")
_EXPANSION = {".gz": 3, ".bz2": 4, ".parquet": 2}  # decompressed bytes a byte of file, roughly


@dataclass(frozen=True)
class Kind:
    """How one kind of source becomes documents.

    Attributes:
        suffixes: which files of a directory belong to it; "" takes every file.
        read: yields an input's documents, cheaply.
        extract: turns a document as read into paragraphs, one a line; None when it is that already.
        text_share: of the decompressed bytes, what is left as text at the most.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Any, SourceConfig, InputLog], Iterator[Document]]
    extract: Callable[[Document, InputLog], Document] | None = None
    text_share: float = 1.0


KINDS: dict[str, Kind] = {
    "sentences": Kind((".txt",), documents.read_sentences),
    "lines": Kind((".txt",), documents.read_sentence_lines),
    "books": Kind((".txt", ".md"), documents.read_book, books.extract_book),
    "jsonl": Kind((".jsonl", ".json"), documents.read_jsonl),
    "wikiextractor": Kind(("",), documents.read_wikiextractor),
    "mediawiki": Kind(("",), mediawiki.read_mediawiki, mediawiki.extract_mediawiki, text_share=0.5),
    "parquet": Kind((".parquet",), tables.read_parquet),
    "tfds": Kind(("",), tables.read_tfds),
    "python_docs": Kind((".py",), python_docs.read_python_docs, python_docs.extract_python_docs),
}


def list_inputs(source: SourceConfig) -> list[AnyPath]:
    """Return the inputs of a source in the order in which they are read.

    Raises:
        ValueError: an unknown kind.
        FileNotFoundError: nothing matches the path.
    """
    choose("source kind", source.kind, KINDS)
    if source.kind == "python_docs":
        return [*python_docs.list_python_docs(source.path)]
    if source.kind == "tfds":
        return [Path(name) for name in source.path.split(",")]
    suffixes = tuple(a + b for a in KINDS[source.kind].suffixes for b in _COMPRESSED)
    found: list[AnyPath] = []
    for part in filter(None, source.path.split(",")):
        part = os.path.expanduser(part)
        if is_object_store(part):
            files = _list_remote(epath.Path(part), suffixes)
        elif os.path.isdir(part):
            inside = (path for path in Path(part).rglob("*") if path.is_file() and not path.name.startswith("."))
            files = sorted(path for path in inside if path.name.endswith(suffixes))
        else:
            files = sorted(Path(path) for path in glob.glob(part, recursive=True) if os.path.isfile(path))
        if not files:
            accepted = ", ".join(filter(None, suffixes)) or "any"
            raise FileNotFoundError(
                f"source path {part!r} (kind {source.kind}) matches no file; give a file, a glob, or a directory "
                f"with files of suffix {accepted}"
            )
        found += files
    if not found:
        raise ValueError(f"the source of kind {source.kind} has no path; give one: path=/data/*.txt")
    return found


def _list_remote(path: epath.Path, suffixes: tuple[str, ...]) -> list[epath.Path]:
    if path.is_dir():
        return sorted(path / name for name in list_files(path) if name.endswith(suffixes))
    return sorted(found for found in path.parent.glob(path.name) if not found.is_dir())


def sized_inputs(sources: tuple[SourceConfig, ...]) -> Inputs:
    """Return the inputs of each source with their sizes; a dataset, which is no file, has size 0."""
    return [
        [(str(path), file_bytes(path) if path.exists() else 0) for path in list_inputs(source)] for source in sources
    ]


def estimate_text_bytes(source: SourceConfig) -> int:
    """Return about how many bytes of text a source has; raises, as reading would, when it is not there."""
    if source.kind == "tfds":
        return sum(tables.count_tfds_bytes(path, source) for path in list_inputs(source))
    sizes = (file_bytes(path) * _EXPANSION.get(path.suffix, 1) for path in list_inputs(source))
    return int(sum(sizes) * KINDS[source.kind].text_share)


def read_input(source: SourceConfig, path: AnyPath, log: InputLog) -> Iterator[Document]:
    """Yield the documents of one input."""
    return KINDS[source.kind].read(path, source, log)


def extract(source: SourceConfig, document: Document, log: InputLog) -> Document:
    """Return a document as read with one paragraph (or given sentence) a line."""
    function = KINDS[source.kind].extract
    return document if function is None else function(document, log)
