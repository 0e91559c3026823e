"""Into the table by each way, and what is left in the volume."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakeward import Encoding, Parcel, Refused, Rejected
from lakeward.testing import make_parcel
from lakeward.testing.rows import values
from lakeward_plugins.sinks.databricks import warehouse as module
from lakeward_plugins.sinks.databricks.rows import as_parameters
from lakeward_plugins.sinks.databricks.table import stored

READINGS = pa.record_batch({"_row": [1, 2, 3], "sensor": ["a", "b", None], "temperature": [20.5, -3.0, float("nan")]})
NAME = "p-s-0123abcd-0000-000000000{}-"
ALERTS = {"upsert_by": ["alert_id"], "revision": "revision", "mode": "merge"}


def parcel_of(tmp_path: Path, rows: pa.RecordBatch | pa.Table = READINGS, **token: Any) -> Parcel:
    return make_parcel(tmp_path / "spool", rows, **token)


def alerts(*rows: tuple[str | None, int | None, str]) -> pa.RecordBatch:
    names, types = ("alert_id", "revision", "said"), (pa.string(), pa.int64(), pa.string())
    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=list(names))


def statements(databricks: Any, word: str) -> list[str]:
    return [one for one in databricks.order()["statements"] if one.startswith(word)]


def test_a_time_that_cannot_be_a_parameter_is_rejected_with_its_row(tmp_path):
    rows = pa.record_batch({"sensor": ["a", "b"], "at": pa.array([0, 300_000_000_000_000_000], pa.timestamp("us", "UTC"))})
    with pytest.raises(Rejected, match="column 'at': the value cannot be a parameter") as caught:
        as_parameters(parcel_of(tmp_path, rows), stored(rows.schema, False, ""))
    assert caught.value.rows == (1,)


# -- copy --------------------------------------------------------------------------------------------------------------


def test_copy_ships_the_spooled_file_under_a_name_from_the_token_and_takes_it_away(databricks, schema, sink_of, tmp_path):
    parcel = parcel_of(tmp_path)
    receipt = sink_of().deliver(parcel)
    file = f"{NAME.format(1)}{parcel.sha256[:16]}.parquet"
    assert receipt.location == f"{schema}.readings"
    assert receipt.details == {"file": file, "already_there": False}
    assert statements(databricks, "PUT")[0].startswith(f"PUT '__input_stream__' INTO '/Volumes/{schema.replace('.', '/')}/staged/{file}'")
    assert statements(databricks, "COPY INTO")[0].endswith(f"FILEFORMAT = PARQUET FILES = ('{file}')")
    assert values(databricks.table(f"{schema}.readings"), ["sensor", "temperature"]) == values(READINGS, ["sensor", "temperature"])
    assert databricks.staged(schema) == []


def test_the_second_attempt_finds_that_the_first_was_loaded(databricks, schema, sink_of, tmp_path):
    for already_there in (False, True):
        assert sink_of().deliver(parcel_of(tmp_path)).details["already_there"] is already_there
    assert databricks.table(f"{schema}.readings").num_rows == 3


def test_what_a_killed_run_left_in_the_volume_is_taken_away(databricks, schema, sink_of, tmp_path):
    volume = f"/Volumes/{schema.replace('.', '/')}/staged"
    kept = {NAME.format(9) + "ab.parquet", "p-s-ffffffff-0000-0000000001-ab.parquet", "somebody.parquet"}
    with databricks.connected() as client:
        for name in (*kept, NAME.format(1) + "ab.parquet", "p-s-0123abcd-0000-0000000002.0000000-0000001-ab.parquet"):
            client.execute(f"PUT '__input_stream__' INTO '{volume}/{name}' OVERWRITE", input_stream=_Bytes())
    sink = sink_of()
    for sequence in (3, 4):
        sink.deliver(parcel_of(tmp_path, sequence=sequence))
    assert set(databricks.staged(schema)) == kept
    assert len(statements(databricks, "LIST")) == 2  # one of them is ours


def test_a_folder_of_the_volume_is_made_by_the_first_file(databricks, schema, sink_of, tmp_path):
    sink = sink_of(volume=f"/Volumes/{schema.replace('.', '/')}/staged/north")
    assert "staged/north, the table" in sink.probe(READINGS.schema)
    sink.deliver(parcel_of(tmp_path))
    assert databricks.table(f"{schema}.readings").num_rows == 3
    assert databricks.staged(schema) == ["north"]


class _Bytes:
    def read(self) -> bytes:
        return b"left"


def test_a_file_that_cannot_be_taken_away_does_not_spoil_the_delivery(databricks, schema, sink_of, tmp_path, caplog, monkeypatch):
    sink, remove = sink_of(), module.Warehouse.remove
    sink.deliver(parcel_of(tmp_path))

    def forbidden(warehouse: module.Warehouse, path: str) -> None:
        databricks.order(revoked=[["WRITE VOLUME", f"{schema}.staged"]])
        remove(warehouse, path)

    with caplog.at_level(logging.INFO, "lakeward"), monkeypatch.context() as patch:
        patch.setattr(module.Warehouse, "remove", forbidden)
        sink.deliver(parcel_of(tmp_path, sequence=2))
    assert "stays in the volume for now" in caplog.text
    assert len(databricks.staged(schema)) == 1
    databricks.order(revoked=[])
    sink.deliver(parcel_of(tmp_path, sequence=3))
    assert databricks.staged(schema) == []


def test_time_of_spooling_and_row_key_are_columns_when_asked(databricks, schema, sink_of, tmp_path):
    sink = sink_of(row_key=True, inserted_at="databricks_inserted_at")
    now = datetime(2026, 1, 2, tzinfo=UTC)
    stamped = pa.Table.from_batches([READINGS]).append_column("databricks_inserted_at", pa.array([now] * 3, pa.timestamp("us", "UTC")))
    assert sink.encoding == Encoding("snappy", True, "databricks_inserted_at")
    sink.deliver(make_parcel(tmp_path / "spool", stamped, encoding=sink.encoding))
    stored = databricks.table(f"{schema}.readings")
    assert stored["_row"].to_pylist() == [1, 2, 3]
    assert stored.schema.field("databricks_inserted_at").type == pa.timestamp("us", "UTC")
    assert "TIMESTAMP" in sink.ddl(READINGS.schema)


# -- insert ------------------------------------------------------------------------------------------------------------


def test_insert_is_one_statement_that_does_nothing_the_second_time(databricks, schema, sink_of, tmp_path):
    for already_there in (False, True):
        assert sink_of(mode="insert").deliver(parcel_of(tmp_path)).details["already_there"] is already_there
    stored = databricks.table(f"{schema}.readings")
    assert set(stored["lakeward_token"].to_pylist()) == {f"{NAME.format(1)}{parcel_of(tmp_path).sha256[:16]}"}
    assert values(stored, ["sensor", "temperature"]) == values(READINGS, ["sensor", "temperature"])
    assert databricks.order()["requests"].get("PUT file", 0) == 0


def test_more_rows_than_a_statement_can_have_are_rejected_before_any_is_sent(databricks, schema, sink_of, tmp_path):
    sink = sink_of(mode="insert")
    rows = pa.record_batch({"_row": range(128), "a": range(128), "b": range(128)})
    for many, fits in ((127, True), (128, False)):  # 254 markers of 255, and 256
        parcel = parcel_of(tmp_path, rows.slice(0, many), sequence=many)
        if fits:
            sink.deliver(parcel)
        else:
            with pytest.raises(Rejected, match="128 rows of 2 columns do not fit into the 255 parameters") as caught:
                sink.deliver(parcel)
            assert caught.value.rows == ()  # so the kernel halves the parcel
    assert databricks.table(f"{schema}.readings").num_rows == 127


def test_a_megabyte_of_values_is_the_most(databricks, schema, sink_of, tmp_path):
    sink = sink_of(mode="insert")
    for size, fits in ((1_000_000, True), (1_000_001, False)):
        parcel = parcel_of(tmp_path, pa.record_batch({"_row": [1], "text": ["x" * size]}), sequence=size)
        if fits:
            sink.deliver(parcel)
        else:
            with pytest.raises(Rejected, match="1 rows of 1,000,001 bytes, most of them in column 'text'"):
                sink.deliver(parcel)
    assert databricks.table(f"{schema}.readings").num_rows == 1


def test_more_columns_than_parameters_need_another_mode(sink_of, tmp_path):
    wide = pa.record_batch({f"c{number}": [number] for number in range(256)})
    with pytest.raises(Refused, match="rows of 256 columns do not fit into the 255 parameters of a statement; use mode copy"):
        sink_of(mode="insert").deliver(parcel_of(tmp_path, wide))


@pytest.mark.parametrize("mode", ["copy", "insert"])
def test_a_column_for_the_token_is_wanted_or_made(databricks, schema, sink_of, tmp_path, mode):
    databricks.run(f"CREATE TABLE {schema}.readings (sensor STRING, temperature DOUBLE)")
    sink = sink_of(mode=mode)
    with pytest.raises(
        Refused, match=rf"mode {mode} needs a column of its own.*run ALTER TABLE .* ADD COLUMNS .`lakeward_token` STRING.,"
    ) as caught:
        sink.deliver(parcel_of(tmp_path))
    databricks.run(str(caught.value).partition("run ")[2].partition(", or set")[0])
    assert sink.deliver(parcel_of(tmp_path)).details["already_there"] is False
    named = pa.record_batch({"lakeward_token": ["mine"]})
    with pytest.raises(Refused, match=f"'lakeward_token': mode {mode} keeps its own under this name; rename it"):
        sink.deliver(parcel_of(tmp_path, named, sequence=2))
    databricks.run(f"CREATE TABLE {schema}.other (sensor STRING, temperature DOUBLE)")
    evolving = sink_of(mode=mode, table=f"{schema}.other", schema_change="evolve")
    assert evolving.probe(READINGS.schema).endswith("other (2 columns)")
    evolving.deliver(parcel_of(tmp_path))
    assert databricks.table(f"{schema}.other").column_names == ["sensor", "temperature", "lakeward_token"]


# -- merge -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["files", "parameters"])
def merging(request: pytest.FixtureRequest, schema: str, sink_of: Any) -> Any:
    return sink_of(**ALERTS, volume=f"{schema}.staged" if request.param == "files" else "")


def test_the_greater_revision_wins_in_whatever_order(databricks, schema, merging, tmp_path):
    parcels = [
        alerts(("a", 2, "second"), ("b", 1, "first")),
        alerts(("a", 1, "late"), ("c", 1, "first")),
        alerts(("a", 3, "third"), ("b", 1, "again")),
    ]
    counts = []
    for sequence, rows in enumerate(parcels, 1):
        details = merging.deliver(parcel_of(tmp_path, rows, sequence=sequence)).details
        counts.append((details["inserted"], details["updated"], details["superseded"]))
    assert counts == [(2, 0, 0), (1, 0, 1), (0, 1, 1)]
    stored = sorted(tuple(row.values()) for row in databricks.table(f"{schema}.readings").to_pylist())
    assert stored == [("a", 3, "third"), ("b", 1, "first"), ("c", 1, "first")]
    merging.deliver(parcel_of(tmp_path, parcels[0], sequence=1))  # much later, from somewhere in the network
    assert sorted(tuple(row.values()) for row in databricks.table(f"{schema}.readings").to_pylist()) == stored
    assert databricks.staged(schema) == []


def test_of_several_revisions_in_one_parcel_the_greatest_is_taken(databricks, schema, merging, tmp_path):
    for sequence in (1, 2):
        merging.deliver(parcel_of(tmp_path, alerts(("a", 1, "x"), ("a", 3, "z"), ("a", 2, "y"), ("b", 7, "w")), sequence=sequence))
    assert sorted(tuple(row.values()) for row in databricks.table(f"{schema}.readings").to_pylist()) == [("a", 3, "z"), ("b", 7, "w")]


def test_a_row_whose_revision_nobody_wrote_is_older_than_any(databricks, schema, merging, tmp_path):
    merging.deliver(parcel_of(tmp_path, alerts(("a", 1, "x"))))
    databricks.run(f"UPDATE {schema}.readings SET revision = NULL")
    merging.deliver(parcel_of(tmp_path, alerts(("a", 1, "y")), sequence=2))
    assert databricks.table(f"{schema}.readings")["said"].to_pylist() == ["y"]


def test_of_equal_revisions_the_first_stays_within_a_parcel_and_between_parcels(databricks, schema, merging, tmp_path):
    """So a parcel that is sent again, or comes late, changes nothing."""
    first = alerts(*[("a", 1, f"{n}") for n in range(20)], ("b", 1, "0"))
    for _ in range(2):
        details = merging.deliver(parcel_of(tmp_path, first)).details
        merging.deliver(parcel_of(tmp_path, alerts(("a", 1, "later")), sequence=2))
    assert details == {"inserted": 0, "updated": 0, "superseded": 21}
    stored = sorted(tuple(row.values()) for row in databricks.table(f"{schema}.readings").to_pylist())
    assert stored == [("a", 1, "0"), ("b", 1, "0")]


def test_keys_may_be_times_and_dictionaries_but_not_lists(sink_of, tmp_path):
    columns = {"at": pa.array([0, 1, 1], pa.timestamp("us", "UTC")), "city": pa.array(["a", "b", "b"]).dictionary_encode()}
    rows = pa.record_batch({**columns, "revision": [1, 2, 2]})
    sink = sink_of(mode="merge", upsert_by=["at", "city"], revision="revision")
    assert sink.deliver(parcel_of(tmp_path, rows)).details == {"inserted": 2, "updated": 0, "superseded": 1}
    odd = pa.record_batch({"at": [[1]], "city": ["a"], "revision": [1]})
    with pytest.raises(Refused, match=r"column 'at' is list<.*: int64>; rows are told apart by text, numbers, times or booleans"):
        sink_of(mode="merge", upsert_by=["at"], revision="revision", table="lake.default.odd").deliver(parcel_of(tmp_path, odd))


def test_rows_without_key_or_revision_are_rejected_by_their_number(merging, tmp_path):
    rows = alerts(("a", 1, "x"), (None, 1, "y"), ("b", None, "z"))
    for name, place in (("alert_id", 1), ("revision", 2)):
        with pytest.raises(Rejected, match=f"column '{name}' is NULL") as caught:
            merging.deliver(parcel_of(tmp_path, rows if name == "alert_id" else rows.take(pa.array([0, 0, 2]))))
        assert caught.value.rows == (place,)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_a_table_that_is_not_there_is_refused_or_made(databricks, schema, sink_of, tmp_path):
    sink, parcel = sink_of(create=False), parcel_of(tmp_path)
    with pytest.raises(Refused, match=r"readings is not there; make it \(`lakeward ddl` prints the statement\), or set `create: true`"):
        sink.deliver(parcel)
    databricks.run(sink.ddl(READINGS.schema))
    sink.deliver(parcel)  # the same sink: nothing was restarted
    assert databricks.table(f"{schema}.readings").num_rows == 3


def test_tables_of_the_clients_scheme_take_rows_of_sqlite(databricks, schema, sink_of, tmp_path):
    """Whole numbers are BIGINT in SQLite and may be INT in the table, names are not told apart by their case."""
    databricks.run(
        f"CREATE TABLE {schema}.readings_0_raw (id BIGINT, Sensor_ID STRING, status_code INT, temperature DOUBLE, lakeward_token STRING)"
    )
    sink = sink_of(table=f"{schema}.readings_0_raw", create=False)
    rows = pa.record_batch(
        {"temperature": pa.array([0.5, 1], pa.float32()), "sensor_id": ["a", "b"], "id": [1, 2], "status_code": [0, 2**31 - 1]}
    )
    sink.deliver(parcel_of(tmp_path, rows))
    assert databricks.table(f"{schema}.readings_0_raw")["status_code"].to_pylist() == [0, 2**31 - 1]
    big = pa.record_batch({"temperature": [1.0, 2, 3], "sensor_id": ["a"] * 3, "id": [1] * 3, "status_code": [1, 2**31, -(2**40)]})
    with pytest.raises(Rejected, match="column 'status_code' does not fit into int32") as caught:
        sink.deliver(parcel_of(tmp_path, big.set_column(0, "temperature", big["temperature"].cast(pa.float32())), sequence=2))
    assert caught.value.rows == (1, 2)


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"sensor": ["a"]}, "has a column 'temperature' that the rows do not have"),
    (
        {"sensor": ["a"], "temperature": [1.0], "extra": [1]},
        r"has no column 'extra'.* ADD COLUMNS \(`extra` BIGINT\), or set `schema_change",
    ),
    ({"sensor": [1], "temperature": [1.0]}, "column 'sensor' is BIGINT in rows and STRING in the table; cast it with schematize"),
    ({"sensor": ["a"], "temperature": [1]}, "column 'temperature' is BIGINT in rows and DOUBLE in the table"),
    ({"sensor": ["a"], "temperature": ["x"]}, "column 'temperature' is STRING in rows and DOUBLE in the table"),
    ({"sensor": ["a"], "temperature": [1.0], "TEMPERATURE": [2.0]}, "does not tell upper and lower case apart"),
]


@pytest.mark.parametrize(("columns", "told"), MISFITS)
def test_columns_that_do_not_fit_are_refused(databricks, schema, sink_of, tmp_path, columns, told):
    databricks.run(f"CREATE TABLE {schema}.readings (sensor STRING, temperature DOUBLE, lakeward_token STRING)")
    with pytest.raises(Refused, match=told):
        sink_of().deliver(parcel_of(tmp_path, pa.record_batch(columns)))
    assert databricks.table(f"{schema}.readings").num_rows == 0


def test_rows_with_a_new_column_wait_until_the_table_has_it(databricks, schema, sink_of, tmp_path):
    sink = sink_of()
    sink.deliver(parcel_of(tmp_path))
    wider = parcel_of(tmp_path, READINGS.append_column("it's_`new`", pa.array([1, 2, None])), sequence=2)
    with pytest.raises(Refused, match='the table has no column "it\'s_`new`"') as caught:
        sink.deliver(wider)
    databricks.run(str(caught.value).partition("run ")[2].partition(", or set")[0])
    sink.deliver(wider)
    assert databricks.table(f"{schema}.readings")["it's_`new`"].to_pylist().count(None) == 3 + 1


@pytest.mark.parametrize("mode", ["copy", "insert"])
def test_columns_that_appear_are_added_and_those_that_vanish_are_null(databricks, schema, sink_of, tmp_path, mode, caplog):
    sink = sink_of(schema_change="evolve", mode=mode)
    sink.deliver(parcel_of(tmp_path, pa.record_batch({"a": [1]})))
    sink.deliver(parcel_of(tmp_path, pa.record_batch({"a": [2], "b": ["x"]}), sequence=2))
    sink.deliver(parcel_of(tmp_path, pa.record_batch({"b": ["y"]}), sequence=3))
    stored = databricks.table(f"{schema}.readings").select(["a", "b"]).to_pylist()
    assert sorted(map(str, stored)) == sorted(map(str, [{"a": 1, "b": None}, {"a": 2, "b": "x"}, {"a": None, "b": "y"}]))
    assert "adding the columns b" in caplog.text


def test_a_column_without_a_type_fits_into_any(databricks, schema, sink_of, tmp_path):
    databricks.run(f"CREATE TABLE {schema}.readings (a ARRAY<BIGINT>, b DOUBLE, lakeward_token STRING)")
    sink_of().deliver(parcel_of(tmp_path, pa.record_batch({"a": pa.nulls(2), "b": pa.nulls(2)})))
    assert databricks.table(f"{schema}.readings").select(["a", "b"]).to_pylist() == [{"a": None, "b": None}] * 2


def test_rows_that_break_a_rule_of_the_table_are_rejected_for_the_kernel_to_find(databricks, schema, sink_of, tmp_path):
    databricks.run(f"CREATE TABLE {schema}.readings (sensor STRING NOT NULL, temperature DOUBLE, lakeward_token STRING)")
    with pytest.raises(Rejected, match="DELTA_NOT_NULL_CONSTRAINT_VIOLATED"):
        sink_of().deliver(parcel_of(tmp_path))
    assert sink_of().deliver(parcel_of(tmp_path, READINGS.slice(0, 2), sequence=2)).details["already_there"] is False


def test_what_parquet_of_databricks_does_not_know_is_written_in_its_types(databricks, schema, sink_of, tmp_path):
    odd = {"at": pa.array([0], pa.timestamp("ns")), "took": pa.array([1500], pa.duration("ns")), "half": pa.array([0.5], pa.float16())}
    with pytest.raises(Rejected, match=r"column 'took' does not fit into int64: .* would lose data") as caught:
        sink_of().deliver(parcel_of(tmp_path, pa.record_batch(odd)))
    assert caught.value.rows == (0,)
    odd["took"] = pa.array([1000], pa.duration("ns"))
    sink_of().deliver(parcel_of(tmp_path, pa.record_batch(odd)))
    assert databricks.table(f"{schema}.readings").drop_columns("lakeward_token").to_pylist() == [
        {"at": datetime(1970, 1, 1), "took": 1, "half": 0.5}
    ]


# -- the connection ----------------------------------------------------------------------------------------------------


def test_one_connection_serves_all_parcels_and_is_renewed_when_old(databricks, sink_of, tmp_path, monkeypatch):
    sink = sink_of()
    sink.deliver(parcel_of(tmp_path))
    first = sink._warehouse._connection
    sink.deliver(parcel_of(tmp_path, sequence=2))
    assert sink._warehouse._connection is first
    for name in ("IDLE", "OLDEST"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, -1.0)
            sink.deliver(parcel_of(tmp_path, sequence=3 + len(name)))
        assert sink._warehouse._connection is not first
        first = sink._warehouse._connection


def test_a_session_that_the_warehouse_forgot_is_opened_anew(databricks, schema, sink_of, tmp_path):
    sink = sink_of()
    sink.deliver(parcel_of(tmp_path))
    databricks.order(forget_sessions=True)
    with pytest.raises(Exception, match="Invalid SessionHandle"):
        sink.deliver(parcel_of(tmp_path, sequence=2))
    sink.deliver(parcel_of(tmp_path, sequence=2))
    assert databricks.table(f"{schema}.readings").num_rows == 6


def test_statements_that_take_long_are_waited_for(databricks, schema, sink_of, tmp_path):
    databricks.order(slow=5)
    sink_of().deliver(parcel_of(tmp_path))
    assert databricks.table(f"{schema}.readings").num_rows == 3


def test_a_query_reads_and_does_nothing_else(databricks, schema, sink_of, tmp_path):
    sink = sink_of()
    sink.deliver(parcel_of(tmp_path))
    assert sink.query(f"WITH r AS (SELECT * FROM {schema}.readings) SELECT count(*) AS n, 'insert' AS word FROM r")["n"].to_pylist() == [3]
    assert sink.query(f"SELECT * FROM {schema}.readings;").num_rows == 3
    assert sink.query(f"SELECT *, '-- no comment' FROM {schema}.readings", limit=2).num_rows == 2
    assert sink.query(f"DESCRIBE TABLE {schema}.readings").num_rows == 3
    assert sink.query(f"SHOW TABLES IN {schema}")["tableName"].to_pylist() == ["readings"]
    into = f"INSERT INTO {schema}.readings SELECT"
    writing = [
        f"DELETE FROM {schema}.readings",
        f"/* SELECT */ DROP TABLE {schema}.readings",
        f"/* /* */ SELECT 1 */ DROP TABLE {schema}.readings",  # comments are nested there
        f"-- \\\nSELECT 1\nDROP TABLE {schema}.readings",  # and go on behind a backslash
        f"WITH r AS (SELECT 1) -- \r{into} 'x', 1.0",  # and end at a carriage return
        "SELECT r'\\'; DROP TABLE x --'",
        "SELECT 1; DROP TABLE x",
        f"WITH r AS (SELECT 1) {into} 'x', 1.0",
        f"WITH r AS (SELECT r'\\') {into} '",  # where a backslash is one, the string ends before the bracket
        "",
    ]
    for sql in writing:
        with pytest.raises(Refused, match="a query"):
            sink.query(sql)
    assert pq.read_metadata(parcel_of(tmp_path).path).num_rows == databricks.table(f"{schema}.readings").num_rows


def test_a_query_of_a_table_that_is_not_there_says_how_it_comes_to_be(schema, sink_of):
    with pytest.raises(Refused, match=r"`other` cannot be found.*; correct its name, or make it: .* with `create: true` the first rows do"):
        sink_of(create=True).query(f"SELECT * FROM {schema}.other")
