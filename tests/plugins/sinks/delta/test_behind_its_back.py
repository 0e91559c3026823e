"""The table is removed, restored or made anew while a sink writes, and a state directory is a copy: no row is lost in silence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from s3_server import S3Server

from lakeward import Parcel, Refused
from lakeward.notes import note_of
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.delta import DeltaSink, place
from lakeward_plugins.sinks.delta.shipping import upload


class Lake:
    """A place for a table, and what others do to it there."""

    def __init__(self, sink: Callable[..., DeltaSink], options: dict[str, str], wipe: Callable[[], object]) -> None:
        self.sink, self.options, self.wipe = sink, options, wipe
        self.uri = sink()._place.uri

    def table(self) -> DeltaTable:
        return DeltaTable(self.uri, storage_options=self.options)

    def write(self, **columns: list[Any]) -> None:
        write_deltalake(self.uri, pa.table(columns), mode="append", storage_options=self.options)

    def rows(self) -> list[int]:
        return sorted(self.table().to_pyarrow_table()["a"].to_pylist())


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.one_python)])
def lake(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server, bucket: str, sink_of: Callable[..., DeltaSink]) -> Lake:
    if request.param == "local":
        return Lake(lambda: DeltaSink(tmp_path / "table"), {}, lambda: shutil.rmtree(tmp_path / "table"))
    keys = {"aws_access_key_id": s3.access_key_id, "aws_secret_access_key": s3.secret_access_key}
    options = {"aws_endpoint_url": s3.url, "aws_allow_http": "true", "aws_region": "us-east-1", **keys}
    return Lake(sink_of, options, lambda: [s3.client().delete_object(Bucket=bucket, Key=key) for key in s3.objects(bucket)])


def parcel(tmp_path: Path, sequence: int, *values: int, state: str = "mine") -> Parcel:
    return make_parcel(tmp_path / state, pa.record_batch({"a": [*values]}), sequence=sequence)


# -- a state directory that is a copy, or older than the table ---------------------------------------------------------


def test_other_rows_under_the_name_of_the_newest_parcel_are_refused_and_the_same_are_there(lake, tmp_path):
    sink = lake.sink()
    for sequence in (1, 2):
        sink.deliver(parcel(tmp_path, sequence, sequence))
    for other in (sink, lake.sink()):
        with pytest.raises(Refused, match=r"has other rows of the name p/s-.*: this state directory is a copy.*another --state-dir"):
            other.deliver(parcel(tmp_path, 2, 20, state="copy"))
        assert other.deliver(parcel(tmp_path, 2, 2)).details["already_there"]
    assert lake.rows() == [1, 2]


def test_parcels_that_are_older_than_the_table_are_refused(lake, tmp_path):
    for sequence in (1, 2, 3):
        lake.sink().deliver(parcel(tmp_path, sequence, sequence))
    with pytest.raises(Refused, match=r"has rows later than p/s-0123abcd-0000-0000000002: this state directory is a copy"):
        lake.sink().deliver(parcel(tmp_path, 2, 20, state="copy"))
    assert lake.rows() == [1, 2, 3]


def test_the_file_of_one_is_never_written_over_by_the_copy(lake, tmp_path):
    """Both have looked and found nothing; the one has its file there when the other commits."""
    lake.sink().deliver(parcel(tmp_path, 1, 1))
    mine, copied = parcel(tmp_path, 2, 2), parcel(tmp_path, 2, 20, 21, state="copy")
    upload(mine, pa.schema({"a": pa.int64()}), lake.table(), lake.sink()._place)
    lake.sink().deliver(copied)
    with pytest.raises(Refused, match="has other rows of the name"):
        lake.sink().deliver(mine)
    upload(mine, pa.schema({"a": pa.int64()}), lake.table(), lake.sink()._place)
    assert lake.rows() == [1, 20, 21]


def test_what_tells_the_content_is_kept_when_files_are_compacted_and_the_log_is_cut_off(lake, tmp_path):
    for sequence in (1, 2):
        lake.sink().deliver(parcel(tmp_path, sequence, sequence))
    lake.table().optimize.compact()
    lake.table().create_checkpoint()
    with pytest.raises(Refused, match="has other rows of the name"):
        lake.sink().deliver(parcel(tmp_path, 2, 20, state="copy"))
    assert lake.sink().deliver(parcel(tmp_path, 2, 2)).details["already_there"]


# -- a table that is not the one that it was ---------------------------------------------------------------------------


def test_a_table_that_was_made_anew_while_the_sink_ran_is_looked_at_anew(lake, tmp_path):
    """With more versions than the old one, and other columns."""
    sink = lake.sink()
    for sequence in (1, 2):
        sink.deliver(parcel(tmp_path, sequence, sequence))
    lake.wipe()
    for value in (7, 8, 9):
        lake.write(a=[value], b=["x"])
    with pytest.raises(Refused, match="the table has a column 'b' that the rows do not have"):
        sink.deliver(parcel(tmp_path, 3, 3))


def test_a_parcel_that_is_not_in_the_new_table_is_never_taken_for_one_that_is(lake, tmp_path):
    sink = lake.sink()
    for sequence in (1, 2):
        sink.deliver(parcel(tmp_path, sequence, sequence))
    lake.wipe()
    for value in (7, 8, 9):
        lake.write(a=[value])
    told = [sink.deliver(parcel(tmp_path, sequence, sequence)).details["already_there"] for sequence in (2, 3, 3)]
    assert told == [False, False, True]
    assert lake.rows() == [2, 3, 7, 8, 9]


def test_a_table_that_was_removed_is_made_anew_with_the_parcel_in_hand(lake, tmp_path):
    sink = lake.sink()
    sink.deliver(parcel(tmp_path, 1, 1))
    lake.wipe()
    assert sink.deliver(parcel(tmp_path, 1, 1)).details["already_there"] is False
    assert lake.rows() == [1]


def test_a_table_that_is_restored_keeps_its_notes_and_takes_what_comes_next(lake, tmp_path):
    """As docs/delta.md says: what was taken out is not sent again, and what follows is."""
    sink = lake.sink()
    for sequence in (1, 2, 3):
        sink.deliver(parcel(tmp_path, sequence, sequence))
    lake.table().restore(lake.table().version() - 2)
    assert sink.deliver(parcel(tmp_path, 4, 4)).details["already_there"] is False
    assert lake.rows() == [1, 4]
    assert lake.table().transaction_version(note_of(parcel(tmp_path, 4, 4)).id) == 4 << 31


# -- another instance with the same parcel in hand ---------------------------------------------------------------------


def add_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DeltaTable(tmp_path / "table").alter.add_constraint({"small": "a < 100"})


def without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)


@pytest.mark.parametrize("way", [add_rule, without_links])
def test_a_parcel_that_another_instance_commits_after_our_look_is_there_once(tmp_path, monkeypatch, way):
    """Where delta-rs writes the commit: it judges by the table as we bring it up to date, which is after we looked for the note."""
    DeltaSink(tmp_path / "table").deliver(parcel(tmp_path, 1, 1))
    way(tmp_path, monkeypatch)
    real = place.Place.prepare

    def other_first(self: place.Place) -> None:
        monkeypatch.setattr(place.Place, "prepare", real)
        assert DeltaSink(tmp_path / "table").deliver(parcel(tmp_path, 2, 2)).details["already_there"] is False

    monkeypatch.setattr(place.Place, "prepare", other_first)
    assert DeltaSink(tmp_path / "table").deliver(parcel(tmp_path, 2, 2)).details["already_there"]
    assert sorted(DeltaTable(tmp_path / "table").to_pyarrow_table()["a"].to_pylist()) == [1, 2]
