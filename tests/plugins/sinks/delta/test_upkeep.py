"""What keeps a local table cheap, and what that must never do: small files made into large ones, old files and the old log removed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from lakeward import Receipt
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.delta import DeltaSink
from lakeward_plugins.sinks.delta.compaction import compact
from lakeward_plugins.sinks.delta.place import Place


def deliver(tmp_path: Path, rows: pa.RecordBatch, sequence: int = 1, **options: Any) -> Receipt:
    sink = DeltaSink(tmp_path / "table", **options)
    return sink.deliver(make_parcel(tmp_path / "spool", rows, sequence=sequence, encoding=sink.encoding))


def read(tmp_path: Path) -> list[dict[str, Any]]:
    return sorted(DeltaTable(tmp_path / "table").to_pyarrow_table().to_pylist(), key=repr)


def one(**columns: list[Any]) -> pa.RecordBatch:
    return pa.record_batch(columns)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_checkpoint_is_durable(tmp_path, monkeypatch):
    sink, seen, real = DeltaSink(tmp_path / "table"), list[str](), os.fsync

    def fsync(handle: int) -> None:
        seen.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    for sequence in range(1, 12):
        seen.clear()
        sink.deliver(make_parcel(tmp_path / "spool", one(a=[sequence]), sequence=sequence))
    assert seen[-3:] == [f"{10:020d}.checkpoint.parquet", "_last_checkpoint", "_delta_log"]


@pytest.mark.parametrize("options", [{}, {"upsert_by": ["a"], "revision": "a"}], ids=["rules", "upserts"])
def test_delta_rs_never_removes_the_log_behind_our_back(tmp_path, options):
    """It would before the checkpoint, without which nobody can read the table then, is synced."""
    table = DeltaTable.create(
        tmp_path / "table", Schema([Field("a", "long")]), configuration={"delta.logRetentionDuration": "interval 0 seconds"}
    )
    table.alter.add_constraint({"positive": "a > 0"})
    for sequence in range(1, 13):
        deliver(tmp_path, one(a=[sequence]), sequence, compact_every=0, **options)
    assert len(list((tmp_path / "table/_delta_log").glob("*.json"))) == 14
    assert DeltaTable(tmp_path / "table").version() == 13


def test_files_that_nobody_needs_go_also_when_every_run_ends_soon(tmp_path):
    deliver(tmp_path, one(a=[0]))
    left = tmp_path / "table/left.parquet"
    left.write_text("x")
    os.utime(left, (1, 1))
    for sequence in range(2, 125):
        deliver(tmp_path, one(a=[sequence]), sequence, compact_every=10)
    assert not left.exists()
    assert len(read(tmp_path)) == 124


def test_files_that_cannot_be_of_the_table_stay_whatever_their_age(tmp_path, caplog):
    sink = DeltaSink(tmp_path / "table", compact_every=10, history=timedelta(0))
    sink._upkeep.keep_removed = timedelta(0)
    others = [tmp_path / "table" / name for name in ("notes.txt", "raw/x.parquet", "raw/_delta_log/00000000000000000000.json")]
    for sequence in range(1, 23):
        sink.deliver(make_parcel(tmp_path / "spool", one(a=[sequence]), sequence=sequence))
        for other in others if sequence == 1 else ():
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_text("x")
            os.utime(other, (1, 1))
    assert all(other.exists() for other in others)
    assert "is a folder for one table, but " in caplog.text
    assert len(read(tmp_path)) == 22


def test_small_files_become_one_and_old_ones_and_the_old_log_go(tmp_path):
    sink = DeltaSink(tmp_path / "table", compact_every=20, history=timedelta(0), partition_by=["city"])
    sink._upkeep.keep_removed = timedelta(0)  # less than the option allows, as nobody else writes
    for sequence in range(1, 62):
        rows = one(city=["å b", None, "rome"], a=[sequence, -sequence, 0], b=["x", None, "y"])
        sink.deliver(make_parcel(tmp_path / "spool", rows, sequence=sequence))
    table = DeltaTable(tmp_path / "table")
    kinds = Counter(Path(uri).name.partition("-")[0] for uri in table.file_uris())
    assert kinds["compacted"] == 3
    assert kinds["s"] < 60
    assert sorted(pl.read_delta(tmp_path / "table").filter(pl.col("city") == "å b")["a"].to_list()) == list(range(1, 62))
    assert len([path for path in (tmp_path / "table").rglob("*.parquet") if "checkpoint" not in path.name]) == kinds.total()
    assert len(list((tmp_path / "table/_delta_log").glob("*.json"))) < 30
    seen = read(tmp_path)
    assert len(seen) == 183
    assert sum(row["a"] for row in seen if row["city"] == "å b") == sum(range(62))
    assert pq.read_metadata(next((tmp_path / "table").rglob("compacted-*.parquet"))).num_row_groups == 1
    assert sink.deliver(make_parcel(tmp_path / "spool", rows, sequence=61)).details["already_there"]


def test_of_compactions_at_once_one_wins_and_no_row_is_there_twice(tmp_path):
    for sequence in range(1, 7):
        deliver(tmp_path, one(a=[sequence]), sequence)
    place = Place(str(tmp_path / "table"))
    tables, begin, failed = [DeltaTable(tmp_path / "table") for _ in range(6)], threading.Barrier(6), []

    def work(table: DeltaTable) -> None:
        begin.wait()
        try:
            compact(table, place, 1 << 20)
        except CommitFailedError as error:
            failed.append(str(error))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, tables))
    assert failed == ["another writer replaced some of the files"] * 5
    assert read(tmp_path) == [{"a": sequence} for sequence in range(1, 7)]


def test_a_table_with_rules_is_left_as_it_is(tmp_path):
    DeltaTable.create(tmp_path / "table", Schema([Field("a", "long", nullable=False)]))
    for sequence in range(1, 25):
        deliver(tmp_path, one(a=[sequence]), sequence, compact_every=10)
    assert len(pa.table(DeltaTable(tmp_path / "table").get_add_actions())) == 24


def test_compacting_takes_the_memory_of_a_row_group_whatever_the_files_hold(tmp_path):
    columns = {name: pa.repeat(pa.scalar(1), 2_000_000) for name in "abcd"}  # 64 MB in memory, and hardly anything in a file
    for _ in range(2):
        write_deltalake(tmp_path / "table", pa.table(columns), mode="append")
    script = """
import sys, pyarrow
from deltalake import DeltaTable
from lakeward_plugins.sinks.delta.compaction import compact
from lakeward_plugins.sinks.delta.place import Place
compact(DeltaTable(sys.argv[1]), Place(sys.argv[1]), 8 << 20)
print(pyarrow.default_memory_pool().max_memory())
"""
    told = subprocess.run([sys.executable, "-c", script, str(tmp_path / "table")], check=True, capture_output=True, text=True)
    assert int(told.stdout) < 20e6
    table = DeltaTable(tmp_path / "table")
    assert [file.rpartition("/")[2].partition("-")[0] for file in table.file_uris()] == ["compacted"]
    assert pa.table(table.get_add_actions())["num_records"].to_pylist() == [4_000_000]
    assert not [*Path(tmp_path / "table/_delta_log").glob("*.tmp")]


def test_what_goes_wrong_while_tidying_is_told_and_delivery_goes_on(tmp_path, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lakeward_plugins.sinks.delta.upkeep.compact", fail)
    sink = DeltaSink(tmp_path / "table", compact_every=10)
    for sequence in range(1, 14):
        assert not sink.deliver(make_parcel(tmp_path / "spool", one(a=[sequence]), sequence=sequence)).details["already_there"]
    assert len(read(tmp_path)) == 13
    assert "the rows are in, but the table could not be tidied: [Errno 28]" in caplog.text


# -- files that others wrote -------------------------------------------------------------------------------------------


def written(**options: Any) -> bytes:
    out = io.BytesIO()
    rows = pa.table({"a": pa.array([7], pa.int16()), "at": pa.array([datetime(2026, 1, 1)], pa.timestamp("ns")), **options.pop("more", {})})
    pq.write_table(rows.slice(0, options.pop("count", 1)), out, **options)
    return out.getvalue()


LONG = 150_000
MANY_ROWS = written(more={"a": pa.array([7] * LONG, pa.int16()), "at": pa.array([0] * (LONG - 1) + [1], pa.timestamp("ns"))}, count=LONG)
FOREIGN = {
    "no row groups": (written(count=0), True),
    "other types, INT96 and brotli": (written(use_deprecated_int96_timestamps=True, compression="brotli"), True),
    "nanoseconds": (written(more={"at": pa.array([1], pa.timestamp("ns"))}), False),
    "nanoseconds behind rows that fit": (MANY_ROWS, False),
    "a column of another case": (written(more={"B": ["x"]}), False),
    "no Parquet": (b"PAR1 and nothing PAR1", False),
    "gone": (None, False),
}


@pytest.mark.one_python
@pytest.mark.parametrize("word", FOREIGN)
def test_files_of_other_writers_are_taken_in_or_stay_and_delivery_goes_on(tmp_path, caplog, word):
    content, fits = FOREIGN[word]
    rows = one(a=[1], at=[datetime(2026, 1, 2)], b=["x"])
    deliver(tmp_path, rows)
    table = DeltaTable(tmp_path / "table")
    if content:
        (tmp_path / "table/foreign.parquet").write_bytes(content)
    count = pq.read_metadata(io.BytesIO(content)).num_rows if content and content.startswith(b"PAR1\x15") else 0
    add = AddAction("foreign.parquet", len(content or b"x" * 9), {}, 1, True, json.dumps({"numRecords": count}))
    table.create_write_transaction([add], "append", table.schema(), [])
    for sequence in range(2, 12):
        deliver(tmp_path, rows, sequence, compact_every=10)
    paths = {Path(uri).name for uri in DeltaTable(tmp_path / "table").file_uris()}
    assert ("foreign.parquet" in paths) is not fits
    assert any(name.startswith("compacted-") for name in paths)
    assert "could not be tidied" not in caplog.text
    if fits or "case" in word:  # the others nobody can read as they are
        assert len(read(tmp_path)) == 11 + count


def test_a_file_outside_of_the_table_is_left_where_it_is(tmp_path):
    """As in a table that was cloned without its files."""
    deliver(tmp_path, one(a=[1]))
    pq.write_table(pa.table({"a": [7]}), tmp_path / "outside.parquet")
    table = DeltaTable(tmp_path / "table")
    outside = (tmp_path / "outside.parquet").as_uri()
    table.create_write_transaction([AddAction(outside, 1, {}, 1, True, json.dumps({"numRecords": 1}))], "append", table.schema(), [])
    compact(DeltaTable(tmp_path / "table"), Place(str(tmp_path / "table")), 1 << 20)
    assert (tmp_path / "outside.parquet").exists()
    assert any("outside" in uri for uri in DeltaTable(tmp_path / "table").file_uris())
