"""How a file that belongs to a sensor is opened: where it is, for reading; or frozen; or as a copy. Never for writing.

Nobody may stop a sensor by reading its database, and nobody may take half a transaction for the truth. So, in this order:

1. in its place, read-only. SQLite may still make a -shm and a -wal file beside it, or need one that it may not make;
2. when that fails, the folder is read-only and nothing waits in a -wal or -journal file: as an immutable file, for this one
   transaction, which counts only if the file is the same afterwards;
3. else as a copy in a folder of ours, where SQLite may roll back or recover what a killed sensor left.

Files are only opened by hand here, while no connection of this process has them open: closing one drops SQLite's POSIX locks.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define, field

from lakeward import OptionError, Refused, Retry
from lakeward_plugins.sources.sqlite.connection import Query, Shut, transaction

SIDES = ("-wal", "-journal")  # beside the database, with content that belongs to it
MOUNTS = Path("/proc/self/mountinfo")
SETTLED = 0.05  # seconds: a change so soon after another one may leave the time of change as it was
COARSEST = 3  # seconds, of the times of change that file systems keep
PATIENCE = 20  # times SETTLED

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of change of the database and of each of SIDES."""


@define
class Opening:
    """One database file and how it was opened last."""

    path: Path
    busy_timeout: timedelta
    folder: Path | None = None
    """Where a copy is kept while the file does not change; without it a copy lives for one transaction."""
    way: str = field(init=False, default="")
    """For people: how it was opened last."""
    _copied: Stamp | None = field(init=False, default=None)

    @contextmanager
    def transaction(self) -> Iterator[Query]:
        """One read transaction, by the first way that works. Raises Retry, Refused or OptionError."""
        real = Path(os.path.realpath(self.path))  # SQLite looks there for what lies beside it
        problem = _danger(self.path, real)
        if problem:
            raise OptionError("path", problem)
        with ExitStack() as stack:
            yield self._enter(stack, real)

    def _enter(self, stack: ExitStack, real: Path) -> Query:
        try:
            query = stack.enter_context(transaction(self.path, self.busy_timeout))
        except Shut:
            before = _settled(self.path, real)
        else:
            self.way = "in its place, read-only"
            self._drop_copy()
            return query
        if not os.access(real.parent, os.W_OK) and not any(size for _, size, _ in filter(None, before[1:])) and before[2] is None:
            self.way = "as an immutable file, because its folder is read-only and nothing waits in a -wal or -journal file"
            stack.enter_context(_unchanged(self.path, real, before))
            return stack.enter_context(transaction(self.path, self.busy_timeout, "mode=ro&immutable=1"))
        self.way = "as a copy, because SQLite would have to write beside the file and may not"
        copy = self._copy(stack, real, before)
        return stack.enter_context(transaction(copy, self.busy_timeout, "mode=rw", self.path))

    def quiet(self) -> Stamp | None:
        """What would be another if the file was written from now on; None when it was written a moment ago and that might not show."""
        stamp = _stamp(Path(os.path.realpath(self.path)))
        newest = max((changed for _, _, changed in filter(None, stamp)), default=0)
        return stamp if stamp[0] and 0 < newest < time.time_ns() - COARSEST * 1e9 else None

    # -- the copy ------------------------------------------------------------------------------------------------------

    def _copy(self, stack: ExitStack, real: Path, before: Stamp) -> Path:
        folder = self.folder or Path(stack.enter_context(TemporaryDirectory(prefix="lakeward-")))
        copy = folder / "copy.db"
        if self.folder is None or self._copied != before or not copy.exists():
            self._copied = None
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _remove(copy)
                for end, there in zip(("", *SIDES), before, strict=True):
                    if there:
                        shutil.copyfile(f"{real}{end}", f"{copy}{end}")
            except PermissionError as error:
                with suppress(OSError):
                    _remove(copy)
                raise Refused(f"{self.path} must be copied to be read: {error}; run lakeward as the user that owns it") from error
            except OSError as error:
                with suppress(OSError):
                    _remove(copy)  # a part of it would keep the disk full
                raise Retry(f"{self.path} must be copied to be read, and cannot be: {error}") from error
            if _stamp(real) != before:
                raise Retry(f"{self.path} was written while it was copied")
            self._copied = before
        return copy

    def _drop_copy(self) -> None:
        if self._copied is not None and self.folder is not None:
            _remove(self.folder / "copy.db")
        self._copied = None


def _remove(copy: Path) -> None:
    for end in ("", *SIDES, "-shm"):
        Path(f"{copy}{end}").unlink(missing_ok=True)


# -- whether it changes ------------------------------------------------------------------------------------------------


def _stamp(real: Path) -> Stamp:
    return tuple(map(_one_stamp, (f"{real}{end}" for end in ("", *SIDES))))


def _one_stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _settled(path: Path, real: Path) -> Stamp:
    """The stamp, when the last change is so long ago that a new one would show in it."""
    for _ in range(PATIENCE):
        stamp = _stamp(real)
        if stamp[0] is None:
            raise Retry(f"{path} is gone; waiting for it to come back")
        if not any(0 <= time.time_ns() - changed < SETTLED * 1e9 for _, _, changed in filter(None, stamp)):
            return stamp
        time.sleep(SETTLED)
    raise Retry(f"{path} is being written and cannot be opened in its place")


@contextmanager
def _unchanged(path: Path, real: Path, before: Stamp) -> Iterator[None]:
    """What was read inside counts only if the file is the same afterwards; if not, neither do the errors."""
    try:
        yield
    finally:
        if _stamp(real) != before:
            raise Retry(f"{path} was written while it was read as an immutable file; what was read is thrown away")


# -- what must not be opened at all ------------------------------------------------------------------------------------


def _danger(path: Path, real: Path) -> str:
    """What would go wrong for the sensor or for its data, and what to do; or nothing."""
    if _is_mounted_alone(real):
        return (
            f"{path} is mounted as a single file: new rows wait in a -wal file beside it that is not seen here, and rows that a "
            "killed sensor was writing could not be told from others. Mount its folder instead, as in `-v /data/sensor:/data:ro`"
        )
    try:
        found = real.stat()
        if _sides_would_be_ours(real, found) and _is_wal(real):
            return (
                f"{path} belongs to user {found.st_uid}, and lakeward runs as user {os.geteuid()}: SQLite could leave a -wal or -shm "
                "file in its folder that the sensor may not write, which would stop the sensor. "
                f'Run lakeward as user {found.st_uid} (in a container `user: "{found.st_uid}"`), or mount the folder read-only'
            )
    except OSError:  # gone, or not ours to read: the next step says so
        pass
    return ""


def _is_mounted_alone(real: Path) -> bool:
    try:
        lines = os.fsdecode(MOUNTS.read_bytes()).splitlines()
    except OSError:  # not Linux
        return False
    points = (line.split(" ")[4] for line in lines)
    return str(real) in (re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point) for point in points)


def _sides_would_be_ours(real: Path, found: os.stat_result) -> bool:
    """Whether a file that SQLite makes beside this one could not be written by its owner. It gets the mode of the database."""
    if os.geteuid() in (0, found.st_uid) or not os.access(real.parent, os.W_OK):  # for root, SQLite gives them to the owner
        return False
    folder = real.parent.stat()
    group = folder.st_gid if folder.st_mode & stat.S_ISGID else os.getegid()
    return not (found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and group == found.st_gid))


def _is_wal(real: Path) -> bool:
    with real.open("rb") as file:
        return file.read(20)[18:] == b"\x02\x02"
