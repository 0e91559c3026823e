"""What sinks that write files into a folder share: looking at it before, and telling errors that pass from those that last."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakeward.errors import OptionError, Refused, Retry
from lakeward.wording import first_line

LASTING = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""Errors of the file system that waiting does not heal; all others, such as a full disk, may pass."""
NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of a hard link to another file system, or on one that has none: copy instead."""


def require_writable(path: Path, option: str) -> None:
    """See, without a trace, that a folder could be made or written. Raises OptionError for `option`, or Refused."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise OptionError(option, f"{there} is not a folder; choose another path or move it away")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refused(f"{there}: this user may not write there; give it write permission or choose another path")


@contextmanager
def writing(files: str, path: Path) -> Iterator[None]:
    """Errors of the file system become Refused or Retry."""
    try:
        yield
    except OSError as error:
        detail = f"{error.filename2 or error.filename or path}: {error.strerror or first_line(error)}"
        raise cannot_write(files, detail, error.errno) from error


def cannot_write(files: str, detail: str, number: int | None) -> Refused | Retry:
    """What to raise for an error of this number; `files` are such as `the archive`."""
    if number in LASTING:
        return Refused(f"cannot write {files}: {detail}; correct that, or the option `path`, and run again")
    return Retry(f"cannot write {files} now: {detail}")
