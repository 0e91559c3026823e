from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakeward import Receipt, Refused, Rejected, Retry
from lakeward.testing import SinkContract, make_parcel
from lakeward_plugins.sinks import sqlite as module
from lakeward_plugins.sinks.sqlite import SqliteSink

READINGS = pa.record_batch({"sensor": ["a", "b"], "temperature": [1.5, None]})
WINDOWS = {"upsert_by": ["window_id"], "revision": "revision"}
FILE = "copy.db"


def deliver(tmp_path: Path, rows: pa.RecordBatch, sequence: int = 1, **options: Any) -> Receipt:
    sink = SqliteSink(tmp_path / FILE, "readings", **options)
    return sink.deliver(make_parcel(tmp_path / "spool", rows, sequence=sequence, encoding=sink.encoding))


def read(tmp_path: Path, sql: str = "SELECT * FROM readings") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        return database.execute(sql).fetchall()


class TestSqliteSink(SinkContract):
    unsupported = ("list", "struct", "not_finite")

    def make(self, tmp_path: Path) -> SqliteSink:
        return SqliteSink(tmp_path / "copy.db", "readings")

    def read_back(self, tmp_path: Path) -> pa.Table:
        if not (tmp_path / "copy.db").exists():
            return pa.table({})
        with closing(sqlite3.connect(tmp_path / "copy.db")) as database:
            if not database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'readings'").fetchone():
                return pa.table({})
            found = database.execute("SELECT * FROM readings")
            names = [name for name, *_ in found.description]
            columns = list(zip(*found.fetchall(), strict=True)) or [()] * len(names)
            return pa.table({name: first_form(name, values) for name, values in zip(names, columns, strict=True)})


def first_form(name: str, values: tuple[Any, ...]) -> pa.Array:
    """What SQLite has no type for is text."""
    forms = {"a_date32": date.fromisoformat, "a_time64": time.fromisoformat, "a_decimal": Decimal}
    forms |= dict.fromkeys(("a_timestamp", "a_timestamp_utc"), datetime.fromisoformat)
    read = forms.get(name, lambda value: value)
    return pa.array([None if value is None else read(value) for value in values])


# -- windows and alerts ------------------------------------------------------------------------------------------------


def windows(*rows: tuple[str, int, float]) -> pa.RecordBatch:
    ids, revisions, means = zip(*rows, strict=True)
    return pa.record_batch({"window_id": ids, "revision": revisions, "mean": means})


# -- the table ---------------------------------------------------------------------------------------------------------


OTHER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    print(database.execute(line).fetchall(), flush=True)
"""


def test_while_somebody_else_writes_rows_wait_and_readers_are_not_in_the_way(tmp_path, monkeypatch):
    deliver(tmp_path, READINGS)
    monkeypatch.setattr(module, "PREPARE", ("PRAGMA busy_timeout = 50",))
    # a process of its own: the locks of two SQLite libraries in one do not hold against each other
    command = [sys.executable, "-c", OTHER, str(tmp_path / FILE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:

        def say(sql: str) -> str:
            assert other.stdin
            assert other.stdout
            print(sql, file=other.stdin, flush=True)
            return other.stdout.readline().strip()

        say("BEGIN")
        assert say("SELECT count(*) FROM readings") == "[(2,)]"
        deliver(tmp_path, READINGS, 2)
        assert say("SELECT count(*) FROM readings") == "[(2,)]", "a reader keeps the state that it began with"
        say("COMMIT")
        say("BEGIN IMMEDIATE")
        with pytest.raises(Retry, match=r"cannot be written now: .*locked"):
            deliver(tmp_path, READINGS, 3)
        say("COMMIT")
        other.communicate()
    deliver(tmp_path, READINGS, 3)
    assert len(read(tmp_path)) == 6


@pytest.mark.parametrize(
    ("column", "rows"),
    [(pa.array([1, 2**63], pa.uint64()), (1,)), (pa.array([float("nan"), 1.0]), (0,)), (pa.array([1, 1000], pa.duration("ns")), (0,))],
    ids=["uint64", "nan", "duration"],
)
def test_a_value_that_would_change_is_rejected_with_its_row(tmp_path, column, rows):
    with pytest.raises(Rejected, match="column 'x'") as caught:
        deliver(tmp_path, pa.record_batch({"x": column}))
    assert caught.value.rows == rows


def test_a_value_that_would_change_is_told_by_its_place_in_the_parcel_whatever_it_replaces(tmp_path):
    rows = windows(("a", 1, 1.0), ("a", 2, 2.0), ("b", 1, float("nan")), ("c", 1, 3.0))
    with pytest.raises(Rejected, match="column 'mean'") as caught:
        deliver(tmp_path, rows, **WINDOWS)
    assert caught.value.rows == (2,)


def test_a_revision_that_is_kept_as_text_is_refused_as_9_would_be_after_10(tmp_path):
    rows = pa.record_batch({"window_id": ["a"], "revision": pa.array([Decimal(10)], pa.decimal128(5, 0))})
    with pytest.raises(Refused, match=r"revision: column 'revision' is decimal128\(5, 0\), which SQLite has as text"):
        deliver(tmp_path, rows, **WINDOWS)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database at all" * 50)
    with pytest.raises(Refused, match="file is not a database"):
        deliver(tmp_path, READINGS)


def test_a_row_that_breaks_a_rule_of_the_table_is_rejected_and_the_others_go_in(tmp_path):
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("CREATE TABLE readings (sensor TEXT, temperature REAL NOT NULL)")
    with pytest.raises(Rejected, match=r"table readings does not take the row: .*NOT NULL constraint failed"):
        deliver(tmp_path, READINGS)
    deliver(tmp_path, READINGS.slice(0, 1))
    assert read(tmp_path) == [("a", 1.5)]
