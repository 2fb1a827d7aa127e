"""Disks on which nothing can be written for a while."""

import contextlib
import os
import resource

NOBODY = 65_534


@contextlib.contextmanager
def full_disk(free_bytes=64):
    """Let no file of this process grow beyond a few bytes: to the code that writes, the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def read_only(directory):
    """Let nothing be written into a directory; root, who may write anywhere, is somebody else meanwhile."""
    mode = directory.stat().st_mode
    directory.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        directory.chmod(mode)


DISKS = {"full": lambda directory: full_disk(), "read-only": read_only}
