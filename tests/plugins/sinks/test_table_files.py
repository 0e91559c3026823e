"""What is the same of a table in a SQLite file and in a DuckDB file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from attrs import frozen

from lakeward import OptionError, Receipt, Refused, Rejected
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.duckdb import DuckDBSink
from lakeward_plugins.sinks.sqlite import SqliteSink

READINGS = pa.record_batch({"sensor": ["a", "b"], "temperature": [1.5, None]})
WINDOWS = {"upsert_by": ["window_id"], "revision": "revision"}


@frozen
class File:
    kind: type[SqliteSink | DuckDBSink]
    path: Path

    def sink(self, **options: Any) -> SqliteSink | DuckDBSink:
        return self.kind(self.path, "readings", **options)

    def deliver(self, rows: pa.RecordBatch, sequence: int = 1, **options: Any) -> Receipt:
        sink = self.sink(**options)
        return sink.deliver(make_parcel(self.path.parent / "spool", rows, sequence=sequence, encoding=sink.encoding))

    def read(self, sql: str = "SELECT * FROM readings") -> list[tuple[Any, ...]]:
        if self.kind is DuckDBSink:
            with duckdb.connect(str(self.path), read_only=True) as database:
                return database.execute(sql).fetchall()
        with closing(sqlite3.connect(self.path)) as database:
            return database.execute(sql).fetchall()


@pytest.fixture(params=[SqliteSink, DuckDBSink], ids=["sqlite", "duckdb"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> File:
    return File(request.param, tmp_path / "copy")


# -- windows and alerts ------------------------------------------------------------------------------------------------


def windows(*rows: tuple[str, int, float]) -> pa.RecordBatch:
    ids, revisions, means = zip(*rows, strict=True)
    return pa.record_batch({"window_id": ids, "revision": revisions, "mean": means})


def test_of_each_window_the_greatest_revision_stays(file):
    file.deliver(windows(("a", 1, 1.0), ("b", 1, 2.0), ("a", 2, 1.5)), 1, **WINDOWS)
    file.deliver(windows(("b", 3, 2.5), ("a", 1, 9.0), ("c", 1, 7.0)), 2, **WINDOWS)
    file.deliver(windows(("b", 2, 0.0)), 3, **WINDOWS)
    assert sorted(file.read()) == [("a", 2, 1.5), ("b", 3, 2.5), ("c", 1, 7.0)]


def test_of_equal_revisions_the_first_stays_within_a_parcel_and_between_parcels(file):
    file.deliver(windows(("a", 1, 1.0), ("b", 1, 2.0), ("a", 1, 9.0)), 1, **WINDOWS)
    file.deliver(windows(("b", 1, 9.0), ("a", 1, 9.0)), 2, **WINDOWS)
    assert sorted(file.read()) == [("a", 1, 1.0), ("b", 1, 2.0)]


def test_upserts_need_a_revision_as_a_backfill_would_undo_what_is_newer(file):
    for options in ({"upsert_by": ["window_id"]}, {"revision": "revision"}):
        with pytest.raises(OptionError, match="revision: goes with `upsert_by`"):
            file.sink(**options)


def test_other_rows_under_a_name_that_is_there_or_an_older_one_are_refused(file):
    """They come from a copy of the state directory, or from an old one that was restored."""
    for number in (1, 2):
        file.deliver(windows(("a", number, 1.0)), number)
    for number in (1, 2):
        with pytest.raises(Refused, match=r"has (rows later than|other rows of the name) p/s-.*start anew with another --state"):
            file.deliver(windows(("b", number, 2.0)), number)
    assert file.deliver(windows(("a", 2, 1.0)), 2).details["already_there"]
    assert sorted(file.read()) == [("a", 1, 1.0), ("a", 2, 1.0)]


def test_rows_from_before_there_were_revisions_are_replaced(file):
    file.deliver(pa.record_batch({"window_id": ["a", "b"], "mean": [1.0, 2.0]}), 1)
    file.deliver(windows(("a", 1, 1.5), ("c", 1, 7.0)), 2, **WINDOWS)
    assert sorted(file.read("SELECT window_id, mean, revision FROM readings")) == [("a", 1.5, 1), ("b", 2.0, None), ("c", 7.0, 1)]


def test_a_row_without_a_key_is_rejected_and_nothing_is_written(file):
    rows = pa.record_batch({"window_id": ["a", None], "revision": [1, 1]})
    with pytest.raises(Rejected, match="has no key, or no revision") as caught:
        file.deliver(rows, **WINDOWS)
    assert caught.value.rows == (1,)


def test_a_key_that_the_rows_do_not_have_is_refused(file):
    with pytest.raises(Refused, match="the rows have no column 'window_id'; correct `upsert_by`"):
        file.deliver(READINGS, **WINDOWS)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_new_columns_are_added_and_missing_ones_are_null(file):
    file.deliver(READINGS)
    file.deliver(pa.record_batch({"humidity": [0.5], "sensor": ["c"]}), 2)
    assert sorted(file.read()) == [("a", 1.5, None), ("b", None, None), ("c", None, 0.5)]


KILLED = """
import os, sys
from pathlib import Path
from lakeward.components import Parcel, Token
from KIND import Sink
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
def test_killed_within_or_after_the_transaction_each_parcel_is_there_once(file):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = KILLED.replace("KIND", file.kind.__module__).replace("Sink", file.kind.__name__)
    for number in range(1, 5):
        parcel = make_parcel(file.path.parent / "spool", READINGS, sequence=number)
        arguments = [str(parcel.path), str(file.path), str(number), parcel.sha256]
        assert subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=False).returncode == -9
        assert file.deliver(READINGS, number).details["already_there"] is (number % 2 == 0)
        assert len(file.read()) == 2 * number
