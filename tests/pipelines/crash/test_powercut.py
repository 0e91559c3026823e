"""Cut the power on paper, at moments of a real run beside a live sensor; `make crash` does it ten times as often."""

from __future__ import annotations

import random

import pytest

from crash.disk import FOLDER, Disk
from crash.powercut import PARQUET, WITH_DELTA, cut_all
from crash.trace import STRACE, Event

needs_strace = pytest.mark.skipif(not STRACE, reason="strace is not installed; on Debian: apt-get install strace")


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sinks", "seed"), [(PARQUET, 1), (WITH_DELTA, 2), (("archive",), 3)], ids=["parquet", "parquet and delta", "archive"]
)
def test_after_a_power_cut_every_row_arrives_once(sinks: tuple[str, ...], seed: int) -> None:
    cuts = cut_all(15, seed, sinks, seconds=2.0)
    assert not cuts.wrong, cuts.wrong
    assert cuts.exact >= 10
    assert cuts.refused == 0 or "table" in sinks


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("forgotten", ["files", "state"])
def test_a_sync_that_is_forgotten_is_seen(forgotten: str) -> None:
    assert cut_all(8, 1, PARQUET, (f"careless:{forgotten}",), seconds=2.0).wrong


def write(path: str, data: bytes, handle: int = 3) -> list[Event]:
    return [Event("open", 1, path, handle=handle, size=1), Event("write", 1, path, handle=handle, data=data)]


def outcomes(disk: Disk) -> set[tuple[tuple[str, bytes | None], ...]]:
    return {tuple(sorted(disk.after_cut(random.Random(seed)).items())) for seed in range(1000)}


def test_the_disk_keeps_for_sure_only_what_was_synced() -> None:
    disk = Disk("/d")
    for event in write("/d/a", b"one"):
        disk.do(event)
    assert outcomes(disk) == {(), (("/d/a", b""),), (("/d/a", b"one"),)}
    disk.do(Event("sync", 1, "/d/a", handle=3))
    assert outcomes(disk) == {(), (("/d/a", b"one"),)}
    disk.do(Event("sync", 1, "/d", handle=4))
    assert outcomes(disk) == {(("/d/a", b"one"),)}
    disk.do(Event("rename", 1, "/d/a", "/d/b"))
    assert outcomes(disk) == {(("/d/a", b"one"),), (("/d/b", b"one"),)}


def test_the_disk_may_reorder_and_tear_writes_but_not_the_names_of_a_folder() -> None:
    disk = Disk("/d")
    events = [Event("mkdir", 1, "/d/f"), Event("sync", 1, "/d"), *write("/d/f/a", b"x" * 1024), *write("/d/f/b", b"", 4)]
    for event in events:
        disk.do(event)
    disk.do(Event("write", 1, "/d/f/a", handle=3, offset=0, data=b"y"))
    assert disk.sure == {"/d/f": FOLDER}
    left = [dict(outcome) for outcome in outcomes(disk)]
    assert {files.get("/d/f/a") for files in left} >= {None, b"", b"y", b"x" * 512, b"x" * 1024, b"y" + b"x" * 1023}
    assert not any("/d/f/b" in files and "/d/f/a" not in files for files in left)


def test_a_copy_and_a_shorter_file_are_followed() -> None:
    disk = Disk("/d")
    for event in [*write("/d/a", b"0123456789"), *write("/d/b", b"", 4)]:
        disk.do(event)
    disk.do(Event("copy", 1, "/d/b", "/d/a", handle=4, offset=2, size=5))
    disk.do(Event("truncate", 1, "/d/b", handle=4, size=3))
    assert disk.names["/d/b"].now == b"234"
    disk.do(Event("sync all", 1))
    assert disk.after_cut(random.Random(0)) == {"/d/a": b"0123456789", "/d/b": b"234"}
