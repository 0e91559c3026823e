"""SQLite types values, not columns: good rows arrive bit-exact, bad cells become dead letters with row id and reason."""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from pathlib import Path
from typing import Any

import duckdb
import polars

from commands import lakeward
from lakeward.state import State

NULL_HEAD = 3000
ODD = {
    3001: ("temperature", "n/a"),
    3002: ("name", b"\xff\xfe"),
    3003: ("count", 1.5),
    3004: ("temperature", b"\x00\xff"),
    3005: ("name", "not \udcff utf-8"),
}
EXACT = [
    (2**53 + 1, 1 / 7, "plain"),
    (-(2**63), 1e-320, "öäü 🌡"),
    (2**63 - 1, -2.5, ""),
    (0, math.inf, "a" * 100_000),
    (None, None, None),
]


def write_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT, count INTEGER, temperature REAL, name TEXT, raw BLOB)")
    database.executemany("INSERT INTO readings (id, timestamp) VALUES (?, '2026-01-01T00:00:00Z')", [(n,) for n in range(1, NULL_HEAD + 1)])
    for row, (column, value) in ODD.items():
        wrapped = "CAST(? AS TEXT)" if row == 3005 else "?"
        stored = b"not \xff utf-8" if row == 3005 else value
        database.execute(f"INSERT INTO readings (id, timestamp, {column}) VALUES (?, '2026-01-01T00:00:00Z', {wrapped})", (row, stored))
    for number, (count, temperature, name) in enumerate(EXACT, 4000):
        values = (number, "2026-01-01T00:00:00Z", count, temperature, name, bytes(range(256)))
        database.execute("INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?)", values)
    database.commit()
    database.close()


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack("<d", value)


def test_good_rows_arrive_bit_exact_and_bad_cells_are_dead_letters(tmp_path: Path) -> None:
    write_database(tmp_path / "sensor.db")
    (tmp_path / "p.yaml").write_text(
        "name: odd\nsource: {use: sqlite, path: sensor.db}\nbatch: {rows: 2000}\n"
        "sinks: {files: {use: parquet, path: lake/files}, table: {use: delta, path: lake/table}}\n"
    )
    ran = lakeward(tmp_path, "run", "p.yaml", "--once", "--json")
    total = NULL_HEAD + len(ODD) + len(EXACT)
    assert json.loads(ran.stdout)["rows"] == {"read": total, "delivered": total - len(ODD), "filtered": 0, "dead": len(ODD)}

    files = duckdb.sql(f"SELECT id, count, temperature, name, raw FROM '{tmp_path}/lake/files/*.parquet' ORDER BY id").fetchall()
    table = polars.read_delta(str(tmp_path / "lake" / "table")).sort("id").select("id", "count", "temperature", "name", "raw").rows()
    for rows in (files, table):
        assert [row[0] for row in rows] == [*range(1, NULL_HEAD + 1), *range(4000, 4000 + len(EXACT))]
        assert all(row[1:] == (None,) * 4 for row in rows[:NULL_HEAD])
        for row, (count, temperature, name) in zip(rows[NULL_HEAD:], EXACT, strict=True):
            assert (row[1], bits(row[2]), row[3], row[4]) == (count, bits(temperature), name, bytes(range(256)))

    with State.look(tmp_path / ".lakeward" / "odd") as state:
        assert state is not None
        letters: dict[int, dict[str, Any]] = {letter["row_low"]: letter for letter in state.letters.find()}
    assert sorted(letters) == sorted(ODD)
    assert {row: letter["reason"] for row, letter in letters.items()} == {
        3001: "type",
        3002: "type",
        3003: "type",
        3004: "type",
        3005: "utf8",
    }
    for row, (column, _) in ODD.items():
        assert column in letters[row]["detail"]
    assert "n/a" in letters[3001]["detail"]
    assert json.loads(letters[3001]["payload"])["temperature"] == "n/a"


def test_a_table_of_nothing_but_nulls_keeps_its_declared_types(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "sensor.db")
    database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT, temperature REAL, name TEXT)")
    database.executemany("INSERT INTO readings (id) VALUES (?)", [(n,) for n in range(100)])
    database.commit()
    database.close()
    (tmp_path / "p.yaml").write_text(
        "name: n\nsource: {use: sqlite, path: sensor.db}\nsinks: {files: {use: parquet, path: lake}}\nbatch: {rows: 30}\n"
    )
    lakeward(tmp_path, "run", "p.yaml", "--once")
    types = duckdb.sql(f"SELECT DISTINCT typeof(timestamp), typeof(temperature), typeof(name) FROM '{tmp_path}/lake/*.parquet'").fetchall()
    assert types == [("VARCHAR", "DOUBLE", "VARCHAR")]
