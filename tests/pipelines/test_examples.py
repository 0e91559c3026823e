"""Every file in examples/ runs, on rows of the simulated sensor, and does what its first lines say."""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.parquet as pq
import pytest
from cosmos_server import CosmosServer, documents
from cosmosdb.documents import KEY
from databricks_server import DatabricksServer
from deltalake import DeltaTable
from s3_server import ALONE, S3Server

import commands

EXAMPLES = Path(__file__).parents[2] / "examples"


def lakeward(folder: Path, *arguments: str) -> str:
    lake = folder / "lake"
    places = {"SENSOR_DB": str(folder / "sensor.db"), "LAKE": str(lake), "ARCHIVE": str(lake / "raw")}
    return commands.lakeward(folder, *arguments, **places, GPS_FUZZ_KEY="0123456789abcdef" * 2).stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sensor = ["sensor", "run", "--db", "sensor.db", "--rows", "3000", "--rate", "0", "--sensors", "3", "--anomalies", "0.25", "--seed", "7"]
    lakeward(tmp_path, *sensor, "--start", "2026-01-01T00:00:00Z")
    return tmp_path


def run(folder: Path, name: str) -> str:
    return lakeward(folder, "run", str(EXAMPLES / name), "--once", "--finish", "--state-dir", str(folder / "state" / name), "--json")


def test_every_example_is_tested_here() -> None:
    tested = {"environmental", "older_options", "backfill", "alerts", "s3", "lake", "databricks", "cosmos"}
    tested |= {"databricks_stages", "s3_by_type", "delta", "environmental_s3"}
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == tested


def test_environmental_takes_every_row_to_one_table(folder: Path) -> None:
    report = json.loads(run(folder, "environmental.yaml"))
    database = sqlite3.connect(folder / "sensor.db")
    flagged = {row[0] for row in database.execute("SELECT id FROM sensor_readings WHERE anomaly_flag = 1")}
    database.close()
    anomalies = set(polars.read_delta(str(folder / "lake" / "anomalies"))["id"].to_list())
    readings = polars.read_delta(str(folder / "lake" / "readings"))
    assert report["rows"] == {"read": 3000, "delivered": 3000, "filtered": 0, "dead": 0}
    assert anomalies == flagged
    assert anomalies | set(readings["reading_id"].to_list()) == set(range(1, 3001))
    assert len(anomalies) + len(readings) == 3000
    windows = duckdb.sql(f"SELECT sum(record_count) FROM '{folder}/lake/windows/*.parquet'").fetchall()
    assert windows == [(len(readings),)]
    alerts = polars.read_delta(str(folder / "lake" / "alerts"))
    assert {"RAISE", "CLEAR"} <= set(alerts["event"].to_list())


def test_older_options_are_taken_as_they_were(folder: Path) -> None:
    def stored(query: str) -> list[Any]:
        return duckdb.sql(query.replace("LAKE", f"{folder}/lake")).fetchall()

    report = json.loads(run(folder, "older_options.yaml"))
    assert report["rows"] == {"read": 3000, "delivered": 3000, "filtered": 0, "dead": 0}
    database = sqlite3.connect(folder / "sensor.db")
    good, anomalies = (database.execute(f"SELECT count(*) FROM sensor_readings WHERE anomaly_flag = {flag}").fetchone() for flag in (0, 1))
    exact = database.execute("SELECT DISTINCT latitude, longitude FROM sensor_readings WHERE latitude IS NOT NULL").fetchall()
    database.close()
    assert stored("SELECT count(*) FROM 'LAKE/anomalies/*.parquet'") == [anomalies]
    assert stored("SELECT count(*), count(location) FROM 'LAKE/readings/*.parquet'") == [(*good, 0)]
    moved = stored("SELECT DISTINCT latitude, longitude FROM 'LAKE/readings/*.parquet'")
    assert len(moved) == 3
    assert not {*moved} & {*exact}
    assert stored("SELECT sum(record_count) FROM 'LAKE/windows/*.parquet'") == [good]
    assert stored("SELECT sum(count_readings) FROM 'LAKE/hours/*.parquet'") == [good]
    means = dict(stored("SELECT sensor_id, avg(temperature) FROM 'LAKE/readings/*.parquet' GROUP BY ALL"))
    assert dict(stored("SELECT sensor_id, avg_temperature FROM 'LAKE/hours/*.parquet'")) == pytest.approx(means)
    alerts = stored("SELECT DISTINCT alert_type, value > \"limit\" FROM 'LAKE/alerts/*.parquet' WHERE event = 'RAISE' ORDER BY ALL")
    assert alerts == [("pressure_high", True), ("temperature_high", True)]


def test_backfill_loads_files_once(folder: Path) -> None:
    run(folder, "environmental.yaml")
    assert json.loads(run(folder, "backfill.yaml"))["run"]["read"] == 3000
    assert json.loads(run(folder, "backfill.yaml"))["run"]["read"] == 0
    history = polars.read_delta(str(folder / "lake" / "history"))
    assert (len(history), history.columns) == (3000, ["id", "sensor_id", "timestamp", "temperature", "humidity"])
    assert history["timestamp"].dtype == polars.Datetime("us", "UTC")


def test_alerts_are_printed_as_json_lines(folder: Path) -> None:
    lines = [json.loads(line) for line in run(folder, "alerts.yaml").splitlines() if line.startswith('{"alert_id"')]
    assert lines
    for line in lines:
        assert line["event"] in ("RAISE", "CLEAR")
        if line["event"] == "RAISE":
            assert line["value"] > 60 if line["alert_type"] == "temperature_high" else line["value"] < 950


def test_s3_takes_every_row_to_the_bucket(folder: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key, "S3_ENDPOINT": s3.url}
    for name, value in (ALONE | settings | {"BUCKET": s3.bucket()}).items():
        monkeypatch.setenv(name, value)
    assert json.loads(run(folder, "s3.yaml"))["sinks"]["readings"]["delivered"] == 3000
    stored = s3.table(os.environ["BUCKET"], "readings/north/")
    assert stored["_row"].to_pylist() == list(range(1, 3001))
    assert {"timestamp", "temperature", "uploaded_at"} <= set(stored.column_names)


def test_lake_keeps_readings_and_the_last_revision_of_windows(folder: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key, "S3_ENDPOINT": s3.url}
    for name, value in (ALONE | settings | {"BUCKET": s3.bucket(), "AWS_REGION": "us-west-2"}).items():
        monkeypatch.setenv(name, value)
    where = {"LocationConstraint": "us-west-2"}
    s3.client().create_bucket(Bucket="acme-databricks-raw-us-west-2", CreateBucketConfiguration=where)
    report = json.loads(run(folder, "lake.yaml"))
    assert {sink["waiting"] for sink in report["sinks"].values()} == {0}
    options = {
        "aws_endpoint_url": s3.url, "aws_allow_http": "true", "aws_region": "us-east-1",
        "aws_access_key_id": s3.access_key_id, "aws_secret_access_key": s3.secret_access_key,
    }  # fmt: skip
    tables = f"s3://{os.environ['BUCKET']}/tables"
    readings = DeltaTable(f"{tables}/readings", storage_options=options)
    assert readings.metadata().partition_columns == ["sensor_id"]
    assert sorted(readings.to_pyarrow_table(columns=["id"])["id"].to_pylist()) == list(range(1, 3001))
    windows = DeltaTable(f"{tables}/windows", storage_options=options).to_pyarrow_table(columns=["window_id", "revision", "record_count"])
    with closing(sqlite3.connect(folder / "lake" / "here.db")) as database:
        here = database.execute("SELECT window_id, revision, record_count FROM windows").fetchall()
    assert sorted(here) == sorted(zip(*(windows[name].to_pylist() for name in windows.column_names), strict=True))
    assert (len({key for key, *_ in here}), sum(count for *_, count in here)) == (len(here), 3000)
    objects = s3.objects("acme-databricks-raw-us-west-2", "raw/")
    assert len([key for key in objects if key.startswith("raw/_manifests/")]) == 3
    assert sum(pq.read_table(io.BytesIO(content)).num_rows for key, content in objects.items() if key.endswith(".parquet")) == 3000


def test_databricks_fills_four_tables_in_three_ways(folder: Path, databricks: DatabricksServer, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = databricks.schema()
    settings = {"HOST": databricks.url, "HTTP_PATH": databricks.http_path, "TOKEN": databricks.token, "DATABASE": schema}
    for name, value in settings.items():
        monkeypatch.setenv(f"DATABRICKS_{name}", value)
    report = json.loads(run(folder, "databricks.yaml"))
    raw, valid = databricks.table(f"{schema}.readings_0_raw"), databricks.table(f"{schema}.readings_1_schematized")
    windows, alerts = databricks.table(f"{schema}.readings_3_aggregated"), databricks.table(f"{schema}.readings_4_emergency")
    assert sorted(raw["id"].to_pylist()) == list(range(1, 3001))
    assert set(valid["reading_id"].to_pylist()) < set(raw["id"].to_pylist())
    assert sum(windows["record_count"].to_pylist()) == valid.num_rows
    assert {"RAISE", "CLEAR"} <= set(alerts["event"].to_pylist())
    delivered = {name: sink["delivered"] for name, sink in report["sinks"].items()}
    assert delivered == {"raw": 3000, "schematized": valid.num_rows, "aggregated": windows.num_rows, "emergency": alerts.num_rows}
    assert all("databricks_inserted_at" in table.column_names for table in (raw, valid, windows, alerts))
    assert databricks.staged(schema) == []


def test_cosmos_takes_the_sensors_of_all_cities_to_one_container_and_archives_them(
    tmp_path: Path, cosmos: CosmosServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = [("London", "abc123"), ("London", "def456"), ("Paris", "abc123")]
    for number, (city, sensor) in enumerate(sensors):
        (tmp_path / "data" / city / sensor).mkdir(parents=True)
        file = f"data/{city}/{sensor}/sensor_data.db"
        lakeward(tmp_path, "sensor", "run", "--db", file, "--rows", str(200 + number), "--rate", "0", "--seed", str(number))
    container = cosmos.container("/city", "SensorData", "SensorReadings")
    settings = {"COSMOS_ENDPOINT": cosmos.url, "COSMOS_KEY": KEY, "DATA": str(tmp_path / "data"), "NO_PROXY": "127.0.0.1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    report = json.loads(run(tmp_path, "cosmos.yaml"))
    assert {name: sink["delivered"] for name, sink in report["sinks"].items()} == {"readings": 603, "archive": 603}
    archived = {
        (file.parent.name, file.stem): duckdb.sql(f"SELECT * FROM '{file}' ORDER BY id") for file in (tmp_path / "lake").rglob("*.parquet")
    }
    stored = documents(container)
    assert sorted(archived) == sorted(sensors)
    for (city, sensor), table in archived.items():
        items = sorted((item for item in stored if (item["city"], item["sensor"]) == (city, sensor)), key=lambda item: item["row_id"])
        kept = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
        assert [item["temperature"] for item in items] == [row["temperature"] for row in kept]
        assert [item["row_id"] for item in items] == [row["id"] for row in kept] == list(range(1, len(kept) + 1))
    assert json.loads(run(tmp_path, "cosmos.yaml"))["run"]["read"] == 0
    assert len(documents(container)) == 603


@pytest.mark.slow
def test_the_demo_accounts_for_every_row_and_runs_again(tmp_path: Path) -> None:
    for seconds in ("20", "5"):
        command, known = [sys.executable, str(EXAMPLES / "demo.py")], os.environ | {"DEMO_SECONDS": seconds}
        ran = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "Every row is accounted for." in ran.stdout
        assert re.search(r"still exact +0\b", ran.stdout), ran.stdout


def in_buckets(s3: S3Server, monkeypatch: pytest.MonkeyPatch, shape: str, stages: tuple[str, ...]) -> dict[str, str]:
    """New buckets of a shape for these stages, by stage, and the environment that names them."""
    prefix = s3.bucket()
    settings = {"AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key, "S3_ENDPOINT": s3.url}
    for name, value in (ALONE | settings | {"S3_PREFIX": prefix, "S3_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    buckets = {stage: shape.format(prefix, stage) for stage in stages}
    for bucket in buckets.values():
        s3.client().create_bucket(Bucket=bucket)
    return buckets


def run_selected(folder: Path, name: str, stages: tuple[str, ...]) -> None:
    """Each pipeline type from the first row on."""
    for stage in stages:
        state = ["--state-dir", str(folder / "state" / f"{name}-{stage}")]
        report = json.loads(lakeward(folder, "run", str(EXAMPLES / name), "--once", "--finish", "--select", stage, *state, "--json"))
        assert report["run"]["read"] == 3000


def test_databricks_stages_go_into_five_tables(folder: Path, databricks: DatabricksServer, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = databricks.schema()
    settings = {"HOST": databricks.url, "HTTP_PATH": databricks.http_path, "TOKEN": databricks.token, "DATABASE": schema}
    for name, value in settings.items():
        monkeypatch.setenv(f"DATABRICKS_{name}", value)
    monkeypatch.setenv("GPS_FUZZ_KEY", "0123456789abcdef0123456789abcdef")
    stages = ("raw", "schematized", "filtered", "aggregated", "emergency")
    run_selected(folder, "databricks_stages.yaml", stages)
    found = {stage: databricks.table(f"{schema}.readings_{number}_{stage}") for number, stage in enumerate(stages)}
    raw, filtered = found["raw"].to_pandas().set_index("id"), found["filtered"].to_pandas().set_index("reading_id")
    usable = raw[raw["temperature"].between(-50, 150, inclusive="neither") & raw["humidity"].notna()]
    assert len(raw) == found["schematized"].num_rows == 3000
    assert list(filtered.index) == list(usable.index)
    assert (filtered["latitude"] != usable["latitude"]).all()
    assert sum(found["aggregated"]["record_count"].to_pylist()) == 3000
    assert {"RAISE", "CLEAR"} <= set(found["emergency"]["event"].to_pylist())


def test_s3_by_type_goes_into_four_buckets(folder: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = ("raw", "schematized", "aggregated", "emergency")
    buckets = in_buckets(s3, monkeypatch, "{}-databricks-{}-us-east-1", stages)
    run_selected(folder, "s3_by_type.yaml", stages)
    found = {stage: s3.table(bucket, f"{stage}/") for stage, bucket in buckets.items()}
    assert sorted(found["raw"]["id"].to_pylist()) == sorted(found["schematized"]["reading_id"].to_pylist()) == list(range(1, 3001))
    assert sum(found["aggregated"]["record_count"].to_pylist()) == 3000
    assert {"RAISE", "CLEAR"} <= set(found["emergency"]["event"].to_pylist())


def test_environmental_s3_fills_five_buckets(folder: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    buckets = in_buckets(s3, monkeypatch, "{}-{}-data-us-east-1", ("raw", "validated", "anomalies", "schematized", "aggregated"))
    run(folder, "environmental_s3.yaml")
    found = {stage: s3.table(bucket) for stage, bucket in buckets.items()}
    with closing(sqlite3.connect(folder / "sensor.db")) as database:
        flagged = {row[0] for row in database.execute("SELECT id FROM sensor_readings WHERE anomaly_flag = 1")}
    assert sorted(found["raw"]["id"].to_pylist()) == list(range(1, 3001))
    assert set(found["anomalies"]["id"].to_pylist()) == flagged
    assert sorted(found["validated"]["id"].to_pylist()) == sorted(found["schematized"]["reading_id"].to_pylist())
    assert found["validated"].num_rows == sum(found["aggregated"]["record_count"].to_pylist()) == 3000 - len(flagged)


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_delta_appends_every_row_and_can_be_asked(folder: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    if where == "s3":
        settings = {"AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key, "S3_ENDPOINT": s3.url}
        for name, value in (ALONE | settings | {"TABLE_PATH": f"s3://{s3.bucket()}/delta/readings", "AWS_REGION": "us-east-1"}).items():
            monkeypatch.setenv(name, value)
    else:
        monkeypatch.setenv("TABLE_PATH", str(folder / "lake" / "readings"))
    run(folder, "delta.yaml")
    asked = lakeward(folder, "query", str(EXAMPLES / "delta.yaml"), "SELECT count(*) AS n, sum(id) AS total FROM readings", "--json")
    assert json.loads(asked) == [{"n": 3000, "total": 3000 * 3001 // 2}]
    steps = json.loads(lakeward(folder, "doctor", str(EXAMPLES / "delta.yaml"), "--json"))
    assert steps["ok"] is True


@pytest.mark.parametrize("name", ["s3.yaml", "lake.yaml", "s3_by_type.yaml", "delta.yaml", "environmental_s3.yaml"])
def test_aws_itself_needs_no_address(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("S3_ENDPOINT", raising=False)
    for variable, value in {"BUCKET": "lake", "S3_PREFIX": "acme", "S3_REGION": "us-west-2", "AWS_REGION": "us-west-2"}.items():
        monkeypatch.setenv(variable, value)
    assert json.loads(lakeward(folder, "explain", str(EXAMPLES / name), "--json"))["source"]["use"] == "sqlite"
