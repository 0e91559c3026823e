"""Names and bytes that survive a power cut, for the kernel and for sinks that write files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FOREIGN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
"""Errors when a parent is synced in which we have made nothing: we may not read there, or its file system does no such thing."""
MANY = 10_000  # folders of partitions come and go for years
_durable: set[Path] = set()  # folders whose names this process has synced


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """A folder and its missing parents, each durable before the next; so are those that are there after this. Raises OSError.

    One that is there may be new: another worker has not synced it yet, or a process that made it was killed before it could.
    """
    if folder in _durable and folder.is_dir():
        return
    if folder != folder.parent:
        make_folder(folder.parent)
    if is_new := not os.path.lexists(folder):
        folder.mkdir(exist_ok=True)
    elif not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(folder))
    try:
        sync(folder.parent)
    except OSError as error:
        if is_new or error.errno not in FOREIGN:
            raise
    if len(_durable) >= MANY:
        _durable.clear()
    _durable.add(folder)
