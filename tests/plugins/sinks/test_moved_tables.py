"""Options that say where rows go are changed after an archive or a local table took a parcel and nobody heard of it: it is there once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakeward import Retry
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.archive import ArchiveSink
from lakeward_plugins.sinks.duckdb import DuckDBSink
from lakeward_plugins.sinks.sqlite import SqliteSink

pytestmark = pytest.mark.one_python

ROWS = pa.record_batch({"city": ["London", "Oslo", "London"], "id": [1, 2, 3]})


def in_archives(folder: Path) -> list[int]:
    return [
        value for file in folder.rglob("*.parquet") if "spool" not in file.parts for value in pq.ParquetFile(file).read()["id"].to_pylist()
    ]


def in_sqlite(folder: Path) -> list[int]:
    ids = []
    for file in folder.glob("*.db"):
        with closing(sqlite3.connect(file)) as database:
            tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'table_'").fetchall()
            ids += [value for (table,) in tables for (value,) in database.execute(f"SELECT id FROM {table}")]
    return ids


def in_duckdb(folder: Path) -> list[int]:
    ids = []
    for file in folder.glob("*.db"):
        with duckdb.connect(str(file), read_only=True) as database:
            tables = database.sql("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'table_'").fetchall()
            ids += [value for (table,) in tables for (value,) in database.sql(f"SELECT id FROM {table}").fetchall()]
    return ids


CASES: list[tuple[Callable[..., Any], Callable[[Path], list[int]], dict[str, Any], dict[str, Any]]] = [
    (ArchiveSink, in_archives, {"path": Path("a"), "file": "{city}.parquet"}, {"path": Path("b"), "file": "{city}.parquet"}),
    (ArchiveSink, in_archives, {"path": Path("a"), "file": "{city}.parquet"}, {"path": Path("a"), "file": "{city}/{id}.parquet"}),
    (
        ArchiveSink,
        in_archives,
        {"path": Path("a"), "file": "{city}.parquet", "max_mb": 0.001},
        {"path": Path("b"), "file": "x{id}.parquet"},
    ),
    (SqliteSink, in_sqlite, {"path": Path("a.db"), "table": "table1"}, {"path": Path("b.db"), "table": "table1"}),
    (SqliteSink, in_sqlite, {"path": Path("a.db"), "table": "table1"}, {"path": Path("a.db"), "table": "table2"}),
    (DuckDBSink, in_duckdb, {"path": Path("a.db"), "table": "table1"}, {"path": Path("b.db"), "table": "table1"}),
    (DuckDBSink, in_duckdb, {"path": Path("a.db"), "table": "table1"}, {"path": Path("a.db"), "table": "table2"}),
]


@pytest.mark.parametrize("ends", ["killed", "stopped"])
@pytest.mark.parametrize(("sink_of", "ids", "before", "after"), CASES)
def test_a_parcel_is_ended_where_it_was_begun(tmp_path, monkeypatch, sink_of, ids, before, after, ends):
    monkeypatch.chdir(tmp_path)

    def deliver(sequence: int, options: dict[str, Any], *, stop: bool = True) -> None:
        sink = sink_of(**options)
        sink.keep_in(tmp_path / "state")
        sink.deliver(make_parcel(tmp_path / "spool", ROWS, sequence=sequence))
        if stop:
            sink.close()

    deliver(1, before)
    deliver(2, before, stop=ends == "stopped")
    for sequence in (2, 2, 3):  # nobody noted that it was delivered, not even the second time
        deliver(sequence, after)
    assert sorted(ids(tmp_path)) == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    deliver(3, before)
    assert sorted(ids(tmp_path)) == [1, 1, 1, 2, 2, 2, 3, 3, 3], "and back again"


def test_an_archive_that_took_a_part_of_a_parcel_takes_the_rest(tmp_path, monkeypatch):
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target.name == "Oslo.parquet":
            raise OSError(28, os.strerror(28), str(target))
        return real(self, target)

    parcel = make_parcel(tmp_path / "spool", ROWS)
    for file in ("{city}.parquet", "all/{id}.parquet"):
        sink = ArchiveSink(tmp_path / "archive", file)
        sink.keep_in(tmp_path / "state")
        if file == "{city}.parquet":
            with monkeypatch.context() as patch:
                patch.setattr(Path, "rename", rename)
                with pytest.raises(Retry):
                    sink.deliver(parcel)
            assert in_archives(tmp_path) == [1, 3]
        else:
            sink.deliver(parcel)
    assert sorted(in_archives(tmp_path)) == [1, 2, 3]


def test_a_sink_of_another_kind_cannot_ask_and_says_so_once(tmp_path, caplog):
    parcel, later = (make_parcel(tmp_path, ROWS, sequence=sequence) for sequence in (1, 2))
    for sink in (SqliteSink(path=tmp_path / "a.db", table="table1"), DuckDBSink(path=tmp_path / "b.duckdb", table="table2")):
        sink.keep_in(tmp_path / "state")
        sink.deliver(parcel)
        sink.deliver(later)
        sink.close()
    told = [record.getMessage() for record in caplog.records if "another kind" in record.getMessage()]
    assert told == [
        f"this sink was of another kind; rows of {parcel.token.name} may be there as well, see {tmp_path / 'state' / 'sqlite.json'}"
    ]
    assert in_sqlite(tmp_path) == [1, 2, 3, 1, 2, 3]
