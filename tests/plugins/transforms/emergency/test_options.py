"""The YAML in all its forms, mistakes in it, and the rows that come out."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from alarm_oracle import Row, batch_of, emergency, run, seconds
from attrs import evolve

from lakeward import END_OF_INPUT, OptionError, Refused
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.transforms.emergency import Emergency

SEED = """
emergency_config:
  trigger_keywords: ["EMERGENCY", "CRITICAL", "ALERT"]
  severity_thresholds:
    temperature: 35
    pressure: 1030
"""
FULL = """
emergency_config:
  trigger_keywords: ["EMERGENCY", "CRITICAL", "ALERT"]
  keyword_fields: [message, status, alert_type, anomaly_type]
  keyword_match: word
  keyword_severity: {EMERGENCY: Extreme, CRITICAL: Severe, ALERT: Moderate}
  severity_thresholds:
    temperature: 35
    pressure: {op: ">", unit: hPa, Moderate: 1030, Severe: 1045, deadband: 2, on_delay_s: 60, off_delay_s: 120}
  default_severity: Severe
  rules:
    - {id: temp-rise, kind: rate, field: temperature, unit: degC, per_s: 0.05, min_dt_s: 5, max_gap_s: 600, severity: Severe}
    - {id: silent, kind: stale, after_s: 900, severity: Moderate}
    - {id: fire, kind: quorum, of: temp-rise, k: 2, group_by: [site_id], window_s: 120, severity: Extreme}
    - {id: flagged, kind: equals, field: anomaly_flag, value: 1, severity: Minor}
  latch: false
  realarm_s: null
  shelve_max_s: 86400
  chatter: {raises: 3, within_s: 60}
  flood: {start: 10, end: 5, window_s: 600, group_by: [site_id], never_suppress: [Extreme]}
  status: Actual
  certainty: {threshold: Observed, rate: Likely, stale: Possible, quorum: Likely}
  urgency: {Extreme: Immediate, Severe: Immediate, Moderate: Expected, Minor: Future}
"""


def table(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    names = ("timestamp", "sensor_id", "site_id", "temperature", "pressure", "anomaly_flag", "anomaly_type")
    columns = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    kinds = [pa.int64(), *[pa.string()] * 2, *[pa.float64()] * 2, pa.int64(), pa.string()]
    return pa.record_batch(
        {"_row": pa.array(range(len(rows)), pa.int64())} | {n: pa.array(columns[n], k) for n, k in zip(names, kinds, strict=True)}
    )


def test_the_older_form_runs_as_written() -> None:
    rows = table([(1_700_000_000, "a", "x", 36.0, 1000.0, 0, None), (1_700_000_060, "a", "x", 30.0, 1031.0, 1, "critical drift")])
    alerts = emergency(**yaml.safe_load(SEED)).apply(rows)["main"].to_pylist()
    assert [(one["event"], one["alert_type"], one["severity"], one["value"], one["limit"]) for one in alerts] == [
        ("RAISE", "temperature_high", "Severe", 36.0, 35.0),
        ("RAISE", "keyword", "Severe", None, None),
        ("CLEAR", "temperature_high", "Severe", 30.0, 35.0),
        ("RAISE", "pressure_high", "Severe", 1031.0, 1030.0),
    ]


def test_every_key_is_taken_and_means_what_it_says() -> None:
    made = emergency(**yaml.safe_load(FULL))
    start = 1_700_000_000
    rows = [
        (start, "a", "x", 20.0, 1031.0, 0, None),
        (start + 1, "b", "x", 20.0, 1000.0, 1, "ALERT"),
        (start + 60, "a", "x", 29.0, 1044.0, 0, None),  # 0.15 per second; and pressure for a minute
        (start + 61, "b", "x", 32.0, 1000.0, 0, None),
        (start + 120, "a", "x", 29.0, 1046.0, 0, None),
        (start + 1100, "c", "y", 1.0, 1000.0, 0, None),
    ]
    alerts = made.apply(table(rows))["main"].to_pylist()
    assert [(one["event"], one["alert_type"], one["sensor_id"], one["severity"], one["urgency"], one["certainty"]) for one in alerts] == [
        ("RAISE", "keyword", "b", "Moderate", "Expected", "Observed"),
        ("RAISE", "flagged", "b", "Minor", "Future", "Observed"),
        ("RAISE", "pressure_high", "a", "Moderate", "Expected", "Observed"),
        ("RAISE", "temp-rise", "a", "Severe", "Immediate", "Likely"),
        ("RAISE", "temp-rise", "b", "Severe", "Immediate", "Likely"),
        ("CLEAR", "flagged", "b", "Minor", "Past", "Observed"),
        ("RAISE", "fire", None, "Extreme", "Immediate", "Likely"),
        ("UPDATE", "pressure_high", "a", "Severe", "Immediate", "Observed"),
        ("CLEAR", "temp-rise", "a", "Severe", "Past", "Likely"),
        ("CLEAR", "fire", None, "Extreme", "Past", "Likely"),
        ("RAISE", "silent", "b", "Moderate", "Expected", "Possible"),
        ("RAISE", "silent", "a", "Moderate", "Expected", "Possible"),
    ]
    by_type = {(one["alert_type"], one["event"], one["sensor_id"]): one for one in alerts}
    pressure = by_type["pressure_high", "UPDATE", "a"]
    assert (pressure["limit"], pressure["unit"], pressure["peak"], pressure["count"]) == (1045.0, "hPa", 1046.0, 3)
    assert by_type["fire", "RAISE", None]["reasons"] == ["a", "b"]
    assert by_type["fire", "RAISE", None]["site_id"] == "x"
    rise = by_type["temp-rise", "RAISE", "a"]
    assert (rise["value"], rise["limit"], rise["unit"]) == (pytest.approx(0.15), 0.05, "degC/s")
    silent = by_type["silent", "RAISE", "b"]
    assert (silent["onset_ts"].timestamp(), silent["timestamp"].timestamp()) == (start + 61 + 900, start + 1100)


def test_an_empty_batch_has_the_schema_of_a_full_one() -> None:
    made = emergency(trigger_keywords=["ALERT"], severity_thresholds={"v": 35.0})
    empty, full = made.apply(batch_of([])), made.apply(batch_of([Row(1, "a", 36.0, "ALERT")]))
    assert full["main"].num_rows == 2
    assert empty["main"].schema == full["main"].schema
    assert empty["late"].schema == full["late"].schema
    assert full["main"].schema.names == [
        "alert_id", "alert_key", "event", "sensor_id", "event_ts", "timestamp", "onset_ts", "clear_onset_ts", "cleared_ts", "alert_type",
        "severity", "urgency", "certainty", "status", "message", "value", "limit", "unit", "peak", "count", "reasons", "suppressed",
        "chattering", "references",
    ]  # fmt: skip


def test_several_limits_of_one_field_and_of_others_do_not_know_each_other() -> None:
    batch = batch_of([Row(1, "a", 36.0), Row(2, "a", 20.0)]).append_column("w", pa.array([1, 9]))
    limits = {"v": [{"limit": 35}, {"op": "<", "limit": 25, "severity": "Moderate"}], "w": {"limit": 5, "op": "<", "severity": "Minor"}}
    alerts = emergency(severity_thresholds=limits, status="Exercise", urgency={"Minor": "Unknown"}).apply(batch)["main"].to_pylist()
    assert [(one["alert_type"], one["event"], one["severity"], one["urgency"], one["status"]) for one in alerts] == [
        ("v_high", "RAISE", "Severe", "Immediate", "Exercise"),
        ("w_low", "RAISE", "Minor", "Unknown", "Exercise"),
        ("v_high", "CLEAR", "Severe", "Past", "Exercise"),
        ("v_low", "RAISE", "Moderate", "Expected", "Exercise"),
        ("w_low", "CLEAR", "Minor", "Past", "Exercise"),
    ]
    assert [one["message"] for one in alerts] == [
        "v is 36, above 35",
        "w is 1, below 5",
        "v is back at 20, after a peak of 36",
        "v is 20, below 25",
        "w is back at 9, after a peak of 1",
    ]


def test_values_that_are_text_or_truth_can_be_looked_for() -> None:
    rows = [Row(1, "a", None, "ok", reset=False), Row(2, "a", None, "DOWN", reset=True), Row(3, "a"), Row(4, "a", None, "ok", reset=False)]
    rules = [
        {"id": "down", "kind": "equals", "field": "message", "value": "DOWN"},
        {"id": "off", "kind": "equals", "field": "reset", "value": True},
    ]
    alerts = run(emergency(rules=rules), rows)
    assert [(one["alert_type"], one["event"], seconds(one["onset_ts"]), seconds(one["cleared_ts"]), one["message"]) for one in alerts] == [
        ("down", "RAISE", 2, None, "message is DOWN"),
        ("off", "RAISE", 2, None, "reset is True"),
        ("down", "CLEAR", 2, 4, "message is DOWN no more"),
        ("off", "CLEAR", 2, 4, "reset is True no more"),
    ]


# -- the end of the input ----------------------------------------------------------------------------------------------


def test_the_end_of_the_input_is_no_silence_unless_asked_for() -> None:
    rows = [Row(0, "a", 1.0), Row(10, "b", 1.0)]
    rules = [{"id": "silent", "kind": "stale", "after_s": 60}, {"id": "all", "kind": "quorum", "of": "silent", "k": 2, "window_s": 60}]
    quiet = emergency(rules=rules)
    quiet.apply(batch_of(rows))
    assert quiet.finish(END_OF_INPUT) == {}
    asked = emergency(rules=rules, stale_at_eof=True)
    asked.apply(batch_of(rows))
    alerts = asked.finish(END_OF_INPUT)["main"].to_pylist()
    assert [(one["alert_type"], one["sensor_id"], seconds(one["onset_ts"])) for one in alerts] == [
        ("silent", "a", 60),
        ("silent", "b", 70),
        ("all", None, 70),
    ]
    assert asked.finish(END_OF_INPUT) == {}
    assert [one["event"] for one in run(asked, [Row(100, "a", 1.0)])] == ["CLEAR", "CLEAR"]
    quiet.apply(batch_of([Row(30, "b", 1.0)]))
    alerts = quiet.finish(datetime(2024, 1, 1, 0, 1, 15, tzinfo=UTC))["main"].to_pylist()
    assert [(one["sensor_id"], seconds(one["onset_ts"]), seconds(one["timestamp"])) for one in alerts] == [("a", 60, 75)]


# -- times -------------------------------------------------------------------------------------------------------------


def test_rows_without_a_usable_time_are_rejected_only_if_there_are_rules() -> None:
    rows = [
        Row("soon", "a", 99.0, "ALERT"), Row(None, "a", 99.0), Row("1901-12-13T20:45:52Z", "a", 99.0), Row("2100-01-01T00:00Z", "a", 99.0),
        Row(1, "a", 1.0),
    ]  # fmt: skip
    out = emergency(severity_thresholds={"v": 35.0}, trigger_keywords=["ALERT"]).apply(batch_of(rows))
    assert [(row["_row"], row["_reason"]) for row in out["rejected"].to_pylist()] == [
        (0, "time_parse"),
        (1, "time_parse"),
        (2, "time_range"),
        (3, "time_range"),
    ]
    assert [(one["alert_type"], one["timestamp"]) for one in out["main"].to_pylist()] == [("keyword", None)]
    assert "rejected" not in emergency(trigger_keywords=["ALERT"]).apply(batch_of(rows))


def test_rows_from_the_future_are_rejected_by_the_clock() -> None:
    made = emergency(severity_thresholds={"v": 35.0}, max_future_s=60)
    made.clock(datetime(2024, 1, 1, tzinfo=UTC))
    out = made.apply(batch_of([Row(60, "a", 36.0), Row(61, "a", 36.0)]))
    assert (out["main"].num_rows, out["rejected"].column("_row").to_pylist()) == (1, [1])


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_says_which_column_it_misses() -> None:
    group = {"id": "q", "kind": "quorum", "of": "v_high", "k": 2, "window_s": 1, "group_by": ["place"]}
    for made, path in [
        (emergency(severity_thresholds={"v": 1}, key=["site"]), r"key\[0\]"),
        (emergency(trigger_keywords=["x"], time_field="when"), "time_field"),
        (emergency(rules=[{"id": "r", "kind": "rate", "field": "w", "per_s": 1}]), r"rules\[0\]\.field"),
        (emergency(severity_thresholds={"v": 1}, rules=[group]), r"rules\[0\]\.group_by\[0\]"),
        (emergency(severity_thresholds={"v": 1}, flood={"group_by": ["place"]}), r"flood\.group_by\[0\]"),
        (emergency(severity_thresholds={"v": 1}, latch=True, reset_field="button"), "reset_field"),
    ]:
        with pytest.raises(OptionError, match=f"^{path}: no column"):
            made.apply(batch_of([]))


RATE = {"id": "r", "kind": "rate", "field": "v", "per_s": 1}
QUORUM = {"id": "q", "kind": "quorum", "of": "r", "k": 2, "window_s": 1}


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, ()),
        ({"trigger_keywords": [" "]}, ("trigger_keywords", 0)),
        ({"trigger_keywords": ["a"], "keyword_severity": {"b": "Minor"}}, ("keyword_severity",)),
        ({"severity_thresholds": {"v": {"limit": 1, "deadband": -1}}}, ("severity_thresholds", "v", "deadband")),
        ({"severity_thresholds": {"v": {"limit": 1, "op": ">="}}}, ("severity_thresholds", "v", "op")),
        ({"severity_thresholds": {"v": {"limit": 1, "Severe": 2}}}, ("severity_thresholds", "v")),
        ({"severity_thresholds": {"v": {"deadband": 1}}}, ("severity_thresholds", "v")),
        ({"severity_thresholds": {"v": {"Minor": 2, "Severe": 2}}}, ("severity_thresholds", "v", "Severe")),
        ({"severity_thresholds": {"v": {"Minor": 2, "Severe": 3, "op": "<"}}}, ("severity_thresholds", "v", "Severe")),
        ({"severity_thresholds": {"v": {"Minor": 2, "severity": "Severe"}}}, ("severity_thresholds", "v", "severity")),
        ({"severity_thresholds": {"v": [{"limit": 1}, {"limit": 2}]}}, ("severity_thresholds",)),
        ({"severity_thresholds": {"v": []}}, ("severity_thresholds", "v")),
        ({"severity_thresholds": {"v": math.nan}}, ("severity_thresholds", "v")),
        ({"severity_thresholds": {"v": {"limit": math.inf}}}, ("severity_thresholds", "v", "limit")),
        ({"severity_thresholds": {"v": {"Minor": 1, "Extreme": math.inf}}}, ("severity_thresholds", "v", "Extreme")),
        ({"severity_thresholds": {"v": 1}, "key": ["status"]}, ("key",)),
        ({"severity_thresholds": {"v": 1}, "naive_timezone": "Mars"}, ("naive_timezone",)),
        ({"severity_thresholds": {"v": 1}, "reset_field": "reset"}, ("reset_field",)),
        ({"severity_thresholds": {"v": 1}, "flood": {"start": 2, "end": 3}}, ("flood", "end")),
        ({"severity_thresholds": {"v": 1}, "certainty": {"thresholds": "Likely"}}, ("certainty", "thresholds")),
        ({"rules": [{"id": "r", "kind": "rate", "field": "v"}]}, ("rules", 0, "per_s")),
        ({"rules": [RATE | {"per_s": math.nan}]}, ("rules", 0, "per_s")),
        ({"rules": [{"id": "e", "kind": "equals", "field": "v", "value": math.nan}]}, ("rules", 0, "value")),
        ({"rules": [RATE | {"id": " "}]}, ("rules", 0, "id")),
        ({"rules": [RATE | {"after_s": 1}]}, ("rules", 0, "after_s")),
        ({"rules": [RATE | {"min_dt_s": 2, "max_gap_s": 1}]}, ("rules", 0, "max_gap_s")),
        ({"rules": [RATE, RATE]}, ("rules", 0, "id")),
        ({"rules": [RATE | {"id": "keyword"}]}, ("rules", 0, "id")),
        ({"rules": [RATE, QUORUM | {"of": "x"}]}, ("rules", 1, "of")),
        ({"rules": [RATE, QUORUM, QUORUM | {"id": "p", "of": "q"}]}, ("rules", 2, "of")),
        ({"rules": [{"id": "s", "kind": "stale", "after_s": "10d"}], "forget_after_s": "10d"}, ("rules", 0, "after_s")),
    ],
)
def test_says_what_is_wrong_with_its_options(options: dict[str, Any], path: tuple[Any, ...]) -> None:
    with pytest.raises(Mistakes) as caught:
        build(Emergency, options, Path())
    assert caught.value.mistakes[0].path == path


# -- other options than before -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [["good"], [b"9"]])
def test_flags_that_are_no_numbers_are_a_mistake_at_the_start_unless_nobody_asks_for_them(flags: list[Any]) -> None:
    batch = batch_of([Row(0, "a", 50)]).drop_columns("qc_v").append_column("qc_v", pa.array(flags))
    with pytest.raises(OptionError, match=r"^severity_thresholds\.v: column 'qc_v' is .*; expected numbers as its flags; rename it, or"):
        emergency(severity_thresholds={"v": 1}).apply(batch.slice(0, 0))
    assert emergency(severity_thresholds={"v": 1}, exclude_flags=[]).apply(batch)["main"].num_rows == 1


def test_flags_and_resets_may_be_fractions() -> None:
    batch = batch_of([Row(0, "a", 50), Row(1, "a", 50), Row(2, "a", 0), Row(3, "a", 0), Row(4, "a", 0)]).drop_columns(["qc_v", "reset"])
    batch = batch.append_column("qc_v", pa.array([9.0, math.nan, 1.5, None, None]))
    batch = batch.append_column("reset", pa.array([None, 0, 0, math.nan, 1], pa.float32()).cast(pa.float16()))
    alerts = emergency(severity_thresholds={"v": 1}, latch=True, reset_field="reset").apply(batch)["main"].to_pylist()
    assert [(one["event"], seconds(one["event_ts"])) for one in alerts] == [("RAISE", 1), ("CLEAR", 4)]


def test_a_change_beyond_all_numbers_is_beyond_the_limit_too() -> None:
    alerts = run(emergency(rules=[RATE]), [Row(0, "a", -1.5e308), Row(1, "a", 1.5e308), Row(1.000001, "a", -1e308), Row(9, "a", -1e308)])
    assert [(one["event"], one["value"], one["peak"]) for one in alerts] == [("RAISE", None, None), ("CLEAR", None, None)]


def test_an_alert_stays_raised_when_its_limit_changes_and_one_of_a_removed_rule_is_told(caplog: pytest.LogCaptureFixture) -> None:
    made = emergency(severity_thresholds={"v": 35})
    made.apply(batch_of([Row(1, "a", 36.0)]))
    moved = emergency(severity_thresholds={"w": 1, "v": 40})
    moved.restore(made.state())
    batch = batch_of([Row(2, "a", 36.0)], first=1).append_column("w", pa.array([0.0]))
    assert [one["event"] for one in moved.apply(batch)["main"].to_pylist()] == ["CLEAR"]
    pending = emergency(severity_thresholds={"v": {"limit": 35, "on_delay_s": 60}})
    pending.apply(batch_of([Row(1, "a", 36.0)]))
    sooner = emergency(severity_thresholds={"v": 35}, chatter={"raises": 4}, flood={"group_by": ["site_id"]})
    sooner.restore(pending.state())
    (alert,) = sooner.apply(batch_of([Row(2, "a", 37.0)], first=1))["main"].to_pylist()
    assert (seconds(alert["onset_ts"]), seconds(alert["timestamp"]), alert["value"]) == (1, 2, 37.0)
    emergency(severity_thresholds={"w": 1.0}).restore(made.state())
    assert "1 alerts of v_high are forgotten" in caplog.text
    with pytest.raises(Refused, match="the state holds alerts by sensor_id; put that back as key"):
        emergency(severity_thresholds={"v": 1.0}, key=["site_id"]).restore(made.state())


def test_a_latched_alert_waits_for_its_reset_and_without_one_for_ever() -> None:
    rows = [
        Row(1, "a", 36.0),
        Row(2, "a", 30.0, reset=True),
        Row(5, "a", 30.0),
        Row(6, "a", 36.0, reset=True),
        Row(7, "a", 30.0),
        Row(9, "a", 30.0),
    ]
    limit = {"severity_thresholds": {"v": {"limit": 35, "off_delay_s": 2}}, "latch": True}
    assert [one["event"] for one in run(emergency(**limit), [*rows, Row(10, "a", None, reset=True)])] == ["RAISE"]
    made = emergency(**limit, reset_field="reset")
    raised, cleared = run(made, [*rows, Row(10, "a", None, reset=True), Row(11, "a", 30.0, reset=True)])
    assert (cleared["event"], seconds(cleared["clear_onset_ts"]), seconds(cleared["cleared_ts"]), cleared["count"]) == ("CLEAR", 7, 10, 2)
    assert cleared["alert_id"] == raised["alert_id"]
    assert evolve(made).latch


# -- units -------------------------------------------------------------------------------------------------------------


def test_limits_in_other_units_are_those_of_the_column() -> None:
    limits = {"v": [{"unit": "degC", "Moderate": 35, "Severe": 40, "deadband": 5}, {"op": "<", "unit": "K", "limit": 273.15}]}
    rate = {"id": "rise", "kind": "rate", "field": "v", "unit": "degC", "per_s": 1}
    rows = [
        Row(0, "a", 95.0),
        Row(10, "a", 95.1),
        Row(20, "a", 104.5),
        Row(30, "a", 86.5),
        Row(40, "a", 85.9),
        Row(50, "a", 31.0),
        Row(51, "a", 33.0),
    ]
    alerts = run(emergency(severity_thresholds=limits, units={"v": "degF"}, rules=[rate]), rows)
    assert [(one["event"], one["alert_type"], one["limit"], one["unit"]) for one in alerts] == [
        ("RAISE", "v_high", 95.0, "degF"),
        ("UPDATE", "v_high", 104.0, "degF"),
        ("CLEAR", "v_high", 104.0, "degF"),
        ("RAISE", "v_low", 32.0, "degF"),
        ("CLEAR", "v_low", 32.0, "degF"),
        ("RAISE", "rise", 1.8, "degF/s"),
    ]
    with pytest.raises(Mistakes) as caught:
        emergency(severity_thresholds={"v": {"limit": 1, "unit": "hPa"}}, units={"v": "degF"})
    assert caught.value.mistakes[0].path == ("severity_thresholds", "v", "unit")
    assert all(unit in caught.value.mistakes[0].message for unit in ("hPa", "degF"))


def test_what_goes_on_is_said_again_after_the_time_and_not_before() -> None:
    rows = [Row(second / 2, "a", 36.0) for second in range(14)] + [Row(7.0, "a", 40.0), Row(9.5, "a", 36.0), Row(10.0, "a", 36.0)]
    alerts = run(emergency(severity_thresholds={"v": {"Minor": 35, "Severe": 39}}, realarm_s=3), rows, range(20), restart=True)
    assert [(one["event"], seconds(one["event_ts"]), one["severity"], one["count"]) for one in alerts] == [
        ("RAISE", 0, "Minor", 1),
        ("UPDATE", 3, "Minor", 7),
        ("UPDATE", 6, "Minor", 13),
        ("UPDATE", 7, "Severe", 15),
        ("UPDATE", 10, "Severe", 17),
    ]
    assert {one["timestamp"] for one in alerts} == {alerts[0]["onset_ts"]}


# -- gaps --------------------------------------------------------------------------------------------------------------


def test_readings_exactly_max_gap_apart_are_compared_and_later_ones_are_not() -> None:
    rise = {"id": "rise", "kind": "rate", "field": "v", "per_s": 1, "max_gap_s": 10}
    assert [one["value"] for one in run(emergency(rules=[rise]), [Row(0, "a", 0.0), Row(10, "a", 20.0)])] == [2.0]
    assert run(emergency(rules=[rise]), [Row(0, "a", 0.0), Row(10.000001, "a", 20.1)]) == []


@pytest.mark.parametrize("cuts", [[], range(9), [3], [4], [5], [2, 5]])
def test_who_was_forgotten_begins_anew_also_when_the_first_row_says_nothing(cuts: list[int]) -> None:
    """Sensor a comes back after b has moved the time on by more than forget_after_s; its first row then has no reading."""
    rows = [
        Row(0, "a", 30.0),
        Row(1, "a", 36.0),
        Row(2, "b", 0.0),
        Row(200, "b", 0.0),
        Row(201, "a", None),
        Row(202, "a", 36.0),
        Row(209, "a", 36.0),
    ]
    limit = {"severity_thresholds": {"v": {"limit": 35, "on_delay_s": 5}}, "forget_after_s": 100}
    assert [(seconds(one["onset_ts"]), seconds(one["timestamp"])) for one in run(emergency(**limit), rows, cuts, restart=True)] == [
        (202, 209)
    ]
    rise = {"id": "rise", "kind": "rate", "field": "v", "per_s": 0.01}
    rows[1], rows[5], rows[6] = Row(1, "a", 30.0), Row(202, "a", 90.0), Row(209, "a", 90.0)
    assert run(emergency(rules=[rise], forget_after_s=100), rows, cuts, restart=True) == []
