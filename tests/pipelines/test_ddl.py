"""`lakeward ddl` asks nobody anything: it needs neither the warehouse nor its token to be right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import commands

YAML = """name: ddl
source: {use: sqlite, path: sensor.db}
sinks:
  files: {use: parquet, path: lake}
  table:
    use: databricks
    host: adb-1.azuredatabricks.net
    http_path: /sql/1.0/warehouses/a
    table: lake.iot.readings
    volume: lake.iot.staged
    inserted_at: databricks_inserted_at
  latest:
    use: databricks
    host: adb-1.azuredatabricks.net
    http_path: /sql/1.0/warehouses/a
    table: lake.iot.latest
    mode: merge
    upsert_by: [id]
    revision: version
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    commands.write_readings(tmp_path, 1)
    (tmp_path / "pipeline.yaml").write_text(YAML)
    return tmp_path


def ddl(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    ran = commands.lakeward(folder, "ddl", "pipeline.yaml", *arguments, code=code, DATABRICKS_TOKEN="dapi-anything")
    return ran.stdout, ran.stderr


def test_one_sink(folder):
    assert ddl(folder, "table")[0].splitlines() == [
        "CREATE TABLE IF NOT EXISTS `lake`.`iot`.`readings` (",
        "  `id` BIGINT,",
        "  `timestamp` STRING,",
        "  `temperature` DOUBLE,",
        "  `databricks_inserted_at` TIMESTAMP,",
        "  `lakeward_token` STRING",
        ") USING DELTA;",
    ]


def test_all_of_them_as_json(folder):
    (folder / "pipeline.yaml").write_text(YAML.replace("version", "timestamp"))
    found = json.loads(ddl(folder, "--json")[0])
    assert list(found) == ["table", "latest"]
    assert found["latest"].startswith("CREATE TABLE IF NOT EXISTS `lake`.`iot`.`latest` (")


def test_mistakes_have_their_place(folder):
    told = ddl(folder, code=2)[1].splitlines()
    assert told == [
        "pipeline.yaml:19:15: sinks.latest.revision: the rows have no column 'version'; their columns are id, timestamp, temperature"
    ]
    assert ddl(folder, "none", code=1)[1] == "lakeward: no sink 'none'; sinks are files, table, latest\n"
    assert ddl(folder, "files", code=1)[1] == "lakeward: sink 'files' writes into no table that a statement makes\n"


def test_without_a_token_it_says_how_to_give_one(folder):
    ran = commands.lakeward(folder, "ddl", "pipeline.yaml", "table", code=2)
    assert "sinks.table.token: give the access token as ${env:NAME} or ${file:/path}, or set the variable DATABRICKS_TOKEN" in ran.stderr
