"""Kill the real program at every step of the data flow; an oracle that shares no code with lakeward compares source and sinks."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import polars
import pytest

HERE = Path(__file__).parent
STEPS = ("read", "transform", "spool", "record", "deliver", "settle", "drop")
POINTS = [f"{when}_{step}" for step in STEPS for when in ("before", "after")] + ["inside_record"]
YAML = """
name: crash
source: {use: sqlite, path: sensor.db}
transforms:
  hot: {use: physics_validation, profile: none, rules: [{id: hot, kind: range, field: temperature, fail: [0, 50]}]}
  windows:
    use: window
    from: source
    size: 10s
    max_out_of_orderness: 0s
    aggregations: {temperature: [sum, count]}
sinks:
  raw: {use: parquet, from: source, path: lake/raw}
  cool: {use: delta, from: hot.valid, path: lake/cool}
  hot_rows: {use: delta, from: hot.anomalies, path: lake/hot}
  sums: {use: parquet, from: windows, path: lake/sums}
batch: {rows: 100, wait: 10ms}
"""


def write_rows(folder: Path, first: int, last: int) -> None:
    database = sqlite3.connect(folder / "sensor.db")
    with database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, sensor_id TEXT, temperature REAL)"
        )
        rows = [(f"2026-01-01T00:{n // 60 % 60:02d}:{n % 60:02d}Z", f"s{n % 3}", n % 97 + n / 7) for n in range(first, last)]
        database.executemany("INSERT INTO readings (timestamp, sensor_id, temperature) VALUES (?, ?, ?)", rows)
    database.close()


def lakeward(folder: Path, *arguments: str, die: tuple[str, int] | None = None) -> int:
    program = [str(HERE / "dying_lakeward.py"), die[0], str(die[1])] if die else ["-m", "lakeward"]
    ran = subprocess.run(
        [sys.executable, *program, "run", "pipeline.yaml", "--once", *arguments],
        cwd=folder, env={**os.environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in ran.stderr, ran.stderr
    assert ran.returncode in (0, -signal.SIGKILL), ran.stderr
    return ran.returncode


def in_source(folder: Path) -> Counter[tuple[object, ...]]:
    database = sqlite3.connect(folder / "sensor.db")
    rows = database.execute("SELECT id, timestamp, sensor_id, temperature FROM readings").fetchall()
    database.close()
    return Counter(rows)


def in_parquet(folder: Path, name: str, columns: str = "id, timestamp, sensor_id, temperature") -> Counter[tuple[object, ...]]:
    return Counter(duckdb.sql(f"SELECT {columns} FROM '{folder}/lake/{name}/*.parquet'").fetchall())


def in_delta(folder: Path, name: str) -> Counter[tuple[object, ...]]:
    return Counter(polars.read_delta(str(folder / "lake" / name)).select("id", "timestamp", "sensor_id", "temperature").rows())


def sums_of(rows: Counter[tuple[object, ...]]) -> Counter[tuple[object, ...]]:
    sums: dict[tuple[str, str], list[float]] = {}
    for _, timestamp, sensor, temperature in rows:
        sums.setdefault((str(sensor), f"{str(timestamp)[:18]}0"), []).append(float(str(temperature)))
    return Counter((sensor, start, len(values), round(sum(values), 6)) for (sensor, start), values in sums.items())


def assert_exact(folder: Path) -> None:
    rows = in_source(folder)
    cool, hot = in_delta(folder, "cool"), in_delta(folder, "hot")
    assert in_parquet(folder, "raw") == rows
    assert cool + hot == rows
    assert not cool & hot
    sums = "sensor_id, strftime(window_start AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S'), record_count, round(sum_temperature, 6)"
    assert in_parquet(folder, "sums", sums) == sums_of(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(YAML)
    write_rows(tmp_path, 0, 350)
    return tmp_path


@pytest.mark.parametrize("visit", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_every_row_arrives_once_after_kill_9(folder: Path, point: str, visit: int) -> None:
    assert lakeward(folder, die=(point, visit)) == -signal.SIGKILL
    write_rows(folder, 350, 500)
    assert lakeward(folder, "--finish") == 0
    assert_exact(folder)
    before = sorted(path for path in (folder / "lake").rglob("*") if path.is_file())
    assert lakeward(folder, "--finish") == 0
    assert sorted(path for path in (folder / "lake").rglob("*") if path.is_file()) == before


def test_the_oracle_sees_a_lost_row_and_a_row_too_many(folder: Path) -> None:
    assert lakeward(folder, "--finish") == 0
    assert_exact(folder)
    write_rows(folder, 350, 351)
    with pytest.raises(AssertionError):
        assert_exact(folder)
    file = next((folder / "lake" / "raw").glob("*.parquet"))
    (file.parent / "again.parquet").write_bytes(file.read_bytes())
    with pytest.raises(AssertionError):
        assert_exact(folder)
