"""`lakeward doctor` by the real program: what is well, what is not and what to do about it, without hanging and without a secret."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cosmos_server import CosmosServer, documents
from cosmosdb.documents import KEY
from databricks_server import DatabricksServer
from s3_server import ALONE, S3Server

import commands

SOURCE = "name: tried\nsource: {use: sqlite, path: sensor.db}\nsinks:\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    commands.write_readings(tmp_path, 3)
    return tmp_path


def doctor(folder: Path, sinks: str, *arguments: str, code: int = 0, **environment: str) -> dict[tuple[str, str], dict[str, Any]]:
    (folder / "pipeline.yaml").write_text(SOURCE + sinks)
    ran = commands.lakeward(folder, "doctor", "pipeline.yaml", "--json", *arguments, code=code, **environment)
    found = json.loads(ran.stdout)
    assert found["ok"] == (code == 0)
    return {(one["part"], one["step"]): one for one in found["steps"]}


def test_all_is_well_and_nothing_is_left_behind(folder):
    found = doctor(folder, "  files: {use: parquet, path: lake/files}\n  table: {use: delta, path: lake/table}\n")
    assert {one["ok"] for one in found.values()} == {True}
    assert {part for part, _ in found} == {"configuration", "state", "source", "sink files", "sink table"}
    assert found["source", "can be read"]["found"].startswith("gives rows")
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("sensor.db-")) == ["pipeline.yaml", "sensor.db"]


def test_in_words_for_people(folder):
    (folder / "file").write_text("")
    (folder / "pipeline.yaml").write_text(SOURCE + "  files: {use: parquet, path: file/lake}\n  more: {use: parquet, path: lake}\n")
    said = commands.lakeward(folder, "doctor", "pipeline.yaml", code=1).stdout
    assert f"FAILED sink files     folder          {folder}/file: is not a folder" in said
    assert "what to do: give this user write permission there, or choose another folder" in said
    assert "\x1b" not in said
    assert said.endswith("1 of 7 steps failed\n")


def test_every_mistake_of_the_file_is_a_step(folder):
    found = doctor(folder, "  files: {use: parquet, pth: lake}\n  s: {use: s3, bucket: b, secret_access_key: '${env:NONE}'}\n", code=1)
    [step] = {one["found"] for one in found.values() if "NONE" in one["found"]} or [""]
    assert "environment variable NONE is not set" in step


def test_tables_on_the_node_that_do_not_take_the_rows(folder):
    with closing(sqlite3.connect(folder / "here.db")) as database, database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, needed TEXT NOT NULL)")
    with duckdb.connect(str(folder / "there.duckdb")) as other:
        other.execute("CREATE TABLE t (id VARCHAR)")
    (folder / "junk.db").write_text("no database" * 1000)
    found = doctor(
        folder,
        "  here: {use: sqlite, path: here.db, table: t}\n  junk: {use: sqlite, path: junk.db, table: t}\n"
        "  there: {use: duckdb, path: there.duckdb, table: t}\n  new: {use: duckdb, path: new.duckdb, table: t}\n",
        code=1,
    )
    said = {part: (step["found"], step["todo"]) for (part, name), step in found.items() if name == "takes the rows" and step["ok"] is False}
    assert set(said) == {"sink here", "sink junk", "sink there"}
    assert "'needed' of table t is NOT NULL" in said["sink here"][0]
    assert "not a database" in said["sink junk"][0]
    assert said["sink there"] == (f"{folder}/there.duckdb: column 'id' is BIGINT in rows and VARCHAR in table t", "cast it with schematize")
    assert not (folder / "new.duckdb").exists()


@pytest.mark.slow
def test_a_sink_that_is_silent_does_not_hold_it_up(folder):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        keys = ALONE | {"AWS_ACCESS_KEY_ID": "AKIAANY", "AWS_SECRET_ACCESS_KEY": "any-secret-of-mine"}
        begun = time.monotonic()
        found = doctor(
            folder, f"  s: {{use: s3, bucket: lake, region: us-east-1, endpoint_url: '{address}'}}\n", "--timeout", "4", code=1, **keys
        )
    assert time.monotonic() - begun < 40  # the sink's own limit is a minute
    assert found["sink s", "takes the rows"]["found"] == "no answer within 4 s"
    assert "firewall" in found["sink s", "takes the rows"]["todo"]
    assert found["sink s", "can be written"]["ok"] is None


@pytest.mark.slow
def test_s3_permissions(folder, s3: S3Server):
    bucket = s3.bucket()
    sink = f"  s: {{use: s3, bucket: {bucket}, prefix: raw, region: us-east-1, endpoint_url: '{s3.url}'}}\n"

    def with_keys(key: str, secret: str, code: int) -> dict[tuple[str, str], dict[str, Any]]:
        found = doctor(folder, sink, "--sink", "s", code=code, **ALONE, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
        assert secret not in str(found)
        return found

    assert "wrote and removed" in with_keys(s3.access_key_id, s3.secret_access_key, 0)["sink s", "can be written"]["found"]
    assert s3.objects(bucket) == {}
    assert "403" in with_keys(*s3.user("s3:ListBucket", "s3:GetObject"), 1)["sink s", "can be written"]["found"]
    assert "stays" in with_keys(*s3.user("s3:PutObject", "s3:GetObject"), 0)["sink s", "can be written"]["found"]
    wrong = with_keys(s3.access_key_id, "of-somebody-else", 1)["sink s", "takes the rows"]
    assert "secret_access_key" in wrong["todo"]
    nowhere = doctor(
        folder, sink.replace(bucket, "no-such-bucket"), code=1, **ALONE,
        AWS_ACCESS_KEY_ID=s3.access_key_id, AWS_SECRET_ACCESS_KEY=s3.secret_access_key,
    )  # fmt: skip
    assert "make the bucket" in nowhere["sink s", "takes the rows"]["todo"]


@pytest.mark.slow
def test_databricks(folder, databricks: DatabricksServer):
    schema = databricks.schema()
    place = f"use: databricks, host: '{databricks.url}', http_path: {databricks.http_path}"
    sinks = f"  t: {{{place}, table: {schema}.readings, volume: {schema}.staged}}\n"
    token = {"DATABRICKS_TOKEN": databricks.token}
    lacking = doctor(folder, sinks, code=1, **token)["sink t", "takes the rows"]
    assert "is not there; make it (`lakeward ddl` prints the statement)" in lacking["found"]
    assert lacking["todo"] == "correct pipeline.yaml:4: sinks.t.table"
    databricks.run(f"CREATE TABLE {schema}.readings (id BIGINT, timestamp STRING, temperature DOUBLE, lakeward_token STRING)")
    written = doctor(folder, sinks, **token)["sink t", "can be written"]["found"]
    assert "wrote and removed a file" in written
    assert "inserted no row" in written
    assert databricks.table(f"{schema}.readings").num_rows == 0
    assert databricks.staged(schema) == []
    wrong = doctor(folder, sinks, code=1, DATABRICKS_TOKEN="dapi-wrong-token")
    assert wrong["sink t", "takes the rows"]["ok"] is False
    assert "dapi-wrong-token" not in str(wrong)


@pytest.mark.slow
def test_cosmos(folder, cosmos: CosmosServer):
    container = cosmos.container("/temperature")
    database = container.container_link.split("/")[1]
    place = f"use: cosmos, endpoint: '{cosmos.url}', key: '${{env:COSMOS_KEY}}', database: {database}, partition_key: /temperature"
    key = {"COSMOS_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    found = doctor(folder, f"  items: {{{place}, container: readings}}\n", **key)
    assert "created and removed an item" in found["sink items", "can be written"]["found"]
    assert documents(container) == []
    wrong = doctor(folder, f"  items: {{{place}, container: others}}\n", code=1, **key)["sink items", "takes the rows"]
    assert "make the database and the container" in wrong["todo"]
