"""The record schema: what one row of a pretraining instance set is, on disk and in memory.

A row is `sequence_length` tokens: one sequence, or several packed ones. Outside mode `google` it is unmasked, so
every epoch can draw its own masks; word boundaries are kept, so whole words can be masked. Rows have one fixed
length in bytes, so a batch decodes as one `numpy.frombuffer`.

    tokens      [CLS] un ##able [SEP] yes [SEP] [PAD]
    segment       0   0    0      0    1    1     0
    word_start    1   1    0      1    1    1     0
    sequence      1   1    1      1    1    1     0      (0 = padding; the k-th packed sequence is k)
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

SCHEMA_VERSION = 1
MAX_SEQUENCES_PER_ROW = 63  # a flag byte holds 1 bit of segment, 1 of word start, 6 of the sequence's number
MANIFEST = "manifest.json"
KIND = "bert"  # of instance set: rows as they are drawn above

# Labels of next_sentence_labels, in Google's order (create_pretraining_data.py: 1 = random next).
IS_NEXT, IS_RANDOM = 0, 1
NO_LABEL = 255  # an instance set without sentence pairs; becomes next_sentence_weights 0


@dataclasses.dataclass(frozen=True)
class RecordFormat:
    """The fixed sizes of an instance set's rows.

    Attributes:
        sequence_length: tokens a row, 3 or more.
        vocab_size: decides whether a token id takes 2 or 4 bytes.
        max_sequences_per_row: 1 unless sequences are packed; at most 63.
        max_predictions_per_sequence: stored static masks a row (mode `google`); 0 = masks are drawn online.
    """

    sequence_length: int
    vocab_size: int
    max_sequences_per_row: int = 1
    max_predictions_per_sequence: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that a record cannot hold."""
        if not 3 <= self.sequence_length <= 65_535:
            raise ValueError(f"sequence_length is {self.sequence_length}; a record holds 3 to 65535 tokens")
        if not 1 <= self.max_sequences_per_row <= MAX_SEQUENCES_PER_ROW:
            raise ValueError(
                f"max_sequences_per_row is {self.max_sequences_per_row}; a record holds 1 to {MAX_SEQUENCES_PER_ROW}"
            )

    @property
    def dtype(self) -> np.dtype:
        """The packed, little-endian numpy type of one record."""
        token_id = "<u2" if self.vocab_size <= 65_536 else "<u4"
        fields: list[tuple[str, str, tuple[int, ...]]] = [
            ("input_ids", token_id, (self.sequence_length,)),
            ("flags", "u1", (self.sequence_length,)),
            ("sequence_starts", "<u2", (self.max_sequences_per_row,)),
            ("next_sentence_labels", "u1", (self.max_sequences_per_row,)),
        ]
        if self.max_predictions_per_sequence:
            predictions = (self.max_predictions_per_sequence,)
            fields += [
                ("masked_lm_positions", "<u2", predictions),
                ("masked_lm_ids", token_id, predictions),
                ("num_masked", "<u2", ()),
            ]
        return np.dtype(fields)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Decoded rows; every array has a leading row axis.

    Attributes:
        input_ids: int32 [rows, length]; 0 in padding.
        segment_ids: int32 [rows, length]; 0 for the first sentence, 1 for the second, 0 in padding.
        word_starts: bool [rows, length]; False inside a word and in padding; special tokens start a word.
        sequence_ids: int32 [rows, length]; 1, 2, … for the packed sequences, 0 in padding.
        sequence_starts: int32 [rows, sequences]; where each [CLS] stands; 0 for absent sequences.
        next_sentence_labels: int32 [rows, sequences]; IS_NEXT, IS_RANDOM, or NO_LABEL (also for absent ones).
        masked_lm_positions, masked_lm_ids: int32 [rows, predictions], 0 behind num_masked; None unless static.
        num_masked: int32 [rows]; None unless static.
    """

    input_ids: np.ndarray
    segment_ids: np.ndarray
    word_starts: np.ndarray
    sequence_ids: np.ndarray
    sequence_starts: np.ndarray
    next_sentence_labels: np.ndarray
    masked_lm_positions: np.ndarray | None = None
    masked_lm_ids: np.ndarray | None = None
    num_masked: np.ndarray | None = None


def encode_rows(rows: Rows, record_format: RecordFormat) -> list[bytes]:
    """Return one record a row; `decode_rows` is its inverse."""
    # Narrower integers would wrap around in silence.
    assert 0 <= rows.input_ids.min(initial=0) <= rows.input_ids.max(initial=0) < record_format.vocab_size
    assert rows.sequence_ids.max(initial=0) <= record_format.max_sequences_per_row
    assert (rows.num_masked is not None) == (record_format.max_predictions_per_sequence > 0)
    records = np.zeros(len(rows.input_ids), record_format.dtype)
    records["input_ids"] = rows.input_ids
    records["flags"] = rows.segment_ids | (rows.word_starts.astype(np.int32) << 1) | (rows.sequence_ids << 2)
    records["sequence_starts"] = rows.sequence_starts
    records["next_sentence_labels"] = rows.next_sentence_labels
    if rows.num_masked is not None:
        assert rows.masked_lm_positions is not None
        assert rows.masked_lm_ids is not None
        records["masked_lm_positions"] = rows.masked_lm_positions
        records["masked_lm_ids"] = rows.masked_lm_ids
        records["num_masked"] = rows.num_masked
    size, data = record_format.dtype.itemsize, records.tobytes()
    return [data[start : start + size] for start in range(0, len(data), size)]


def decode_rows(records: Sequence[bytes], record_format: RecordFormat) -> Rows:
    """Decode records of one instance set.

    Raises:
        ValueError: a record of another size than the format's (a corrupt shard, or another set's).
    """
    size = record_format.dtype.itemsize
    for position, record in enumerate(records):
        if len(record) != size:
            raise ValueError(
                f"record {position} of the batch has {len(record)} bytes, its format {size}; "
                "the shard is corrupt or of another instance set: prepare the corpus again"
            )
    table = np.frombuffer(b"".join(records), record_format.dtype)
    flags = table["flags"].astype(np.int32)
    static = record_format.max_predictions_per_sequence > 0
    return Rows(
        input_ids=table["input_ids"].astype(np.int32),
        segment_ids=flags & 1,
        word_starts=(flags & 2).astype(bool),
        sequence_ids=flags >> 2,
        sequence_starts=table["sequence_starts"].astype(np.int32),
        next_sentence_labels=table["next_sentence_labels"].astype(np.int32),
        masked_lm_positions=table["masked_lm_positions"].astype(np.int32) if static else None,
        masked_lm_ids=table["masked_lm_ids"].astype(np.int32) if static else None,
        num_masked=table["num_masked"].astype(np.int32) if static else None,
    )


@dataclasses.dataclass(frozen=True)
class Shard:
    """One ArrayRecord file of an instance set: its name beside the manifest, its records and its sha256."""

    file: str
    num_records: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class InstanceManifest:
    """What `instances/<name>/manifest.json` says; without that file the set does not exist.

    Attributes:
        name: the set's directory name, such as `nsp-128`.
        record_format: the sizes of a row.
        pairs: "nsp", "sop" or "none".
        masking: "online", or "static" for mode `google`.
        seed: what all random choices of the set were drawn from.
        config_fingerprint: of the corpus config that made it.
        special_ids: ids of `pad`, `unk`, `cls`, `sep` and `mask`.
        splits: for "train" and "validation" the shards in their order.
        counts: for each split rows, sequences, real_tokens, documents (and what else the builder counted).
    """

    name: str
    record_format: RecordFormat
    pairs: str
    masking: str
    seed: int
    config_fingerprint: str
    special_ids: dict[str, int]
    splits: dict[str, tuple[Shard, ...]]
    counts: dict[str, dict[str, int]]
    schema_version: int = SCHEMA_VERSION
    kind: str = KIND

    def num_records(self, split: str) -> int:
        """Return the number of rows of a split."""
        return sum(shard.num_records for shard in self.splits[split])


def write_manifest(directory: str | os.PathLike[str], manifest: Any) -> None:
    """Write `manifest.json` by rename, last of all files, so that a set with a manifest is whole.

    Args:
        directory: of the set.
        manifest: a dataclass, `InstanceManifest` or another kind's.
    """
    path = Path(directory) / MANIFEST
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(manifest), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_manifest(directory: str | os.PathLike[str]) -> InstanceManifest:
    """Read the manifest of an instance set.

    Raises:
        FileNotFoundError: no manifest: the set was not prepared, or preparing it was interrupted.
        ValueError: the manifest is of another schema version or another kind of set.
    """
    values = read_manifest_values(epath.Path(directory), KIND)
    values["record_format"] = RecordFormat(**values["record_format"])
    return InstanceManifest(**values)


def read_manifest_values(directory: epath.Path, kind: str) -> dict[str, Any]:
    """Return what `manifest.json` says of a set of one kind, its shards built; see `read_manifest` for the errors."""
    path = directory / MANIFEST
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: the instance set was not prepared to its end; "
            "run `python -m launch.prepare` with the corpus' config again, it continues where it stopped"
        )
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if values.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {values.get('schema_version')}, this code reads {SCHEMA_VERSION}; "
            "prepare the corpus again"
        )
    if values.get("kind", KIND) != kind:  # the first manifests had none
        raise ValueError(f"{path} is of an instance set of kind {values.get('kind', KIND)!r}; {kind!r} is read here")
    values["splits"] = {split: tuple(Shard(**shard) for shard in shards) for split, shards in values["splits"].items()}
    return values
