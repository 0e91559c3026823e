"""A parcel with rows that a table never takes, and the real program killed at every step of its way into parts."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from crash.program import environment
from lakeward.bell import Bell
from lakeward.config import load
from lakeward.planning import plan
from lakeward.plugins import load_plugins
from lakeward.run import Run
from lakeward.state import State

ROWS, BAD = range(1, 41), {7, 30}
YAML = """
name: p
source: {use: sqlite, path: sensor.db}
sinks:
  table: {use: delta, path: lake/table}
  files: {use: parquet, path: lake/files}
batch: {rows: 20}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(YAML)
    with closing(sqlite3.connect(tmp_path / "sensor.db")) as database:
        database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, temperature REAL)")
        rows = [(number, "2026-01-01", 99.0 if number in BAD else 1.0) for number in ROWS]
        database.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)
        database.commit()
    table = tmp_path / "lake" / "table"
    table.parent.mkdir()
    write_deltalake(table, pa.table({"id": pa.array([0]), "timestamp": ["2026-01-01"], "temperature": [0.0]}))
    DeltaTable(table).alter.add_constraint({"cool": "temperature < 90"})
    return tmp_path


def die(folder: Path, point: str, visit: int) -> None:
    command = [sys.executable, "-m", "crash.patched", f"die:{point}:{visit}", "--", "run", "p.yaml", "--once"]
    ran = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr


def run(folder: Path) -> str:
    """The next run, in this process."""
    config = load(folder / "p.yaml")
    plugins = load_plugins()
    with State.hold(folder / ".lakeward" / "p") as state, closing(plan(config, plugins)) as pipeline, closing(Bell()) as bell:
        return Run(pipeline, plugins, state, bell, once=True).execute().error


POINTS = [
    ("before_part", 1),
    ("after_part", 1),  # its files are there, and nothing names them
    ("inside_refuse", 1),
    ("after_refuse", 1),  # the old file is still there, and nobody waits for it
    ("before_refuse", 3),
    ("after_settle", 2),  # between parts
]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "visit"), POINTS)
def test_every_good_row_arrives_once_and_every_bad_one_is_one_letter(folder: Path, point: str, visit: int) -> None:
    die(folder, point, visit)
    assert run(folder) == ""
    found = polars.read_delta(str(folder / "lake" / "table"))["id"].to_list()
    assert sorted(found) == [number for number in [0, *ROWS] if number not in BAD]
    files = duckdb.sql(f"SELECT id FROM '{folder}/lake/files/*.parquet' ORDER BY id").fetchall()
    assert files == [(number,) for number in ROWS]
    with State.look(folder / ".lakeward" / "p") as state:
        assert state is not None
        assert len(state.letters.find()) == len(BAD)
        assert state.totals()["refused"] == {"table": len(BAD)}
        assert state.waiting() == {}
    assert list((folder / ".lakeward" / "p" / "spool").iterdir()) == []
