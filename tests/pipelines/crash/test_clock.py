"""The clock of the machine jumps, between runs and while one goes on: rows do not care."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crash import pipeline
from crash.oracle import in_parquet, judge, photograph
from crash.program import PATIENCE, Nursery, ended, start
from crash.writer import writing

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
HOUR, DAY, YEAR = 3600, 86_400, 31_557_600
JUMPS = {"an hour ahead": HOUR, "an hour back": -HOUR, "a day back": -DAY, "ten years ahead": 10 * YEAR}
SUMMER_ENDS = datetime(2026, 10, 25, 1, tzinfo=UTC)  # in Berlin, where 02:00 to 03:00 comes twice

pytestmark = [
    pytest.mark.skipif(not LIBRARY, reason="libfaketime is not installed; on Debian: apt-get install faketime"),
    pytest.mark.slow,
]


def clock(folder: Path, seconds: float) -> dict[str, str]:
    """What a process needs to see a clock that is so far off; it looks at the file each time that it looks at the clock."""
    file = folder / "clock"
    file.with_suffix(".new").write_text(f"{seconds:+.0f}\n")
    file.with_suffix(".new").rename(file)
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # real clocks jump, this one does not
        "TZ": "Europe/Berlin",
    }


def finished(folder: Path, nursery: Nursery) -> None:
    """All rows arrived once, and the clock that is right again changes nothing."""
    ended(folder, nursery.start(folder, ("run", "pipeline.yaml", "--once", "--finish")))
    verdict = judge(folder)
    assert not verdict.faults, verdict
    before = photograph(folder)
    ended(folder, nursery.start(folder, ("run", "pipeline.yaml", "--once", "--finish")))
    assert photograph(folder) == before


def test_the_clock_jumps_between_runs(nursery: Nursery, tmp_path: Path) -> None:
    pipeline.make(tmp_path)
    for seconds in (0, *JUMPS.values(), SUMMER_ENDS.timestamp() - time.time(), 0):
        pipeline.grow(tmp_path, 90)
        ended(tmp_path, start(tmp_path, ("run", "pipeline.yaml", "--once"), **clock(tmp_path, seconds)))
        assert in_parquet(tmp_path / "lake" / "raw", "id").total() == len(in_source(tmp_path))
    finished(tmp_path, nursery)


def in_source(folder: Path) -> range:
    with pipeline.connect(folder / "sensor.db", "wal") as database:
        return range(database.execute("SELECT count(*) FROM readings").fetchone()[0])


def test_the_clock_jumps_while_a_run_goes_on(nursery: Nursery, tmp_path: Path) -> None:
    pipeline.make(tmp_path)
    with writing(tmp_path, rate=200):
        life = start(tmp_path, ("run", "pipeline.yaml"), **clock(tmp_path, 0))
        delivered = 0
        for seconds in (0, *JUMPS.values(), -DAY, SUMMER_ENDS.timestamp() - time.time() - 1, 0):
            clock(tmp_path, seconds)
            delivered = _wait_for_more(tmp_path, delivered)
        os.kill(life.pid, 15)
        ended(tmp_path, life, 143)
    finished(tmp_path, nursery)


def _wait_for_more(folder: Path, delivered: int) -> int:
    end = time.monotonic() + PATIENCE
    while (now := in_parquet(folder / "lake" / "raw", "id").total()) < delivered + 200:
        assert time.monotonic() < end, f"nothing arrives any more after {now} rows"
        time.sleep(0.1)
    return now
