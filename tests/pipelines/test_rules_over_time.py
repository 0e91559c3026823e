"""Rules over time in the real program: what is remembered, and rows that wait, live through runs that end and start again."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from lakeward import END_OF_INPUT
from lakeward.yamlfile.build import build
from lakeward_plugins.transforms.physics_validation import PhysicsValidation

RULES = [
    {"id": "rate", "kind": "rate", "field": "x", "suspect": 2, "unit": "degC/min"},
    {"id": "spike", "kind": "spike", "field": "x", "suspect": 2, "fail": 5},
    {"id": "flat", "kind": "flatline", "field": "x", "suspect": "3m", "max_gap": "10m"},
    {"id": "small", "kind": "attenuated", "field": "x", "period": "20m", "suspect": 0.5, "min_period": "10m"},
]
YAML = f"""
name: station
source: {{use: sqlite, path: station.db, table: readings}}
transforms:
  checked: {{use: physics_validation, validation: {{rules: {json.dumps(RULES)}}}}}
sinks:
  valid: {{use: parquet, from: checked.valid, path: lake/valid}}
  anomalies: {{use: parquet, from: checked.anomalies, path: lake/anomalies}}
batch: {{rows: 40}}
"""
Reading = tuple[int, str, str, float | None]


def readings(count: int) -> list[Reading]:
    random, start = np.random.default_rng(4), datetime(2024, 5, 1, tzinfo=UTC)
    rows: list[Reading] = []
    for number in range(count):
        x = float(random.choice([1.0, 1.0, 1.0, 2.0, 3.0, 9.0])) if random.random() > 0.05 else None
        late = timedelta(minutes=-5 if random.random() < 0.03 else 0)
        rows.append((number + 1, "abc"[int(random.integers(3))], (start + timedelta(seconds=20 * number) + late).isoformat(), x))
    return rows


def insert(folder: Path, rows: list[Reading]) -> None:
    with closing(sqlite3.connect(folder / "station.db")) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY, sensor_id TEXT, timestamp TEXT, x REAL)")
        database.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)


def run(folder: Path, *more: str) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "lakeward", "run", "p.yaml", "--once", "--json", *more],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_flags_do_not_know_where_one_run_ended_and_the_next_began(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(YAML)
    rows = readings(400)
    for start, end in ((0, 130), (130, 131), (131, 290), (290, 400)):
        insert(tmp_path, rows[start:end])
        report = run(tmp_path, *(["--finish"] if end == 400 else []))
        assert report["reconciled"] is True
    found = duckdb.sql(f"SELECT id, qc_x, validation_error FROM '{tmp_path}/lake/*/*.parquet' ORDER BY id").fetchall()
    whole = pa.RecordBatch.from_pydict(
        {"_row": [row[0] for row in rows], "id": [row[0] for row in rows], "sensor_id": [row[1] for row in rows],
         "timestamp": [row[2] for row in rows], "x": pa.array([row[3] for row in rows], pa.float64())}
    )  # fmt: skip
    transform = build(PhysicsValidation, {"rules": RULES}, tmp_path)
    outputs = [transform.apply(whole), transform.finish(END_OF_INPUT)]
    wanted = [
        (row["id"], row["qc_x"], row["validation_error"]) for output in outputs for part in output.values() for row in part.to_pylist()
    ]
    assert found == sorted(wanted)
    assert {flag for _, flag, _ in found} == {1, 2, 3, 4, 9}
