"""Ids of windows in real pipelines: other pipelines give other ids, the same one always the same."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from lakeward import END_OF_INPUT
from lakeward.config import load
from lakeward.pipeline import Pipeline
from lakeward.planning import plan
from lakeward.plugins import load_plugins

YAML = """
name: {name}
source: {{use: sqlite, path: sensor.db, table: readings}}
transforms:
  windows: {{use: window, window_minutes: 5, aggregations: {{v: mean}}}}
sinks:
  out: {{use: parquet, path: lake}}
"""


def planned(folder: Path, name: str) -> Pipeline:
    """A pipeline over three rows in two windows."""
    if not (folder / "sensor.db").exists():
        with closing(sqlite3.connect(folder / "sensor.db")) as connection, connection:
            connection.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT, sensor_id TEXT, v REAL)")
            times = [datetime(2024, 1, 1, 0, minute, tzinfo=UTC).isoformat() for minute in (0, 4, 5)]
            connection.executemany("INSERT INTO readings (timestamp, sensor_id, v) VALUES (?, 's', 1.0)", [(text,) for text in times])
        connection.close()
    (folder / f"{name}.yaml").write_text(YAML.format(name=name))
    return plan(load(folder / f"{name}.yaml"), load_plugins())


def ids(pipeline: Pipeline) -> list[int]:
    for read in pipeline.source.read(None, 10):
        pipeline.push(read.rows)
    (outcome,) = pipeline.finish(END_OF_INPUT)
    return [int(value) for value in outcome.shares["out"].column("window_id").to_pylist()]


def test_a_window_has_another_id_in_another_pipeline_and_the_same_after_a_failed_batch(tmp_path: Path) -> None:
    kitchen, cellar = planned(tmp_path, "kitchen"), planned(tmp_path, "cellar")
    afresh = planned(tmp_path, "kitchen").fresh()  # as after a batch that could not be recorded
    found = ids(kitchen)
    assert len(set(found)) == 2
    assert not set(found) & set(ids(cellar))
    assert ids(afresh) == found
    for pipeline in (kitchen, cellar, afresh):
        pipeline.close()
