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

from lakeward import OptionError, Receipt, Refused, Rejected, Retry
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
            DuckDBSink(tmp_path / FILE, "readings", **options)


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


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_the_name_of_the_file_is_durable(tmp_path, monkeypatch):
    seen, real = [], os.fsync

    def fsync(handle: int) -> None:
        seen.append(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    deliver(tmp_path, READINGS)
    assert seen[-1] == tmp_path


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
from lakeward_plugins.sinks.duckdb import DuckDBSink as Sink
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
