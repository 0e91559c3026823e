"""Names and bytes that survive a power cut, for the kernel and for sinks that write files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

LASTING = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""Errors of the file system that waiting does not heal; all others, such as a full disk, may pass."""


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """A folder and its missing parents, each durable before the next. Raises OSError."""
    if not os.path.lexists(folder):
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)
    elif not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(folder))


def nearest_folder(path: Path) -> Path:
    """The path, or the first of its parents that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.lexists(folder))
