"""Read TensorFlow's checkpoint files without TensorFlow: PREFIX.index and PREFIX.data-00000-of-00001.

Source: tensorflow/core/util/tensor_bundle (BundleHeaderProto, BundleEntryProto, tensors as raw little-endian bytes)
and tensorflow/core/lib/io/table (the index is a LevelDB table: sorted keys in blocks, with shared prefixes).
Differs: reads whole numeric tensors only; no strings, no slices of partitioned variables, no big-endian writers.
"""

import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48  # two handles of blocks, padded, and the magic number
_TRAILER_BYTES = 5  # behind each block: its compression, and a checksum
# tensorflow/core/framework/types.proto
_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 14: jnp.bfloat16, 19: np.float16}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


class Entry(NamedTuple):
    """Where a tensor lies.

    Attributes:
        dtype: TensorFlow's number for it.
        shape: of the tensor.
        shard: number of the data file.
        offset: first byte.
        size: bytes.
        is_sliced: whether it is a partitioned variable, whose parts lie elsewhere.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    is_sliced: bool


class TensorBundle:
    """An opened checkpoint.

    Attributes:
        prefix: the files' common beginning.
        entries: by the variables' names.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        """Read the index.

        Raises:
            FileNotFoundError: there is none; with the checkpoints that are beside it.
            ValueError: it is not an index of TensorFlow's.
        """
        self.prefix = os.fspath(prefix)
        path = Path(f"{self.prefix}.index")
        if not path.exists():
            beside = sorted(str(other)[: -len(".index")] for other in path.parent.glob("*.index"))
            found = f"there are {', '.join(beside)}" if beside else f"{path.parent} has no checkpoint of TensorFlow's"
            raise FileNotFoundError(f"{path} does not exist; a checkpoint is named without its ending: {found}")
        pairs = dict(_table(path.read_bytes(), path))
        header = dict(_fields(pairs.pop(b"", b"")))
        if header.get(2, 0):
            raise ValueError(f"{path} is big-endian, which no released model is; it is not read")
        self._num_shards = int(header.get(1, 1))
        self.entries: Mapping[str, Entry] = {key.decode(): _entry(value) for key, value in pairs.items()}

    def read(self, name: str) -> np.ndarray:
        """Return a tensor.

        Raises:
            FileNotFoundError: its data file is missing.
            ValueError: it is cut short, or of a kind that is not read.
        """
        entry = self.entries[name]
        path = Path(f"{self.prefix}.data-{entry.shard:05d}-of-{self._num_shards:05d}")
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; a checkpoint is {self.prefix}.index and its data files")
        if entry.dtype not in _DTYPES or entry.is_sliced:
            kind = "partitioned" if entry.is_sliced else f"of TensorFlow's type {entry.dtype}"
            raise ValueError(f"{name} in {self.prefix} is {kind}; whole numeric tensors are read")
        dtype = np.dtype(_DTYPES[entry.dtype])
        with open(path, "rb") as file:
            file.seek(entry.offset)
            content = file.read(entry.size)
        if len(content) != entry.size or entry.size != math.prod(entry.shape) * dtype.itemsize:
            raise ValueError(f"{name} in {path} has {len(content)} bytes, not those of {entry.shape}; copy it again")
        return np.frombuffer(content, dtype).reshape(entry.shape)


def _table(content: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a LevelDB table."""
    if len(content) < _FOOTER_BYTES or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
        raise ValueError(f"{path} is not the index of a TensorFlow checkpoint, or is cut short")
    footer = content[-_FOOTER_BYTES:]
    _, place = _handle(footer, 0)  # of the meta index, which is empty
    index, _ = _handle(footer, place)
    for _, value in _block(content, index, path):
        handle, _ = _handle(value, 0)
        yield from _block(content, handle, path)


def _block(content: bytes, handle: tuple[int, int], path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a block: length shared with the key before, of the key's rest, of the value; both."""
    offset, size = handle
    if offset + size + _TRAILER_BYTES > len(content):
        raise ValueError(f"{path} is damaged; copy it again")
    if content[offset + size]:
        raise ValueError(f"{path} is compressed, which TensorFlow's indexes are not; it is not read")
    block = content[offset : offset + size]
    (num_restarts,) = struct.unpack("<I", block[-4:])
    end, place, key = len(block) - 4 - 4 * num_restarts, 0, b""
    while place < end:
        shared, place = _varint(block, place)
        unshared, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + unshared]
        place += unshared
        yield key, block[place : place + length]
        place += length


def _entry(message: bytes) -> Entry:
    """Decode a BundleEntryProto."""
    fields = list(_fields(message))
    values = dict(fields)
    shape = []
    for number, dimension in _fields(_as_bytes(values.get(2, b""))):  # TensorShapeProto
        if number == 2:
            shape.append(_as_int(dict(_fields(_as_bytes(dimension))).get(1, 0)))
    ints = {number: _as_int(values.get(number, 0)) for number in (1, 3, 4, 5)}
    return Entry(ints[1], tuple(shape), ints[3], ints[4], ints[5], is_sliced=7 in values)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the numbers and values of a protocol buffer's fields."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, place = _varint(message, place)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire_type} in a protocol buffer; the checkpoint's index is damaged")
        yield number, message[place : place + length]
        place += length


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """Return the number at a place, seven bits a byte from the lowest, and the place behind it."""
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def _handle(content: bytes, place: int) -> tuple[tuple[int, int], int]:
    offset, place = _varint(content, place)
    size, place = _varint(content, place)
    return (offset, size), place


def _as_int(value: int | bytes) -> int:
    assert isinstance(value, int), "a number in BundleEntryProto"
    return value


def _as_bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes), "a message in BundleEntryProto"
    return value
