"""Windows that late rows change, alerts, and the newest reading of each sensor, as items that are replaced in Cosmos DB."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from azure.cosmos import ContainerProxy
from cosmos_server import CosmosServer, documents
from cosmosdb.documents import KEY

import commands

PLACE = "use: cosmos, endpoint: '${COSMOS}', key: '${env:COSMOS_KEY}', database: '${DATABASE}'"
YAML = f"""
name: replaced
source: {{use: sqlite, path: sensor.db}}
transforms:
  typed: {{use: schematize, columns: {{id: bigint, timestamp: timestamp, city: text, sensor: text, temperature: double}}}}
  minutes:
    use: window
    from: typed
    window: {{size: 1m}}
    group_by: [city, sensor]
    max_out_of_orderness_s: 0
    allowed_lateness_s: 1d
    aggregations: {{temperature: mean}}
  watch:
    use: emergency
    from: typed
    key: [city, sensor]
    severity_thresholds: {{temperature: {{limit: 35, deadband: 1}}}}
sinks:
  newest: {{{PLACE}, from: typed, container: newest, upsert_by: [sensor], revision: timestamp}}
  windows: {{{PLACE}, from: minutes, container: windows, upsert_by: [window_id], revision: revision}}
  revisions: {{use: parquet, from: minutes, path: lake/windows}}
  alerts: {{{PLACE}, from: watch, container: alerts, upsert_by: [alert_id, event], revision: event_ts}}
  events: {{use: parquet, from: watch, path: lake/alerts}}
  late: {{use: parquet, from: watch.late, path: lake/late}}
batch: {{rows: 40}}
"""
SENSORS = [("Oslo", "a1"), ("Oslo", "b2"), ("Rome", "c3")]


def write_rows(folder: Path, seconds: list[int], hot: int) -> None:
    """A reading of each sensor at each time; one is too warm in the minute `hot`."""
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        columns = "id INTEGER PRIMARY KEY, timestamp TIMESTAMP, city TEXT, sensor TEXT, temperature REAL"
        database.execute(f"CREATE TABLE IF NOT EXISTS readings ({columns})")
        for second in seconds:
            moment = f"2025-01-31T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"
            rows = [
                (moment, *names, 40.0 if second // 60 == hot else 20 + number + second % 70 / 7) for number, names in enumerate(SENSORS)
            ]
            database.executemany("INSERT INTO readings (timestamp, city, sensor, temperature) VALUES (?, ?, ?, ?)", rows)


def newest(folder: Path, name: str, keys: str, revision: str) -> list[tuple[Any, ...]]:
    """The rows that should be left of all that came out, by DuckDB."""
    wanted = {"windows": "window_id::VARCHAR, record_count, revision, avg_temperature", "alerts": "alert_id::VARCHAR, event, value"}[name]
    ranked = f"row_number() OVER (PARTITION BY {keys} ORDER BY {revision} DESC) = 1"
    return sorted(duckdb.sql(f"SELECT {wanted} FROM '{folder}/lake/{name}/*.parquet' QUALIFY {ranked}").fetchall())


def stored(container: ContainerProxy, *names: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(str(item[name]) if name.endswith("_id") else item[name] for name in names) for item in documents(container))


def etags(container: ContainerProxy) -> dict[str, str]:
    """They change whenever somebody writes."""
    return {item["id"]: item["_etag"] for item in container.query_items("SELECT * FROM c", enable_cross_partition_query=True)}


@pytest.mark.slow
@pytest.mark.one_python
def test_windows_alerts_and_newest_readings_are_replaced_and_a_backfill_takes_nothing_back(tmp_path: Path, cosmos: CosmosServer) -> None:
    (tmp_path / "pipeline.yaml").write_text(YAML)
    containers = {"newest": cosmos.container(name="newest")}
    database = containers["newest"].container_link.split("/")[1]
    containers |= {name: cosmos.container("/city", database, name) for name in ("windows", "alerts")}
    known = {"COSMOS": cosmos.url, "COSMOS_KEY": KEY, "DATABASE": database, "NO_PROXY": "127.0.0.1"}

    def check(windows: int) -> None:
        found = stored(containers["windows"], "window_id", "record_count", "revision", "avg_temperature")
        assert found == newest(tmp_path, "windows", "window_id", "revision")
        assert len(found) == windows
        alerts = stored(containers["alerts"], "alert_id", "event", "value")
        assert alerts == newest(tmp_path, "alerts", "alert_id, event", "event_ts")
        assert {event for _, event, _ in alerts} == {"RAISE", "CLEAR"}
        assert {(item["sensor"], item["timestamp"][:19]) for item in documents(containers["newest"])} == {
            (sensor, "2025-01-31T00:09:50") for _, sensor in SENSORS
        }

    write_rows(tmp_path, list(range(0, 600, 10)), hot=5)
    commands.lakeward(tmp_path, "run", "pipeline.yaml", "--once", **known)
    check(windows=27)
    write_rows(tmp_path, list(range(5, 300, 10)), hot=-1)  # late
    commands.lakeward(tmp_path, "run", "pipeline.yaml", "--once", "--finish", **known)
    check(windows=30)
    assert {item["revision"] > 0 for item in documents(containers["windows"])} == {True, False}
    before = {name: etags(container) for name, container in containers.items()}
    backfill = ["backfill", "pipeline.yaml", "--from", "1", "--to", "60", "--sinks", "newest,windows", "--reason", "asked for", "--json"]
    report = json.loads(commands.lakeward(tmp_path, *backfill, **known).stdout)
    assert report["sinks"]["newest"]["delivered"] == 60
    assert {name: etags(container) for name, container in containers.items()} == before
