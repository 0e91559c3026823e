"""Real faults in real data: what is known to be wrong is found, and profiles suit the places that they are for."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lakeward import END_OF_INPUT
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Rule


def rows_of(transform: PhysicsValidation, rows: pa.RecordBatch, port: str) -> list[dict[str, Any]]:
    return [row for output in (transform.apply(rows), transform.finish(END_OF_INPUT)) if port in output for row in output[port].to_pylist()]


def test_phy_13_the_impossible_gust_of_newark_fails_and_nothing_else(real: Any) -> None:
    rows = real("nyc_asos_ewr_lga_2013.db", "timestamp", "sensor_id", "wind_speed_mph")
    transform = PhysicsValidation(
        profile="outdoor_wmo", fields={"wind_speed": "wind_speed_mph"}, units={"wind_speed": "mph"},
        rules=[Rule("wind_speed-persistence", "range", "wind_speed", fail=[0, 75], unit="m/s")],  # the data are by the hour
    )  # fmt: skip
    anomalies = rows_of(transform, rows, "anomalies")
    assert [(row["timestamp"], row["sensor_id"], row["severity"]) for row in anomalies] == [("2013-02-12T08:00:00Z", "EWR", "fail")]
    assert anomalies[0]["wind_speed_mph"] > 1048
    assert "is above 75 m/s" in anomalies[0]["validation_error"]


def test_phy_13_stamps_of_1901_fail_by_their_time(real: Any) -> None:
    rows = real("gpx_tracks.db", "timestamp", "sensor_id", "elevation_m")
    transform = PhysicsValidation(rules=[Rule("height", "range", "elevation_m", fail=[-430, 8850])])
    anomalies = rows_of(transform, rows, "anomalies")
    assert len(anomalies) == 184
    assert {row["timestamp"][:4] for row in anomalies} == {"1901"}
    assert {(reason["rule_id"], reason["flag"], *reason["fields"]) for row in anomalies for reason in row["qc_reasons"]} == {
        ("time", 4, "timestamp")
    }
    assert {row["validation_error"] for row in anomalies} == {"timestamp is not in 2000-01-01 to 2100-01-01"}
    assert {row["qc_elevation_m"] for row in anomalies} == {1}  # the height itself is good


def test_times_that_cannot_be() -> None:
    times = ["2020-01-01T00:00:00Z", "yesterday", None, "1999-12-31T23:59:59Z", "2020-01-03T00:00:01Z", "2100-01-01T00:00:00Z"]
    rows = pa.RecordBatch.from_pydict({"_row": range(6), "timestamp": times, "x": [1.0] * 6})
    transform = PhysicsValidation(rules=[Rule("r", "range", "x", fail=[0, 2])])
    transform.clock(datetime(2020, 1, 2, tzinfo=UTC))
    assert [(row["_row"], row["validation_error"]) for row in rows_of(transform, rows, "anomalies")] == [
        (1, "timestamp is no time"),
        (3, "timestamp is not in 2000-01-01 to 2100-01-01"),
        (4, "timestamp is more than 86,400 s after it was read"),
        (5, "timestamp is not in 2000-01-01 to 2100-01-01"),
    ]
    transform.clock(datetime(2021, 1, 1, tzinfo=UTC))
    assert [row["_row"] for row in rows_of(transform, rows, "anomalies")] == [1, 3, 5]


def test_without_rules_that_need_it_a_column_of_other_things_is_no_time() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": range(2), "timestamp": [True, False], "x": [1.0, 3.0]})
    assert [row["_row"] for row in rows_of(PhysicsValidation(rules=[Rule("r", "range", "x", fail=[0, 2])]), rows, "anomalies")] == [1]


MAST = {"temperature": "temperature_c", "humidity": "humidity_pct", "pressure": "pressure_hpa", "voltage": "voltage_v"}


def test_the_seed_profile_finds_every_row_of_a_wet_mast_on_a_mountain_anomalous(real: Any) -> None:
    rows = real("brightwind_mast_2016.db", *MAST.values())
    anomalies = PhysicsValidation(profile="seed", fields=MAST).apply(rows)["anomalies"]
    assert anomalies.num_rows == rows.num_rows
    flags = {name: set(anomalies[f"qc_{name}"].to_pylist()) for name in MAST.values()}
    assert flags == {"temperature_c": {1}, "humidity_pct": {4}, "pressure_hpa": {4}, "voltage_v": {4}}


def test_the_outdoor_profile_takes_the_fog_on_that_mast_for_weather(real: Any) -> None:
    rows = real("brightwind_mast_2016.db", "timestamp", "sensor_id", *MAST.values(), "Spd80mN", "Dir78mS")
    fields = {name: column for name, column in MAST.items() if name != "voltage"} | {"wind_speed": "Spd80mN", "wind_direction": "Dir78mS"}
    transform = PhysicsValidation(profile="outdoor_wmo", fields=fields)
    assert rows_of(transform, rows, "anomalies") == []
    valid = rows_of(PhysicsValidation(profile="outdoor_wmo", fields=fields), rows, "valid")
    assert Counter(row["qc_humidity_pct"] for row in valid)[1] == rows.num_rows
    assert not {reason["rule_id"] for row in valid for reason in row["qc_reasons"]} & {
        "relative_humidity-range",
        "relative_humidity-persistence",
    }
    unguarded = Rule("relative_humidity-persistence", "flatline", "relative_humidity", tolerance=1, suspect=3600)  # type: ignore[arg-type]
    foggy = rows_of(PhysicsValidation(profile="outdoor_wmo", fields=fields, rules=[unguarded]), rows, "valid")
    assert Counter(row["qc_humidity_pct"] for row in foggy)[3] > rows.num_rows / 2
