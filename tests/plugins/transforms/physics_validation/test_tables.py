"""Rules with limits from CSV files, and the whole language of rules in one YAML file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakeward import END_OF_INPUT
from lakeward.yamlfile.build import build, unwrapped
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Rule


def checked(transform: PhysicsValidation, rows: pa.RecordBatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [row for part in transform.apply(rows).values() for row in part.to_pylist()]
    return sorted(found, key=lambda row: int(row["_row"]))


def rows_at(times: list[datetime | None], x: list[float | None], **more: Any) -> pa.RecordBatch:
    stamps = pa.array(times, pa.timestamp("us", "UTC"))
    return pa.RecordBatch.from_pydict({"_row": range(len(times)), "timestamp": stamps, "x": pa.array(x, pa.float64()), **more})


def test_climatology_by_month(tmp_path: Path) -> None:
    lines = [f"{month}, {month - 10}, {month + 10}, {month - 5}, {month + 5}" for month in range(1, 13) if month != 6]
    table = tmp_path / "clim.csv"
    table.write_text("\n".join(["month, fail_low, fail_high, suspect_low, suspect_high", *lines]))
    random = np.random.default_rng(1)
    times = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=float(hours)) for hours in random.uniform(0, 366 * 24, 300)]
    values = [round(float(value)) for value in random.normal(6, 6, 300)]  # many lie on a limit
    wanted = []
    for time, value in zip(times, values, strict=True):
        off = abs(value - time.month)
        wanted.append(2 if time.month == 6 else 4 if off > 10 else 3 if off > 5 else 1)
    found = checked(PhysicsValidation(rules=[Rule("c", "climatology", "x", table=table, by=["month"])]), rows_at(times, values))  # type: ignore[arg-type]
    assert [row["qc_x"] for row in found] == wanted
    assert set(wanted) == {1, 2, 3, 4}
    place = wanted.index(4)
    month, [reason] = times[place].month, found[place]["qc_reasons"]
    assert (reason["value"], reason["limit"]) == (values[place], month + 10 if values[place] > month else month - 10)


@pytest.mark.parametrize(
    ("part", "of"),
    [
        ("hour", lambda time: time.hour),
        ("day_of_year", lambda time: time.timetuple().tm_yday),
        ("week", lambda time: time.isocalendar().week),
        ("quarter", lambda time: (time.month + 2) // 3),
    ],
)
def test_climatology_by_other_parts_of_a_time_in_utc(tmp_path: Path, part: str, of: Any) -> None:
    table = tmp_path / "clim.csv"
    table.write_text("\n".join([f"{part},high", *(f"{number},{number}" for number in range(367))]))
    times = [datetime(2020, 1, 1, 0, 30, tzinfo=UTC) + timedelta(hours=7 * number) for number in range(1250)]
    values = [float(number % 60) for number in range(1250)]
    found = checked(PhysicsValidation(rules=[Rule("c", "climatology", "x", table=table, by=[part])]), rows_at(times, values))  # type: ignore[arg-type]
    assert [row["qc_x"] for row in found] == [3 if value > of(time) else 1 for time, value in zip(times, values, strict=True)]


def test_climatology_by_station_and_month_with_open_ends(tmp_path: Path) -> None:
    table = tmp_path / "clim.csv"
    table.write_text("station,month,fail_low,fail_high\nsea,1,,10\nhill,1,-20,\nsea,2,0,20\n")
    january, february = datetime(2020, 1, 31, 23, 59, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC)
    cases = [
        ("sea", january, -99.0, 1), ("sea", january, 10.5, 4), ("hill", january, -20.5, 4), ("hill", january, 99.0, 1),
        ("sea", february, -1.0, 4), ("hill", february, 0.0, 2), ("town", january, 0.0, 2), (None, january, 0.0, 2),
        ("sea", None, 0.0, 2), ("sea", january, None, 9),
    ]  # fmt: skip
    stations = pa.array([station for station, *_ in cases]).dictionary_encode()
    rows = rows_at([time for _, time, *_ in cases], [x for *_, x, _ in cases], station=stations)
    rule = Rule("c", "climatology", "x", table=table, by=["station", "month"])
    assert [row["qc_x"] for row in checked(PhysicsValidation(rules=[rule]), rows)] == [flag for *_, flag in cases]


def test_an_envelope_judges_between_the_ends_of_its_curve(tmp_path: Path) -> None:
    table = tmp_path / "curve.csv"
    table.write_text("p_kw, v_ms\n0, 3\n1000, 13\n")  # by name, whatever the order; columns of other names go by their place
    rule = Rule("e", "envelope", x="v_ms", y="p_kw", table=table, lower=0.5, upper=1.25, flag="fail")
    cases = [(8, 500, 1), (8, 250, 1), (8, 249, 4), (8, 625, 1), (8, 626, 4), (2.9, 99, 2), (13.1, 0, 2), (None, 9, 2), (8, None, 9)]
    rows = pa.RecordBatch.from_pydict(
        {"_row": range(len(cases)), "v_ms": pa.array([v for v, *_ in cases], pa.float64()), "p_kw": [p for _, p, _ in cases]}
    )
    found = checked(PhysicsValidation(rules=[rule]), rows)
    assert [row["qc_p_kw"] for row in found] == [flag for *_, flag in cases]
    assert [row["validation_error"] for row in found if row["qc_row"] == 4] == ["p_kw 249 is below 250", "p_kw 626 is above 625"]
    assert "qc_v_ms" not in found[0]  # only y is to blame


SPECIFIED: dict[str, Any] = {
    "profile": "seed",
    "units": {"pressure": "hPa", "temperature": "degC"},
    "missing_sentinels": {"pressure": [-9999], "altitude": [-777]},
    "rules": [
        {"id": "t-range", "kind": "range", "field": "temperature", "fail": [-20, 60], "suspect": [-10, 45], "unit": "degC"},
        {"id": "t-rate", "kind": "rate", "field": "temperature", "suspect": 0.02, "fail": 0.05, "unit": "degC/s", "max_gap": "10m"},
        {"id": "t-spike", "kind": "spike", "method": "differential", "field": "temperature", "suspect": 3, "fail": 8},
        {
            "id": "t-flat", "kind": "flatline", "field": "temperature", "tolerance": 0.05, "suspect": "30m", "fail": "60m",
            "when": "relative_humidity < 95",
        },
        {
            "id": "t-att", "kind": "attenuated", "field": "temperature", "period": "12h", "measure": "range", "suspect": 0.5, "fail": 0.2,
            "min_period": "6h",
        },
        {"id": "t-clim", "kind": "climatology", "field": "temperature", "table": "clim.csv", "by": ["month"]},
        {"id": "dew", "kind": "relation", "expr": "dew_point <= temperature + 0.1", "fields": ["dew_point", "temperature"], "flag": "fail"},
        {
            "id": "rh-td", "kind": "relation", "expr": "abs(relative_humidity - rh_from_dewpoint(temperature, dew_point)) <= 5",
            "flag": "suspect",
        },
        {"id": "p-alt", "kind": "relation", "expr": "abs(pressure - std_pressure(height_meters)) <= 60", "flag": "suspect"},
        {
            "id": "betz", "kind": "relation", "expr": "power_output <= 1.1 * betz_kw(wind_speed, rotor_diameter, air_density)",
            "when": "wind_speed >= 3", "flag": "suspect",
        },
        {"id": "rated", "kind": "relation", "expr": "power_output <= 1.05 * rated_power", "flag": "fail"},
        {
            "id": "tsr", "kind": "relation", "expr": "tip_speed_ratio(rotor_speed, rotor_diameter, wind_speed) <= 15",
            "when": "wind_speed >= 3 and rotor_speed > 0.5", "flag": "suspect",
        },
        {
            "id": "curve", "kind": "envelope", "x": "wind_speed", "y": "power_output", "table": "power_curve.csv", "lower": 0.5,
            "upper": 1.25, "flag": "suspect",
        },
        {"id": "sensor", "kind": "equals", "field": "anomaly_flag", "value": 1, "flag": "fail"},
    ],
    "route": {"fail": "anomalies", "suspect": "validated", "missing": "validated"},
}  # fmt: skip


def test_the_language_of_rules_as_it_is_specified(tmp_path: Path) -> None:
    (tmp_path / "clim.csv").write_text("month,suspect_low,suspect_high\n1,-15,15\n")
    (tmp_path / "power_curve.csv").write_text("wind_speed,power_output\n3,0\n12,2000\n25,2000\n")
    transform = build(PhysicsValidation, unwrapped(PhysicsValidation, {"validation": SPECIFIED}), tmp_path)
    good = {
        "temperature": 10.0, "relative_humidity": 71.4, "dew_point": 5.0, "pressure": 1000.0, "height_meters": 100.0, "wind_speed": 8.0,
        "power_output": 1000.0, "rotor_diameter": 92.0, "rotor_speed": 14.0, "air_density": 1.225, "rated_power": 2050.0,
        "anomaly_flag": 0.0, "humidity": 71.4, "vibration": 1.0, "voltage": 24.0, "altitude": 1.0,
    }  # fmt: skip
    broken: list[tuple[dict[str, Any], set[str]]] = [
        ({}, set()),
        ({"temperature": 4.0}, {"dew", "t-spike", "rh-td"}),
        ({}, set()),
        ({"pressure": 880.0}, {"p-alt", "pressure-range"}),
        ({"pressure": -9999.0}, set()),
        ({"power_output": 2200.0}, {"rated", "betz", "curve"}),
        ({"rotor_speed": 50.0}, {"tsr"}),
        ({"rotor_speed": 50.0, "wind_speed": 2.0, "power_output": 0.0}, set()),
        ({"anomaly_flag": 1.0}, {"sensor", "anomaly-flag"}),
        ({"temperature": 99.0}, {"t-range", "t-clim", "t-rate", "t-spike", "temperature-range", "rh-td"}),
        ({}, {"t-rate"}),
    ]
    start = datetime(2020, 1, 1, tzinfo=UTC)
    rows = []
    for place, (odd, _) in enumerate(broken):
        time = start + timedelta(minutes=8 * place)
        rows.append({"_row": place, "sensor_id": "a", "timestamp": time} | good | {"temperature": 10 + place % 2 / 10} | odd)
    found = {}
    for output in (transform.apply(pa.RecordBatch.from_pylist(rows)), transform.finish(END_OF_INPUT)):
        for port, part in output.items():
            found |= {row["_row"]: (port, row) for row in part.to_pylist()}
    for place, (_, wanted) in enumerate(broken):
        port, row = found[place]
        assert {reason["rule_id"] for reason in row["qc_reasons"]} == wanted, place
        assert (port == "anomalies") == (row["qc_row"] == 4), place
