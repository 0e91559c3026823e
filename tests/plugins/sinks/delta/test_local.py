import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, Schema, write_deltalake

from lakeward import OptionError, Parcel, Receipt, Refused, Rejected, Retry
from lakeward.testing import SinkContract, make_parcel
from lakeward_plugins.sinks.delta import DeltaSink
from lakeward_plugins.sinks.delta.place import Place

READINGS = pa.record_batch({"_row": [1, 2, 3], "sensor": ["a", "b", None], "temperature": [20.5, -3.0, float("nan")]})


class TestDeltaSink(SinkContract):
    def make(self, tmp_path: Path) -> DeltaSink:
        return DeltaSink(tmp_path / "table")

    def read_back(self, tmp_path: Path) -> pa.Table:
        if not DeltaTable.is_deltatable(str(tmp_path / "table")):
            return pa.table({})
        seen = DeltaTable(tmp_path / "table").to_pyarrow_table()
        place = seen.schema.get_field_index("a_time64")  # Delta has no time of day: it is text
        if place < 0:
            return seen
        times = [None if text is None else time.fromisoformat(text) for text in seen["a_time64"].to_pylist()]
        return seen.set_column(place, "a_time64", pa.array(times, pa.time64("us")))


def parcel_of(tmp_path: Path, rows: pa.RecordBatch = READINGS, **token: Any) -> Parcel:
    return make_parcel(tmp_path / "spool", rows, **token)


def deliver(tmp_path: Path, rows: pa.RecordBatch, sequence: int = 1, **options: Any) -> Receipt:
    return DeltaSink(tmp_path / "table", **options).deliver(parcel_of(tmp_path, rows, sequence=sequence))


def read(tmp_path: Path) -> pa.Table:
    return DeltaTable(tmp_path / "table").to_pyarrow_table()


def one(**columns: pa.Array) -> pa.RecordBatch:
    return pa.record_batch(columns)


# -- one commit, once --------------------------------------------------------------------------------------------------


def test_first_parcel_makes_the_table_with_rows_and_note_in_one_commit(tmp_path):
    receipt = deliver(tmp_path, READINGS)
    assert receipt == Receipt(str(tmp_path / "table"), {"version": 0, "already_there": False})
    actions = [json.loads(line) for line in (tmp_path / "table/_delta_log/00000000000000000000.json").read_text().splitlines()]
    assert {"metaData", "add", "txn"} <= {name for action in actions for name in action}
    assert DeltaTable(tmp_path / "table").transaction_version("lakeward/0123abcd/p/s/0") == 1 << 31


def test_every_parcel_is_one_version_and_a_retry_is_none(tmp_path):
    versions = [deliver(tmp_path, READINGS, sequence).details["version"] for sequence in (1, 2, 2, 2, 3)]
    assert versions == [0, 1, 1, 1, 2]
    assert read(tmp_path).num_rows == 9


def test_polars_and_duckdb_read_the_table(tmp_path):
    deliver(tmp_path, READINGS)
    deliver(tmp_path, READINGS, 2)
    assert pl.read_delta(tmp_path / "table")["temperature"].is_nan().sum() == 2
    found = duckdb.from_arrow(DeltaTable(tmp_path / "table").to_pyarrow_dataset()).aggregate("sensor, count(*)").order("sensor NULLS LAST")
    assert found.fetchall() == [("a", 2), ("b", 2), (None, 2)]


@pytest.mark.parametrize("name", ["a b", "100 %", "a#b?c", "ü😀'\""])
def test_odd_folders_hold_a_table(tmp_path, name):
    sink = DeltaSink(tmp_path / name)
    assert sink.deliver(parcel_of(tmp_path)).details == {"version": 0, "already_there": False}
    assert sink.deliver(parcel_of(tmp_path)).details == {"version": 0, "already_there": True}


def test_a_folder_that_delta_rs_would_look_for_elsewhere_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"path: delta-rs takes '%25' in .* for an escape"):
        DeltaSink(tmp_path / "a%25b")


def test_note_survives_compaction_and_vacuum(tmp_path):
    for sequence in (1, 2):
        deliver(tmp_path, READINGS, sequence)
    table = DeltaTable(tmp_path / "table")
    table.optimize.compact()
    table.create_checkpoint()
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert deliver(tmp_path, READINGS, 2).details["already_there"]
    assert read(tmp_path).num_rows == 6


def test_rows_of_other_writers_stay(tmp_path):
    deliver(tmp_path, READINGS)
    write_deltalake(tmp_path / "table", pa.table({"sensor": ["x"], "temperature": [1.0]}), mode="append")
    deliver(tmp_path, READINGS, 2)
    assert read(tmp_path).num_rows == 7


@pytest.mark.parametrize("first", [1, 2])
def test_two_writers_with_one_parcel_write_it_once(tmp_path, first):
    """As a second instance would that thinks the first is dead: to a new table, and to one that is there."""
    for sequence in range(1, first):
        deliver(tmp_path, READINGS, sequence)
    parcel, both, receipts = parcel_of(tmp_path, sequence=first), threading.Barrier(4), []

    def work() -> None:
        sink = DeltaSink(tmp_path / "table")
        both.wait()
        receipts.append(sink.deliver(parcel))

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(receipt.details["already_there"] for receipt in receipts) == [False, True, True, True]
    assert read(tmp_path).num_rows == 3 * first


KILLED = """
import os, sys
from pathlib import Path
from lakeward.components import Parcel, Token
from lakeward_plugins.sinks.delta import DeltaSink
from lakeward_plugins.sinks.delta.place import Place
path, table, sequence, sha256 = sys.argv[1:]
log, real = Path(table, "_delta_log"), os.fsync
before = len(list(log.glob("*.json")))
def die_after_commit(handle):
    if len(list(log.glob("*.json"))) > before:
        os.kill(os.getpid(), 9)
    real(handle)
os.fsync = die_after_commit
DeltaSink(Path(table)).deliver(Parcel(Token("p", "s", "0123abcd", 0, int(sequence)), Path(path), 3, sha256))
"""


@pytest.mark.parametrize("sequence", [1, 2])
def test_killed_between_commit_and_receipt_is_there_once_after_the_next(tmp_path, sequence):
    for earlier in range(1, sequence):
        deliver(tmp_path, READINGS, earlier)
    parcel = parcel_of(tmp_path, sequence=sequence)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [str(parcel.path), str(tmp_path / "table"), str(sequence), parcel.sha256]
    assert subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, check=False).returncode == -9
    assert read(tmp_path).num_rows == 3 * sequence
    assert DeltaSink(tmp_path / "table").deliver(parcel).details["already_there"]
    assert read(tmp_path).num_rows == 3 * sequence


def test_killed_before_the_first_commit_leaves_a_folder_that_is_taken_up_again(tmp_path):
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    (tmp_path / "table" / "part-00000-orphan.snappy.parquet").write_bytes(b"half")
    assert deliver(tmp_path, READINGS).details == {"version": 0, "already_there": False}
    assert read(tmp_path).num_rows == 3


# -- durable -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_syncs_data_then_log_of_each_commit(tmp_path, monkeypatch):
    deliver(tmp_path, READINGS)
    seen, real = [], os.fsync

    def fsync(handle: int) -> None:
        seen.append(Path(f"/proc/self/fd/{handle}").readlink().relative_to(tmp_path / "table"))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    deliver(tmp_path, READINGS, 2)
    assert [seen[0], seen[1].parent, *seen[2:]] == [Path(), Path("_delta_log"), Path("_delta_log")]
    assert seen[1].name.startswith("_commit_s-0123abcd-0000-0000000002-"), "the commit itself, before it has its name"
    seen.clear()
    DeltaTable(tmp_path / "table").alter.add_constraint({"known": "temperature > -100"})
    deliver(tmp_path, READINGS.slice(0, 1), 3)  # rows must be looked at, so delta-rs writes them
    log = tmp_path / "table" / "_delta_log"
    added = [json.loads(line)["add"]["path"] for line in (log / f"{3:020d}.json").read_text().splitlines() if '"add"' in line]
    assert seen == [Path(added[0]), Path(), Path("_delta_log", f"{3:020d}.json"), Path("_delta_log")]


def test_file_that_a_power_cut_took_is_refused_by_name(tmp_path):
    deliver(tmp_path, READINGS)
    file = next((tmp_path / "table").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(Refused, match=rf"{file.name} should have \d+ bytes and was cut short"):
        deliver(tmp_path, READINGS)


# -- types -------------------------------------------------------------------------------------------------------------

STORED = {
    "uint64": (pa.array([2**64 - 1], pa.uint64()), "decimal(20,0)", Decimal(2**64 - 1)),
    "uint32": (pa.array([2**32 - 1], pa.uint32()), "long", 2**32 - 1),
    "uint8": (pa.array([255], pa.uint8()), "short", 255),
    "float16": (pa.array([1.5], pa.float16()), "float", 1.5),
    "time32": (pa.array([time(12, 30)], pa.time32("ms")), "string", "12:30:00.000"),
    "time64": (pa.array([1], pa.time64("ns")), "string", "00:00:00.000000001"),
    "duration": (pa.array([2], pa.duration("s")), "long", 2_000_000),
    "naive": (pa.array([0], pa.timestamp("s")), "timestamp_ntz", None),
    "zoned": (pa.array([1000], pa.timestamp("ns", "Europe/Oslo")), "timestamp", None),
    "wide": (pa.array([Decimal("1.50")], pa.decimal256(50, 2)), "decimal(38,2)", Decimal("1.50")),
    "fixed": (pa.array([b"abc"], pa.binary(3)), "binary", b"abc"),
    "null": (pa.nulls(1), "string", None),
}


@pytest.mark.parametrize("word", STORED)
def test_type_that_delta_has_not_is_stored_in_the_nearest(tmp_path, word):
    column, kind, value = STORED[word]
    deliver(tmp_path, one(x=column))
    assert DeltaTable(tmp_path / "table").schema().fields[0].type.type == kind
    if value is not None:
        assert read(tmp_path)["x"].to_pylist() == [value]


@pytest.mark.parametrize(
    ("column", "rows"),
    [
        (pa.array([1000, 1001, 2000, 5], pa.timestamp("ns")), (1, 3)),
        (pa.array([0, 1], pa.duration("ns")), (1,)),
        (pa.array([Decimal(1), Decimal("1" * 40)], pa.decimal256(40, 0)), (1,)),
    ],
    ids=["timestamp", "duration", "decimal"],
)
def test_value_that_would_change_is_rejected_with_its_rows_and_nothing_is_written(tmp_path, column, rows):
    with pytest.raises(Rejected, match="column 'x' does not fit into") as caught:
        deliver(tmp_path, one(x=column))
    assert caught.value.rows == rows
    assert not DeltaTable.is_deltatable(str(tmp_path / "table"))


def test_rejected_rows_are_counted_over_the_whole_parcel(tmp_path):
    column = pa.array([0] * 70_000 + [1], pa.timestamp("ns"))
    with pytest.raises(Rejected) as caught:
        deliver(tmp_path, one(x=column))
    assert caught.value.rows == (70_000,)


# -- schemas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (one(a=pa.array([1]), b=pa.array(["x"]), c=pa.array([1])), "the table has no column 'c'; add it to the table"),
        (one(a=pa.array([1])), "the table has a column 'b' that the rows do not have; add it with schematize"),
        (one(a=pa.array([1.5]), b=pa.array(["x"])), "column 'a' is double in rows and long in the table; cast it with schematize"),
        (one(a=pa.array(["1"]), b=pa.array(["x"])), "column 'a' is string in rows and long in the table"),
    ],
    ids=["new", "missing", "narrower", "text"],
)
def test_rows_that_do_not_fit_the_table_are_refused_before_and_while_running(tmp_path, rows, message):
    deliver(tmp_path, one(a=pa.array([1]), b=pa.array(["x"])))
    with pytest.raises(Refused, match=message):
        DeltaSink(tmp_path / "table").probe(rows.schema)
    with pytest.raises(Refused, match=message):
        deliver(tmp_path, rows, 2)
    assert read(tmp_path).to_pydict() == {"a": [1], "b": ["x"]}


def test_order_of_columns_does_not_matter_and_narrower_or_absent_values_fit(tmp_path):
    deliver(tmp_path, one(a=pa.array([1]), b=pa.array([1.5]), c=pa.array(["x"])))
    deliver(tmp_path, one(c=pa.nulls(1), b=pa.array([2.5], pa.float32()), a=pa.array([7], pa.uint16())), 2)
    assert sorted(read(tmp_path).to_pylist(), key=lambda row: row["a"]) == [{"a": 1, "b": 1.5, "c": "x"}, {"a": 7, "b": 2.5, "c": None}]


def test_row_key_is_stored_when_asked_for(tmp_path):
    sink = DeltaSink(tmp_path / "table", row_key=True)
    sink.deliver(make_parcel(tmp_path / "spool", READINGS, encoding=sink.encoding))
    assert read(tmp_path)["_row"].to_pylist() == [1, 2, 3]


def test_columns_that_differ_in_case_only_are_refused(tmp_path):
    with pytest.raises(Refused, match=r"columns \['a', 'A'\] are one for Delta"):
        deliver(tmp_path, one(a=pa.array([1]), A=pa.array([2])))


def test_table_with_column_mapping_is_refused(tmp_path):
    DeltaTable.create(tmp_path / "table", Schema([Field("a", "long")]), configuration={"delta.columnMapping.mode": "name"})
    with pytest.raises(Refused, match="column mapping"):
        deliver(tmp_path, one(a=pa.array([1])))


def test_table_that_does_not_take_null_or_breaks_its_check_rejects(tmp_path):
    DeltaTable.create(tmp_path / "table", Schema([Field("a", "long", nullable=False)]))
    DeltaTable(tmp_path / "table").alter.add_constraint({"positive": "a > 0"})
    for sequence, value in enumerate([None, -1], 1):
        with pytest.raises(Rejected, match="1 rows failed validation check"):
            deliver(tmp_path, one(a=pa.array([value], pa.int64())), sequence)
    assert deliver(tmp_path, one(a=pa.array([1])), 3).details["version"] == 2


def test_partitions_of_the_table_are_kept(tmp_path):
    DeltaTable.create(tmp_path / "table", Schema([Field("city", "string"), Field("a", "long")]), partition_by=["city"])
    rows = one(city=pa.array(["å b/c%", "rome"]), a=pa.array([1, 2]))
    deliver(tmp_path, rows)
    assert deliver(tmp_path, rows).details["already_there"]
    assert sorted(read(tmp_path)["city"].to_pylist()) == ["rome", "å b/c%"]
    assert (tmp_path / "table" / "city=rome").is_dir()


@pytest.mark.parametrize(("compression", "codec"), [("snappy", "SNAPPY"), ("zstd", "ZSTD"), ("gzip", "GZIP"), ("none", "UNCOMPRESSED")])
def test_data_files_have_the_compression_of_the_options(tmp_path, compression, codec):
    deliver(tmp_path, READINGS, compression=compression)
    file = next((tmp_path / "table").glob("*.parquet"))
    assert duckdb.sql(f"SELECT DISTINCT compression FROM parquet_metadata('{file}')").fetchall() == [(codec,)]


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "notes.txt").write_text("mine")
    for attempt in (lambda: deliver(tmp_path, READINGS), lambda: DeltaSink(tmp_path / "table").probe(READINGS.schema)):
        with pytest.raises(Refused, match="holds other files and is no Delta table; give this sink an empty or a new folder"):
            attempt()
    assert [path.name for path in (tmp_path / "table").iterdir()] == ["notes.txt"]


def test_folder_is_never_refused_while_another_makes_the_table(tmp_path):
    def make(place: Place) -> None:
        place.prepare()
        Path(place.uri, "a.parquet").write_bytes(b"")

    with ThreadPoolExecutor(1) as other:
        for number in range(100):
            place = Place(str(tmp_path / str(number)))
            Path(place.uri).mkdir()
            made = other.submit(make, place)
            while not made.done():
                assert place.load() is None
            made.result()


def test_log_that_cannot_be_read_is_refused(tmp_path):
    deliver(tmp_path, READINGS)
    (tmp_path / "table/_delta_log/00000000000000000001.json").write_text('{"commitInfo":{"times')
    with pytest.raises(Refused, match=r"cannot be read as a Delta table: .* newest file in .*_delta_log is cut short"):
        deliver(tmp_path, READINGS, 2)


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, Retry), (errno.EIO, Retry), (errno.EROFS, Refused), (errno.EACCES, Refused)])
def test_trouble_with_the_disk_is_sorted(tmp_path, monkeypatch, number, error):
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "x")

    parcel = parcel_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", fail)
        with pytest.raises(error, match=os.strerror(number)):
            DeltaSink(tmp_path / "table").deliver(parcel)
    assert deliver(tmp_path, READINGS).details["version"] == 0


def test_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "table").write_text("mine")
    with pytest.raises(Refused, match="table: Not a directory; correct that, or the option `path`"):
        deliver(tmp_path, READINGS)
    with pytest.raises(OptionError, match="is not a folder; choose another path"):
        DeltaSink(tmp_path / "table").probe(READINGS.schema)


def test_probe_says_what_would_happen_and_makes_nothing(tmp_path):
    sink = DeltaSink(tmp_path / "table")
    assert sink.probe(READINGS.schema) == f"would make the Delta table {tmp_path / 'table'}"
    assert list(tmp_path.iterdir()) == []
    deliver(tmp_path, READINGS)
    assert sink.probe(READINGS.schema) == f"would append to version 0 of the Delta table {tmp_path / 'table'}"
    shutil.rmtree(tmp_path / "table")
