"""All four transforms over real sensor data; what arrives is read back with DuckDB and Polars and compared with the source."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest
from attrs import frozen

DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
HERE = "placed: {use: schematize, unknown: keep, columns: {latitude: {type: double, value: 46.05}, longitude: {type: double, value: 14.5}}}"


@frozen
class Station:
    """One database: which field is checked, between what, when it alarms, and whether its rows have a position."""

    field: str
    low: float
    high: float
    alarm: float
    position: bool = False
    min_time: str = "2000-01-01"


STATIONS = {
    "nab_ambient_temperature": Station("temperature_f", 60, 80, 82),
    "nyc_asos_ewr_lga_2013": Station("wind_speed_mph", 0, 100, 40, position=True),
    "kelmarsh_t2_2020": Station("power_output_kw", -15, 2000, 2040),
    "brightwind_mast_2016": Station("Spd80mN", 3, 15, 16),
    "gpx_tracks": Station("elevation_m", 0, 800, 790, position=True, min_time="1900-01-01"),
    "ioos_water_level_2018": Station("water_level_m", -1, 1.5, 1.2),
}
YAML = """
name: {name}
source: {{use: sqlite, path: {path}, table: sensor_readings}}
transforms:
  {placed}
  checked: {{use: physics_validation, rules: [{{id: limits, kind: range, field: {field}, fail: [{low}, {high}]}}]}}
  private: {{use: gps_fuzz, from: checked.valid, radius_meters: 50, key: "${{env:GPS_FUZZ_KEY}}"}}
  alerts: {{use: emergency, from: source, severity_thresholds: {{{field}: {alarm}}}, min_time: "{min_time}"}}
  windows:
    use: window
    from: private
    window: {{size: 1h}}
    emit: on_final
    min_time: "{min_time}"
    aggregations: {{{field}: [mean, min, max, count, std]}}
sinks:
  raw: {{use: delta, from: source, path: lake/raw}}
  valid: {{use: parquet, from: private, path: lake/valid}}
  anomalies: {{use: delta, from: checked.anomalies, path: lake/anomalies}}
  alerts_sink: {{use: parquet, from: alerts, path: lake/alerts}}
  windows_sink: {{use: parquet, from: windows, path: lake/windows}}
  late: {{use: parquet, from: windows.late, path: lake/late}}
batch: {{rows: 5000}}
"""


@pytest.fixture(params=sorted(STATIONS))
def station(request: pytest.FixtureRequest) -> str:
    if not (DATA / f"{request.param}.db").exists():
        pytest.skip(f"no real data in {DATA}; set LAKEWARD_TEST_DATA to a folder that has {request.param}.db")
    return str(request.param)


def run(folder: Path) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "lakeward", "run", "p.yaml", "--once", "--finish", "--json"],
        cwd=folder, env=os.environ | {"GPS_FUZZ_KEY": "0123456789abcdef" * 2},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def source_rows(name: str) -> dict[int, tuple[Any, ...]]:
    database = sqlite3.connect(f"file:{DATA / name}.db?immutable=1", uri=True)  # nobody writes there
    rows = database.execute("SELECT * FROM sensor_readings").fetchall()
    database.close()
    return {row[0]: row for row in rows}


def columns_of(name: str) -> list[str]:
    database = sqlite3.connect(f"file:{DATA / name}.db?immutable=1", uri=True)
    names = [row[1] for row in database.execute("PRAGMA table_info(sensor_readings)")]
    database.close()
    return names


def test_each_row_is_in_precisely_one_of_valid_anomalies_and_dead_letters(station: str, tmp_path: Path) -> None:
    of = STATIONS[station]
    placed = "" if of.position else HERE
    text = YAML.format(
        name=station,
        path=DATA / f"{station}.db",
        field=of.field,
        low=of.low,
        high=of.high,
        alarm=of.alarm,
        placed=placed,
        min_time=of.min_time,
    )
    (tmp_path / "p.yaml").write_text(text)
    report = run(tmp_path)
    rows, names = source_rows(station), columns_of(station)

    raw = polars.read_delta(str(tmp_path / "lake" / "raw")).select(names).rows()
    assert Counter(raw) == Counter(rows.values())

    exact = [name for name in names if name not in ("latitude", "longitude")]
    listed = ", ".join(f'"{name}"' for name in exact)
    valid = duckdb.sql(f"SELECT {listed} FROM '{tmp_path}/lake/valid/*.parquet'").fetchall()
    anomalies = polars.read_delta(str(tmp_path / "lake" / "anomalies")).select(exact).rows()
    kept = [names.index(name) for name in exact]
    checked = names.index(of.field)

    def is_anomaly(row: tuple[Any, ...]) -> bool:
        return row[checked] is not None and not of.low <= row[checked] <= of.high

    assert Counter(anomalies) == Counter(tuple(row[i] for i in kept) for row in rows.values() if is_anomaly(row))
    assert Counter(valid) == Counter(tuple(row[i] for i in kept) for row in rows.values() if not is_anomaly(row))
    assert anomalies
    assert report["rows"] == {"read": len(rows), "delivered": len(rows), "filtered": 0, "dead": 0}
    assert report["reconciled"] is True

    windows = duckdb.sql(f"SELECT sum(record_count), sum(count_{of.field}) FROM '{tmp_path}/lake/windows/*.parquet'").fetchall()[0]
    late = report["sinks"].get("late", {"rows": 0})["rows"]
    assert windows[0] + late == len(valid)


def test_no_exact_position_leaves_through_the_valid_rows(station: str, tmp_path: Path) -> None:
    of = STATIONS[station]
    if not of.position:
        pytest.skip(f"{station} has no positions")
    text = YAML.format(
        name=station, path=DATA / f"{station}.db", field=of.field, low=of.low, high=of.high, alarm=of.alarm, placed="", min_time=of.min_time
    )
    (tmp_path / "p.yaml").write_text(text)
    run(tmp_path)
    names = columns_of(station)
    places = {(row[names.index("latitude")], row[names.index("longitude")]) for row in source_rows(station).values()}
    out = duckdb.sql(f"SELECT DISTINCT latitude, longitude FROM '{tmp_path}/lake/valid/*.parquet'").fetchall()
    assert out
    assert not set(out) & places
    # a fixed station has one place for ever, however many rows it sends
    if station == "nyc_asos_ewr_lga_2013":
        assert len(out) == 2
