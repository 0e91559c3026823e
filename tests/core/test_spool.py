from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import durable
from lakeward.components import Encoding, Parcel, Token
from lakeward.errors import NoRoom, Refused
from lakeward.spool import Spool, encode

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pa.RecordBatch.from_pydict({"_row": [1, 2, 3], "name": ["a", "b", None], "value": [1.5, None, 2.0], "raw": [b"\0", None, b""]})
TYPES = {"_row": pa.int64(), "value": pa.float64(), "name": pa.string()}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TABLES = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats() | st.none(), TEXT | st.none()))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


# -- encoding ----------------------------------------------------------------------------------------------------------


def batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.RecordBatch.from_arrays([pa.array(column, kind) for column, kind in zip(columns, TYPES.values(), strict=True)], list(TYPES))


@given(TABLES, TABLES, st.sampled_from(["snappy", "zstd", "gzip", "none"]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_same_rows_give_the_same_bytes_and_come_back(rows: list[Any], others: list[Any], compression: Any, row_key: bool) -> None:
    encoding = Encoding(compression, row_key)
    content = encode(batch(rows), encoding, NOW)
    assert encode(batch(rows), encoding, NOW).equals(content)
    assert encode(batch(others + rows).slice(len(others)), encoding, NOW).equals(content)
    back = pq.read_table(pa.BufferReader(content))
    assert back.column_names == (["_row", "value", "name"] if row_key else ["value", "name"])
    assert str(back.to_pylist()) == str(batch(rows).select(back.column_names).to_pylist())  # as text, nan is nan


@pytest.mark.parametrize("compression", ["snappy", "zstd", "gzip", "none"])
def test_the_row_key_is_kept_only_when_asked(spool: Spool, compression: Any) -> None:
    for row_key in (True, False):
        file = spool.write(f"f-{row_key}", ROWS, Encoding(compression, row_key), NOW)
        with pq.ParquetFile(spool.folder / file.name) as found:
            assert ("_row" in found.schema_arrow.names) == row_key
            wanted = "UNCOMPRESSED" if compression == "none" else compression.upper()
            assert found.metadata.row_group(0).column(0).compression == wanted


def test_rows_without_a_key_or_without_text_are_encoded_too() -> None:
    rows = pa.RecordBatch.from_pydict({"mean": [1.0, 2.0]})
    for row_key in (True, False):
        assert pq.read_table(pa.BufferReader(encode(rows, Encoding(row_key=row_key), NOW))).to_pylist() == rows.to_pylist()


# -- files -------------------------------------------------------------------------------------------------------------


def test_what_is_said_of_a_file_is_true(spool: Spool) -> None:
    file = spool.write("0000-0000000001-0", ROWS, Encoding(), NOW)
    content = (spool.folder / "0000-0000000001-0.parquet").read_bytes()
    assert (file.name, file.bytes, file.sha256) == ("0000-0000000001-0.parquet", len(content), hashlib.sha256(content).hexdigest())


def test_a_file_has_no_name_before_it_is_whole_and_synced(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[list[str], int, int]] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        fsync(handle)
        synced.append((sorted(path.name for path in spool.folder.iterdir()), os.fstat(handle).st_ino, os.fstat(handle).st_size))

    monkeypatch.setattr(os, "fsync", watched)
    file = spool.write("f", ROWS, Encoding(), NOW)
    placed = (spool.folder / file.name).stat()
    assert synced == [(["f.tmp"], placed.st_ino, file.bytes)]
    spool.sync()
    assert synced[1][1] == spool.folder.stat().st_ino


def test_a_file_that_fails_to_be_written_gets_no_name(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoRoom, match=r"f\.tmp: No space left on device; make room on its disk"):
        spool.write("f", ROWS, Encoding(), NOW)
    with pytest.raises(NoRoom, match="No space left on device"):
        spool.sync()
    assert list(spool.folder.iterdir()) == []
    monkeypatch.undo()
    assert spool.write("f", ROWS, Encoding(), NOW).bytes > 0


def parcel(spool: Spool, name: str) -> Parcel:
    file = spool.write(name, ROWS, Encoding(), NOW)
    return Parcel(Token("p", "out", "life", 0, 1), spool.folder / file.name, ROWS.num_rows, file.sha256)


def overwritten(path: Path) -> None:
    """Other bytes in the same file, as many as before."""
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])


def test_what_this_process_wrote_and_nobody_changed_is_not_read_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parcel(spool, "f")
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    for _ in range(2):  # a retry too
        spool.verify(whole)


def test_a_change_of_its_own_file_is_noticed_though_its_size_stays(spool: Spool) -> None:
    damaged = parcel(spool, "f")
    written = damaged.path.stat().st_mtime_ns
    while damaged.path.stat().st_mtime_ns == written:  # until the clock of the file system has moved on
        damaged.path.touch()
    overwritten(damaged.path)
    with pytest.raises(Refused, match="damaged or gone"):
        spool.verify(damaged)


def test_another_file_under_its_name_is_noticed(spool: Spool) -> None:
    replaced = parcel(spool, "f")
    other = spool.folder / "other"
    other.write_bytes(replaced.path.read_bytes())
    overwritten(other)
    os.utime(other, ns=(replaced.path.stat().st_atime_ns, replaced.path.stat().st_mtime_ns))
    other.rename(replaced.path)
    with pytest.raises(Refused, match="damaged or gone"):
        spool.verify(replaced)


def test_what_an_earlier_process_wrote_is_read_whatever_its_times_say(spool: Spool) -> None:
    whole, damaged = parcel(spool, "f"), parcel(spool, "g")
    before = damaged.path.stat()
    overwritten(damaged.path)
    os.utime(damaged.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    later = Spool(spool.folder)
    later.verify(whole)
    with pytest.raises(Refused, match="damaged or gone"):
        later.verify(damaged)


def test_clean_removes_what_a_crash_left_and_nothing_that_is_needed(spool: Spool) -> None:
    for name in ("needed", "orphan"):
        spool.write(name, ROWS, Encoding(), NOW)
    (spool.folder / "torn.tmp").write_bytes(b"PAR1")
    spool.clean({"needed.parquet", "not-there.parquet"})
    assert [path.name for path in spool.folder.iterdir()] == ["needed.parquet"]
    spool.clean([])
    assert list(spool.folder.iterdir()) == []


def test_drop_forgets_a_file_and_may_come_twice(spool: Spool) -> None:
    file = spool.write("f", ROWS, Encoding(), NOW)
    for _ in range(2):
        spool.drop(file.name)
    assert list(spool.folder.iterdir()) == []


def test_the_folder_of_an_earlier_run_is_taken_over(spool: Spool) -> None:
    spool.write("f", ROWS, Encoding(), NOW)
    assert [path.name for path in Spool(spool.folder).folder.iterdir()] == ["f.parquet"]


def test_the_name_of_the_folder_itself_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(durable, "_durable", {tmp_path, *tmp_path.parents})
    Spool(tmp_path / "spool")
    assert synced == [tmp_path.stat().st_ino]
