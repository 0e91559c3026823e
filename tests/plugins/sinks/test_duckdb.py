from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from lakeward import Receipt, Refused, Rejected, Retry
from lakeward.testing import SinkContract, make_parcel
from lakeward_plugins.sinks.duckdb import DuckDBSink

READINGS = pa.record_batch({"sensor": ["a", "b"], "temperature": [1.5, None]})
FILE = "copy.duckdb"
WINDOWS = {"upsert_by": ["window_id"], "revision": "revision"}


def deliver(tmp_path: Path, rows: pa.RecordBatch, sequence: int = 1, **options: Any) -> Receipt:
    sink = DuckDBSink(tmp_path / FILE, "readings", **options)
    return sink.deliver(make_parcel(tmp_path / "spool", rows, sequence=sequence, encoding=sink.encoding))


def read(tmp_path: Path, sql: str = "SELECT * FROM readings") -> list[tuple[Any, ...]]:
    with duckdb.connect(str(tmp_path / FILE), read_only=True) as database:
        return database.execute(sql).fetchall()


class TestDuckDBSink(SinkContract):
    watched = False  # nobody can open the file while the sink writes
    unsupported = ()

    def make(self, tmp_path: Path) -> DuckDBSink:
        return DuckDBSink(tmp_path / FILE, "readings")

    def read_back(self, tmp_path: Path) -> pa.Table:
        if not (tmp_path / FILE).exists():
            return pa.table({})
        with duckdb.connect(str(tmp_path / FILE), read_only=True) as database:
            names = [name for (name,) in database.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
            return database.sql("SELECT * FROM readings").to_arrow_table() if "readings" in names else pa.table({})


# -- windows and alerts ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_the_name_of_the_file_is_durable(tmp_path, monkeypatch):
    seen, real = [], os.fsync

    def fsync(handle: int) -> None:
        seen.append(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    deliver(tmp_path, READINGS)
    assert seen[-1] == tmp_path


# -- the table ---------------------------------------------------------------------------------------------------------


def test_while_somebody_else_has_the_file_open_rows_wait(tmp_path):
    deliver(tmp_path, READINGS)
    code = "import duckdb, sys; d = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / FILE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(Retry, match=r"copy.duckdb cannot be written now: .*lock"):
            deliver(tmp_path, READINGS, 2)
        other.communicate()
    deliver(tmp_path, READINGS, 2)
    assert len(read(tmp_path)) == 4


def test_a_column_of_another_type_is_refused(tmp_path):
    deliver(tmp_path, READINGS)
    with pytest.raises(Refused, match="column 'temperature' is VARCHAR in rows and DOUBLE in table readings; cast it with schematize"):
        deliver(tmp_path, pa.record_batch({"temperature": ["warm"]}), 2)
    assert len(read(tmp_path)) == 2


def test_a_file_that_is_no_database_waits_for_a_human_and_says_so(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database at all" * 500)
    with pytest.raises((Retry, Refused), match="not a valid DuckDB database"):
        deliver(tmp_path, READINGS)


def test_text_that_is_not_utf8_costs_its_own_rows(tmp_path):
    text = pa.array([b"ok", b"\xff\xfe", None]).view(pa.string())
    sink = DuckDBSink(tmp_path / "copy.duckdb", "t")
    with pytest.raises(Rejected, match="DuckDB takes no text that is not UTF-8") as caught:
        sink.deliver(make_parcel(tmp_path / "spool", pa.record_batch({"text": text, "n": [1, 2, 3]})))
    assert caught.value.rows == (1,)
    assert sink.stored().num_rows == 0


def test_a_revision_that_cannot_be_compared_is_rejected_with_its_row(tmp_path):
    ids, text = ["a", "b", "c"], pa.array([b"1", b"\xff", b"2"]).view(pa.string())
    for revisions in (text, pa.array([1.0, float("nan"), 2.0])):  # of NaN, DuckDB thinks that none is greater
        with pytest.raises(Rejected, match="upsert_by: ") as caught:
            deliver(tmp_path, pa.record_batch({"window_id": ids, "revision": revisions}), **WINDOWS)
        assert caught.value.rows == (1,)
    assert not (tmp_path / FILE).exists()


def test_a_row_that_breaks_a_rule_of_the_table_is_rejected_and_the_others_go_in(tmp_path):
    with duckdb.connect(str(tmp_path / FILE)) as database:
        database.execute("CREATE TABLE readings (sensor VARCHAR, temperature DOUBLE NOT NULL)")
    with pytest.raises(Rejected, match="table readings does not take the row: Constraint Error: NOT NULL"):
        deliver(tmp_path, READINGS)
    deliver(tmp_path, READINGS.slice(0, 1))
    assert read(tmp_path) == [("a", 1.5)]


def test_two_sinks_of_one_process_share_a_file(tmp_path):
    """DuckDB gave the second what was not whole yet, and told that its own functions are missing."""

    def work(table: str) -> None:
        sink = DuckDBSink(tmp_path / FILE, table)
        for sequence in range(1, 4):
            sink.deliver(make_parcel(tmp_path / "spool", READINGS, sequence=sequence, sink=table))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, ["x", "y", "z"]))
    assert [read(tmp_path, f"SELECT count(*) FROM {table}") for table in "xyz"] == [[(6,)]] * 3
