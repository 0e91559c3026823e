"""Columns that come and go, partitions, upserts, and what readers pass over, in a local table."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake

from lakeward import OptionError, Receipt, Refused, Rejected
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.delta import DeltaSink

WINDOWS = {"upsert_by": ["window_id"], "revision": "revision"}


def deliver(tmp_path: Path, rows: pa.RecordBatch, sequence: int = 1, **options: Any) -> Receipt:
    sink = DeltaSink(tmp_path / "table", **options)
    return sink.deliver(make_parcel(tmp_path / "spool", rows, sequence=sequence, encoding=sink.encoding))


def read(tmp_path: Path) -> list[dict[str, Any]]:
    return sorted(DeltaTable(tmp_path / "table").to_pyarrow_table().to_pylist(), key=repr)


def one(**columns: list[Any]) -> pa.RecordBatch:
    return pa.record_batch(columns)


# -- the spooled file itself -------------------------------------------------------------------------------------------


def test_the_spooled_file_is_linked_into_the_table(tmp_path):
    parcel = make_parcel(tmp_path / "spool", one(a=[1], b=["x"]), sequence=2)
    deliver(tmp_path, one(a=[0], b=["w"]))
    deliver(tmp_path, one(a=[1], b=["x"]), 2)
    assert (tmp_path / "table" / f"{parcel.token.name}-{parcel.sha256[:16]}.parquet").samefile(parcel.path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_the_name_of_a_data_file_that_an_attempt_left_is_durable_before_the_commit(tmp_path, monkeypatch):
    """It has the time of its delivery, too: others remove old files that no commit names, and a parcel may have waited for weeks."""
    deliver(tmp_path, one(a=[0]))
    parcel, seen, real = make_parcel(tmp_path / "spool", one(a=[1]), sequence=2), [], os.fsync
    os.utime(parcel.path, (1, 1))
    file = tmp_path / "table" / f"{parcel.token.name}-{parcel.sha256[:16]}.parquet"
    os.link(parcel.path, file)

    def fsync(handle: int) -> None:
        seen.append(Path(f"/proc/self/fd/{handle}").readlink().relative_to(tmp_path))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    DeltaSink(tmp_path / "table").deliver(parcel)
    assert [path.parts[:2] for path in seen] == [("table",), ("table", "_delta_log"), ("table", "_delta_log")]
    assert time.time() - file.stat().st_mtime < 60


@pytest.mark.parametrize("there", [b"half", None], ids=["half", "whole"])
def test_a_data_file_that_an_attempt_left_is_made_whole(tmp_path, there):
    parcel = make_parcel(tmp_path / "spool", one(a=[1]), sequence=2)
    deliver(tmp_path, one(a=[0]))
    (tmp_path / "table" / f"{parcel.token.name}-{parcel.sha256[:16]}.parquet").write_bytes(
        parcel.path.read_bytes() if there is None else there
    )
    deliver(tmp_path, one(a=[1]), 2)
    assert read(tmp_path) == [{"a": 0}, {"a": 1}]


def test_a_file_system_without_hard_links_takes_copies(tmp_path, monkeypatch):
    def no_links(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    deliver(tmp_path, one(a=[0]))
    monkeypatch.setattr("os.link", no_links)
    assert [deliver(tmp_path, one(a=[1]), 2).details["already_there"] for _ in range(2)] == [False, True]
    assert read(tmp_path) == [{"a": 0}, {"a": 1}]


def test_readers_pass_over_files_by_what_is_said_of_them_and_over_none_too_many(tmp_path):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(1, 5):
        times = [start + timedelta(hours=number, microseconds=micros) for micros in (0, 1, 999_999)]
        texts, values = [f"s{number}", None, "z" * 100 if number == 4 else "sz"], [float("nan"), float(number), None]
        days = [date(2026, 1, number)] * 3
        deliver(tmp_path, one(id=[number, number + 10, None], at=times, sensor=texts, value=values, day=days), number)
    table = DeltaTable(tmp_path / "table")
    log = (tmp_path / "table/_delta_log" / f"{3:020d}.json").read_text()
    stats = [json.loads(line)["add"]["stats"] for line in log.splitlines() if '"add"' in line]
    assert json.loads(stats[0]) == {
        "numRecords": 3,
        "minValues": {"id": 4, "at": "2026-01-01T04:00:00.000Z", "day": "2026-01-04"},
        "maxValues": {"id": 14, "at": "2026-01-01T04:00:01.000Z", "day": "2026-01-04"},
        "nullCount": {"id": 1, "at": 0, "sensor": 1, "value": 1, "day": 0},
    }
    seen = pl.scan_delta(tmp_path / "table")
    for number in range(1, 5):
        last = start + timedelta(hours=number, microseconds=999_999)
        assert seen.filter(pl.col("at") == last).collect().height == 1
        assert seen.filter(pl.col("id") == number + 10).collect().height == 1
    assert seen.filter(pl.col("value").is_nan()).collect().height == 4
    assert seen.filter(pl.col("sensor") == "z" * 100).collect().height == 1
    found = duckdb.from_arrow(table.to_pyarrow_dataset()).filter("\"at\" > TIMESTAMPTZ '2026-01-01 04:00:00.9+00'").aggregate("count(*)")
    assert found.fetchall() == [(1,)]


# -- columns -----------------------------------------------------------------------------------------------------------


def test_new_columns_are_added_and_missing_ones_are_null(tmp_path):
    deliver(tmp_path, one(a=[1]), new_columns="add")
    deliver(tmp_path, one(b=["x"], a=[2]), 2, new_columns="add")
    deliver(tmp_path, one(c=[1.5]), 3, new_columns="add")
    assert read(tmp_path) == [{"a": 1, "b": None, "c": None}, {"a": 2, "b": "x", "c": None}, {"a": None, "b": None, "c": 1.5}]
    assert deliver(tmp_path, one(c=[1.5]), 3, new_columns="add").details["already_there"]


def test_columns_come_back_while_a_sink_runs(tmp_path):
    sink = DeltaSink(tmp_path / "table", new_columns="add")
    for sequence, rows in enumerate([one(a=[1]), one(a=[2], b=[1]), one(a=[3]), one(a=[4], b=[2], c=["x"])], 1):
        assert not sink.deliver(make_parcel(tmp_path / "spool", rows, sequence=sequence)).details["already_there"]
    assert [(row["a"], row["b"], row["c"]) for row in read(tmp_path)] == [(1, None, None), (2, 1, None), (3, None, None), (4, 2, "x")]


@pytest.mark.parametrize("policy", ["refuse", "add"])
def test_another_type_is_never_let_in(tmp_path, policy):
    deliver(tmp_path, one(a=[1]))
    with pytest.raises(Refused, match="column 'a' is double in rows and long in the table; cast it with schematize"):
        deliver(tmp_path, one(a=[1.5]), 2, new_columns=policy)
    with pytest.raises(Refused, match=r"column|columns"):
        deliver(tmp_path, one(A=[1]), 2, new_columns=policy)


@pytest.mark.parametrize("rows", [one(a=[1, 2], b=[1, 2]), one(a=[1.5, 2.5])], ids=["new", "type"])
def test_rows_that_do_not_fit_can_become_dead_letters(tmp_path, rows):
    deliver(tmp_path, one(a=[1]))
    with pytest.raises(Rejected, match=r"column 'b'|column 'a' is double") as caught:
        deliver(tmp_path, rows, 2, new_columns="dead_letter")
    assert caught.value.rows == (0, 1)
    assert read(tmp_path) == [{"a": 1}]


# -- partitions --------------------------------------------------------------------------------------------------------


def test_each_partition_is_a_file_in_a_folder_of_its_name(tmp_path):
    rows = one(city=["rome", "å b/c%", None, "rome"], day=[date(2026, 1, 1)] * 4, a=[1, 2, 3, 4])
    options: dict[str, Any] = {"partition_by": ["city", "day"]}
    for sequence in (1, 2, 2):
        deliver(tmp_path, rows, sequence, **options)
    table = DeltaTable(tmp_path / "table")
    assert (table.metadata().partition_columns, table.version()) == (["city", "day"], 1)
    assert sorted(row["a"] for row in read(tmp_path)) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert sorted(pl.read_delta(tmp_path / "table").filter(pl.col("city") == "å b/c%")["a"].to_list()) == [2, 2]
    shipped = {str(path.parent.relative_to(tmp_path / "table")) for path in (tmp_path / "table").rglob("s-*.parquet")}
    assert shipped == {f"city={city}/day=2026-01-01" for city in ("rome", "%C3%A5%20b%2Fc%25", "__HIVE_DEFAULT_PARTITION__")}


UNNAMEABLE = [
    (b"", "an empty text cannot name a partition"),
    (b"\xff", "text that is not UTF-8 cannot name a folder"),
    ("å".encode() * 42, "the text is too long for the name of a folder"),
]


@pytest.mark.parametrize("way", ["first", "appended", "upserted"])
@pytest.mark.parametrize(("value", "why"), UNNAMEABLE, ids=["empty", "no UTF-8", "long"])
def test_text_that_cannot_name_a_partition_costs_its_own_rows_whoever_writes_the_table(tmp_path, value, why, way):
    """By delta-rs an empty text became no value in silence, and a long one kept all rows from the table for ever."""
    options: dict[str, Any] = {"partition_by": ["city"], **({"upsert_by": ["a"], "revision": "a"} if way == "upserted" else {})}
    if way != "first":
        deliver(tmp_path, one(city=["å" * 41], a=[0]), **options)
    cities = pa.array([b"a", value, None, value], pa.binary()).view(pa.string())
    with pytest.raises(Rejected, match=f"column 'city': {why}") as caught:
        deliver(tmp_path, one(city=cities, a=[1, 2, 3, 4]), 2, **options)
    assert caught.value.rows == (1, 3)


@pytest.mark.parametrize("options", [{}, {"partition_by": ["day"]}, {"upsert_by": ["a"], "revision": "a"}], ids=" ".join)
@pytest.mark.parametrize("earlier", [False, True])
def test_dates_that_readers_have_not_cost_their_own_rows(tmp_path, options, earlier):
    """With one of them in the table, delta-rs and Python could read none of it."""
    if earlier:
        deliver(tmp_path, one(day=pa.array([0], pa.date32()), a=[0]), **options)
    for worst in (2_932_897, -719_163, 2**31 - 1):
        days = pa.array([2_932_896, worst, None, -719_162, worst], pa.date32())
        with pytest.raises(Rejected, match="column 'day': readers of the table have no date before the year 1 or after 9999") as caught:
            deliver(tmp_path, one(day=days, a=[1, 2, 3, 4, 5]), 2, **options)
        assert caught.value.rows == (1, 4)


@pytest.mark.parametrize(
    ("columns", "message"),
    [(["town"], "the rows have no column 'town'"), (["a"], "column 'a' is double; text, whole numbers"), (["city", "a"], "column 'a'")],
)
def test_columns_that_cannot_name_partitions_are_refused(tmp_path, columns, message):
    for attempt in ("probe", "deliver"):
        sink = DeltaSink(tmp_path / "table", partition_by=columns)
        parcel = make_parcel(tmp_path / "spool", one(city=["x"], a=[1.5]))
        with pytest.raises(Refused, match=f"partition_by: {message}"):
            sink.probe(next(parcel.batches()).schema) if attempt == "probe" else sink.deliver(parcel)


def test_a_table_with_other_partitions_is_refused(tmp_path):
    deliver(tmp_path, one(city=["x"], a=[1]))
    with pytest.raises(Refused, match=r"the table is there with partition_by \[\], not \['city'\]; correct the option"):
        deliver(tmp_path, one(city=["x"], a=[1]), 2, partition_by=["city"])


# -- upserts -----------------------------------------------------------------------------------------------------------


def windows(*rows: tuple[str, int, float]) -> pa.RecordBatch:
    ids, revisions, means = zip(*rows, strict=True)
    return pa.record_batch({"window_id": ids, "revision": revisions, "mean": means})


def test_of_each_window_the_greatest_revision_stays_with_the_note_in_the_same_commit(tmp_path):
    assert deliver(tmp_path, windows(("a", 1, 1.0), ("b", 1, 2.0), ("a", 2, 1.5)), 1, **WINDOWS).details["version"] == 0
    assert deliver(tmp_path, windows(("b", 3, 2.5), ("a", 1, 9.0), ("c", 1, 7.0)), 2, **WINDOWS).details["version"] == 1
    assert deliver(tmp_path, windows(("b", 3, 2.5), ("a", 1, 9.0), ("c", 1, 7.0)), 2, **WINDOWS).details["already_there"]
    deliver(tmp_path, windows(("b", 2, 0.0)), 3, **WINDOWS)
    assert sorted(tuple(row.values()) for row in read(tmp_path)) == [("a", 2, 1.5), ("b", 3, 2.5), ("c", 1, 7.0)]
    log = (tmp_path / "table/_delta_log" / f"{1:020d}.json").read_text()
    assert '"txn"' in log
    assert '"operation":"MERGE"' in log


def test_of_equal_revisions_the_first_stays_within_a_parcel_and_between_parcels(tmp_path):
    deliver(tmp_path, windows(("a", 1, 1.0), ("b", 1, 2.0), ("a", 1, 9.0)), 1, **WINDOWS)
    deliver(tmp_path, windows(("b", 1, 9.0), ("a", 1, 9.0)), 2, **WINDOWS)
    assert sorted(tuple(row.values()) for row in read(tmp_path)) == [("a", 1, 1.0), ("b", 1, 2.0)]


def test_a_time_can_be_the_revision_as_that_of_alerts_is(tmp_path):
    options, first = {"upsert_by": ["alert_id"], "revision": "event_ts"}, datetime(2026, 1, 1, tzinfo=UTC)
    for sequence, (event, seconds) in enumerate([("CLEAR", 5), ("RAISE", 0), ("RAISE", 7)], 1):
        deliver(tmp_path, one(alert_id=[1], event=[event], event_ts=[first + timedelta(seconds=seconds)]), sequence, **options)
    assert read(tmp_path) == [{"alert_id": 1, "event": "RAISE", "event_ts": first + timedelta(seconds=7)}]


def test_rows_from_before_there_were_revisions_are_replaced(tmp_path):
    rows = pa.table({"window_id": ["a", "b"], "revision": pa.array([None, None], pa.int64()), "mean": [1.0, 2.0]})
    write_deltalake(tmp_path / "table", rows)
    deliver(tmp_path, windows(("a", 1, 1.5), ("c", 1, 7.0)), 2, **WINDOWS)
    assert sorted((row["window_id"], row["mean"]) for row in read(tmp_path)) == [("a", 1.5), ("b", 2.0), ("c", 7.0)]


@pytest.mark.parametrize("there", [False, True], ids=["a new table", "a table that is there"])
def test_a_value_that_would_change_is_told_by_its_place_in_the_parcel_whatever_it_replaces(tmp_path, there):
    times = pa.array([0, 1_000, 1_001, 2_000], pa.timestamp("ns"))
    rows = pa.record_batch({"window_id": ["a", "a", "b", "c"], "revision": [1, 2, 1, 1], "start": times})
    if there:
        deliver(tmp_path, rows.slice(0, 2), **WINDOWS)
    with pytest.raises(Rejected, match="column 'start' does not fit") as caught:
        deliver(tmp_path, rows, 2, **WINDOWS)
    assert caught.value.rows == (2,)


def test_writers_that_upsert_the_same_windows_at_once_keep_one_of_each(tmp_path):
    def write(number: int) -> None:
        sink = DeltaSink(tmp_path / "table", **WINDOWS)
        for sequence in range(1, 4):
            rows = windows(*((key, 10 * sequence + number, float(number)) for key in "abc"))
            parcel = make_parcel(tmp_path / str(number), rows, sequence=sequence, sink=f"w{number}")
            while True:
                try:
                    sink.deliver(parcel)
                    break
                except Exception as error:
                    if "other writers were first" not in str(error):
                        raise

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert sorted((row["window_id"], row["revision"], row["mean"]) for row in read(tmp_path)) == [(key, 33, 3.0) for key in "abc"]


def test_upserts_need_a_revision_as_a_backfill_would_undo_what_is_newer(tmp_path):
    for options in ({"upsert_by": ["window_id"]}, {"revision": "revision"}):
        with pytest.raises(OptionError, match="revision: goes with `upsert_by`"):
            DeltaSink(tmp_path / "table", **options)


# -- many writers ------------------------------------------------------------------------------------------------------

WRITERS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import pyarrow as pa
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.delta import DeltaSink

folder = Path(sys.argv[1])

def write(name):
    sink = DeltaSink(folder / "table", compact_every=20)
    rows = pa.record_batch({"w": [name] * 3})
    return [sink.deliver(make_parcel(folder / name, rows, sequence=number, sink=name)).details["already_there"] for number in range(1, 6)]

with ThreadPoolExecutor(10) as pool:
    print(sum(map(len, pool.map(write, [f"{sys.argv[2]}-{number}" for number in range(10)]))))
"""


@pytest.mark.slow
@pytest.mark.one_python
def test_fifty_writers_never_conflict(tmp_path):
    """Ten threads in each of five processes, each with a sink of its own, while files are compacted: no `deliver` raises."""
    deliver(tmp_path, one(w=["first"]))
    arguments = [[sys.executable, "-c", WRITERS, str(tmp_path), f"w{number}"] for number in range(5)]
    processes = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in arguments]
    assert [process.communicate(timeout=200)[0] for process in processes] == ["50\n"] * 5
    assert Counter(row["w"] for row in read(tmp_path)) == {"first": 1} | {f"w{a}-{b}": 15 for a in range(5) for b in range(10)}


def test_a_table_that_another_writer_changed_is_seen_anew(tmp_path):
    sink = DeltaSink(tmp_path / "table", new_columns="add")
    sink.deliver(make_parcel(tmp_path / "spool", one(a=[1])))
    sink.deliver(make_parcel(tmp_path / "spool", one(a=[2]), sequence=2))
    DeltaTable(tmp_path / "table").alter.add_columns([Field("z", "long")])
    DeltaTable(tmp_path / "table").alter.add_constraint({"small": "a < 10"})
    with pytest.raises(Rejected, match="failed validation check"):
        sink.deliver(make_parcel(tmp_path / "spool", one(a=[30]), sequence=3))
    sink.deliver(make_parcel(tmp_path / "spool", one(a=[3]), sequence=4))
    assert [row["a"] for row in read(tmp_path)] == [1, 2, 3]


def test_a_table_that_was_removed_while_the_sink_ran_is_made_anew(tmp_path):
    sink = DeltaSink(tmp_path / "table")
    for sequence in (1, 2):
        sink.deliver(make_parcel(tmp_path / "spool", one(a=[sequence]), sequence=sequence))
    shutil.rmtree(tmp_path / "table")
    assert sink.deliver(make_parcel(tmp_path / "spool", one(a=[3]), sequence=3)).details["version"] == 0
    assert read(tmp_path) == [{"a": 3}]


def test_a_commit_is_never_made_behind_a_log_that_was_cut_off_in_the_meantime(tmp_path):
    """Another writer committed, made a checkpoint and removed the log before it: the next number is free, and must not be taken."""
    sink = DeltaSink(tmp_path / "table")
    for sequence in (1, 2):
        sink.deliver(make_parcel(tmp_path / "spool", one(a=[sequence]), sequence=sequence))
    for value in range(10, 15):
        write_deltalake(tmp_path / "table", pa.table({"a": [value]}), mode="append")
    DeltaTable(tmp_path / "table").create_checkpoint()
    for version in range(2, 6):
        (tmp_path / "table/_delta_log" / f"{version:020d}.json").unlink()
    assert sink.deliver(make_parcel(tmp_path / "spool", one(a=[3]), sequence=3)).details["version"] == 7
    assert len(read(tmp_path)) == 8


def test_a_commit_behind_a_checkpoint_that_came_in_between_is_made_again(tmp_path, monkeypatch):
    """The same, while the commit is written: when it has its name, readers begin after it."""
    sink, real = DeltaSink(tmp_path / "table"), os.link
    for sequence in (1, 2):
        sink.deliver(make_parcel(tmp_path / "spool", one(a=[sequence]), sequence=sequence))

    def link(source: Any, target: Any) -> None:
        if Path(target).name == f"{2:020d}.json":
            monkeypatch.setattr(os, "link", real)
            for value in range(10, 15):
                write_deltalake(tmp_path / "table", pa.table({"a": [value]}), mode="append")
            DeltaTable(tmp_path / "table").create_checkpoint()
            for version in range(2, 6):
                (tmp_path / "table/_delta_log" / f"{version:020d}.json").unlink()
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert sink.deliver(make_parcel(tmp_path / "spool", one(a=[3]), sequence=3)).details["version"] == 7
    assert sorted(row["a"] for row in read(tmp_path)) == [1, 2, 3, *range(10, 15)]
