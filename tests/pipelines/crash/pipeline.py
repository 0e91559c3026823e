"""What is run: a folder with a YAML file and a sensor's database."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

HOT = 50.0
"""Rows above go to the sink `hot`, all others to `cool`."""
WINDOW = 10
"""Seconds of a window; each sensor has its own."""
START = datetime(2026, 1, 1, tzinfo=UTC)
BAD = "n/a"
"""A temperature that is none: its row becomes a dead letter."""

TABLE = "CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, sensor_id TEXT, temperature REAL)"
YAML = """\
name: crash
source: {use: sqlite, path: sensor.db}
transforms:
  checked: {use: physics_validation, profile: none, rules: [{id: hot, kind: range, field: temperature, fail: [-1000, HOT]}]}
  windows:
    use: window
    from: source
    window: {size: WINDOWs}
    max_out_of_orderness_s: 5
    allowed_lateness_s: 0
    emit: on_final
    aggregations: {temperature: [sum, count]}
sinks:
SINKS
batch: {rows: ROWS, wait: WAIT}
"""
FAR = "from: source, timeout: 0.5s"
DATABRICKS = f"use: databricks, {FAR}, host: '${{SERVER}}', http_path: '${{HTTP_PATH}}', create: true"
COSMOS = f"use: cosmos, {FAR}, endpoint: '${{SERVER}}', key: '${{env:COSMOS_KEY}}', database: '${{PLACE}}', partition_key: /sensor_id"
SINKS = {
    "raw": "{use: parquet, from: source, path: lake/raw}",
    "sums": "{use: parquet, from: windows, path: lake/sums}",
    "cool": "{use: delta, from: checked.valid, path: lake/cool}",
    "hot": "{use: delta, from: checked.anomalies, path: lake/hot}",
    "table": "{use: delta, from: source, path: lake/table}",
    "archive": "{use: archive, from: source, path: lake/archive, file: '{sensor_id}.parquet', max_mb: 0.02}",
    "documents": "{use: documents, from: source, path: lake/documents.db}",
    "local": "{use: sqlite, from: source, path: lake/local.db, table: readings}",
    "local_latest": "{use: sqlite, from: source, path: lake/local.db, table: latest, upsert_by: [sensor_id], revision: id}",
    "duck": "{use: duckdb, from: source, path: lake/readings.duckdb, table: readings}",
    "duck_latest": "{use: duckdb, from: source, path: lake/latest.duckdb, table: latest, upsert_by: [sensor_id], revision: id}",
    "table_latest": "{use: delta, from: source, path: lake/latest, upsert_by: [sensor_id], revision: id}",
    "bucket": f"{{use: s3, {FAR}, bucket: '${{PLACE}}', prefix: raw, endpoint_url: '${{SERVER}}'}}",
    "far_table": f"{{use: delta, {FAR}, path: 's3://${{PLACE}}/table', endpoint_url: '${{SERVER}}', compact_every: 20}}",
    "copied": f"{{{DATABRICKS}, table: '${{PLACE}}.copied', volume: '${{PLACE}}.staged'}}",
    "inserted": f"{{{DATABRICKS}, table: '${{PLACE}}.inserted', mode: insert}}",
    "merged": f"{{{DATABRICKS}, table: '${{PLACE}}.merged', mode: merge, upsert_by: [sensor_id], revision: id}}",
    "items": f"{{{COSMOS}, container: items}}",
    "items_latest": f"{{{COSMOS}, container: latest, upsert_by: [sensor_id], revision: id}}",
}
Row = tuple[str, str, object]


def make(folder: Path, sinks: tuple[str, ...] = ("raw", "sums", "cool", "hot"), rows: int = 100, wait: str = "10ms") -> None:
    """Write the YAML; the sensor makes the database."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"  {name}: {SINKS[name]}" for name in sinks)
    text = YAML.replace("HOT", str(HOT)).replace("WINDOW", str(WINDOW)).replace("SINKS", lines)
    (folder / "pipeline.yaml").write_text(text.replace("ROWS", str(rows)).replace("WAIT", wait))
    with closing(connect(folder / "sensor.db", "wal")) as database:
        database.execute(TABLE)


def connect(file: Path, journal: str) -> sqlite3.Connection:
    """As a sensor opens its database; it waits for a lock, as a rollback journal needs."""
    database = sqlite3.connect(file, timeout=30, isolation_level=None)
    assert database.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
    database.execute("PRAGMA synchronous=NORMAL")
    return database


def readings(first: int, seed: int = 0) -> Iterator[Row]:
    """Rows without end, from the `first` on: half a second apart and out of order by less than windows wait.

    Temperatures are eighths, so that sums are exact in whatever order they are made.
    """
    luck = random.Random(f"{seed}-{first}")
    for number in range(first, 1 << 62):
        time = START + timedelta(seconds=number / 2 - luck.uniform(0, 4))
        yield time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), f"s{number % 3}", luck.randrange(-80, 640) / 8


def insert(database: sqlite3.Connection, rows: list[Row]) -> None:
    """One transaction."""
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO readings (timestamp, sensor_id, temperature) VALUES (?, ?, ?)", rows)
    database.execute("COMMIT")


def grow(folder: Path, count: int, bad: tuple[int, ...] = (), journal: str = "wal") -> None:
    """The sensor writes so many rows more, of which those at `bad` have no temperature."""
    with closing(connect(folder / "sensor.db", journal)) as database:
        (last,) = database.execute("SELECT coalesce(max(id), 0) FROM readings").fetchone()
        stream = readings(last)
        rows = [next(stream) for _ in range(count)]
        for index in bad:
            rows[index] = (*rows[index][:2], BAD)
        insert(database, rows)
