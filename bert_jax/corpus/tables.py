"""Readers of sources that keep documents as rows of a table: parquet files and TFDS datasets."""

from collections.abc import Iterator
from pathlib import Path

from bert_jax.corpus.documents import Document, InputLog, SourceConfig

ROWS_PER_READ = 1024


def read_parquet(path: Path, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Read a parquet file with a text column and optionally a `title`.

    A row is a document, or, with `source.rows_per_document`, a sentence, and so many rows are made one document.
    """
    import pyarrow
    import pyarrow.parquet

    consumed, number = log.bytes_read, 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if source.column not in names:
                raise KeyError(source.column)
            columns = [source.column] + ["title"] * ("title" in names and not source.rows_per_document)
            for batch in file.iter_batches(batch_size=source.rows_per_document or ROWS_PER_READ, columns=columns):
                rows = batch.to_pylist()
                texts = [row[source.column] or "" for row in rows]
                if source.rows_per_document:
                    yield Document("\n".join(texts), "", f"{path}, row {number}", sentences_given=True)
                else:
                    for offset, (row, text) in enumerate(zip(rows, texts, strict=True)):
                        yield Document(text, row.get("title") or "", f"{path}, row {number + offset}")
                number += len(rows)
    except KeyError:
        raise ValueError(
            f"{path} has no column {source.column!r}; it has {', '.join(names)}: set the source's column"
        ) from None
    except (pyarrow.ArrowException, OSError) as error:
        log.corrupt(f"{path}, row {number}", str(error).splitlines()[0])
    log.bytes_read = consumed + path.stat().st_size
