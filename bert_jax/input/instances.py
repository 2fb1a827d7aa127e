"""An instance set opened for reading: any rows of a split, by their index.

What is wrong with the files is said here, at the door, or with the shard and record where reading met it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # has no stubs
from jaxtyping import Int

from bert_jax.config import choose
from bert_jax.corpus import records, streams
from bert_jax.corpus.remote import AnyPath, as_path, cache_directory, local_set

# Random access: no reading ahead, and a file buffer of about one record (4,096 measured no slower than any other).
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
READER_BUFFER_BYTES = 4096


class RecordSet:
    """One split of an instance set of any kind; safe to read from several threads.

    Attributes:
        directory: <corpus>/instances/<name>.
        split: "train" or "validation".
    """

    def __init__(
        self, directory: Path, shards: Sequence[records.Shard], split: str, record_bytes: int | None = None
    ) -> None:
        """Open the split's shards and hold them against their entries in the manifest.

        Args:
            directory: of the set.
            shards: of the split.
            split: its name.
            record_bytes: of every record; None where they differ.
        """
        self.directory, self.split = directory, split
        self._shards, self._record_bytes = shards, record_bytes
        self._readers = [_open_shard(directory / shard.file, shard) for shard in shards]
        self._first_records = np.cumsum([0, *(shard.num_records for shard in shards)])

    def __len__(self) -> int:
        """Return the number of records of the split."""
        return int(self._first_records[-1])

    def read_records(self, indices: Int[np.ndarray, " rows"]) -> list[bytes]:
        """Return the records with these indices, in this order; an index may come twice.

        Raises:
            ValueError: a record cannot be read or has another size than the set's; names its shard and number.
        """
        order = np.argsort(indices)  # ascending, so that neighbours on the disk are read after each other
        ascending = indices[order]
        assert len(indices) == 0 or 0 <= ascending[0] <= ascending[-1] < len(self), (ascending[0], ascending[-1])
        shards = np.searchsorted(self._first_records, ascending, side="right") - 1
        numbers = ascending - self._first_records[shards]
        found: list[bytes] = [b""] * len(indices)
        for place, shard, number in zip(order.tolist(), shards.tolist(), numbers.tolist(), strict=True):
            found[place] = self._read_record(shard, number)
        return found

    def close(self) -> None:
        """Close the shards; iterators over the set must have been closed before."""
        for reader in self._readers:
            reader.close()

    def _read_record(self, shard: int, number: int) -> bytes:
        # A range of one record takes 3 to 7 µs of CPU. Longer ranges and lists take 15 to 30 µs a record, because
        # ArrayRecord then sets up a reader for each part (0.8.6, measured under load).
        try:
            [record] = self._readers[shard].read(number, number + 1)
        except Exception as error:  # array_record's error types differ between versions
            raise ValueError(f"{self._name(shard, number)} cannot be read ({error}); {self._advice()}") from error
        if self._record_bytes not in (None, len(record)):
            raise ValueError(
                f"{self._name(shard, number)} has {len(record)} bytes, the set's have {self._record_bytes}; "
                f"{self._advice()}"
            )
        return record

    def _name(self, shard: int, number: int) -> str:
        return f"{self.directory / self._shards[shard].file}, record {number},"

    def _advice(self) -> str:
        if self.directory.is_relative_to(cache_directory()):
            return f"the copy of this shard is corrupt: remove {self.directory} and run again, it is copied anew"
        command = f"python -m launch.prepare --corpus={self.directory.parents[1]} --verify"
        return (
            f"the shard is corrupt: `{command}` says which are; copy them again, or remove {self.directory} and "
            "prepare the corpus again"
        )


class InstanceSet(RecordSet):
    """One split of a set of BERT's rows. Made by `open_instances`.

    Attributes:
        manifest: of the set, both splits.
    """

    def __init__(self, directory: Path, manifest: records.InstanceManifest, split: str) -> None:
        """Open the split's shards and hold them against the manifest."""
        super().__init__(directory, manifest.splits[split], split, manifest.record_format.dtype.itemsize)
        self.manifest = manifest

    def read(self, indices: Int[np.ndarray, " rows"]) -> records.Rows:
        """Return the rows with these indices; see `read_records`."""
        return records.decode_rows(self.read_records(indices), self.manifest.record_format)


class WindowSet(RecordSet):
    """One split of a set of word windows. Made by `open_windows`.

    Attributes:
        manifest: of the set, both splits.
    """

    def __init__(self, directory: Path, manifest: streams.StreamManifest, split: str) -> None:
        """Open the split's shards and hold them against the manifest."""
        super().__init__(directory, manifest.splits[split], split)
        self.manifest = manifest

    def read(self, indices: Int[np.ndarray, " windows"]) -> list[str]:
        """Return the words of these windows, as `streams.decode_windows` has them; see `read_records`."""
        return streams.decode_windows(self.read_records(indices), self.manifest.words_per_window)


def open_instances(corpus: str | os.PathLike[str], name: str, split: str) -> InstanceSet:
    """Open a split of the instance set `<corpus>/instances/<name>`; one in a bucket is copied to this disk, once.

    Raises:
        FileNotFoundError: no such corpus, set or shard; the message lists the sets there are.
        ValueError: no such split, a split without rows, or a shard that is not what the manifest says.
    """
    directory = set_directory(corpus, name)
    manifest = records.read_manifest(directory)
    _check_split(directory, manifest, split)
    return InstanceSet(directory, manifest, split)


def open_windows(corpus: str | os.PathLike[str], name: str, split: str) -> WindowSet:
    """Open a split of the set of word windows `<corpus>/instances/<name>`; see `open_instances` for the errors."""
    directory = set_directory(corpus, name)
    manifest = streams.read_stream_manifest(directory)
    _check_split(directory, manifest, split)
    return WindowSet(directory, manifest, split)


def set_directory(corpus: str | os.PathLike[str], name: str) -> Path:
    """Return the directory of an instance set that was prepared to its end; see `open_instances` for the errors."""
    directory = local_set(corpus, name)
    if not (directory / records.MANIFEST).exists():
        raise FileNotFoundError(_missing_set(as_path(corpus), name))
    return directory


def _check_split(directory: Path, manifest: records.InstanceManifest | streams.StreamManifest, split: str) -> None:
    choose(f"the split of {directory}", split, manifest.splits)
    if manifest.num_records(split) == 0:
        raise ValueError(
            f"the split {split!r} of {directory} has no rows; prepare the corpus with more text, "
            "or with a larger share of it for this split (validation_fraction; mode 'google' has no validation)"
        )


def _open_shard(path: Path, shard: records.Shard) -> array_record_module.ArrayRecordReader:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist, but its manifest lists it with {shard.num_records} records; "
            "copy the instance set again, or prepare the corpus again"
        )
    try:
        reader = array_record_module.ArrayRecordReader(
            str(path), options=READER_OPTIONS, file_reader_buffer_size=READER_BUFFER_BYTES
        )
        num_records = reader.num_records()
    except Exception as error:  # array_record's error types differ between versions
        raise ValueError(
            f"{path} is not a whole ArrayRecord file ({error}); copy it again, or prepare the corpus again"
        ) from error
    if num_records != shard.num_records:
        raise ValueError(
            f"{path} has {num_records} records, its manifest says {shard.num_records}; "
            "copy the instance set again, or prepare the corpus again"
        )
    return reader


def _missing_set(corpus: AnyPath, name: str) -> str:
    advice = "`python -m launch.prepare --config=configs/corpus.py:…` makes it"
    if not corpus.is_dir():
        return f"there is no corpus {corpus}: no such directory; {advice}"
    sets = sorted(path.parent.name for path in corpus.glob(f"instances/*/{records.MANIFEST}"))
    return (
        f"the corpus {corpus} has no instance set {name!r} that was prepared to its end; "
        f"it has {', '.join(sets) or 'none'}; {advice}"
    )
