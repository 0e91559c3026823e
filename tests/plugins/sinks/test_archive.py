from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakeward import OptionError, Parcel, Refused, Retry
from lakeward.testing import SinkContract, make_parcel
from lakeward_plugins.sinks import archive as module
from lakeward_plugins.sinks.archive import ArchiveSink

SMALL = 0.001  # MB: smaller than any Parquet file, so each parcel begins a new part


def everything(folder: Path) -> pa.Table:
    """As a reader sees it: all files by name, columns that only some have are NULL in the others."""
    files = sorted(folder.rglob("*.parquet"), key=lambda file: (len(file.name), file.name))
    tables = [pq.ParquetFile(file).read() for file in files]
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


class TestArchiveOfOneFile(SinkContract):
    ordered = True

    def make(self, tmp_path: Path) -> ArchiveSink:
        return ArchiveSink(tmp_path / "archive", "all.parquet")

    def read_back(self, tmp_path: Path) -> pa.Table:
        return everything(tmp_path / "archive")


class TestArchiveThatRollsOverAtOnce(TestArchiveOfOneFile):
    """As above, with a part for each parcel."""

    def make(self, tmp_path: Path) -> ArchiveSink:
        return ArchiveSink(tmp_path / "archive", "all.parquet", SMALL)


def readings(first: int, count: int = 6, **more: Any) -> pa.RecordBatch:
    keys = range(first, first + count)
    columns = {
        "_row": keys,
        "city": [("Oslo", "Rome")[n % 2] for n in keys],
        "sensor": [f"s{n % 3}" for n in keys],
        "temperature": [n / 8 for n in keys],
    }
    return pa.record_batch({name: pa.array(values) for name, values in (columns | more).items()})


@pytest.fixture
def parcel_of(tmp_path: Path) -> Callable[..., Parcel]:
    def make(rows: pa.RecordBatch, sequence: int = 1, **token: Any) -> Parcel:
        return make_parcel(tmp_path / "spool", rows, sequence=sequence, **token)

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def temperatures(folder: Path) -> list[float]:
    return sorted(value.as_py() for value in everything(folder)["temperature"])


# -- the files ---------------------------------------------------------------------------------------------------------


def test_each_city_is_a_folder_and_each_sensor_a_file(folder: Path, parcel_of: Any) -> None:
    sink = ArchiveSink(folder)
    receipt = sink.deliver(parcel_of(readings(0)))
    assert names(folder) == [".lakeward.lock", *(f"{city}/s{n}.parquet" for city in ("Oslo", "Rome") for n in (0, 1, 2))]
    assert receipt.location == str(folder)
    assert (receipt.details["files"], receipt.details["grown"]) == (6, 6)
    sink.deliver(parcel_of(readings(6, 12), 2))
    assert pq.ParquetFile(folder / "Oslo" / "s0.parquet").read()["temperature"].to_pylist() == [0.0, 0.75, 1.5]
    assert pq.ParquetFile(folder / "Rome" / "s1.parquet").read()["sensor"].to_pylist() == ["s1"] * 3


def test_the_flat_form_has_a_file_for_each_sensor(folder: Path, parcel_of: Any) -> None:
    ArchiveSink(folder, "{sensor}.parquet").deliver(parcel_of(readings(0)))
    assert names(folder) == [".lakeward.lock", "s0.parquet", "s1.parquet", "s2.parquet"]


def test_duckdb_and_polars_read_it(folder: Path, parcel_of: Any) -> None:
    sink = ArchiveSink(folder, compression="zstd", row_key=True)
    for sequence in (1, 2):
        sink.deliver(make_parcel(folder.parent / "spool", readings(12 * sequence, 12), sequence=sequence, encoding=sink.encoding))
    assert duckdb.sql(f"SELECT count(*), count(DISTINCT _row) FROM '{folder}/*/*.parquet'").fetchall() == [(24, 24)]
    assert polars.read_parquet(folder / "*" / "*.parquet").height == 24
    meta = pq.read_metadata(folder / "Oslo" / "s0.parquet")
    assert meta.row_group(0).column(0).compression == "ZSTD"


def test_many_small_appends_are_few_row_groups(folder: Path, parcel_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 10)
    sink = ArchiveSink(folder, "all.parquet")
    for sequence in range(1, 9):
        sink.deliver(parcel_of(readings(sequence * 4, 4), sequence))
    meta = pq.read_metadata(folder / "all.parquet")
    assert [meta.row_group(n).num_rows for n in range(meta.num_row_groups)] == [10, 10, 10, 2]
    assert everything(folder)["temperature"].to_pylist() == [n / 8 for n in range(4, 36)]


# -- later parts -------------------------------------------------------------------------------------------------------


def test_a_file_that_is_large_enough_stays_as_it_is(folder: Path, parcel_of: Any) -> None:
    sink, seen = ArchiveSink(folder, "all.parquet", max_mb=0.01), dict[str, bytes]()
    for sequence in range(1, 13):
        sink.deliver(parcel_of(readings(1000 * sequence, 200, noise=[os.urandom(10) for _ in range(200)]), sequence))
        now = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
        changed = {name for name, content in seen.items() if now[name] != content}
        assert changed <= set(sorted(seen, key=lambda name: (len(name), name))[-1:])
        seen = now
    assert "all.parquet" in seen
    assert len(seen) > 3
    assert all(len(content) < 30_000 for content in seen.values())
    assert len(temperatures(folder)) == 12 * 200


def test_a_later_part_knows_what_is_in_the_ones_before(folder: Path, parcel_of: Any) -> None:
    live, other = parcel_of(readings(0), 7), parcel_of(readings(100), 3, epoch=1_000_000)
    ArchiveSink(folder, "all.parquet", max_mb=0.01).deliver(live)
    sink = ArchiveSink(folder, "all.parquet", SMALL)
    sink.deliver(other)  # begins a new part
    for _ in range(2):
        assert sink.deliver(live).details["grown"] == 0
        assert sink.deliver(other).details["grown"] == 0
        sink = ArchiveSink(folder, "all.parquet")
    assert len(temperatures(folder)) == 12


def test_columns_that_change_begin_a_new_part(folder: Path, parcel_of: Any) -> None:
    sink = ArchiveSink(folder, "all.parquet")
    sink.deliver(parcel_of(readings(0)))
    sink.deliver(parcel_of(readings(6, humidity=[50.5] * 6), 2))
    sink.deliver(parcel_of(readings(12, humidity=[51.5] * 6), 3))
    assert names(folder) == [".lakeward.lock", "all.0001.parquet", "all.parquet"]
    query = f"SELECT count(*), count(humidity) FROM read_parquet('{folder}/*.parquet', union_by_name=true)"
    assert duckdb.sql(query).fetchall() == [(18, 12)]


def test_old_parts_may_be_removed(folder: Path, parcel_of: Any) -> None:
    sink = ArchiveSink(folder, "all.parquet", SMALL)
    for sequence in (1, 2, 3):
        sink.deliver(parcel_of(readings(6 * sequence), sequence))
    (folder / "all.parquet").unlink()
    (folder / "all.0001.parquet").unlink()
    again = ArchiveSink(folder, "all.parquet")
    assert again.deliver(parcel_of(readings(18), 3)).details["grown"] == 0
    again.deliver(parcel_of(readings(24), 4))
    assert names(folder) == [".lakeward.lock", "all.0002.parquet"]
    assert len(temperatures(folder)) == 12


# -- once --------------------------------------------------------------------------------------------------------------


def test_what_a_failed_attempt_left_undone_is_done_by_the_next(folder: Path, parcel_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parcel, real, count = parcel_of(readings(0)), Path.rename, [0]

    def rename(self: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] == 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Retry, match=r"cannot write the archive now: .*Input/output error"):
        ArchiveSink(folder).deliver(parcel)
    assert len(temperatures(folder)) == 3
    assert not [name for name in names(folder) if name.endswith(".part")]
    assert ArchiveSink(folder).deliver(parcel).details["grown"] == 3
    assert temperatures(folder) == [n / 8 for n in range(6)]


def test_a_folder_that_was_removed_while_the_sink_ran_is_made_anew(folder: Path, parcel_of: Any) -> None:
    sink = ArchiveSink(folder)
    sink.deliver(parcel_of(readings(0)))
    shutil.rmtree(folder)
    with pytest.raises(Retry, match="No such file or directory"):
        sink.deliver(parcel_of(readings(6), 2))
    assert sink.deliver(parcel_of(readings(6), 2)).details["grown"] == 6
    assert temperatures(folder) == [n / 8 for n in range(6, 12)]


def test_a_file_system_that_takes_two_names_for_one_is_refused(folder: Path, parcel_of: Any) -> None:
    """As one of a memory card does with names in upper and lower case, that of the lock too."""
    rows = pa.record_batch({"city": ["Oslo", "OSLO"], "sensor": ["s", "s"], "temperature": [1.0, 2.0]})
    folder.mkdir()
    (folder / ".LAKEWARD.LOCK").touch()
    with pytest.raises(Refused, match=r"its file system takes (Oslo|OSLO)/s\.parquet and another name for one"):
        ArchiveSink(folder).deliver(parcel_of(rows))
    (folder / ".LAKEWARD.LOCK").unlink()
    assert ArchiveSink(folder).deliver(parcel_of(rows)).details["grown"] == 2


KILLED = """
import os, sys
from pathlib import Path
from lakeward.testing import make_parcel
from lakeward_plugins.sinks import archive
import pyarrow as pa
point, visit, folder, spool = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
rows = pa.record_batch({"sensor": [f"s{n % 3}" for n in range(30)], "temperature": [n / 8 for n in range(30, 60)]})
owner, name = {"rename": (Path, "rename"), "write": (archive.pq.ParquetWriter, "write_table"), "sync": (archive, "sync")}[point]
real, seen = getattr(owner, name), [0]
def die(*arguments, **options):
    seen[0] += 1
    if seen[0] == visit: os.kill(os.getpid(), 9)
    return real(*arguments, **options)
setattr(owner, name, die)
archive.ArchiveSink(folder, "{sensor}.parquet").deliver(make_parcel(spool, rows, sequence=2))
"""


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize(("point", "visit"), [("write", 1), ("write", 3), ("sync", 2), ("rename", 1), ("rename", 3), ("sync", 4)])
def test_a_kill_at_any_point_leaves_whole_files_and_the_next_attempt_finishes(
    folder: Path, parcel_of: Any, tmp_path: Path, point: str, visit: int
) -> None:
    def rows(start: int) -> pa.RecordBatch:
        return pa.record_batch({"sensor": [f"s{n % 3}" for n in range(30)], "temperature": [n / 8 for n in range(start, start + 30)]})

    ArchiveSink(folder, "{sensor}.parquet").deliver(parcel_of(rows(0)))
    command = [sys.executable, "-c", KILLED, point, str(visit), str(folder), str(tmp_path / "spool")]
    assert subprocess.run(command, timeout=60, check=False).returncode == -9
    found = temperatures(folder)
    assert len(found) == len(set(found))
    assert 30 <= len(found) <= 60
    assert ArchiveSink(folder, "{sensor}.parquet").deliver(parcel_of(rows(30), 2)).details["files"] == 3
    assert temperatures(folder) == [n / 8 for n in range(60)]
    assert not [name for name in names(folder) if name.endswith(".part")]


def test_other_rows_under_a_name_that_is_there_or_an_older_one_are_refused(folder: Path, parcel_of: Any) -> None:
    """They come from a copy of the state directory, or from an old one that was restored: taken for delivered, they would be lost."""
    sink = ArchiveSink(folder, "{sensor}.parquet")
    for sequence in (1, 2):
        sink.deliver(parcel_of(readings(6 * sequence), sequence))
    for sequence in (1, 2):
        with pytest.raises(
            Refused, match=r"s0\.parquet has (rows later than|other rows of the name) p/s-.*start anew with another --state"
        ):
            sink.deliver(parcel_of(readings(60), sequence))
    assert sink.deliver(parcel_of(readings(12), 2)).details["grown"] == 0
    assert temperatures(folder) == [n / 8 for n in range(6, 18)]


def test_two_that_write_to_one_file_lose_nothing(folder: Path, tmp_path: Path) -> None:
    def work(life: str) -> None:
        sink = ArchiveSink(folder, "all.parquet", max_mb=0.004)
        for sequence in range(1, 31):
            rows = readings(int(life, 16) * 1_000_000 + sequence * 10, 10)
            sink.deliver(make_parcel(tmp_path / life, rows, sequence=sequence, life=life))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, ["00000001", "00000002", "00000003"]))
    found = temperatures(folder)
    assert (len(found), len(set(found))) == (900, 900)
    assert len(names(folder)) > 2


def test_the_note_stays_small(folder: Path, parcel_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    sink = ArchiveSink(folder, "all.parquet")
    for epoch in range(5):
        sink.deliver(parcel_of(readings(6 * epoch), epoch=epoch))
    assert [sink.deliver(parcel_of(readings(6 * epoch), epoch=epoch)).details["grown"] for epoch in (4, 3, 2)] == [0, 0, 0]
    known, _ = module._noted(folder / "all.parquet")
    assert [name.rsplit("/", 1)[-1] for name in known] == ["2", "3", "4"]


# -- rows and files that are not what they should be -------------------------------------------------------------------


def test_rows_without_a_name_are_rejected_and_the_others_are_there(folder: Path, parcel_of: Any) -> None:
    rows = readings(0, city=["Oslo", None, "Oslo", "", "Oslo", "Oslo"])
    receipt = ArchiveSink(folder, "{city}.parquet").deliver(parcel_of(rows))
    assert dict(receipt.rejected) == {
        1: "city is missing, and the name of the file is made of it",
        3: "city is empty, and the name of the file is made of it",
    }
    assert temperatures(folder) == [0.0, 0.25, 0.5, 0.625]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_bytes(b"PAR1 cut short"), r"all\.parquet cannot be read as Parquet .*restore it, or move it away"),
        (lambda file: file.write_bytes(b""), r"all\.parquet cannot be read as Parquet"),
        (lambda file: pq.write_table(pa.table({"x": [1]}), file), r"all\.parquet is there already and is none that this sink wrote"),
    ],
    ids=["cut", "empty", "foreign"],
)
def test_a_file_that_is_none_of_ours_is_refused_and_kept(folder: Path, parcel_of: Any, spoil: Any, message: str) -> None:
    folder.mkdir()
    spoil(folder / "all.parquet")
    before = (folder / "all.parquet").read_bytes()
    with pytest.raises(Refused, match=message):
        ArchiveSink(folder, "all.parquet").deliver(parcel_of(readings(0)))
    assert (folder / "all.parquet").read_bytes() == before
    (folder / "all.parquet").unlink()
    ArchiveSink(folder, "all.parquet").deliver(parcel_of(readings(0)))
    assert len(temperatures(folder)) == 6


def test_a_link_that_leads_out_is_refused(folder: Path, parcel_of: Any, tmp_path: Path) -> None:
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "Oslo").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match=r"Oslo leads out of .*archive by a link"):
        ArchiveSink(folder).deliver(parcel_of(readings(0)))
    assert names(tmp_path / "elsewhere") == []


def test_a_full_disk_is_waited_for_and_nothing_is_left(folder: Path, parcel_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ArchiveSink(folder, "{sensor}.parquet")
    sink.deliver(parcel_of(readings(0)))
    before, count = {name: (folder / name).read_bytes() for name in names(folder)}, [0]

    def full(path: Path) -> None:
        count[0] += 1
        if count[0] == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(module, "sync", full)
        with pytest.raises(Retry, match=r"cannot write the archive now: .*No space left on device"):
            sink.deliver(parcel_of(readings(6), 2))
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    sink.deliver(parcel_of(readings(6), 2))
    assert temperatures(folder) == [n / 8 for n in range(12)]


def test_what_waiting_does_not_heal_is_refused(tmp_path: Path, parcel_of: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=r"cannot write the archive: .*correct that, or the option `path`"):
        ArchiveSink(tmp_path / "file" / "archive").deliver(parcel_of(readings(0)))
    with pytest.raises(Refused, match="the rows have no column 'city'"):
        ArchiveSink(tmp_path / "archive").deliver(parcel_of(readings(0).drop_columns(["city"])))


def test_probe_changes_nothing_and_says_where(folder: Path) -> None:
    schema = readings(0).schema
    assert ArchiveSink(folder).probe(schema) == f"would append to Parquet files {folder}/{{city}}/{{sensor}}.parquet of up to 8 MB"
    assert not folder.exists()
    with pytest.raises(OptionError, match="file: the rows have no column 'town'"):
        ArchiveSink(folder, "{town}.parquet").probe(schema)
    with pytest.raises(OptionError, match=r"max_mb: expected at least 0\.001, got 0"):
        ArchiveSink(folder, max_mb=0)
