from __future__ import annotations

import os
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

from lakeward import OptionError, Receipt, Refused, Rejected, Retry
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


def test_of_each_window_the_greatest_revision_stays(tmp_path):
    deliver(tmp_path, windows(("a", 1, 1.0), ("b", 1, 2.0), ("a", 2, 1.5)), 1, **WINDOWS)
    deliver(tmp_path, windows(("b", 3, 2.5), ("a", 1, 9.0), ("c", 1, 7.0)), 2, **WINDOWS)
    deliver(tmp_path, windows(("b", 2, 0.0)), 3, **WINDOWS)
    assert sorted(read(tmp_path)) == [("a", 2, 1.5), ("b", 3, 2.5), ("c", 1, 7.0)]


def test_of_equal_revisions_the_first_stays_within_a_parcel_and_between_parcels(tmp_path):
    deliver(tmp_path, windows(("a", 1, 1.0), ("b", 1, 2.0), ("a", 1, 9.0)), 1, **WINDOWS)
    deliver(tmp_path, windows(("b", 1, 9.0), ("a", 1, 9.0)), 2, **WINDOWS)
    assert sorted(read(tmp_path)) == [("a", 1, 1.0), ("b", 1, 2.0)]


def test_upserts_need_a_revision_as_a_backfill_would_undo_what_is_newer(tmp_path):
    for options in ({"upsert_by": ["window_id"]}, {"revision": "revision"}):
        with pytest.raises(OptionError, match="revision: goes with `upsert_by`"):
            SqliteSink(tmp_path / FILE, "readings", **options)


def test_other_rows_under_a_name_that_is_there_or_an_older_one_are_refused(tmp_path):
    """They come from a copy of the state directory, or from an old one that was restored."""
    for number in (1, 2):
        deliver(tmp_path, windows(("a", number, 1.0)), number)
    for number in (1, 2):
        with pytest.raises(Refused, match=r"has (rows later than|other rows of the name) p/s-.*start anew with another --state"):
            deliver(tmp_path, windows(("b", number, 2.0)), number)
    assert deliver(tmp_path, windows(("a", 2, 1.0)), 2).details["already_there"]
    assert sorted(read(tmp_path)) == [("a", 1, 1.0), ("a", 2, 1.0)]


def test_rows_from_before_there_were_revisions_are_replaced(tmp_path):
    deliver(tmp_path, pa.record_batch({"window_id": ["a", "b"], "mean": [1.0, 2.0]}), 1)
    deliver(tmp_path, windows(("a", 1, 1.5), ("c", 1, 7.0)), 2, **WINDOWS)
    assert sorted(read(tmp_path, "SELECT window_id, mean, revision FROM readings")) == [("a", 1.5, 1), ("b", 2.0, None), ("c", 7.0, 1)]


def test_a_row_without_a_key_is_rejected_and_nothing_is_written(tmp_path):
    rows = pa.record_batch({"window_id": ["a", None], "revision": [1, 1]})
    with pytest.raises(Rejected, match="has no key, or no revision") as caught:
        deliver(tmp_path, rows, **WINDOWS)
    assert caught.value.rows == (1,)


def test_a_key_that_the_rows_do_not_have_is_refused(tmp_path):
    with pytest.raises(Refused, match="the rows have no column 'window_id'; correct `upsert_by`"):
        deliver(tmp_path, READINGS, **WINDOWS)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_new_columns_are_added_and_missing_ones_are_null(tmp_path):
    deliver(tmp_path, READINGS)
    deliver(tmp_path, pa.record_batch({"humidity": [0.5], "sensor": ["c"]}), 2)
    assert sorted(read(tmp_path)) == [("a", 1.5, None), ("b", None, None), ("c", None, 0.5)]


KILLED = """
import os, sys
from pathlib import Path
from lakeward.components import Parcel, Token
from lakeward_plugins.sinks.sqlite import SqliteSink as Sink
sink = Sink(Path(sys.argv[2]), "readings")
real, luck = sink._insert, int(sys.argv[3])
def die(*arguments):
    real(*arguments)
    os.kill(os.getpid(), 9)
if luck % 2:
    Sink._insert = lambda self, *arguments: die(*arguments)
sink.deliver(Parcel(Token("p", "s", "0123abcd", 0, luck), Path(sys.argv[1]), 2, sys.argv[4]))
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.one_python
def test_killed_within_or_after_the_transaction_each_parcel_is_there_once(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for number in range(1, 5):
        parcel = make_parcel(tmp_path / "spool", READINGS, sequence=number)
        arguments = [str(parcel.path), str(tmp_path / FILE), str(number), parcel.sha256]
        assert subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, check=False).returncode == -9
        assert deliver(tmp_path, READINGS, number).details["already_there"] is (number % 2 == 0)
        assert len(read(tmp_path)) == 2 * number


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
