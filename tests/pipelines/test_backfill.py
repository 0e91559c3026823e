"""A backfill beside a live run, with a sensor that writes and kill -9 in between; the oracle is SQLite and DuckDB alone."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest

from commands import ended, lakeward, start, until

YAML = """
name: demo
source: {use: sqlite, path: sensor.db}
transforms:
  below: {use: filter, where: {temperature: {'<': 50}}}
  windows: {use: window, from: source, group_by: [], window: {size: 10s}, emit: on_final, aggregations: {temperature: [sum, count]}}
sinks:
  raw: {use: parquet, from: source, path: lake/raw, row_key: true}
  cool: {use: delta, from: below, path: lake/cool, row_key: true}
  sums: {use: parquet, from: windows, path: lake/sums}
batch: {rows: 40, wait: 20ms}
"""
RANGE = ("--from", "101", "--to", "900", "--reason", "table was restored")


def write_rows(folder: Path, many: int) -> None:
    with closing(sqlite3.connect(folder / "sensor.db", timeout=30)) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER, temperature REAL)")
        (last,) = database.execute("SELECT coalesce(max(id), 0) FROM readings").fetchone()
        rows = [(1_767_225_600 + n, float(n % 100)) for n in range(last, last + many)]
        database.executemany("INSERT INTO readings (timestamp, temperature) VALUES (?, ?)", rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "demo.yaml").write_text(YAML)
    write_rows(tmp_path, 1000)
    return tmp_path


@contextmanager
def live(folder: Path) -> Iterator[Callable[[], int]]:
    """A run and a sensor at work, until the block is over and all has arrived; then the number of rows can be asked."""
    run, stop, written = start(folder, "run", "demo.yaml"), threading.Event(), [1000]

    def write() -> None:
        dice = random.Random(1)
        while not stop.wait(0.05):
            many = dice.randrange(1, 30)
            write_rows(folder, many)
            written[0] += many

    sensor = threading.Thread(target=write)
    sensor.start()
    try:
        until(lambda: (folder / "lake" / "raw").exists())
        yield lambda: written[0]
        stop.set()
        sensor.join()
        until(lambda: json.loads(lakeward(folder, "status", "demo.yaml", "--json").stdout)["rows"]["read"] == written[0])
    finally:
        stop.set()
        sensor.join()
        run.send_signal(signal.SIGTERM)
        ended(run, 143)
    lakeward(folder, "run", "demo.yaml", "--once", "--finish")


def in_raw(folder: Path) -> Counter[Any]:
    return Counter(duckdb.sql(f"SELECT id, timestamp, temperature FROM '{folder}/lake/raw/*.parquet'").fetchall())


def in_cool(folder: Path) -> Counter[Any]:
    return Counter(polars.read_delta(str(folder / "lake" / "cool")).select("id", "timestamp", "temperature").rows())


def in_sums(folder: Path) -> Counter[Any]:
    return Counter(duckdb.sql(f"SELECT record_count, sum_temperature FROM '{folder}/lake/sums/*.parquet'").fetchall())


def wanted(folder: Path, times: int = 2) -> Counter[Any]:
    """Every row once, those of the range as often as they were asked for."""
    with closing(sqlite3.connect(folder / "sensor.db")) as database:
        rows = database.execute("SELECT id, timestamp, temperature FROM readings").fetchall()
    return Counter({row: times if 101 <= row[0] <= 900 else 1 for row in rows})


def cool(rows: Counter[Any]) -> Counter[Any]:
    return Counter({row: times for row, times in rows.items() if row[2] < 50})


def sums(rows: Counter[Any]) -> Counter[Any]:
    windows: dict[int, list[float]] = {}
    for row in rows:
        windows.setdefault(row[1] // 10, []).append(row[2])
    return Counter((len(values), sum(values)) for values in windows.values())


@pytest.mark.slow
@pytest.mark.one_python
def test_rows_of_the_range_arrive_twice_and_all_others_once_although_the_backfill_is_killed(folder: Path) -> None:
    kills = 0
    with live(folder):
        dice = random.Random(3)
        for _ in range(4):
            backfill = start(folder, "backfill", "demo.yaml", *RANGE)
            until(lambda: list((folder / ".lakeward" / "demo" / "backfill-101-900").glob("spool/*")) or backfill.poll() is not None)  # noqa: B023
            time.sleep(dice.uniform(0.0, 0.2))
            backfill.kill()
            backfill.communicate()
            kills += backfill.returncode == -signal.SIGKILL
        out = lakeward(folder, "backfill", "demo.yaml", *RANGE).stdout
        assert "done" in out
    assert kills >= 1
    rows = wanted(folder)
    assert in_raw(folder) == rows
    assert in_cool(folder) == cool(rows)
    assert in_sums(folder) == sums(rows), "windows are left out, unless they are named"
    lives = {file.name.split("-")[1] for file in (folder / "lake" / "raw").glob("*.parquet")}
    assert len(lives) == 2
    (event,) = [one for one in json.loads(lakeward(folder, "status", "demo.yaml", "--json").stdout)["events"] if one["kind"] == "backfill"]
    assert event["detail"].startswith("rows 101 to 900 for raw, cool, asked by ")
    assert event["detail"].endswith(": table was restored")
    assert not (folder / ".lakeward" / "demo" / "backfill-101-900" / "reserve").exists()


@pytest.mark.slow
@pytest.mark.one_python
def test_what_is_done_is_done_until_it_is_wanted_again(folder: Path) -> None:
    lakeward(folder, "run", "demo.yaml", "--once")
    errors = lakeward(folder, "backfill", "demo.yaml", *RANGE, "--by", "ada").stderr
    assert "not part of this backfill: sums" in errors
    out = lakeward(folder, "backfill", "demo.yaml", *RANGE).stdout
    assert "was done already; --again does it anew" in out
    assert json.loads(lakeward(folder, "backfill", "demo.yaml", *RANGE, "--json").stdout)["done"] is True
    assert in_raw(folder) == wanted(folder)
    lakeward(folder, "backfill", "demo.yaml", *RANGE, "--again", "--sinks", "raw")
    assert in_raw(folder) == wanted(folder, 3), "for other sinks it is another backfill"
    lakeward(folder, "backfill", "demo.yaml", *RANGE, "--again")
    assert in_raw(folder) == wanted(folder, 4)
    assert in_cool(folder) == cool(wanted(folder, 3))
    events = json.loads(lakeward(folder, "status", "demo.yaml", "--json").stdout)["events"]
    assert [event["kind"] for event in events] == ["backfill"] * 3
    epochs = [json.loads(lakeward(folder, "status", "--state-dir", str(place), "--json").stdout)["epoch"] for place in places(folder)]
    assert sorted(epochs) == [2_000_000, 3_000_000]


def places(folder: Path) -> list[Path]:
    return sorted((folder / ".lakeward" / "demo").glob("backfill-*"))


def test_windows_of_the_range_alone_are_made_when_they_are_named(folder: Path) -> None:
    lakeward(folder, "run", "demo.yaml", "--once", "--finish")
    before = in_sums(folder)
    lakeward(folder, "backfill", "demo.yaml", "--from", "11", "--to", "25", "--reason", "x", "--sinks", "sums")
    assert in_sums(folder) - before == Counter({(10, 145.0): 1, (5, 110.0): 1})
    assert in_raw(folder) == wanted(folder, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--from", "9", "--to", "1", "--reason", "x"], 2, "--from 9 is after --to 1"),
        (["--from", "1", "--to", "9"], 2, "Missing option '--reason'"),
        (["--from", "1", "--to", "9", "--reason", "x", "--sinks", "rawe"], 2, "no sink named rawe; there are raw, cool, sums"),
        (["--from", "1", "--to", "9", "--reason", "x"], 1, "no run has made a state here yet"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(folder: Path, arguments: list[str], code: int, message: str) -> None:
    errors = lakeward(folder, "backfill", "demo.yaml", *arguments, code=code).stderr
    assert message in errors
    assert not (folder / "lake").exists()


def test_an_input_that_is_not_there_is_one_line(folder: Path) -> None:
    lakeward(folder, "run", "demo.yaml", "--once")
    errors = lakeward(folder, "backfill", "demo.yaml", *RANGE, "--origin", "north/other.db", code=1).stderr
    assert "the source cannot read that again: origin: " in errors
    assert in_raw(folder) == wanted(folder, 1)


def test_a_range_without_rows_is_a_mistake_that_can_be_corrected(folder: Path) -> None:
    lakeward(folder, "run", "demo.yaml", "--once")
    beyond = ("--from", "2001", "--to", "2005", "--reason", "x")
    assert "key: table 'readings' ends at 1000, before 2001" in lakeward(folder, "backfill", "demo.yaml", *beyond, code=1).stderr
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        database.execute("DELETE FROM readings WHERE id BETWEEN 301 AND 305")
    gap = ("--from", "301", "--to", "305", "--reason", "x")
    for _ in range(2):  # it does not count as done
        assert "no row with a key from 301 to 305" in lakeward(folder, "backfill", "demo.yaml", *gap, code=1).stderr
    lakeward(folder, "backfill", "demo.yaml", "--from", "305", "--to", "306", "--reason", "x", "--sinks", "raw, ")
    assert in_raw(folder).total() == 1001


def test_backfills_of_two_graphs_in_one_file_are_two(folder: Path) -> None:
    source, sink = "source: {use: sqlite, path: sensor.db}", "sinks: {out: {use: parquet, path: lake/%s}}"
    graphs = "\n".join(f"  {name}: {{{sink % name}}}" for name in ("raw", "other"))
    (folder / "demo.yaml").write_text(f"name: demo\n{source}\npipelines:\n{graphs}\nselect: raw\n")
    lakeward(folder, "run", "demo.yaml", "--once")
    for graph in ("other", "raw"):
        lakeward(folder, "backfill", "demo.yaml", *RANGE, "--select", graph)
    assert in_raw(folder) == wanted(folder)
    assert duckdb.sql(f"SELECT count(*) FROM '{folder}/lake/other/*.parquet'").fetchall() == [(800,)]
