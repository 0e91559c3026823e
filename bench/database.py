"""A database as 100 sensors would have written it: 19 columns, some 200 bytes a row, the same for the same number of rows.

    python bench/database.py make DATABASE ROWS
    python bench/database.py check DATABASE FILE.parquet...    are these files a copy of it?

2 % of the rows are anomalies; 0.5 % have no humidity and 1 % no vibration.
"""

from __future__ import annotations

import math
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import adbc_driver_manager
import adbc_driver_sqlite
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TABLE = "sensor_readings"
SENSORS, CHUNK, SEED = 100, 100_000, 20_25
COLUMNS = """
  reading_id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_id TEXT NOT NULL, timestamp TEXT NOT NULL, temperature REAL, humidity REAL,
  pressure REAL, vibration REAL, voltage REAL, status_code INTEGER, anomaly_flag INTEGER, anomaly_type TEXT,
  firmware_version TEXT, model TEXT, manufacturer TEXT, location TEXT, latitude REAL, longitude REAL,
  original_timezone TEXT, synced INTEGER DEFAULT 0"""
START = np.datetime64("2025-01-01", "us")
ZONES = ("+00:00", "+01:00", "-05:00", "+05:30")
KINDS = ("spike", "drift", "stuck", "dropout", "overheat_warning")
MODELS = ("TempPro-3000", "VibraSense X2", "EnviroMax", "HydroGuard 7")
MAKERS = ("SensorTech Industries", "EdgeWorks GmbH", "Lakeside Instruments")


def make(path: Path, rows: int) -> None:
    """Write the table, unless it is there."""
    if path.exists():
        return
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    random = np.random.default_rng(SEED)
    fixed = _sensors(random)
    with adbc_driver_sqlite.connect(str(part)) as database, adbc_driver_manager.AdbcConnection(database) as connection:
        for sql in ("PRAGMA synchronous = OFF", f"CREATE TABLE {TABLE} ({COLUMNS})"):
            _execute(connection, sql)
        for first in range(0, rows, CHUNK):
            _append(connection, _readings(random, fixed, first, min(CHUNK, rows - first)))
        _execute(connection, "PRAGMA journal_mode = WAL")  # as a sensor keeps it
    part.rename(path)


def _execute(connection: adbc_driver_manager.AdbcConnection, sql: str) -> None:
    with adbc_driver_manager.AdbcStatement(connection) as statement:
        statement.set_sql_query(sql)
        statement.execute_update()


def _append(connection: adbc_driver_manager.AdbcConnection, rows: pa.RecordBatch) -> None:
    with adbc_driver_manager.AdbcStatement(connection) as statement:
        options = {"adbc.ingest.target_table": TABLE, "adbc.ingest.mode": "adbc.ingest.mode.append"}
        statement.set_options(**options)
        statement.bind_stream(pa.RecordBatchReader.from_batches(rows.schema, [rows]))
        statement.execute_update()


def _sensors(random: np.random.Generator) -> pa.RecordBatch:
    """What never changes about a sensor, a row for each."""
    number = range(SENSORS)
    return pa.RecordBatch.from_pydict(
        {
            "sensor_id": [f"SENSOR_{i:05}" for i in number],
            "firmware_version": [f"v{1 + i % 3}.{i % 7}.{i % 5}" for i in number],
            "model": [MODELS[i % 4] for i in number],
            "manufacturer": [MAKERS[i % 3] for i in number],
            "location": [f"Plant {i % 9} / Hall {'ABCDEF'[i % 6]} / Line {i % 14}" for i in number],
            "latitude": random.uniform(-60, 60, SENSORS).round(6),
            "longitude": random.uniform(-180, 180, SENSORS).round(6),
            "original_timezone": [ZONES[i % 4] for i in number],
        }
    )


def _readings(random: np.random.Generator, sensors: pa.RecordBatch, first: int, rows: int) -> pa.RecordBatch:
    number = np.arange(first, first + rows)
    micros = number * 100_000 + random.integers(0, 100_000, rows)  # ten readings a second, in order
    anomaly = random.random(rows) < 0.02
    columns = {
        "reading_id": pa.array(number + 1),
        "timestamp": pc.strftime(pa.array(START + micros, pa.timestamp("us")), "%Y-%m-%dT%H:%M:%S+00:00"),
        "temperature": pa.array(random.normal(45, 12, rows).round(2)),
        "humidity": _with_gaps(random, random.uniform(5, 95, rows).round(2), 0.005),
        "pressure": pa.array(random.normal(1013, 9, rows).round(2)),
        "vibration": _with_gaps(random, np.abs(random.normal(2, 1.1, rows)).round(4), 0.01),
        "voltage": pa.array(random.normal(12, 0.3, rows).round(3)),
        "status_code": pa.array(random.choice([0, 0, 0, 0, 0, 0, 1, 2, 100, 503], rows)),
        "anomaly_flag": pa.array(anomaly.astype(np.int64)),
        "anomaly_type": pa.array(KINDS).take(pa.array(random.integers(0, len(KINDS), rows), pa.int64(), mask=~anomaly)),
        "synced": pa.array(np.zeros(rows, np.int64)),
    }
    same = sensors.take(pa.array(number % SENSORS, pa.int64()))
    return pa.RecordBatch.from_pydict(columns | dict(zip(same.schema.names, same.columns, strict=True)))


def _with_gaps(random: np.random.Generator, values: npt.NDArray[np.float64], share: float) -> pa.Array[Any]:
    return pa.array(values, mask=random.random(len(values)) < share)


# -- checking ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What a copy of the table must agree on with the table."""

    rows: int
    ids: int
    temperature: float
    humidity_known: int
    anomalies: int
    letters: int
    """In all locations."""
    newest: str


def facts(path: Path) -> Facts:
    """Of the table, by SQLite itself."""
    query = f"""SELECT count(*), sum(reading_id), sum(temperature), count(humidity), count(anomaly_type), sum(length(location)),
                max(timestamp) FROM {TABLE}"""
    with closing(sqlite3.connect(path)) as connection:
        return Facts(*connection.execute(query).fetchone())


def facts_of_copy(files: Sequence[Path]) -> Facts:
    """Of Parquet files."""
    found = []
    names = ["reading_id", "temperature", "humidity", "anomaly_type", "location", "timestamp"]
    for file in files:
        with pq.ParquetFile(file) as opened:
            columns = dict(zip(names, opened.read(names).columns, strict=True))
        sums = [pc.sum(columns[name]).as_py() for name in ("reading_id", "temperature")]
        known = [pc.count(columns[name]).as_py() for name in ("humidity", "anomaly_type")]
        letters = pc.sum(pc.utf8_length(columns["location"])).as_py()
        found.append((opened.metadata.num_rows, *sums, *known, letters, pc.max(columns["timestamp"]).as_py()))
    rows, ids, temperature, humidity_known, anomalies, letters, newest = zip(*found, strict=True)
    return Facts(sum(rows), sum(ids), sum(temperature), sum(humidity_known), sum(anomalies), sum(letters), max(newest))


def check(path: Path, files: Sequence[Path]) -> None:
    """End the program when they differ by more than the last digits of a sum of floats."""
    table, copy = facts(path), facts_of_copy(files)
    if not math.isclose(copy.temperature, table.temperature, rel_tol=1e-9) or replace(copy, temperature=table.temperature) != table:
        sys.exit(f"these rows were written: {copy}\nnot these: {table}")


if __name__ == "__main__":
    action, database, *rest = sys.argv[1:]
    if action == "make":
        make(Path(database), int(rest[0]))
    else:
        check(Path(database), [Path(file) for file in rest])
