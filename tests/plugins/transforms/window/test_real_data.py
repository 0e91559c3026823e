"""Real sensor data against Polars, DuckDB, SciPy and plain Python (AGG-1 to AGG-5)."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import scipy.stats
from window.oracle import Oracle
from window.rows import DATA, START, batch_of, feed, finals, readings, run, seconds, window

from lakeward import END_OF_INPUT
from lakeward_plugins.transforms.window import Shape, Window

ALL = ["mean", "min", "max", "count", "std", "sum", "median", "var", "range"]
NAMES = ("avg", "min", "max", "count", "std", "sum", "median", "var", "range")
REAL = [
    ("nab_ambient_temperature.db", "temperature_f", timedelta(hours=6)),
    ("kelmarsh_t2_2020.db", "power_output_kw", timedelta(hours=1)),
    ("nyc_asos_ewr_lga_2013.db", "wind_speed_mph", timedelta(hours=3)),
    ("ioos_water_level_2018.db", "water_level_m", timedelta(minutes=50)),
]
EWR = "nyc_asos_ewr_lga_2013.db"


def near(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return bool(one == other)


def told_of(table: pa.Table, made: Window) -> list[dict[str, Any]]:
    """What a table of windows has in the end, from rows in batches of a thousand."""
    parts = [made.apply(part) for part in table.to_batches(max_chunksize=1000)] + [made.finish(END_OF_INPUT)]
    assert not any(part["late"].num_rows for part in parts if "late" in part)
    return list(finals([row for part in parts for row in part["main"].to_pylist()]).values())


@pytest.mark.parametrize(("name", "field", "size"), REAL)
def test_agg_01_tumbling_windows_equal_those_of_polars(name: str, field: str, size: timedelta) -> None:
    table = readings(name)
    ours = {
        (row["sensor_id"], row["window_start"]): row for row in told_of(table, Window(aggregations={field: ALL}, window=Shape(size=size)))
    }
    frame, column = pl.from_arrow(table), pl.col(field)
    assert isinstance(frame, pl.DataFrame)
    moments = frame.with_columns(pl.col("timestamp").str.head(19).str.to_datetime(time_zone="UTC").dt.truncate(size))
    asked = [column.mean(), column.min(), column.max(), column.count(), column.std(), column.sum(), column.median(), column.var()]
    theirs = moments.group_by("sensor_id", "timestamp").agg(
        *(expression.alias(prefix) for prefix, expression in zip(NAMES, [*asked, column.max() - column.min()], strict=True)),
        pl.len().alias("rows"),
    )
    assert theirs.height == len(ours)
    for sensor, start, *values, rows in theirs.iter_rows():
        row = ours[sensor, start]
        assert row["record_count"] == rows
        wrong = [prefix for prefix, value in zip(NAMES, values, strict=True) if not near(row[f"{prefix}_{field}"], value)]
        assert wrong == [] or (wrong == ["sum"] and row[f"count_{field}"] == 0)  # the sum of nothing is 0 for Polars, unknown for us


@pytest.mark.parametrize(("name", "field", "size"), REAL)
def test_agg_01_hopping_windows_equal_a_join_of_duckdb(name: str, field: str, size: timedelta) -> None:
    table = readings(name).slice(0, 8000)
    every = size / 4
    shape = Shape(kind="hopping", size=size, every=every)
    ours = {(row["sensor_id"], row["window_start"]): row for row in told_of(table, Window(aggregations={field: ALL}, window=shape))}
    with duckdb.connect() as connection:
        connection.register("readings", table)
        theirs = connection.execute(
            f"""WITH r AS (SELECT sensor_id, epoch_us(timestamp[:19]::TIMESTAMP) AS t, "{field}" AS v FROM readings),
                w AS (SELECT sensor_id, v, (t // $every - k) * $every AS s FROM r, range(4) AS hops(k))
                SELECT sensor_id, s, avg(v), min(v), max(v), count(v), stddev_samp(v), sum(v), median(v), var_samp(v), max(v) - min(v),
                count(*)
                FROM w GROUP BY ALL""",
            {"every": every // timedelta(microseconds=1)},
        ).fetchall()
    assert len(theirs) == len(ours)
    for sensor, start, *values in theirs:
        row = ours[sensor, datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start)]
        columns = [*(f"{prefix}_{field}" for prefix in NAMES), "record_count"]
        assert [name for name, value in zip(columns, values, strict=True) if not near(row[name], value)] == []


def test_agg_02_the_worked_session() -> None:
    path = DATA / "semantic_examples.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    example = json.loads(path.read_text())
    shape = Shape(kind="session", gap=seconds(example["session_gap_s"]))
    told = run(window(window=shape, max_out_of_orderness_s=seconds(60)), [(moment, "a", 1.0) for moment in example["events"]])["main"]
    found = [[(row[name] - START).total_seconds() for name in ("window_start", "window_end")] + [row["record_count"]] for row in told]
    assert found == example["expected_sessions"]


@pytest.mark.parametrize(("name", "gap"), [("gpx_tracks.db", 30), ("ioos_water_level_2018.db", 3600), (EWR, 3600), (EWR, 3601)])
def test_agg_02_sessions_equal_a_sort_and_a_cut(name: str, gap: int) -> None:
    table = readings(name)
    field = table.schema.names[-1]
    made = Window(
        aggregations={field: ["count", "min", "last"]}, window=Shape(kind="session", gap=seconds(gap)), min_time="1900-01-01",
        max_out_of_orderness_s=timedelta(days=4000),
    )  # fmt: skip
    ours = {(row["sensor_id"], row["window_start"]): row for row in told_of(table, made)}
    of: dict[str, list[datetime]] = defaultdict(list)
    for sensor, text in zip(table["sensor_id"].to_pylist(), table["timestamp"].to_pylist(), strict=True):
        of[sensor].append(datetime.fromisoformat(text))
    expected = {}
    for sensor, moments in of.items():
        moments.sort()
        edges = [0, *(place for place in range(1, len(moments)) if moments[place] - moments[place - 1] >= seconds(gap)), len(moments)]
        for low, high in pairwise(edges):
            expected[sensor, moments[low]] = (moments[high - 1] + seconds(gap), high - low)
    assert {slot: (row["window_end"], row["record_count"]) for slot, row in ours.items()} == expected


def test_agg_03_local_days_of_a_year_have_23_24_or_25_hours() -> None:
    table, zone = readings(EWR), ZoneInfo("America/New_York")
    shape = Shape(kind="calendar", size=timedelta(days=1), tz="America/New_York")
    ours = {
        (row["sensor_id"], row["window_start"]): row for row in told_of(table, Window(aggregations={"temperature_f": ALL}, window=shape))
    }
    of: dict[Any, list[float | None]] = defaultdict(list)
    columns = zip(table["sensor_id"].to_pylist(), table["timestamp"].to_pylist(), table["temperature_f"].to_pylist(), strict=True)
    for sensor, text, value in columns:
        day = datetime.fromisoformat(text).astimezone(zone).date()
        of[sensor, datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)].append(value)
    assert ours.keys() == of.keys()
    lengths = set()
    for slot, row in ours.items():
        real = [value for value in of[slot] if value is not None]
        assert (row["record_count"], row["count_temperature_f"]) == (len(of[slot]), len(real))
        if real:
            assert near(row["avg_temperature_f"], math.fsum(real) / len(real))
            assert (row["min_temperature_f"], row["max_temperature_f"]) == (min(real), max(real))
        lengths.add((row["window_end"] - row["window_start"]) / timedelta(hours=1))
    assert lengths == {23, 24, 25}


def test_agg_04_wind_directions_of_local_days_equal_those_of_scipy() -> None:
    table, field = readings(EWR), "wind_direction_deg"
    shape = Shape(kind="calendar", size=timedelta(days=1), tz="America/New_York")
    functions = ["circ_mean", "circ_r", "circ_std", "yamartino", "mean"]
    made = Window(aggregations={field: functions}, window=shape, calm_field="wind_speed_mph")
    off = 0
    zone = ZoneInfo("America/New_York")
    of: dict[Any, list[float]] = defaultdict(list)
    columns = (table[name].to_pylist() for name in ("sensor_id", "timestamp", field, "wind_speed_mph"))
    for sensor, text, value, speed in zip(*columns, strict=True):
        if value is not None and not (value == 0 and speed == 0):
            of[sensor, datetime.fromisoformat(text).astimezone(zone).date()].append(math.radians(value))
    for row in told_of(table, made):
        angles = np.array(of[row["sensor_id"], row["window_start"].astimezone(zone).date()])
        if not len(angles):
            assert row[f"circ_r_{field}"] is None
            continue
        length = float(np.hypot(np.sin(angles).mean(), np.cos(angles).mean()))
        assert row[f"circ_r_{field}"] == pytest.approx(length, abs=1e-12)
        if length > 1e-6:
            apart = (row[f"circ_mean_{field}"] - math.degrees(scipy.stats.circmean(angles)) + 180) % 360 - 180
            assert abs(apart) < 1e-6
            assert row[f"circ_std_{field}"] == pytest.approx(math.degrees(scipy.stats.circstd(angles)), abs=1e-6)
            off += abs((row[f"avg_{field}"] - row[f"circ_mean_{field}"] + 180) % 360 - 180) > 30
    assert off > 100, "the plain mean of directions is far off on many days"


@pytest.mark.parametrize("lateness", [0, 1800, 7200])
@pytest.mark.parametrize(("name", "kind"), [("ioos_water_level_2018.db", "tumbling"), (EWR, "session")])
def test_agg_05_rows_that_arrive_late_are_judged_as_the_rule_says(name: str, kind: Any, lateness: int) -> None:
    table = readings(name).slice(0, 1500)
    luck = random.Random(5)
    columns = (table[column].to_pylist() for column in ("timestamp", "sensor_id", table.schema.names[4 if kind == "session" else -1]))
    rows = [((datetime.fromisoformat(text) - START).total_seconds(), sensor, value) for text, sensor, value in zip(*columns, strict=True)]
    # most rows arrive within some minutes, some after hours, as from a radio link that was down
    rows.sort(key=lambda row: row[0] + luck.choice([0, 60, 300, 900, 2500, 6000, 20000]) * luck.random())
    spans = (lambda moment: [(moment // 1800 * 1800, moment // 1800 * 1800 + 1800)]) if kind == "tumbling" else None
    oracle = Oracle(600, lateness, spans=spans, gap=3700.0)
    for number, (moment, sensor, value) in enumerate(rows):
        oracle.add(moment, sensor, value, number)
    oracle.finish()
    shape = Shape(kind=kind, size=seconds(1800), gap=seconds(3700))
    made = window(window=shape, max_out_of_orderness_s=seconds(600), allowed_lateness_s=seconds(lateness))
    out = feed(made, batch_of(rows), range(0, len(rows), 37))
    assert [row["_row"] for row in out["late"]] == [number for number, word in enumerate(oracle.status) if word == "late"]
    found = finals(out["main"]).values()
    assert len(found) == len(oracle.table)
    for row in found:
        told = oracle.table[row["sensor_id"], (row["window_start"] - START).total_seconds()]
        assert (row["record_count"], row["revision"]) == (len(told.rows), told.revision)
        assert ((row["window_end"] - START).total_seconds(), row["is_final"]) == (told.end, told.final)
    words = {0: {"on time", "late"}, 7200: {"on time", "update", "late"}}
    assert set(oracle.status) == words.get(lateness, set(oracle.status))
