"""A corpus in a bucket (gs://): the way there when it was prepared, the way to a disk when it is trained on.

ArrayRecord does not open gs://, and random reads over a network are slow. So a corpus is prepared on a disk and
uploaded, and whoever reads records copies the instance set to its own disk, once. Everything else of a corpus
(manifests, vocabularies) is small and read where it lies, by `etils.epath`.
"""

import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etils import epath

from bert_jax.config import fingerprint
from bert_jax.corpus.records import MANIFEST

AnyPath = Path | epath.Path  # on a disk, in a bucket; see `as_path`
CACHE = "BERT_JAX_CACHE"  # environment variable: where copies of remote corpora are kept
_COPY_BYTES = 16 << 20
_COPIES_AT_ONCE = 8


def is_object_store(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is one of gs:// and the like, which has no locks, no appending and no renaming."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike[str]) -> AnyPath:
    """Return a path that can be listed and opened: pathlib's on a disk, epath's in a bucket.

    Not epath's for both: its `stat` asks for the owner's name, which a container may not know.
    """
    return epath.Path(path) if is_object_store(path) else Path(path)


def file_bytes(path: AnyPath) -> int:
    """Return the size of a file."""
    return path.stat().st_size if isinstance(path, Path) else path.stat().length or 0


def file_sha256(path: AnyPath) -> str:
    """Return the sha256 of a file as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_COPY_BYTES):
            digest.update(block)  # pyright: ignore[reportArgumentType]  # epath's stream is of text, for pyright
    return digest.hexdigest()


def copy_files(names: Iterable[str], source: AnyPath, target: AnyPath) -> None:
    """Copy files from one directory to another, several at once; each is whole or absent on a disk and in a bucket."""
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        for _ in pool.map(functools.partial(_copy, source, target), names):
            pass


def _copy(source: AnyPath, target: AnyPath, name: str) -> None:
    goal = target / name
    goal.parent.mkdir(parents=True, exist_ok=True)
    # An object is there when it was written to its end; a file takes another name until then.
    temporary = goal.with_name(f"{goal.name}.{os.getpid()}.tmp") if isinstance(goal, Path) else goal
    with (source / name).open("rb") as reader, temporary.open("wb") as writer:
        shutil.copyfileobj(reader, writer, _COPY_BYTES)  # pyright: ignore[reportArgumentType]
    if temporary != goal:
        temporary.rename(goal)


def cache_directory() -> Path:
    """Return where copies are kept: $BERT_JAX_CACHE, or ~/.cache/bert_jax."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "bert_jax")


def local_set(corpus: str | os.PathLike[str], name: str) -> Path:
    """Return `<corpus>/instances/<name>` on a disk: itself, or its copy, which is made if it is not there.

    A copy belongs to a manifest: a set that was prepared anew in the bucket is copied anew. The processes of one
    machine share it; one copies and the others wait.

    Args:
        corpus: directory, gs:// or local.
        name: of the instance set; a set that does not exist has no copy, and the path of none is returned.

    Raises:
        ValueError: what was copied is not what the manifest says.
    """
    if not is_object_store(corpus):
        return Path(corpus) / "instances" / name
    source = epath.Path(corpus) / "instances" / name
    address = os.fspath(epath.Path(corpus))
    copy = cache_directory() / f"{epath.Path(corpus).name}-{fingerprint(address)}" / "instances" / name
    if not (source / MANIFEST).exists():
        return copy
    copy.mkdir(parents=True, exist_ok=True)
    with (copy / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        manifest = (source / MANIFEST).read_bytes()
        if not (copy / MANIFEST).exists() or (copy / MANIFEST).read_bytes() != manifest:
            _fetch(source, copy)
    return copy


def _fetch(source: epath.Path, copy: Path) -> None:
    """Copy a set, its manifest last; what a copy that was broken off has left whole is not copied again."""
    (copy / MANIFEST).unlink(missing_ok=True)
    wanted = _shards(source)
    names = [name for name in list_files(source) if name != MANIFEST]
    there = {name for name, sha256 in wanted.items() if (copy / name).exists() and file_sha256(copy / name) == sha256}
    copy_files([name for name in names if name not in there], source, copy)
    for name, sha256 in wanted.items():
        if name not in there and (name not in names or file_sha256(copy / name) != sha256):
            raise ValueError(
                f"{source / name} is missing, or not what its manifest says (sha256); upload the corpus again: "
                "`python -m launch.prepare` with its config and --corpus does"
            )
    copy_files([MANIFEST], source, copy)


def _shards(directory: epath.Path) -> dict[str, str]:
    """Return the sha256 of every shard in a manifest, by its name."""
    splits = json.loads((directory / MANIFEST).read_text())["splits"]
    return {shard["file"]: shard["sha256"] for shards in splits.values() for shard in shards}


def list_files(directory: AnyPath, prefix: str = "") -> list[str]:
    """Return the names of all files below a directory but hidden ones, in order."""
    found: list[str] = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        found += list_files(path, f"{prefix}{path.name}/") if path.is_dir() else [f"{prefix}{path.name}"]
    return found


def upload(directory: Path, address: str | os.PathLike[str]) -> int:
    """Copy a prepared corpus into a bucket, what is there already left out; return how many files were copied.

    Manifests come last, so that a set exists when it is whole. A part (documents, a set) whose manifest is there
    already is not copied again.

    Raises:
        ValueError: the bucket has a corpus of other documents or another vocabulary at that address.
    """
    target = epath.Path(address)
    for name in (f"documents/{MANIFEST}", "tokenizer/vocab.txt"):
        if (target / name).exists() and not _same(directory, target, name):
            raise ValueError(
                f"{target} holds another corpus than {directory} ({name} differs); give another address (--corpus), or "
                "remove what is there"
            )
    names = [name for name in list_files(directory) if not name.endswith(".tmp")]
    manifests = [name for name in names if Path(name).name == MANIFEST]
    done = {str(Path(name).parent) for name in manifests if name != MANIFEST and _same(directory, target, name)}
    left = [name for name in names if not any(name.startswith(f"{part}/") for part in done)]
    last = sorted((name for name in left if name in manifests), key=lambda name: name == MANIFEST)
    for name in last:
        (target / name).unlink(missing_ok=True)
    copy_files([name for name in left if name not in last], directory, target)
    for name in last:  # the corpus' own behind all others
        copy_files([name], directory, target)
    return len(left)


def _same(directory: Path, target: epath.Path, name: str) -> bool:
    ours, theirs = directory / name, target / name
    return ours.exists() and theirs.exists() and ours.read_bytes() == theirs.read_bytes()
