"""Configurations of the five uploaders, as their manuals show them: migrated, checked and run against what stands for the clouds."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import deltalake
import pyarrow.compute as pc
import pytest
import yaml
from cosmos_server import CosmosServer, documents
from cosmosdb.documents import KEY
from databricks_server import DatabricksServer
from s3_server import ALONE, S3Server

ROWS = 300
DATABRICKS = """
processing_mode: "schematized"

# SQLite Source
sqlite: "./sensor_data.db"
sqlite_table_name: "sensor_readings"
timestamp_col: "timestamp"

# Databricks Connection
databricks_host: "dbc-12345678-abcd.cloud.databricks.com"
databricks_http_path: "/sql/1.0/warehouses/your_warehouse_id"
databricks_token: "dapi-in-clear"
databricks_database: "sensor_data"
databricks_table: "readings"

# Processing Configuration
state_dir: "./state"
interval: 60  # Check every minute for demo
max_batch_size: 500
fuzz_factor: 0.1

gps_fuzzing:
  enabled: true
  radius_meters: 50
  base_lat: 37.7749
  base_lon: -122.4194

emergency_config:
  trigger_keywords: ["EMERGENCY", "CRITICAL", "ALERT"]
  severity_thresholds:
    temperature: 35
    pressure: 1030

aggregate_config:
  window_minutes: 5
  group_by: ["sensor_id"]
  aggregations:
    temperature: ["mean", "max", "min"]
    humidity: ["mean"]
"""
S3 = """
sqlite: "sensor_data.db"  # Path to sensor database
sqlite_table: "sensor_readings"  # Optional - auto-detected
timestamp_col: "timestamp"       # Optional - auto-detected
s3_configuration:
  enabled: true
  region: "us-east-1"
  prefix: "your-company"         # Used for bucket naming
  buckets:                       # Explicit bucket names
    raw: "BUCKET-raw"
    schematized: "BUCKET-schematized"
state_dir: "state/s3-uploader"   # Where to store upload state
interval: 30                     # Upload frequency in seconds
max_batch_size: 500             # Records per batch
enable_auto_detection: true      # Auto-detect tables/columns
s3_batch_size_mb: 50            # Target Parquet file size
s3_compression: "snappy"        # Parquet compression
"""
DELTA = """
# Path inside container to the SQLite DB
sqlite: "/data/sensor.db"

# Delta Lake table URI (e.g., S3 path or ADLS path)
table_path: "s3://my-bucket/delta/bacalhau_results/sensor_readings"

# Directory inside container for state file (last upload timestamp)
state_dir: "/state"

# Upload interval in seconds
interval: 300
"""
COSMOS = """
cosmos:
  endpoint: "https://your-account.documents.azure.com:443/"
  key: "a2V5LWluLWNsZWFy"
  database_name: "SensorData"
  container_name: "SensorReadings"
  partition_key: "/city"
performance:
  max_degree_of_parallelism: 100
  batch_size: 100
logging:
  level: INFO
archive:
  enabled: true
  path: archive
"""
ENVIRONMENTAL = """
AWS_REGION=us-east-1
AWS_ACCESS_KEY_ID=AKIA-in-clear
AWS_SECRET_ACCESS_KEY=secret-in-clear
S3_BUCKET_RAW=BUCKET-raw-data-us-east-1
S3_BUCKET_VALIDATED=BUCKET-validated-data-us-east-1
S3_BUCKET_ANOMALIES=BUCKET-anomalies-data-us-east-1
S3_BUCKET_SCHEMATIZED=BUCKET-schematized-data-us-east-1
S3_BUCKET_AGGREGATED=BUCKET-aggregated-data-us-east-1
DATABRICKS_HOST=https://your-workspace.cloud.databricks.com
DATABRICKS_TOKEN=dapi-in-clear
SQLITE_PATH=sensor_data.db
UPLOAD_INTERVAL=30
"""


def lakeward(folder: Path, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("DATABRICKS", "AWS", "COSMOS"))} | environment
    ran = subprocess.run([sys.executable, "-m", "lakeward", *arguments], cwd=folder, env=known, capture_output=True, text=True, timeout=120)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sensor(tmp_path, "sensor_data.db")
    return tmp_path


def write_sensor(folder: Path, name: str) -> None:
    simulated = ["--rows", str(ROWS), "--rate", "0", "--anomalies", "0.2", "--seed", "7", "--start", "2026-01-01T00:00:00Z"]
    lakeward(folder, "sensor", "run", "--db", name, *simulated)


def migrated(folder: Path, old: str, *arguments: str, name: str = "old.yaml", env: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """The new file, and why each key in the notes was not carried over."""
    (folder / name).write_text(old)
    if env:
        (folder / "more.env").write_text(env)
        arguments = ("--env-file", "more.env", *arguments)
    ran = lakeward(folder, "migrate", name, "-o", "new.yaml", "--json", *arguments)
    text = (folder / "new.yaml").read_text()
    assert "in-clear" not in text + ran.stdout + ran.stderr
    assert "a2V5LWluLWNsZWFy" not in text + ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert found["yaml"] == text
    return yaml.safe_load(text), {note["key"]: note["why"] for note in found["notes"]}


def run(folder: Path, **environment: str) -> dict[str, Any]:
    lakeward(folder, "check", "new.yaml", **environment)
    found: dict[str, Any] = json.loads(lakeward(folder, "run", "new.yaml", "--once", "--finish", "--json", **environment).stdout)
    return found


@pytest.mark.slow
def test_databricks(folder: Path, databricks: DatabricksServer) -> None:
    schema = databricks.schema()
    new, notes = migrated(folder, DATABRICKS)
    assert new["select"] == "schematized"
    assert list(new["pipelines"]) == ["raw", "schematized", "filtered", "aggregated", "emergency"]
    assert new["batch"]["rows"] == 500
    assert {"fuzz_factor", "state_dir", "gps_fuzzing", "databricks_token", "databricks_table"} <= set(notes)
    assert new["pipelines"]["filtered"]["transforms"]["private"]["gps_fuzzing"]["base_lat"] == 37.7749
    environment = {
        "DATABRICKS_HOST": databricks.url, "DATABRICKS_HTTP_PATH": databricks.http_path, "DATABRICKS_TOKEN": databricks.token,
        "DATABRICKS_DATABASE": schema, "GPS_FUZZ_KEY": "0123456789abcdef0123456789abcdef",
    }  # fmt: skip
    for graph in new["pipelines"]:
        databricks.run(lakeward(folder, "ddl", "new.yaml", "--select", graph, **environment).stdout.strip().rstrip(";"))
    assert run(folder, **environment)["rows"]["read"] == ROWS
    stored = databricks.table(f"{schema}.readings_1_schematized")
    assert sorted(stored["reading_id"].to_pylist()) == list(range(1, ROWS + 1))
    assert stored["databricks_inserted_at"].null_count == 0


@pytest.mark.slow
def test_databricks_by_variables_alone(folder: Path) -> None:
    old = """
# Databricks Connection (Required)
DATABRICKS_HOST=your-workspace.cloud.databricks.com
export DATABRICKS_HTTP_PATH=/sql/1.0/warehouses/your_warehouse_id
DATABRICKS_TOKEN=dapi-in-clear  # Store securely!
DATABRICKS_DATABASE=sensor_data
DATABRICKS_TABLE=raw_readings
SQLITE_PATH=sensor_data.db
STATE_DIR=/state                   # Default: /state
UPLOAD_INTERVAL=300               # Default: 300 seconds
ONCE=true                         # Run once and exit
ENABLE_SANITIZE=true
SANITIZE_CONFIG='{"remove_nulls": ["temperature", "humidity"]}'
ENABLE_FILTER=true
FILTER_CONFIG='{"temperature": {">": -50, "<": 150}}'
ENABLE_AGGREGATE=true
AGGREGATE_CONFIG='{"group_by": ["sensor_id", "hour"], "aggregations": {"temperature": "avg"}}'
"""
    new, notes = migrated(folder, old, name=".env")
    assert new["select"] == "emergency"
    assert notes["enable_..."].startswith("what was switched on is the pipeline emergency now")
    assert new["pipelines"]["filtered"]["transforms"]["clean"] == {
        "use": "filter", "remove_nulls": ["temperature", "humidity"], "where": {"temperature": {">": -50, "<": 150}},
    }  # fmt: skip
    assert new["pipelines"]["aggregated"]["transforms"]["windows"]["aggregate_config"]["group_by"] == ["sensor_id", "hour"]
    assert new["batch"] == {"wait": "${UPLOAD_INTERVAL:-300}"}
    for graph in new["pipelines"]:
        found = json.loads(lakeward(folder, "explain", "new.yaml", "--select", graph, "--json", DATABRICKS_TOKEN="dapi-x").stdout)
        assert found["graph"] == graph


@pytest.mark.slow
def test_s3_by_pipeline_type(folder: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    for name in ("raw", "schematized"):
        s3.client().create_bucket(Bucket=f"{bucket}-{name}")
    keys = f"AWS_ACCESS_KEY_ID={s3.access_key_id}\nAWS_SECRET_ACCESS_KEY={s3.secret_access_key}\nAWS_ENDPOINT_URL={s3.url}\n"
    new, notes = migrated(folder, S3.replace("BUCKET", bucket), env=keys)
    assert s3.secret_access_key not in (folder / "new.yaml").read_text()
    assert (new["select"], list(new["pipelines"])) == ("raw", ["raw", "schematized"])
    assert {"s3_batch_size_mb", "select", "aws_access_key_id"} <= set(notes)
    environment = ALONE | {"AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key}
    run(folder, **environment)
    assert sorted(s3.table(f"{bucket}-raw", "raw/")["id"].to_pylist()) == list(range(1, ROWS + 1))


def test_s3_names_buckets_as_the_uploader_did(folder: Path) -> None:
    new, _ = migrated(folder, "s3_bucket_prefix: acme\ns3_region: eu-west-1\npipeline_type: aggregated\n")
    buckets = {stage: graph["sinks"][stage]["bucket"] for stage, graph in new["pipelines"].items()}
    assert new["select"] == "aggregated"
    assert buckets["aggregated"] == "${S3_PREFIX:-acme}-databricks-aggregated-${S3_REGION:-eu-west-1}"
    assert new["pipelines"]["aggregated"]["transforms"]["windows"]["emit"] == "on_final"  # objects are never replaced


def test_delta_in_a_folder(folder: Path) -> None:
    new, _ = migrated(folder, DELTA.replace("s3://my-bucket", "lake"), env="SQLITE_PATH=sensor_data.db")
    assert list(new["sinks"]) == ["readings"]
    assert new["batch"] == {"wait": "${UPLOAD_INTERVAL:-300}"}
    run(folder)
    table = deltalake.DeltaTable(str(folder / "lake/delta/bacalhau_results/sensor_readings")).to_pyarrow_table()
    assert sorted(table["id"].to_pylist()) == list(range(1, ROWS + 1))


@pytest.mark.slow
def test_cosmos(folder: Path, cosmos: CosmosServer) -> None:
    for city, sensor in (("London", "abc123"), ("Paris", "def456")):
        (folder / "data" / city / sensor).mkdir(parents=True)
        write_sensor(folder, f"data/{city}/{sensor}/sensor_data.db")
    container = cosmos.container("/city")
    database = container.container_link.split("/")[1]
    new, notes = migrated(folder, COSMOS)
    assert new["sinks"]["readings"]["concurrency"] == 64
    assert {"key", "logging", "sqlite", "performance.max_degree_of_parallelism"} <= set(notes)
    settings = {"COSMOS_ENDPOINT": cosmos.url, "COSMOS_KEY": KEY, "DATABASE_NAME": database, "CONTAINER_NAME": "readings"}
    settings |= {"COSMOS_DATABASE": database, "COSMOS_CONTAINER": "readings", "NO_PROXY": "127.0.0.1"}
    run(folder, **settings)
    assert len(documents(container)) == 2 * ROWS
    assert {path.relative_to(folder / "archive").as_posix() for path in (folder / "archive").rglob("*.parquet")} == {
        "London/abc123.parquet", "Paris/def456.parquet",
    }  # fmt: skip


@pytest.mark.slow
def test_environmental_fills_five_buckets(folder: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    for stage in ("raw", "validated", "anomalies", "schematized", "aggregated"):
        s3.client().create_bucket(Bucket=f"{bucket}-{stage}-data-us-east-1")
    new, notes = migrated(folder, ENVIRONMENTAL.replace("BUCKET-", f"{bucket}-"), env=f"AWS_ENDPOINT_URL={s3.url}", name=".env")
    assert list(new["sinks"]) == ["raw", "validated", "anomalies", "schematized", "aggregated"]
    assert {"databricks_host", "aws_access_key_id"} <= set(notes)
    environment = ALONE | {"AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key}
    run(folder, **environment)
    stored = {stage: s3.table(f"{bucket}-{stage}-data-us-east-1", f"{stage}/") for stage in new["sinks"]}
    with closing(sqlite3.connect(folder / "sensor_data.db")) as database:
        flagged = {one for (one,) in database.execute("SELECT id FROM sensor_readings WHERE anomaly_flag = 1")}
    assert stored["raw"].num_rows == ROWS
    assert set(stored["anomalies"]["id"].to_pylist()) == flagged
    assert stored["validated"].num_rows == stored["schematized"].num_rows == ROWS - len(flagged)
    assert pc.sum(stored["aggregated"]["record_count"]).as_py() == ROWS - len(flagged)
