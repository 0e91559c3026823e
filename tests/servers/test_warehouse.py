"""The stand-in that other tests trust does what it says, asked by the client that Databricks gives to everybody."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from databricks.sql import exc
from databricks_server import DatabricksServer

TABLE = "(id BIGINT NOT NULL, city STRING COMMENT 'where', at TIMESTAMP, local TIMESTAMP_NTZ, money DECIMAL(10,2)) USING DELTA"


@pytest.fixture
def table(databricks: DatabricksServer) -> str:
    name = f"{databricks.schema()}.t"
    databricks.run(f"CREATE TABLE IF NOT EXISTS {name} {TABLE}")
    return name


def count(databricks: DatabricksServer, table: str) -> int:
    found: int = databricks.run(f"SELECT count(*) AS n FROM {table}")["n"][0].as_py()
    return found


def test_tables_have_the_types_of_databricks(databricks, table):
    described = {row["col_name"]: row["data_type"] for row in databricks.run(f"DESCRIBE TABLE {table}").to_pylist()}
    assert described == {"id": "bigint", "city": "string", "at": "timestamp", "local": "timestamp_ntz", "money": "decimal(10,2)"}
    databricks.run(f"ALTER TABLE {table} ADD COLUMNS (tags ARRAY<STRING>, place STRUCT<x: DOUBLE, y: DOUBLE>)")
    added = [row["data_type"] for row in databricks.run(f"DESCRIBE TABLE {table}").to_pylist()[5:]]
    assert added == ["array<string>", "struct<x:double,y:double>"]


def test_parameters_have_types_and_limits(databricks, table):
    values = [1, "os'lo", datetime(2026, 1, 2, 3, 4, 5), None, Decimal("12.34")]
    databricks.run(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", parameters=values)
    assert databricks.table(table).to_pylist()[0]["money"] == Decimal("12.34")
    databricks.run(f"SELECT {','.join('?' * 255)}", parameters=list(range(255)))
    with pytest.raises(exc.ServerOperationError, match="TOO_MANY_PARAMETERS"):
        databricks.run(f"SELECT {','.join('?' * 256)}", parameters=list(range(256)))
    assert databricks.run("SELECT length(?) AS n", parameters=["x" * 1_000_000])["n"].to_pylist() == [1_000_000]
    with pytest.raises(exc.ServerOperationError, match="PARAMETERS_TOO_LARGE"):
        databricks.run("SELECT ?", parameters=["x" * 1_000_001])


def test_files_go_through_the_staging_of_the_client(databricks, table, tmp_path):
    volume = f"/Volumes/{table.rpartition('.')[0].replace('.', '/')}/staged"
    pq.write_table(pa.table({"id": [1, 2, 3]}), tmp_path / "a.parquet")
    with databricks.connected(staging_allowed_local_path=str(tmp_path)) as client:
        client.execute(f"PUT '{tmp_path}/a.parquet' INTO '{volume}/a.parquet' OVERWRITE")
        with pytest.raises(exc.ServerOperationError, match="FILE_ALREADY_EXISTS"):
            client.execute(f"PUT '{tmp_path}/a.parquet' INTO '{volume}/a.parquet'")
        client.execute(f"GET '{volume}/a.parquet' TO '{tmp_path}/b.parquet'")
        assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "a.parquet").read_bytes()
        with pytest.raises(exc.ProgrammingError, match="restricted to paths"):
            client.execute(f"PUT '/etc/hostname' INTO '{volume}/hostname'")
        copy = f"COPY INTO {table} FROM '{volume}' FILEFORMAT = PARQUET FILES = ('a.parquet')"
        for loaded in (3, 0):
            assert client.execute(copy).fetchone().num_inserted_rows == loaded
        client.execute(f"REMOVE '{volume}/a.parquet'")
        assert client.execute(copy).fetchone().num_inserted_rows == 0  # remembered, though the file is gone
        client.execute(f"LIST '{volume}'")
        assert client.fetchall() == []
        with pytest.raises(exc.OperationalError, match="unsuccessful: 404"):
            client.execute(f"REMOVE '{volume}/a.parquet'")
    assert count(databricks, table) == 3


def test_a_statement_takes_effect_as_a_whole_or_not_at_all(databricks, table, tmp_path):
    volume = f"/Volumes/{table.rpartition('.')[0].replace('.', '/')}/staged"
    pq.write_table(pa.table({"id": [1, None, 3]}), tmp_path / "bad.parquet")
    pq.write_table(pa.table({"id": [1, 2, 3]}), tmp_path / "good.parquet")
    with databricks.connected(staging_allowed_local_path=str(tmp_path)) as client:
        client.execute(f"PUT '{tmp_path}/bad.parquet' INTO '{volume}/x.parquet' OVERWRITE")
        copy = f"COPY INTO {table} FROM '{volume}' FILEFORMAT = PARQUET FILES = ('x.parquet')"
        with pytest.raises(exc.ServerOperationError, match=r"NOT NULL.*SQLSTATE: 23502"):
            client.execute(copy)
        client.execute(f"PUT '{tmp_path}/good.parquet' INTO '{volume}/x.parquet' OVERWRITE")
        assert client.execute(copy).fetchone().num_inserted_rows == 3  # what failed is not remembered


def test_what_copy_into_has_loaded_is_kept_with_the_table(databricks, table, tmp_path):
    volume = f"/Volumes/{table.rpartition('.')[0].replace('.', '/')}/staged"
    copy = f"COPY INTO {table} FROM '{volume}' FILEFORMAT = PARQUET FILES = ('a.parquet')"

    def loaded(*before: str, options: str = "") -> int:
        return int(databricks.run(*before, copy + options)["num_inserted_rows"][0].as_py())

    pq.write_table(pa.table({"id": [1, 2, 3]}), tmp_path / "a.parquet")
    with databricks.connected(staging_allowed_local_path=str(tmp_path)) as client:
        client.execute(f"PUT '{tmp_path}/a.parquet' INTO '{volume}/a.parquet'")
    assert [loaded(), loaded(f"TRUNCATE TABLE {table}"), loaded(f"DELETE FROM {table}")] == [3, 0, 0]
    assert loaded(options=" COPY_OPTIONS ('force' = 'true')") == 3
    assert loaded(f"DROP TABLE {table}", f"CREATE TABLE {table} (id BIGINT)") == 3
    missing = copy.replace("a.parquet", "b.parquet")
    with pytest.raises(exc.ServerOperationError, match="PATH_NOT_FOUND"):
        databricks.run(missing)
    databricks.order(lenient=True)
    assert databricks.run(missing)["num_inserted_rows"].to_pylist() == [0]


def test_merge_counts_and_refuses_two_updates_of_one_row(databricks, table):
    merge = f"""MERGE INTO {table} AS t USING (SELECT * FROM VALUES (1L, 'a'), ({{}}L, 'b') AS v(id, city)) AS s ON t.id = s.id
        WHEN MATCHED AND s.city > 'a' THEN UPDATE SET t.city = s.city WHEN NOT MATCHED THEN INSERT (id, city) VALUES (s.id, s.city)"""
    for inserted, updated in ((2, 0), (0, 1)):
        answer = databricks.run(merge.format(2)).to_pylist()[0]
        assert (answer["num_inserted_rows"], answer["num_updated_rows"]) == (inserted, updated)
    with pytest.raises(exc.ServerOperationError, match="DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE"):
        databricks.run(merge.format(1))


ERRORS: list[tuple[str, str]] = [
    ("SELECT * FROM TABLE_none", "TABLE_OR_VIEW_NOT_FOUND.*42P01"),
    ("SELECT none FROM TABLE_t", "UNRESOLVED_COLUMN.*42703"),
    ("CREATE TABLE lake.none.t (a INT)", "SCHEMA_NOT_FOUND.*42704"),
    ("ALTER TABLE TABLE_t ADD COLUMNS (city STRING)", "FIELD_ALREADY_EXISTS.*42710"),
    ("SELEC 1", "PARSE_SYNTAX_ERROR.*42601"),
    ("SELECT CAST(300 AS TINYINT)", "CAST_OVERFLOW.*22003"),
    ("SELECT CAST('x' AS INT)", "CAST_INVALID_INPUT.*22018"),
    ("LIST '/Volumes/lake/none/none'", "VOLUME_NOT_FOUND.*42704"),
    ("REMOVE '/Volumes/../../etc/passwd'", "PATH_NOT_FOUND.*42K03"),
]


@pytest.mark.parametrize(("statement", "told"), ERRORS)
def test_errors_have_the_classes_of_databricks(databricks, table, statement, told):
    with pytest.raises(exc.ServerOperationError, match=told):
        databricks.run(statement.replace("TABLE_t", table).replace("TABLE_none", f"{table}_none"))


FORBIDDEN: list[tuple[str, str, str]] = [
    ("MODIFY", "S.t", "INSERT INTO S.t (id) VALUES (1)"),
    ("MODIFY", "S.t", "COPY INTO S.t FROM 'V' FILEFORMAT = PARQUET FILES = ('a.parquet')"),
    ("SELECT", "S.t", "SELECT * FROM S.t"),
    ("SELECT", "S.t", "DESCRIBE TABLE S.t"),
    ("SELECT", "S.t", "MERGE INTO S.t AS t USING (SELECT 1L AS id) AS s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)"),
    ("CREATE TABLE", "S", "CREATE TABLE S.u (a INT)"),
    ("WRITE VOLUME", "S.staged", "REMOVE 'V/a'"),
    ("READ VOLUME", "S.staged", "LIST 'V'"),
    ("READ VOLUME", "S.staged", "SELECT * FROM parquet.`V/a`"),
]


@pytest.mark.parametrize(("privilege", "name", "statement"), FORBIDDEN)
def test_what_was_taken_away_is_forbidden(databricks, table, privilege, name, statement):
    schema = table.rpartition(".")[0]
    databricks.order(revoked=[[privilege, re.sub(r"^S\b", schema, name)]])
    volume = f"/Volumes/{schema.replace('.', '/')}/staged"
    with pytest.raises(exc.ServerOperationError, match=f"INSUFFICIENT_PERMISSIONS.*{privilege}.*42501"):
        databricks.run(re.sub(r"\bV\b", volume, re.sub(r"\bS\b(?=\.)", schema, statement)))


def test_who_is_not_known_does_not_come_in(databricks):
    with pytest.raises(exc.RequestError) as caught, databricks.connected(_connection_uri=f"{databricks.url}/sql/1.0/warehouses/none"):
        pass
    assert caught.value.context["http-code"] == 404
    with databricks.connected() as client:
        databricks.order(tokens=[])
        with pytest.raises(exc.RequestError) as caught:
            client.execute("SELECT 1")
    assert caught.value.context["error-message"] == ": Invalid access token."


@pytest.mark.parametrize(("order", "status", "wait"), [({"faults": [[429, "7"]]}, 429, 7.0), ({"state": "starting"}, 503, 1.0)])
def test_a_warehouse_may_be_busy_or_start(databricks, order, status, wait):
    databricks.order(**order)
    with pytest.raises(exc.RequestError) as caught, databricks.connected():
        pass
    assert (caught.value.context["http-code"], caught.value.context["bounded-retry-delay"]) == (status, wait)


def test_long_statements_and_large_results_come_in_pieces(databricks):
    databricks.order(slow=1)
    assert databricks.run("SELECT 42 AS x")["x"].to_pylist() == [42]
    assert databricks.run("SELECT * FROM range(0, 250000)").num_rows == 250_000


def test_sessions_may_be_forgotten(databricks):
    with databricks.connected() as client:
        databricks.order(forget_sessions=True)
        with pytest.raises(exc.DatabaseError, match="Invalid SessionHandle"):
            client.execute("SELECT 1")


def test_a_presigned_address_is_good_for_one_file_only(databricks, table, tmp_path, monkeypatch):
    volume = f"/Volumes/{table.rpartition('.')[0].replace('.', '/')}/staged"
    (tmp_path / "a").write_text("a")
    with databricks.connected(staging_allowed_local_path=str(tmp_path)) as client:
        request: Callable[..., Any] = client.connection.http_client.request
        monkeypatch.setattr(
            client.connection.http_client, "request", lambda verb, url, **more: request(verb, url.replace("/a?", "/b?"), **more)
        )
        with pytest.raises(exc.OperationalError, match="unsuccessful: 403"):
            client.execute(f"PUT '{tmp_path}/a' INTO '{volume}/a' OVERWRITE")
    assert databricks.staged(table.rpartition(".")[0]) == []


def test_the_process_ends_with_its_block(tmp_path: Path):
    from databricks_server import databricks_server

    with databricks_server() as server:
        assert server.run("SELECT 1 AS x")["x"].to_pylist() == [1]
    with pytest.raises(OSError, match="refused"):
        server.order()
