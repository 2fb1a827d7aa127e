"""Readers of sources that keep documents as rows of a table: parquet files and TFDS datasets."""

import os
from collections.abc import Iterator
from typing import Any

from bert_jax.corpus.documents import Document, InputLog, SourceConfig
from bert_jax.corpus.remote import AnyPath, file_bytes, is_object_store

ROWS_PER_READ = 1024


def read_parquet(path: AnyPath, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Read a parquet file with a text column and optionally a `title`.

    A row is a document, or, with `source.rows_per_document`, a sentence, and so many rows are made one document.
    """
    import pyarrow
    import pyarrow.parquet

    consumed, number = log.bytes_read, 0
    try:
        with pyarrow.parquet.ParquetFile(path.open("rb") if is_object_store(path) else path) as file:
            names = file.schema_arrow.names
            if source.column not in names:
                raise KeyError(source.column)
            kind = file.schema_arrow.field(source.column).type
            if pyarrow.types.is_dictionary(kind):
                kind = kind.value_type
            if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
                raise ValueError(
                    f"{path}: the column {source.column!r} holds {kind}, not text; it has {', '.join(names)}: "
                    "set the source's column"
                )
            columns = [source.column] + ["title"] * ("title" in names and not source.rows_per_document)
            for batch in file.iter_batches(batch_size=source.rows_per_document or ROWS_PER_READ, columns=columns):
                rows = batch.to_pylist()
                texts = [row[source.column] or "" for row in rows]
                if source.rows_per_document:
                    yield Document("\n".join(texts), "", f"{path}, row {number}", sentences_given=True)
                else:
                    for offset, (row, text) in enumerate(zip(rows, texts, strict=True)):
                        yield Document(text, str(row.get("title") or ""), f"{path}, row {number + offset}")
                number += len(rows)
    except KeyError:
        raise ValueError(
            f"{path} has no column {source.column!r}; it has {', '.join(names)}: set the source's column"
        ) from None
    except (pyarrow.ArrowException, OSError) as error:
        log.corrupt(f"{path}, row {number}", str(error).splitlines()[0])
    log.bytes_read = consumed + file_bytes(path)


def parse_tfds_name(name: str) -> tuple[str, str]:
    """Return (builder, split) of `[tfds:]NAME[/CONFIG][:split]`; the split is `train` unless given."""
    builder, _, split = name.removeprefix("tfds:").partition(":")
    return builder, split or "train"


def read_tfds(path: AnyPath, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Read a TFDS dataset that was prepared as ArrayRecord, without TensorFlow; `path` is its name.

    Raises:
        ValueError: it was prepared as TFRecord, or has no such split or text.
        FileNotFoundError: it was not prepared in TFDS_DATA_DIR.
    """
    builder, name, split = open_tfds(path, source)
    rows = builder.as_data_source(split=split)
    for number in range(len(rows)):
        row = rows[number]
        if source.column not in row:
            raise ValueError(f"rows of {name} have no {source.column!r}, but {', '.join(row)}: set the source's column")
        text, title = (_as_text(row.get(key, "")) for key in (source.column, "title"))
        yield Document(text, title, f"tfds:{name}:{split}, row {number}")


def count_tfds_bytes(path: AnyPath, source: SourceConfig) -> int:
    """Return the bytes of a dataset's rows; raises as `read_tfds` does."""
    builder, _, split = open_tfds(path, source)
    return builder.info.splits[split].num_bytes


def open_tfds(path: AnyPath, source: SourceConfig) -> tuple[Any, str, str]:
    """Return the builder, name and split of a dataset that can be read."""
    import tensorflow_datasets as tfds

    name, split = parse_tfds_name(str(path))
    prepare = f"`tfds build {name} --file_format=array_record` (which needs TensorFlow)"
    data_dir = source.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        builder: Any = tfds.builder(name, data_dir=os.path.expanduser(data_dir))
    except tfds.core.DatasetNotFoundError:
        builder = None
    if builder is None or not builder.info.splits:
        raise FileNotFoundError(f"no dataset {name} is prepared in {data_dir}; run {prepare}, or set TFDS_DATA_DIR")
    if split not in builder.info.splits:
        raise ValueError(f"the TFDS dataset {name} has no split {split!r}; it has {', '.join(builder.info.splits)}")
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"the TFDS dataset {name} in {builder.data_dir} is stored as {builder.info.file_format.value}, which takes "
            f"TensorFlow to read; prepare it again, into another directory, by {prepare}"
        )
    return builder, name, split


def _as_text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
