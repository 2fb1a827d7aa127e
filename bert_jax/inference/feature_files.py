"""Files of vectors: hdf5 as bilm-tf and AllenNLP write it, npz with the same entries, Google's JSON lines.

hdf5 and npz: "0", "1", … (the line's number from 0) → [layers, words, width], or [words, width] of combined layers;
`sentence_to_index` → a JSON object: a line's words, a space between each → its key. Of equal lines it has the last
one's, as AllenNLP's has.
JSON lines: google-research/bert `extract_features.py`, layout and rounding.
"""

import json
import os
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import h5py
import numpy as np

from bert_jax.inference.features import Features

SENTENCES = "sentence_to_index"
HDF5, NPZ, JSON_LINES = ".hdf5", ".npz", ".jsonl"
_DIGITS = 6  # of extract_features.py


class _Format(Protocol):
    def add(self, features: Features) -> None: ...

    def finish(self) -> None:
        """Write what comes last, and close the file."""

    def drop(self) -> None:
        """Close the file."""


class FeatureFile:
    """A file in the making, as a context: it gets its name when it is whole, and an error leaves none behind."""

    def __init__(self, path: str | os.PathLike[str], layer_names: tuple[int, ...] = ()) -> None:
        """Begin `path`, whose ending says the format.

        Args:
            path: ends with one of `.hdf5`, `.npz`, `.jsonl`.
            layer_names: what JSON lines call the layers.

        Raises:
            ValueError: another ending.
        """
        self._path = Path(path)
        check_ending(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished = self._path.with_name(f"{self._path.name}.unfinished")
        self._format: _Format
        if self._path.suffix == JSON_LINES:
            self._format = _JsonLines(self._unfinished, layer_names)
        else:
            self._format = {HDF5: _Hdf5, NPZ: _Npz}[self._path.suffix](self._unfinished)

    def add(self, features: Features) -> None:
        """Write a line's vectors."""
        self._format.add(features)

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._format.finish()
            self._unfinished.replace(self._path)
        else:
            self._format.drop()
            self._unfinished.unlink(missing_ok=True)


def check_ending(path: str | os.PathLike[str]) -> str:
    """Return a path's ending.

    Raises:
        ValueError: it names no format.
    """
    if Path(path).suffix not in (HDF5, NPZ, JSON_LINES):
        raise ValueError(f"{path} ends with {Path(path).suffix!r}; {HDF5}, {NPZ} and {JSON_LINES} are written")
    return Path(path).suffix


class _Hdf5:
    def __init__(self, path: Path) -> None:
        self._file, self._keys = h5py.File(path, "w"), {}

    def add(self, features: Features) -> None:
        key = str(features.index)
        self._file.create_dataset(key, data=features.vectors)
        self._keys[" ".join(features.words)] = key

    def finish(self) -> None:
        dataset = self._file.create_dataset(SENTENCES, (1,), dtype=h5py.string_dtype())
        dataset[0] = json.dumps(self._keys)
        self._file.close()

    def drop(self) -> None:
        self._file.close()


class _Npz:
    def __init__(self, path: Path) -> None:
        self._file, self._keys = zipfile.ZipFile(path, "w", allowZip64=True), {}

    def add(self, features: Features) -> None:
        key = str(features.index)
        self._write(key, features.vectors)
        self._keys[" ".join(features.words)] = key

    def finish(self) -> None:
        self._write(SENTENCES, np.array(json.dumps(self._keys)))
        self._file.close()

    def drop(self) -> None:
        self._file.close()

    def _write(self, key: str, values: np.ndarray) -> None:
        # Not savez, which wants all arrays at once. A fixed date: the same vectors are the same file.
        entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
        with self._file.open(entry, "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, np.ascontiguousarray(values), allow_pickle=False)


class _JsonLines:
    def __init__(self, path: Path, layer_names: tuple[int, ...]) -> None:
        self._file, self._names = path.open("w", encoding="utf-8"), layer_names

    def add(self, features: Features) -> None:
        rounded = [[[round(x, _DIGITS) for x in row] for row in layer.tolist()] for layer in features.vectors]
        found: list[dict[str, Any]] = []
        for place, token in enumerate(features.words):
            layers = zip(self._names, rounded, strict=True)
            found.append(
                {"token": token, "layers": [{"index": name, "values": layer[place]} for name, layer in layers]}
            )
        line = {"linex_index": features.index, "features": found}  # sic
        self._file.write(json.dumps(line) + "\n")

    def finish(self) -> None:
        self._file.close()

    def drop(self) -> None:
        self._file.close()
