from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lakeward.errors import NoRoom
from lakeward.room import RESERVE, Room, needing_room


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_the_reserve_really_takes_its_room_and_gives_it_back(room: Room, tmp_path: Path) -> None:
    room.require()
    found = (tmp_path / "reserve").stat()
    assert found.st_size == min(RESERVE, room.space()[0] // 16)
    assert found.st_blocks * 512 >= found.st_size, "sparse"
    room.release()
    room.release()
    assert not (tmp_path / "reserve").exists()


def test_a_reserve_that_a_crash_left_half_made_is_made_whole(room: Room, tmp_path: Path) -> None:
    (tmp_path / "reserve").write_bytes(b"half")
    room.require()
    assert (tmp_path / "reserve").stat().st_size > 4


def test_a_reserve_is_made_of_zeros_where_the_system_cannot_allocate(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    room.require()
    assert (tmp_path / "reserve").stat().st_blocks > 0


def test_no_more_waits_than_a_fifth_of_what_would_be_free(room: Room) -> None:
    assert room.cap(10.0, 0) == 10.0
    spooled = 10**15
    assert spooled / 5 < room.cap(1e18, spooled) < spooled / 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_apart_from_other_troubles(number: int) -> None:
    with pytest.raises(NoRoom, match=r"^file: .*; make room on its disk"), needing_room(Path("file")):
        raise OSError(number, os.strerror(number))
    with pytest.raises(PermissionError), needing_room(Path("file")):
        raise PermissionError(errno.EACCES, "no")
