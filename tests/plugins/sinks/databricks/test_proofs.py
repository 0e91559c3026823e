"""No row is taken for delivered unless the table has it: what COPY INTO skips, what is in the volume, what is there under our tokens."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attrs import evolve
from faultproxy import FaultProxy

from lakeward import Parcel, Refused, Rejected, Retry
from lakeward.testing import make_parcel
from lakeward_plugins.sinks.databricks.sent import name_of

pytestmark = pytest.mark.one_python
READINGS = pa.record_batch({"_row": [1, 2, 3], "sensor": ["a", "b", None], "temperature": [20.5, -3.0, float("nan")]})
MERGED = pa.record_batch({"sensor": ["a", "b", "z"], "temperature": [20.5, -3.0, 1.0]})
MERGE: dict[str, Any] = {"mode": "merge", "upsert_by": ["sensor"], "revision": "temperature"}


def parcel_of(tmp_path: Path, rows: pa.RecordBatch | pa.Table = READINGS, **token: Any) -> Parcel:
    return make_parcel(tmp_path / "spool", rows, **token)


# -- files that are skipped, emptied or not there ---------------------------------------------------------------------------


@pytest.fixture
def spoiled(databricks: Any, schema: str, sink_of: Any, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """A sink whose second parcel is in the volume, while its statement was lost on the way there or the answer on the way back."""
    with FaultProxy(databricks.url) as proxy:

        def spoil(fault: str, **options: Any) -> Any:
            sink = sink_of(host=proxy.url, **options)
            sink.deliver(parcel_of(tmp_path))
            proxy.script("ok", "ok", fault)
            with pytest.raises(Retry):
                sink.deliver(parcel_of(tmp_path, sequence=2))
            return sink

        yield spoil


@pytest.mark.parametrize("gone", ["TRUNCATE TABLE S.readings", "DELETE FROM S.readings", "CREATE OR REPLACE TABLE S.readings"])
def test_rows_that_were_taken_out_before_their_answer_came_are_not_taken_for_delivered(databricks, schema, spoiled, tmp_path, gone):
    """COPY INTO skips what it has loaded, also when it is not there any more."""
    sink, parcel = spoiled("reset_after"), parcel_of(tmp_path, sequence=2)
    columns = " (sensor STRING, temperature DOUBLE, lakeward_token STRING)" if "REPLACE" in gone else ""
    databricks.run(gone.replace("S.", f"{schema}.") + columns)
    for _ in range(2):
        with pytest.raises(
            Refused, match=r"skips p-s-.*, which it has loaded before, but the table has 0 of its 3 rows: it was emptied"
        ) as caught:
            sink.deliver(parcel)
    told = str(caught.value)
    if "TRUNCATE" in gone:
        load = [one for one in databricks.order()["statements"] if one.startswith("COPY INTO")][-1]
        databricks.run(f"{load} COPY_OPTIONS ('force' = 'true')")
    else:
        databricks.run(told.partition("say so by ")[2])
    assert sink.deliver(parcel).details["already_there"] is True  # no restart
    assert databricks.table(f"{schema}.readings").num_rows == (3 if "TRUNCATE" in gone else 1)
    assert databricks.staged(schema) == []


def test_a_table_that_was_dropped_and_made_anew_gets_the_rows_again(databricks, schema, spoiled, tmp_path):
    sink = spoiled("reset_after")
    databricks.run(f"DROP TABLE {schema}.readings")
    with pytest.raises(Retry, match="somebody dropped the table; it will be made again"):
        sink.deliver(parcel_of(tmp_path, sequence=2))
    assert sink.deliver(parcel_of(tmp_path, sequence=2)).details["already_there"] is False
    assert databricks.table(f"{schema}.readings").num_rows == 3


def shorten(databricks: Any, schema: str, rows: int) -> None:
    """Put a file with so few rows in the place of the only one that waits."""
    name, file = databricks.staged(schema)[0], io.BytesIO()
    pq.write_table(pa.Table.from_batches([READINGS]).select(["sensor", "temperature"]).slice(0, rows), file)
    file.seek(0)
    with databricks.connected() as client:
        client.execute(f"PUT '__input_stream__' INTO '/Volumes/{schema.replace('.', '/')}/staged/{name}' OVERWRITE", input_stream=file)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_file_that_lost_rows_is_not_taken_for_delivered(databricks, schema, spoiled, tmp_path, rows):
    sink, parcel = spoiled("reset_before"), parcel_of(tmp_path, sequence=2)
    shorten(databricks, schema, rows)
    if rows:
        with pytest.raises(Refused, match="took 1 of 3 rows"):
            sink.deliver(parcel)
    with pytest.raises(Retry, match=f"has {rows} rows, and not the 3 that were put there; leave the files of lakeward to it"):
        sink.deliver(parcel)
    for _ in range(2):  # the file is whole again, but COPY INTO remembers it
        with pytest.raises(Refused, match=f"the table has {rows} of its 3 rows"):
            sink.deliver(parcel)
    load = [one for one in databricks.order()["statements"] if one.startswith("COPY INTO")][-1]
    databricks.run(f"DELETE FROM {schema}.readings WHERE lakeward_token = '{name_of(parcel)}'", f"{load} COPY_OPTIONS ('force' = 'true')")
    assert sink.deliver(parcel).details["already_there"] is True
    assert databricks.table(f"{schema}.readings").num_rows == 6


def test_an_emptied_file_does_not_pass_for_superseded_rows(databricks, schema, sink_of, tmp_path):
    parcels = [parcel_of(tmp_path, MERGED.slice(n, 2), sequence=n + 1) for n in (0, 1)]
    with FaultProxy(databricks.url) as proxy:
        sink = sink_of(host=proxy.url, **MERGE, volume=f"{schema}.staged")
        sink.deliver(parcels[0])
        proxy.script("ok", "ok", "reset_before")
        with pytest.raises(Retry):
            sink.deliver(parcels[1])
        shorten(databricks, schema, 0)
        with pytest.raises(Retry, match="has 0 rows, and not the 2 that were put there"):
            sink.deliver(parcels[1])
        assert sink.deliver(parcels[1]).details == {"inserted": 1, "updated": 0, "superseded": 1}
    assert sorted(databricks.table(f"{schema}.readings")["sensor"].to_pylist()) == ["a", "b", "z"]


def test_a_file_that_was_never_there_is_not_taken_for_delivered(databricks, schema, spoiled, tmp_path):
    """By a warehouse that passes over files which are not there."""
    sink, parcel = spoiled("reset_before"), parcel_of(tmp_path, sequence=2)
    databricks.order(lenient=True)
    databricks.run(f"REMOVE '/Volumes/{schema.replace('.', '/')}/staged/{databricks.staged(schema)[0]}'")
    with pytest.raises(Retry, match="PATH_NOT_FOUND"):
        sink.deliver(parcel)
    assert sink.deliver(parcel).details["already_there"] is False
    assert databricks.table(f"{schema}.readings").num_rows == 6


# -- tokens that are given out twice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["copy", "insert"])
def test_a_state_that_was_restored_from_an_old_copy_is_noticed(databricks, schema, sink_of, tmp_path, mode):
    """Its tokens are given out again, for rows in another cut."""
    sink = sink_of(mode=mode)
    for sequence in (1, 2):
        sink.deliver(parcel_of(tmp_path, sequence=sequence, epoch=sequence))
    again, restored = sink_of(mode=mode), make_parcel(tmp_path / "restored", READINGS.slice(1), sequence=2, epoch=2)
    assert again.deliver(parcel_of(tmp_path, sequence=1, epoch=1)).details["already_there"] is True  # of the same content
    with pytest.raises(Refused, match="rows of other content are there under our token, as p-s-0123abcd-0002-0000000002-") as caught:
        again.deliver(restored)
    assert databricks.table(f"{schema}.readings").num_rows == 6
    databricks.run(str(caught.value).partition("sent again by ")[2])  # as it says, and without a restart
    again.deliver(restored)
    assert databricks.table(f"{schema}.readings").num_rows == 3 + 2


def test_whole_parcels_and_their_parts_are_the_same_rows(sink_of, tmp_path):

    def part(first: int, end: int) -> Parcel:
        whole = parcel_of(tmp_path, READINGS.slice(first, end - first))
        return evolve(whole, token=evolve(whole.token, part=(first, end)))

    sink_of().deliver(part(0, 1))
    with pytest.raises(Refused, match=r"as p-s-0123abcd-0000-0000000001\.0000000-0000001-"):
        sink_of().deliver(parcel_of(tmp_path))
    assert sink_of().deliver(part(1, 3)).details["already_there"] is False


def test_two_machines_with_one_state_do_not_lose_rows_to_each_other(databricks, schema, sink_of, tmp_path):
    """Before either is started again, when it is noticed."""
    one, other = sink_of(), sink_of()
    for sink, folder in ((one, "one"), (other, "other")):
        sink.deliver(make_parcel(tmp_path / folder, READINGS))
    one.deliver(make_parcel(tmp_path / "one", READINGS, sequence=2))
    assert other.deliver(make_parcel(tmp_path / "other", READINGS.slice(1), sequence=2)).details["already_there"] is False
    assert databricks.table(f"{schema}.readings").num_rows == 3 + 3 + 2


@pytest.mark.parametrize("after", ["another volume", "copy after insert"])
def test_a_parcel_whose_answer_was_lost_is_there_once_though_the_way_into_the_table_was_changed(
    databricks, schema, sink_of, tmp_path, after
):
    """COPY INTO knows files by their whole path, and none of what another mode sent."""
    sink_of(mode="insert" if "insert" in after else "copy").deliver(parcel_of(tmp_path))
    changed = sink_of(volume=f"/Volumes/{schema.replace('.', '/')}/staged/other")
    assert changed.deliver(parcel_of(tmp_path)).details["already_there"] is True
    assert changed.deliver(parcel_of(tmp_path, sequence=2)).details["already_there"] is False
    assert databricks.table(f"{schema}.readings").num_rows == 6


def test_a_revision_of_nan_is_a_dead_letter_as_none_would_ever_be_greater(sink_of, tmp_path):
    with pytest.raises(Rejected, match="column 'temperature' is NULL") as caught:
        sink_of(**MERGE).deliver(parcel_of(tmp_path, pa.record_batch({"sensor": ["a", "b"], "temperature": [1.0, float("nan")]})))
    assert caught.value.rows == (1,)
