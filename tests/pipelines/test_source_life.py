"""The real program, and a database that is replaced while it is away."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import polars

from commands import lakeward

YAML = "name: demo\nsource: {use: sqlite, path: sensor.db}\nsinks: {raw: {use: parquet, path: lake, row_key: true}}\nbatch: {rows: 40}\n"


def sensor(folder: Path, tag: str, rows: int) -> None:
    with closing(sqlite3.connect(folder / "sensor.db")) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT)")
        connection.executemany("INSERT INTO readings (timestamp) VALUES (?)", [(f"{tag} {number}",) for number in range(rows)])


def test_a_database_that_is_replaced_between_runs_loses_nothing_and_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(YAML)
    sensor(tmp_path, "first", 100)
    lakeward(tmp_path, "run", "demo.yaml", "--once")
    (tmp_path / "sensor.db").unlink()
    sensor(tmp_path, "second", 150)
    told = lakeward(tmp_path, "run", "demo.yaml", "--once").stderr
    assert told.count("read again from the start, as epoch 1; up to 100 rows may be sent again") == 1
    assert "sent again" not in lakeward(tmp_path, "run", "demo.yaml", "--once").stderr
    lake = polars.read_parquet(tmp_path / "lake" / "**" / "*.parquet")
    written = {"first": 100, "second": 150}
    assert sorted(lake["timestamp"]) == sorted(f"{tag} {number}" for tag, rows in written.items() for number in range(rows))
    with closing(sqlite3.connect(tmp_path / ".lakeward" / "demo" / "state.db")) as state:
        assert state.execute("SELECT kind, origin, rows FROM events").fetchall() == [("source_reset", "sensor.db", 100)]
