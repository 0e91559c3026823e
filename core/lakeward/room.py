"""Room on the disk of a state: what READ leaves free, and a reserve that lets a full disk recover."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakeward.errors import LakewardError, NoRoom

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FLOOR, RESERVE, PART = 64 << 20, 16 << 20, 16  # bytes, and never more than a sixteenth of the volume


@contextmanager
def needing_room(path: Path) -> Iterator[None]:
    """Tell a full disk from what else can go wrong with a file. Raises NoRoom."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoRoom(f"{path}: {error.strerror}; make room on its disk") from error
        raise


class Room:
    """Room on the volume of a state directory."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._reserve = directory, directory / "reserve"

    def space(self) -> tuple[int, int]:
        """Bytes of the volume, and those that are free for this user. Raises LakewardError when the directory is gone."""
        try:
            found = os.statvfs(self._directory)
        except FileNotFoundError:
            raise LakewardError(f"{self._directory}: somebody removed the state; a new run begins anew and sends every row again") from None
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def floor(self) -> int:
        """Bytes that READ leaves free."""
        return min(FLOOR, self.space()[0] // PART)

    def cap(self, wanted: float, spooled: int) -> float:
        """Bytes that may wait in the spool: what is wanted, but at most a fifth of what would be free without them."""
        return min(wanted, (self.space()[1] + spooled) / 5)

    def require(self) -> None:
        """READ may go on: the floor is free, and the reserve is there, made anew if it was given up. Raises NoRoom."""
        total, free = self.space()
        size = min(RESERVE, total // PART)
        there = self._reserve.exists() and self._reserve.stat().st_size == size
        if free < self.floor() + (0 if there else size):
            raise NoRoom(f"{self._directory}: less than {self.floor() / 1e6:,.1f} MB are free on its disk; make room")
        if not there:
            self._make(size)

    def release(self) -> None:
        """Give up the reserve, so that what is in hand can be settled."""
        self._reserve.unlink(missing_ok=True)

    def _make(self, size: int) -> None:
        try:
            with needing_room(self._reserve), self._reserve.open("wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except (AttributeError, OSError):  # not everywhere; a full disk says so again
                    file.write(bytes(size))
        except NoRoom:
            self.release()
            raise
