"""A real database with pages of zeros, through the whole program: good rows, health, the way back after a repair."""

from __future__ import annotations

import json
import logging
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from lakeward.cli import main

ROWS = 3000
SINGLE, MANY = "path: sites/north/sensor.db", "path: sites/*/sensor.db, path_columns: [site]"
ORIGIN = {SINGLE: "sensor.db", MANY: "north/sensor.db"}
Lakeward = Callable[..., Any]


def write_rows(folder: Path, site: str, first: float = 0.0) -> Path:
    path = folder / "sites" / site / "sensor.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, temperature REAL)")
        rows = [(f"2026-01-01T00:00:00.{n:06d}Z", first + n) for n in range(1, ROWS + 1)]
        database.executemany("INSERT INTO readings (timestamp, temperature) VALUES (?, ?)", rows)
    return path


def zero_page_of(path: Path, key: int) -> None:
    """The leaf page that holds a row."""
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    page = content.index(f".{key:06d}Z".encode()) // size * size
    content[page : page + size] = bytes(size)
    path.write_bytes(content)


@pytest.fixture(params=[SINGLE, MANY], ids=["single", "many"])
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path, source: str) -> Path:
    (tmp_path / "p.yaml").write_text(f"name: p\nsource: {{use: sqlite, {source}}}\nsinks: {{raw: {{use: parquet, path: lake}}}}\n")
    path = write_rows(tmp_path, "north")
    if source == MANY:
        write_rows(tmp_path, "south")
    return path


@pytest.fixture
def lakeward(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lakeward:
    """Run a command in this process; what it printed as JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [])

    def run(*arguments: str, code: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", ["lakeward", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert (ended.value.code, "Traceback" in err) == (code, False), (out, err)
        return json.loads(out)

    return run


def missing(folder: Path) -> set[int]:
    """Of the damaged database; no row may have come twice."""
    copies = len(list((folder / "sites").iterdir()))
    came = Counter(key for (key,) in duckdb.sql(f"SELECT id FROM '{folder}/lake/*.parquet'").fetchall())
    assert max(came.values()) <= copies
    return {key for key in range(1, ROWS + 1) if came[key] < copies}


def test_a_range_that_cannot_be_read_makes_a_run_unhealthy_until_it_is_read_from_the_repaired_file(
    tmp_path: Path, path: Path, source: str, lakeward: Lakeward
) -> None:
    whole = path.read_bytes()
    zero_page_of(path, 1000)
    zero_page_of(path, 2000)
    lakeward("run", "p.yaml", "--once")
    (second, first) = lakeward("dead-letters", "list", "p.yaml")["letters"]
    lost = {*range(first["row_low"], first["row_high"] + 1), *range(second["row_low"], second["row_high"] + 1)}
    assert (first["reason"], first["origin"], first["epoch"]) == ("source_corrupt", ORIGIN[source], 0)
    assert {1000, 2000} <= missing(tmp_path) == lost
    (event,) = lakeward("status", "p.yaml")["events"]
    assert (event["kind"], event["origin"], event["rows"]) == ("unreadable", ORIGIN[source], len(lost))
    command = [sys.executable, "-m", "lakeward", "run", "p.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        while "started" not in process.stderr.readline():
            assert process.poll() is None
        found = lakeward("health", "p.yaml", code=1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    told = "source: 2 ranges of rows could not be read; repair the input, then replay or discard these dead letters"
    assert found["problems"] == [told]
    assert [one["kind"] for one in found["events_of_last_day"]] == ["unreadable"]

    (left,) = lakeward("dead-letters", "replay", "p.yaml", str(first["id"]), code=1)["left"]
    assert "not one of the rows can be read" in left["note"]
    path.write_bytes(whole)
    assert lakeward("dead-letters", "replay", "p.yaml", "--all")["replayed"] == 2
    lakeward("run", "p.yaml", "--once")
    assert missing(tmp_path) == set()
    assert lakeward("verify", "p.yaml")["ok"]
    assert lakeward("health", "p.yaml", code=1)["problems"] == ["no run is alive"]


def test_a_range_is_not_read_again_from_a_file_that_took_the_place_of_the_damaged_one(
    tmp_path: Path, path: Path, lakeward: Lakeward
) -> None:
    zero_page_of(path, 1000)
    lakeward("run", "p.yaml", "--once")
    time.sleep(1.1)  # times in the state are in seconds
    path.unlink()
    write_rows(tmp_path, "north", 7000.0)
    lakeward("run", "p.yaml", "--once")
    before = sorted((tmp_path / "lake").iterdir())
    (left,) = lakeward("dead-letters", "replay", "p.yaml", "--all", code=1)["left"]
    assert left["note"].startswith("the input was replaced or rewound since, so other rows may have these keys")
    assert sorted((tmp_path / "lake").iterdir()) == before
