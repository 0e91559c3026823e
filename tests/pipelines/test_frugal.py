"""What a run must not spend: imports that it does not need, memory for rows that are delivered already, and syncs."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

PIPELINE = """name: frugal
source: {use: sqlite, path: sensor.db}
sinks: {lake: {use: parquet, path: lake}}
batch: {rows: 10000}
"""
# runs lakeward, then notes which modules were asked for, installed or not, the peak of its memory in MB, and how often it synced
WATCHED = """
import json, os, sys
asked, synced, fsync = [], [], os.fsync
def watched(handle):
    synced.append(handle)
    fsync(handle)
os.fsync = watched
class Watch:
    def find_spec(name, path=None, target=None):
        asked.append(name)
sys.meta_path.insert(0, Watch)
from lakeward.cli import main
try:
    main()
finally:
    peak = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
    with open("told.json", "w") as file:
        json.dump([asked, int(peak) // 1024, len(synced)], file)
"""
HEAVY = {
    "pandas",
    "pint",
    "polars",
    "duckdb",
    "deltalake",
    "pyproj",
    "scipy",
    "pyarrow.dataset",
    "pyarrow.compute",
    "adbc_driver_sqlite.dbapi",
}


def write(folder: Path, rows: int) -> None:
    """Rows of half a kilobyte."""
    (folder / "frugal.yaml").write_text(PIPELINE)
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT, temperature REAL, remark TEXT)")
        made = (("2026-01-01T00:00:00Z", number / 7, f"{number:0500}") for number in range(rows))
        database.executemany("INSERT INTO readings (timestamp, temperature, remark) VALUES (?, ?, ?)", made)


def run(folder: Path) -> tuple[set[str], int, int, dict[str, Any]]:
    arguments = ["run", "frugal.yaml", "--once", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments], cwd=folder, env=os.environ, check=True, capture_output=True, text=True, timeout=120
    )
    asked, peak, synced = json.loads((folder / "told.json").read_text())
    return set(asked), peak, synced, json.loads(done.stdout)["run"]


def test_a_run_imports_only_what_it_needs(tmp_path: Path) -> None:
    write(tmp_path, 100)
    asked, *_, told = run(tmp_path)
    assert told["read"] == 100
    assert "pyarrow.parquet" in asked
    assert asked & HEAVY == set()
    asked, *_, told = run(tmp_path)
    assert told["read"] == 0
    assert asked & (HEAVY | {"pyarrow.parquet"}) == set()


@pytest.mark.parametrize("sink", ["delta", "parquet", "s3", "sqlite"])
def test_a_sink_brings_its_own_library_at_most(sink: str) -> None:
    code = f"import sys, lakeward_plugins.sinks.{sink}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, check=True, capture_output=True, text=True, timeout=60)
    assert set(done.stdout.split()) & HEAVY <= {"deltalake"}


def test_more_rows_take_no_more_memory_and_few_syncs(tmp_path: Path) -> None:
    peaks, syncs = [], []
    for rows in (20_000, 200_000):  # 2 and 20 batches, 10 and 100 MB
        folder = tmp_path / str(rows)
        folder.mkdir()
        write(folder, rows)
        _, peak, synced, told = run(folder)
        assert told["delivered"] == {"lake": rows}
        peaks.append(peak)
        syncs.append(synced)
    assert peaks[1] - peaks[0] < 30
    assert syncs[1] - syncs[0] == 18 * 3  # the file, its name in the spool, its name in the lake; SQLite syncs two commits by itself
