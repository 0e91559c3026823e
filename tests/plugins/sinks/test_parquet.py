import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakeward import OptionError, Parcel, Refused, Rejected, Retry, durable
from lakeward.testing import SinkContract, make_parcel
from lakeward_plugins.sinks.parquet import ParquetSink

READINGS = pa.record_batch({"_row": [1, 2, 3], "sensor": ["a", "b", None], "temperature": [20.5, -3.0, float("nan")]})


class TestParquetSink(SinkContract):
    def make(self, tmp_path: Path) -> ParquetSink:
        return ParquetSink(tmp_path / "lake")

    def read_back(self, tmp_path: Path) -> pa.Table:
        files = sorted((tmp_path / "lake").glob("*.parquet"))
        return pa.concat_tables([pq.read_table(file) for file in files]) if files else pa.table({})


class TestParquetSinkOnAnotherFileSystem(TestParquetSink):
    """As above, with copies instead of links."""

    @pytest.fixture(autouse=True)
    def no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "link", fails(errno.EXDEV))


def fails(number: int):
    def fail(source: object, target: object, **_: object) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    return fail


def parcel_of(tmp_path: Path, rows: pa.RecordBatch = READINGS, **token: object) -> Parcel:
    return make_parcel(tmp_path / "spool", rows, **token)


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


# -- shipping ----------------------------------------------------------------------------------------------------------


def test_ships_the_spooled_file_itself_when_the_file_system_is_the_same(tmp_path):
    parcel = parcel_of(tmp_path)
    receipt = ParquetSink(tmp_path / "lake").deliver(parcel)
    target = tmp_path / "lake" / "s-0123abcd-0000-0000000001.parquet"
    assert receipt.location == str(target)
    assert receipt.details == {"bytes": parcel.path.stat().st_size}
    assert target.samefile(parcel.path)
    assert everything(tmp_path / "lake") == [target.name]


def test_stays_when_the_spool_is_emptied(tmp_path):
    parcel = parcel_of(tmp_path)
    receipt = ParquetSink(tmp_path / "lake").deliver(parcel)
    parcel.path.unlink()
    assert pq.read_table(receipt.location).num_rows == 3


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_copies_to_a_folder_on_another_file_system(tmp_path):
    parcel, folder = parcel_of(tmp_path), Path("/dev/shm") / f"lakeward-{os.getpid()}"
    if tmp_path.stat().st_dev == Path("/dev/shm").stat().st_dev:
        pytest.skip("the temporary folder is on the same file system")
    try:
        receipt = ParquetSink(folder).deliver(parcel)
        assert Path(receipt.location).read_bytes() == parcel.path.read_bytes()
        assert everything(folder) == [Path(receipt.location).name]
    finally:
        shutil.rmtree(folder)


def test_polars_and_duckdb_read_the_folder(tmp_path):
    sink = ParquetSink(tmp_path / "lake")
    sink.deliver(parcel_of(tmp_path))
    sink.deliver(parcel_of(tmp_path, sequence=2))
    assert pl.read_parquet(tmp_path / "lake" / "*.parquet").height == 6
    assert duckdb.sql(f"SELECT count(*), count(sensor) FROM '{tmp_path}/lake/*.parquet'").fetchall() == [(6, 4)]


def test_says_which_encoding_the_options_mean(tmp_path):
    encoding = ParquetSink(tmp_path, compression="zstd", row_key=True).encoding
    assert (encoding.compression, encoding.row_key) == ("zstd", True)


# -- once --------------------------------------------------------------------------------------------------------------


def test_other_content_under_the_same_name_is_refused_and_kept(tmp_path):
    sink = ParquetSink(tmp_path / "lake")
    receipt = sink.deliver(parcel_of(tmp_path))
    before = Path(receipt.location).read_bytes()
    other = make_parcel(tmp_path / "other", READINGS.slice(1))
    with pytest.raises(Refused, match=r"s-0123abcd-0000-0000000001\.parquet is there already with other content .* a folder of its own"):
        sink.deliver(other)
    assert Path(receipt.location).read_bytes() == before


KILLED = """
import os, sys, errno, shutil
from pathlib import Path
from lakeward.components import Parcel, Token
from lakeward_plugins.sinks.parquet import ParquetSink
where, path, lake, sha256 = sys.argv[1:]
def die(*_, **__): os.kill(os.getpid(), 9)
def no_link(*_, **__): raise OSError(errno.EXDEV, "other file system")
def half(source, target):
    Path(target).write_bytes(Path(source).read_bytes()[:100])
    die()
if where == "in the copy":
    os.link, shutil.copyfile = no_link, half
elif where == "before the rename":
    os.link, Path.rename = no_link, die
else:
    real = os.fsync
    os.fsync = lambda handle: die() if list(Path(lake).glob("*.parquet")) else real(handle)
ParquetSink(Path(lake)).deliver(Parcel(Token("p", "s", "0123abcd", 0, 1), Path(path), 3, sha256))
"""


@pytest.mark.parametrize(("where", "visible"), [("in the copy", 0), ("before the rename", 0), ("before the folder is synced", 1)])
def test_killed_delivery_is_whole_or_absent_and_once_after_the_next(tmp_path, monkeypatch, where, visible):
    parcel, lake = parcel_of(tmp_path), tmp_path / "lake"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [where, str(parcel.path), str(lake), parcel.sha256]
    assert subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, check=False).returncode == -9
    assert [pq.read_table(file).num_rows for file in lake.glob("*.parquet")] == [3] * visible
    monkeypatch.setattr(os, "link", fails(errno.EXDEV))
    receipt = ParquetSink(lake).deliver(parcel)
    assert Path(receipt.location).read_bytes() == parcel.path.read_bytes()
    assert everything(lake) == [Path(receipt.location).name]


def test_leftover_of_a_killed_copy_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", fails(errno.EXDEV))
    parcel, lake = parcel_of(tmp_path), tmp_path / "lake"
    lake.mkdir()
    (lake / f".{parcel.token.name}.part").write_bytes(b"half")
    receipt = ParquetSink(lake).deliver(parcel)
    assert everything(lake) == [Path(receipt.location).name]
    assert Path(receipt.location).read_bytes() == parcel.path.read_bytes()


# -- durable -----------------------------------------------------------------------------------------------------------


def synced(monkeypatch) -> list[Path]:
    seen: list[Path] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        seen.append(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_syncs_made_folders_once_and_then_only_the_folder_of_the_link(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "_durable", {tmp_path, *tmp_path.parents})
    seen = synced(monkeypatch)
    sink = ParquetSink(tmp_path / "a" / "b")
    sink.deliver(parcel_of(tmp_path))
    assert set(seen) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    seen.clear()
    sink.deliver(parcel_of(tmp_path, sequence=2))
    assert seen == [tmp_path / "a" / "b"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_retry_syncs_the_folder_as_the_first_attempt_may_not_have(tmp_path, monkeypatch):
    parcel = parcel_of(tmp_path)
    ParquetSink(tmp_path / "lake").deliver(parcel)
    seen = synced(monkeypatch)
    ParquetSink(tmp_path / "lake").deliver(parcel)
    assert tmp_path / "lake" in seen


# -- trouble -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_trouble_that_passes_is_retried_and_leaves_nothing(tmp_path, monkeypatch, number):
    sink, parcel = ParquetSink(tmp_path / "lake"), parcel_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fails(errno.EXDEV))
        patch.setattr(shutil, "copyfile", fails(number))
        with pytest.raises(Retry, match=rf"lake.*: {os.strerror(number)}"):
            sink.deliver(parcel)
    assert everything(tmp_path / "lake") == []
    assert pq.read_table(sink.deliver(parcel).location).num_rows == 3


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_trouble_that_stays_is_refused_with_the_path(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "link", fails(number))
    with pytest.raises(Refused, match=rf"{os.strerror(number)}; correct that, or the option `path`"):
        ParquetSink(tmp_path / "lake").deliver(parcel_of(tmp_path))


def test_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "lake").write_text("mine")
    with pytest.raises(Refused, match="lake: is not a folder"):
        ParquetSink(tmp_path / "lake" / "raw").deliver(parcel_of(tmp_path))
    with pytest.raises(OptionError, match=r"path: .*lake is not a folder"):
        ParquetSink(tmp_path / "lake" / "raw").probe(READINGS.schema)
    assert (tmp_path / "lake").read_text() == "mine"


def test_folder_that_was_taken_away_is_made_again(tmp_path):
    sink = ParquetSink(tmp_path / "lake")
    sink.deliver(parcel_of(tmp_path))
    shutil.rmtree(tmp_path / "lake")
    sink.deliver(parcel_of(tmp_path, sequence=2))
    assert everything(tmp_path / "lake") == ["s-0123abcd-0000-0000000002.parquet"]


def test_probe_makes_nothing(tmp_path):
    said = ParquetSink(tmp_path / "a" / "b").probe(READINGS.schema)
    assert said == f"would write Parquet files (snappy, 3 columns) to {tmp_path / 'a' / 'b'}"
    assert everything(tmp_path) == []


def test_probe_refuses_a_folder_without_write_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(Refused, match="may not write there; give it write permission"):
        ParquetSink(tmp_path / "lake").probe(READINGS.schema)


# -- partitions --------------------------------------------------------------------------------------------------------

CITIES = pa.record_batch({"city": ["London", "a b", None, "London"], "n": [1, 2, 3, 4]})


def test_each_partition_is_a_file_in_a_folder_of_its_name_and_a_retry_writes_the_same(tmp_path):
    sink = ParquetSink(tmp_path / "out", partition_by=["city"])
    parcel = make_parcel(tmp_path / "spool", CITIES, encoding=sink.encoding)
    receipts = [sink.deliver(parcel) for _ in range(2)]
    assert receipts[0] == receipts[1]
    name = f"{parcel.token.name}.parquet"
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert files == [f"city={city}/{name}" for city in ("London", "__HIVE_DEFAULT_PARTITION__", "a_x20_b")]
    found = duckdb.sql(f"SELECT city, n FROM read_parquet('{tmp_path}/out/*/*.parquet', hive_partitioning=true) ORDER BY n").fetchall()
    assert found == [("London", 1), ("a_x20_b", 2), (None, 3), ("London", 4)]


def test_a_partition_of_another_parcel_of_the_same_name_is_kept(tmp_path):
    """As when a state directory was copied to another machine and both write to one folder."""
    sink = ParquetSink(tmp_path / "out", partition_by=["city"])
    sink.deliver(make_parcel(tmp_path / "spool", CITIES))
    before = {path: path.read_bytes() for path in tmp_path.glob("out/*/*")}
    with pytest.raises(Refused, match="is there already with other content; give this sink a folder of its own"):
        sink.deliver(make_parcel(tmp_path / "other", CITIES.slice(1)))
    assert {path: path.read_bytes() for path in tmp_path.glob("out/*/*")} == before


def test_a_file_system_that_takes_two_partitions_for_one_is_refused(tmp_path):
    """As one of a memory card does with names in upper and lower case: here a link does the same."""
    (tmp_path / "out/city=OSLO").mkdir(parents=True)
    (tmp_path / "out/city=oslo").symlink_to("city=OSLO")
    rows = pa.record_batch({"city": ["OSLO", "oslo"], "n": [1, 2]})
    with pytest.raises(Refused, match=r"city=oslo and .*city=OSLO are one for this file system"):
        ParquetSink(tmp_path / "out", partition_by=["city"]).deliver(make_parcel(tmp_path / "spool", rows))


def test_a_column_that_cannot_name_a_folder_is_refused_beforehand(tmp_path):
    with pytest.raises(Refused, match="partition_by: the rows have no column 'town'"):
        ParquetSink(tmp_path / "out", partition_by=["town"]).probe(CITIES.schema)


def test_a_value_that_no_folder_can_have_as_its_name_costs_its_own_rows(tmp_path):
    sink = ParquetSink(tmp_path / "out", partition_by=["city"])
    rows = pa.record_batch({"city": ["a", "°" * 26, "b", "°" * 26], "n": [1, 2, 3, 4]})
    with pytest.raises(Rejected, match="partition_by: a value is too long") as caught:
        sink.deliver(make_parcel(tmp_path / "spool", rows))
    assert caught.value.rows == (1, 3)
    assert not list(tmp_path.glob("out/*"))


# -- options that change -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize(
    ("before", "after"), [(["city"], []), ([], ["city"]), (["city"], ["n"]), (["city"], ["city"]), ([], [])], ids=lambda one: "-".join(one)
)
def test_a_parcel_that_was_begun_is_ended_where_it_was_begun(tmp_path, monkeypatch, before, after, stopped):
    """A process makes one file and no more; the options are changed; the next process ends it there, and goes on at the new place."""
    rows = pa.record_batch({"city": ["London", "Oslo", "London"], "n": [1, 2, 3], "id": [1, 2, 3]})
    moved = tmp_path / "lake" if before != after else tmp_path / "other"

    def run(path: Path, columns: list[str]) -> ParquetSink:
        sink = ParquetSink(path, partition_by=columns)
        sink.keep_in(tmp_path / "state")
        return sink

    def ids() -> list[int]:
        files = [file for folder in ("lake", "other") for file in (tmp_path / folder).rglob("[!.]*.parquet")]
        return sorted(value for file in files for value in pq.ParquetFile(file).read()["id"].to_pylist())

    sink = run(tmp_path / "lake", before)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if "city=Oslo" in str(target):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
        return real(self, target)

    with monkeypatch.context() as patch:
        if before:
            patch.setattr(Path, "rename", rename)
            with pytest.raises(Retry):
                sink.deliver(make_parcel(tmp_path / "spool", rows))
        else:
            sink.deliver(make_parcel(tmp_path / "spool", rows))
    if stopped:
        sink.close()
    assert ids() == ([1, 3] if before else [1, 2, 3])
    sink = run(moved, after)
    sink.deliver(make_parcel(tmp_path / "spool", rows))
    assert ids() == [1, 2, 3]
    sink.deliver(make_parcel(tmp_path / "spool", rows, sequence=2))
    assert ids() == [1, 1, 2, 2, 3, 3]
    assert any(moved.rglob("*0000000002.parquet"))
    assert any(moved.glob("*0000000002.parquet")) is not bool(after)


def test_an_old_folder_that_is_gone_is_told(tmp_path, caplog):
    """As a disk that is not mounted: nobody can see what is on it."""
    sink = ParquetSink(tmp_path / "lake")
    sink.keep_in(tmp_path / "state")
    sink.deliver(parcel_of(tmp_path))
    shutil.rmtree(tmp_path / "lake")
    for path in ("other", "third"):
        sink = ParquetSink(tmp_path / path)
        sink.keep_in(tmp_path / "state")
        sink.deliver(parcel_of(tmp_path, sequence=1 if path == "other" else 2))
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"{tmp_path}/lake: is not there any more, so nobody can see whether rows of s-0123abcd-0000-0000000001 are in it"


def test_two_partitions_that_are_one_for_the_file_system_leave_nothing_behind(tmp_path):
    """So the parcel can go elsewhere."""
    (tmp_path / "out/city=OSLO").mkdir(parents=True)
    (tmp_path / "out/city=oslo").symlink_to("city=OSLO")
    rows = pa.record_batch({"city": ["OSLO", "oslo"], "n": [1, 2]})
    sink = ParquetSink(tmp_path / "out", partition_by=["city"])
    sink.keep_in(tmp_path / "state")
    with pytest.raises(Refused):
        sink.deliver(make_parcel(tmp_path / "spool", rows))
    assert list(tmp_path.glob("out/*/*")) == []
    sink = ParquetSink(tmp_path / "other", partition_by=["city"])
    sink.keep_in(tmp_path / "state")
    assert sink.deliver(make_parcel(tmp_path / "spool", rows)).location == str(tmp_path / "other")


def test_text_that_is_not_utf8_costs_its_own_rows(tmp_path):
    column = pa.array([b"Oslo", b"\xff", None]).view(pa.string())
    with pytest.raises(Rejected, match="partition_by: text that is not UTF-8") as caught:
        ParquetSink(tmp_path / "out", partition_by=["city"]).deliver(parcel_of(tmp_path, pa.record_batch({"city": column, "n": range(3)})))
    assert caught.value.rows == (1,)
    assert not list(tmp_path.glob("out/*"))


def test_folders_that_together_make_a_path_too_long_cost_their_own_rows(tmp_path):
    names = [f"c{number}" for number in range(20)]
    rows = pa.record_batch({**{name: ["x" * 240, "y"] for name in names}, "n": [1, 2]})
    with pytest.raises(Rejected, match="partition_by: a value is too long") as caught:
        ParquetSink(tmp_path / "out", partition_by=names).deliver(parcel_of(tmp_path, rows))
    assert caught.value.rows == (0,)
    ParquetSink(tmp_path / "out", partition_by=names).deliver(parcel_of(tmp_path, rows.slice(1)))
    assert len(list((tmp_path / "out").rglob("*.parquet"))) == 1
