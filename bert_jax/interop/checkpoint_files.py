"""A file of someone else's checkpoint: that it is there, fetched and whole is known before it is read further."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LFS_POINTER = b"version https://git-lfs.github.com/"  # what `git clone` leaves of a large file without git-lfs


def existing(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path that is there.

    Raises:
        FileNotFoundError: it is not; `what` says what to do.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist; {what}")
    return Path(path)


@contextlib.contextmanager
def reading(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Name the file and what to do where reading it fails.

    Args:
        path: of a file that is there.
        *errors: what the reader raises of a damaged file.

    Raises:
        ValueError: in place of one of `errors`.
    """
    try:
        yield
    except errors as error:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise ValueError(
                    f"{path} is a pointer of git-lfs; run `git lfs pull` there, or fetch it again"
                ) from None
        raise ValueError(f"{path} cannot be read ({error}); fetch it again") from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        ValueError: it is damaged, or holds something else.
    """
    with reading(path, ValueError):
        values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; one object, {{...}}, is needed: fetch it again")
    return values
