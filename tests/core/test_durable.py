from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from lakeward import durable
from lakeward.durable import make_folder


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Inodes of what was synced; this process has seen no folder yet."""
    seen: list[int] = []
    monkeypatch.setattr(durable, "_durable", set())
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(os.fstat(handle).st_ino))
    return seen


def inodes(*paths: Path) -> list[int]:
    return [path.stat().st_ino for path in paths]


def test_each_folder_is_durable_before_the_next(tmp_path: Path, synced: list[int]) -> None:
    make_folder(tmp_path / "a" / "b")
    assert synced[-2:] == inodes(tmp_path, tmp_path / "a")


def test_what_a_killed_process_made_is_made_durable(tmp_path: Path, synced: list[int]) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    make_folder(tmp_path / "a" / "b")
    assert synced[-3:] == inodes(tmp_path.parent, tmp_path, tmp_path / "a")


def test_a_worker_does_not_rely_on_a_folder_that_another_has_not_synced_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    made, go_on, lake = threading.Event(), threading.Event(), tmp_path / "lake"
    monkeypatch.setattr(durable, "_durable", {tmp_path, *tmp_path.parents})

    def fsync(handle: int) -> None:
        if threading.current_thread().name == "slow":
            made.set()
            assert go_on.wait(10)
        seen.append((threading.current_thread().name, os.fstat(handle).st_ino))

    monkeypatch.setattr(os, "fsync", fsync)
    slow = threading.Thread(target=make_folder, args=(lake,), name="slow")
    slow.start()
    assert made.wait(10)
    make_folder(lake / "sums")
    go_on.set()
    slow.join()
    here, (parent, own) = threading.current_thread().name, inodes(tmp_path, lake)
    assert seen == [(here, parent), (here, own), ("slow", parent)]


def test_a_process_syncs_the_name_of_a_folder_once(tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "a")
    synced.clear()
    make_folder(tmp_path / "a")
    assert synced == []
    (tmp_path / "a").rmdir()
    make_folder(tmp_path / "a")
    assert synced == inodes(tmp_path)
    monkeypatch.setattr(durable, "MANY", 10)
    for name in range(30):
        make_folder(tmp_path / str(name))
    assert len(durable._durable) <= 10


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EROFS])
def test_a_parent_in_which_we_made_nothing_need_not_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable, "_durable", set())
    monkeypatch.setattr(os, "fsync", fsync)
    make_folder(tmp_path)
    with pytest.raises(OSError, match=os.strerror(number)):
        make_folder(tmp_path / "new")


def test_a_name_that_could_not_be_synced_is_tried_again(tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fsync)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                make_folder(tmp_path)
    make_folder(tmp_path)
    assert synced[-1:] == inodes(tmp_path.parent)


def test_a_file_in_the_way_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        make_folder(tmp_path / "file")
