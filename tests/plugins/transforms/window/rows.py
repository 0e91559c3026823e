"""Rows for the tests of windows, and what comes out of them in the end."""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakeward import END_OF_INPUT
from lakeward_plugins.transforms.window import Shape, Window

DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[4].parent / "shared" / "data"))
START = datetime(2024, 1, 1, tzinfo=UTC)
Row = tuple[Any, Any, Any]
"""Seconds after START (or a text), sensor, value."""
Out = dict[str, list[dict[str, Any]]]


def batch_of(rows: Sequence[Row], first: int = 0, **more: pa.Array[Any]) -> pa.RecordBatch:
    times = [
        moment if moment is None or isinstance(moment, str) else (START + timedelta(seconds=moment)).isoformat() for moment, _, _ in rows
    ]
    return pa.RecordBatch.from_pydict(
        {
            "_row": pa.array(range(first, first + len(rows)), pa.int64()),
            "timestamp": pa.array(times, pa.string()),
            "sensor_id": pa.array([sensor for _, sensor, _ in rows], pa.string()),
            "v": pa.array([value for _, _, value in rows], pa.float64()),
            **more,
        }
    )


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def window(**options: Any) -> Window:
    """Windows of ten seconds that never change once they came out, unless told otherwise."""
    base: dict[str, Any] = {
        "aggregations": {"v": ["mean", "min", "max", "count", "std", "sum"]},
        "window": Shape(size=seconds(10)),
        "max_out_of_orderness_s": seconds(5),
        "allowed_lateness_s": seconds(0),
    }
    return Window(**base | options)


def feed(made: Window, batch: pa.RecordBatch, cuts: Sequence[int] = (), again: Any = None, *, end: bool = True) -> Out:
    """Everything that comes out on each port when the rows are cut there; with `again`, restarted at each cut."""
    out: Out = defaultdict(list)
    for low, high in pairwise([0, *sorted(min(cut, batch.num_rows) for cut in cuts), batch.num_rows]):
        for port, part in made.apply(batch.slice(low, high - low)).items():
            out[port] += part.to_pylist()
        if again is not None:
            state, made = made.state(), again()
            made.restore(state)
    if end:
        for port, part in made.finish(END_OF_INPUT).items():
            out[port] += part.to_pylist()
    return out


def run(made: Window, rows: Sequence[Row], cuts: Sequence[int] = (), *, restart: bool = False, **options: Any) -> Out:
    return feed(made, batch_of(rows), cuts, (lambda: window(**options)) if restart else None)


def finals(rows: list[dict[str, Any]], key: str = "window_id") -> dict[Any, dict[str, Any]]:
    """What a table has when the greatest revision of each window stays."""
    kept: dict[Any, dict[str, Any]] = {}
    for row in rows:
        assert row[key] not in kept or kept[row[key]]["revision"] < row["revision"], "a revision did not grow"
        kept[row[key]] = row
    return kept


def by_slot(rows: list[dict[str, Any]]) -> dict[tuple[Any, datetime], dict[str, Any]]:
    found = {(row["sensor_id"], row["window_start"]): row for row in rows}
    assert len(found) == len(rows), "a window came out twice"
    return found


def readings(name: str) -> pa.Table:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no test data {path}")
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        cursor = connection.execute("SELECT * FROM sensor_readings ORDER BY id")
        names = [column[0] for column in cursor.description]
        columns = dict(zip(names, map(list, zip(*cursor, strict=True)), strict=True))
        return pa.table({"_row": columns["id"], **columns})
    finally:
        connection.close()
