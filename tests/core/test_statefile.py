from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from lakeward.errors import NoRoom
from lakeward.state import State
from lakeward.statefile import UnusableState, explained, take

FULL = Path("/dev/full")


def test_a_file_system_without_locks_is_not_taken_for_another_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        pytest.raises(UnusableState, match="cannot be locked: No locks available; choose a"),
        State.hold(tmp_path),
    ):
        pass


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_does_not_keep_a_lock_from_being_taken(tmp_path: Path) -> None:
    with FULL.open("a+b", buffering=0) as lock:
        take(lock, tmp_path)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, "look at its disk"),
        (sqlite3.SQLITE_BUSY, "another program has it open"),
        (sqlite3.SQLITE_CANTOPEN, "right to read and write"),
        (sqlite3.SQLITE_CORRUPT, "start anew with another --state-dir"),
    ],
)
def test_each_trouble_says_what_to_do(code: int, advice: str) -> None:
    trouble = sqlite3.OperationalError("trouble")
    trouble.sqlite_errorcode = code
    with pytest.raises(UnusableState, match=f"^state.db: trouble; .*{advice}"), explained(Path("state.db")):
        raise trouble


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE])
def test_what_room_on_the_disk_may_heal_is_told_apart(code: int) -> None:
    trouble = sqlite3.OperationalError("trouble")
    trouble.sqlite_errorcode = code
    with pytest.raises(NoRoom, match=r"^state.db: trouble; (make room on|look at) its disk"), explained(Path("state.db")):
        raise trouble


def test_who_only_looks_whether_a_state_is_held_is_not_in_the_way(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a+b") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.02, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with State.hold(tmp_path):
            assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_bug_of_ours_is_not_explained_away() -> None:
    with pytest.raises(sqlite3.IntegrityError), explained(Path("state.db")):
        raise sqlite3.IntegrityError("UNIQUE constraint failed")
