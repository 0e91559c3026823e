"""The real program and a warehouse that is mended while it runs; an independent client reads the tables."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from databricks_server import DatabricksServer
from faultproxy import FAULTS, FaultProxy

import commands

HERE = Path(__file__).parent
pytestmark = pytest.mark.one_python
BATCH = 25
YAML = """
name: crash
source: {use: sqlite, path: sensor.db}
sinks:
  raw: {AT, table: SCHEMA.readings_0_raw, volume: SCHEMA.staged, inserted_at: databricks_inserted_at}
  small: {AT, table: SCHEMA.small, mode: insert}
  latest: {AT, table: SCHEMA.latest, mode: merge, upsert_by: [sensor_id], revision: id}
batch: {rows: BATCH, wait: 20ms}
""".replace("AT,", "use: databricks, host: '${HOST}', http_path: '${HTTP_PATH}', create: true,")
Rows = Counter[tuple[object, ...]]
COLUMNS = "id, timestamp, sensor_id, temperature"


@pytest.fixture
def schema(databricks: DatabricksServer, tmp_path: Path) -> str:
    name = databricks.schema()
    (tmp_path / "pipeline.yaml").write_text(YAML.replace("SCHEMA", name).replace("BATCH", str(BATCH)))
    return name


def write_rows(folder: Path, count: int) -> None:
    with closing(sqlite3.connect(folder / "sensor.db")) as database, database:
        database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT, sensor_id TEXT, temperature REAL)")
        rows = [
            (n, f"2026-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z", f"s{n % 3}", n % 97 + n / 7) for n in range(1, count + 1)
        ]
        database.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)


def in_source(folder: Path) -> Rows:
    with closing(sqlite3.connect(folder / "sensor.db")) as database:
        return Counter(database.execute(f"SELECT {COLUMNS} FROM readings").fetchall())


def in_table(databricks: DatabricksServer, table: str) -> Rows:
    return Counter(tuple(row.values()) for row in databricks.run(f"SELECT {COLUMNS} FROM {table}").to_pylist())


def known(databricks: DatabricksServer) -> dict[str, str]:
    return {"HOST": databricks.url, "HTTP_PATH": databricks.http_path, "DATABRICKS_TOKEN": databricks.token, "NO_PROXY": "127.0.0.1"}


def report(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(commands.lakeward(folder, "status", "pipeline.yaml", "--json", **environment).stdout)
    return told


@pytest.mark.slow
def test_what_a_human_mends_is_found_without_a_restart(databricks: DatabricksServer, schema: str, tmp_path: Path) -> None:
    write_rows(tmp_path, 100)
    databricks.order(tokens=[])
    log = tmp_path / "log"

    def told(text: str) -> bool:
        return text in log.read_text()

    with commands.running(tmp_path, 0.1, **known(databricks)) as process:
        commands.wait_until(lambda: told("Invalid access token; check `token`"), process, tmp_path)
        databricks.mend()
        databricks.order(revoked=[["CREATE TABLE", schema]])
        commands.wait_until(lambda: told("INSUFFICIENT_PERMISSIONS"), process, tmp_path)
        databricks.mend()
        commands.wait_until(lambda: databricks.table(f"{schema}.readings_0_raw").num_rows == 100, process, tmp_path)
        commands.wait_until(lambda: databricks.table(f"{schema}.small").num_rows == 100, process, tmp_path)
        commands.wait_until(lambda: databricks.table(f"{schema}.latest").num_rows == 3, process, tmp_path)
        commands.stop(process)
    lines = [line for line in log.read_text().splitlines() if "INSUFFICIENT_PERMISSIONS" in line]
    assert all("run GRANT CREATE TABLE ON SCHEMA" in line for line in lines)
    assert databricks.token not in log.read_text()


@pytest.mark.slow
def test_once_says_in_one_line_what_to_mend_and_keeps_the_rows(databricks: DatabricksServer, schema: str, tmp_path: Path) -> None:
    write_rows(tmp_path, 100)
    yaml = (tmp_path / "pipeline.yaml").read_text()
    (tmp_path / "pipeline.yaml").write_text(yaml.replace("create: true,", ""))
    ran = commands.lakeward(tmp_path, "run", "pipeline.yaml", "--once", "--json", code=1, **known(databricks))
    assert json.loads(ran.stdout)["sinks"]["raw"]["waiting"] == 100
    assert "is not there; make it (`lakeward ddl` prints the statement), or set `create: true`" in ran.stderr.splitlines()[-1]
    checked = commands.lakeward(tmp_path, "check", "pipeline.yaml", code=2, **known(databricks))
    assert checked.stderr.count("table:") == 3
    made = commands.lakeward(tmp_path, "ddl", "pipeline.yaml", **known(databricks)).stdout
    for statement in filter(str.strip, made.split(";")):
        databricks.run(statement)
    ran = commands.lakeward(tmp_path, "run", "pipeline.yaml", "--once", "--json", **known(databricks))
    assert json.loads(ran.stdout)["sinks"]["raw"]["waiting"] == 0
    assert in_table(databricks, f"{schema}.readings_0_raw") == in_table(databricks, f"{schema}.small") == in_source(tmp_path)


@pytest.mark.slow
def test_small_statements_of_a_large_batch_find_the_row_that_cannot_be_taken(
    databricks: DatabricksServer, schema: str, tmp_path: Path
) -> None:
    """A batch is halved until each part fits into a statement, and a part until the row is alone that breaks a rule of the table."""
    write_rows(tmp_path, 400)
    yaml = YAML.replace("SCHEMA", schema).replace("BATCH", "1000")
    lines = [line for line in yaml.splitlines() if not line.startswith(("  raw:", "  latest:"))]
    (tmp_path / "pipeline.yaml").write_text("\n".join(lines))
    columns = "id BIGINT, timestamp STRING, sensor_id STRING, temperature DOUBLE CHECK (temperature <> 7 + 7/7.0), lakeward_token STRING"
    databricks.run(f"CREATE TABLE {schema}.small ({columns})")
    environment = known(databricks)
    commands.lakeward(tmp_path, "run", "pipeline.yaml", "--once", "--json", **environment)
    rows = in_source(tmp_path)
    refused = Counter({row: 1 for row in rows if row[3] == 8.0})
    assert refused.total() == 1
    assert in_table(databricks, f"{schema}.small") == rows - refused
    sink = report(tmp_path, environment)["sinks"]["small"]
    assert (sink["delivered"], sink["refused"], sink["waiting"]) == (399, 1, 0)
    letters = json.loads(commands.lakeward(tmp_path, "dead-letters", "list", "pipeline.yaml", "--json", **environment).stdout)
    assert "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES" in json.dumps(letters)


@pytest.mark.slow
def test_no_token_and_no_signature_is_found_in_anything_that_stays(databricks: DatabricksServer, schema: str, tmp_path: Path) -> None:
    """Through a refusal, faults of every kind and a success, with logs of all that is logged."""
    write_rows(tmp_path, 100)
    wrong, right = "dapi-canary+wrong/of=the-lake", "dapi-canary+right/of=the-lake"
    databricks.order(tokens=[right, databricks.token])
    run = ("run", "pipeline.yaml", "--once", "--log-level", "debug", "--log-format", "json")
    printed = ""
    with FaultProxy(databricks.url, hang=0.2, retry_after=0) as proxy:
        environment = known(databricks) | {"HOST": proxy.url, "DATABRICKS_TOKEN": wrong}
        printed += commands.lakeward(tmp_path, *run, code=1, **environment).stderr
        proxy.script("ok", *[fault for fault in FAULTS for _ in range(3)])
        for _ in range(10):
            command = [sys.executable, str(HERE / "impatient_lakeward.py"), "0.05", *run]
            known_now = os.environ | environment | {"DATABRICKS_TOKEN": right}
            ran = subprocess.run(command, cwd=tmp_path, env=known_now, capture_output=True, text=True, timeout=120, check=False)
            printed += ran.stdout + ran.stderr
            if not ran.returncode:
                break
    assert ran.returncode == 0, printed[-2000:]
    stays = {"printed": printed.encode()} | {str(path): path.read_bytes() for path in (tmp_path / ".lakeward").rglob("*") if path.is_file()}
    hidden = [form.encode() for token in (wrong, right) for form in (token, quote(token, safe=""), b64encode(token.encode()).decode())]
    assert [name for name, text in stays.items() if any(form in text for form in (*hidden, b"X-Amz-Signature="))] == []
    assert "check `token`" in printed
    assert "429" in printed
