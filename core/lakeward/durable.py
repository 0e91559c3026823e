"""Names and bytes that survive a power cut, for the kernel and for sinks that write files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lakeward.errors import OptionError, Refused

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


def require_writable(path: Path, option: str) -> None:
    """See, without a trace, that a folder could be made or written. Raises OptionError for `option`, or Refused."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise OptionError(option, f"{there} is not a folder; choose another path or move it away")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refused(f"{there}: this user may not write there; give it write permission or choose another path")
