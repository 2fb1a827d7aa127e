"""A bucket in memory for gs:// paths, as epath and fsspec see it: whole objects, no directories, no appending."""

import io
import threading
from typing import Any

import fsspec
from etils.epath import backend


class FakeBucket(fsspec.AbstractFileSystem):
    """The calls of gcsfs that are used, over a dict of objects by their name `bucket/path`."""

    protocol = ("gcs", "gs")
    cachable = False
    objects: dict[str, bytes] = {}  # noqa: RUF012 - one bucket for all instances
    lock = threading.RLock()

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = _name(path)
        if path in self.objects:
            found = [self.info(path)]
        else:
            children = {name[len(path) + 1 :].split("/")[0] for name in self.objects if name.startswith(f"{path}/")}
            if not children:
                raise FileNotFoundError(path)
            found = [self.info(f"{path}/{child}") for child in sorted(children)]
        return found if detail else [entry["name"] for entry in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = _name(path)
        if path in self.objects:
            return {"name": path, "size": len(self.objects[path]), "type": "file"}
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        path = _name(path)
        if mode[0] == "r":
            if path not in self.objects:
                raise FileNotFoundError(path)
            raw: io.BytesIO = io.BytesIO(self.objects[path])
        elif mode[0] == "w":
            raw = _Upload(self, path)
        else:
            raise ValueError(f"a bucket has no mode {mode!r}")
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding="utf-8")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        path = _name(path)
        with self.lock:
            if mode == "create" and path in self.objects:
                raise FileExistsError(path)
            self.objects[path] = bytes(value)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        self.objects[_name(path2)] = self.objects[_name(path1)]

    def rm_file(self, path: str) -> None:
        self.objects.pop(_name(path), None)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Do nothing."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing."""


def _name(path: str) -> str:
    return path.removeprefix("gs://").rstrip("/")


class _Upload(io.BytesIO):
    """An object that is there when it is closed."""

    def __init__(self, bucket: FakeBucket, path: str) -> None:
        super().__init__()
        self._bucket, self._path = bucket, path

    def close(self) -> None:
        if not self.closed:
            self._bucket.pipe_file(self._path, self.getvalue())
        super().close()


def install() -> dict[str, bytes]:
    """Let gs:// lead to an empty bucket in memory, from now on; return its objects by their name."""
    FakeBucket.objects = {}
    for protocol in FakeBucket.protocol:
        fsspec.register_implementation(protocol, FakeBucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    return FakeBucket.objects
