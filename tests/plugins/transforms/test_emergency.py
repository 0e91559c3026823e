from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import END_OF_INPUT, OptionError, Refused
from lakeward.testing import TransformContract
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.transforms.emergency import Emergency
from lakeward_plugins.transforms.emergency_threshold import Threshold

DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
START = datetime(2024, 1, 1, tzinfo=UTC)
Row = tuple[Any, Any, Any]  # seconds after START or a text, sensor, value


def batch_of(rows: list[Row], messages: list[str | None] | None = None, first: int = 0) -> pa.RecordBatch:
    times = [when if when is None or isinstance(when, str) else (START + timedelta(seconds=when)).isoformat() for when, _, _ in rows]
    return pa.RecordBatch.from_pydict(
        {
            "_row": pa.array(range(first, first + len(rows)), pa.int64()),
            "timestamp": pa.array(times, pa.string()),
            "sensor_id": pa.array([sensor for _, sensor, _ in rows], pa.string()),
            "v": pa.array([value for _, _, value in rows], pa.float64()),
            "message": pa.array(messages or [None] * len(rows), pa.string()),
        }
    )


def threshold(**options: Any) -> Emergency:
    return Emergency(severity_thresholds={"v": Threshold(**{"limit": 35.0} | options)})


def run(made: Emergency, rows: list[Row], cuts: list[int] | None = None, restart: Any = None) -> list[dict[str, Any]]:
    """All alerts when the rows are cut there; with `restart` a fresh one takes over the state at each cut."""
    alerts: list[dict[str, Any]] = []
    for low, high in pairwise([0, *sorted(cuts or []), len(rows)]):
        alerts += made.apply(batch_of(rows[low:high], first=low))["main"].to_pylist()
        if restart:
            state, made = made.state(), restart()
            made.restore(state)
    assert made.finish(END_OF_INPUT) == {}
    return alerts


def raises(alerts: list[dict[str, Any]]) -> int:
    return sum(alert["event"] == "RAISE" for alert in alerts)


def seconds(moment: datetime | None) -> float | None:
    return None if moment is None else (moment - START).total_seconds()


class TestEmergencyContract(TransformContract):
    def make(self) -> Emergency:
        rule = Threshold(limit=5, deadband=1, on_delay_s=3, off_delay_s=3)
        return Emergency(trigger_keywords=["ALERT"], severity_thresholds={"v": rule})

    def rows(self) -> pa.RecordBatch:
        rows: list[Row] = [(float(second), f"s{second % 3}", float(second // 9 % 8)) for second in range(90)]
        rows[40] = (3.0, "s1", 9.0)
        rows[50] = ("soon", "s1", 9.0)
        return batch_of(rows, ["ALERT" if second % 20 == 0 else "fine" for second in range(90)])


# -- the state machine, sample by sample, as it is written -------------------------------------------------------------


def oracle(rows: list[Row], limit: float, low: bool, deadband: float, on: float, off: float) -> list[tuple[Any, ...]]:
    """(event, sensor, onset, raised, clear onset, cleared, peak, count) in the order of the rows."""
    sign, events = -1 if low else 1, []
    states: dict[Any, dict[str, Any]] = {}
    for when, sensor, value in rows:
        state = states.setdefault(sensor, {"name": "NORMAL", "newest": -math.inf})
        if when < state["newest"]:
            continue
        state["newest"] = when
        if value is None or not math.isfinite(value):
            continue
        signed = value * sign
        exceed, clear = signed > limit * sign, signed <= limit * sign - deadband
        if state["name"] == "NORMAL" and exceed:
            state |= {"name": "PENDING", "onset": when, "peak": -math.inf, "count": 0}
        if state["name"] != "NORMAL":
            state["peak"], state["count"] = max(state["peak"], signed), state["count"] + exceed
        if state["name"] == "PENDING":
            if not exceed:
                state["name"] = "NORMAL"
            elif when - state["onset"] >= on:
                state |= {"name": "ACTIVE", "raised": when}
                events.append(("RAISE", sensor, state["onset"], when, None, None, state["peak"] * sign, state["count"]))
        elif state["name"] == "ACTIVE" and clear:
            state |= {"name": "CLEARING", "clear": when}
        elif state["name"] == "CLEARING" and not clear:
            state["name"] = "ACTIVE"
        if state["name"] == "CLEARING" and when - state["clear"] >= off:
            state["name"] = "NORMAL"
            events.append(("CLEAR", sensor, state["onset"], state["raised"], state["clear"], when, state["peak"] * sign, state["count"]))
    return events


def seen(alerts: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    times = ("onset_ts", "timestamp", "clear_onset_ts", "cleared_ts")
    return [(one["event"], one["sensor_id"], *(seconds(one[name]) for name in times), one["peak"], one["count"]) for one in alerts]


SENSORS = st.sampled_from(["a", "b", None])
READINGS = st.sampled_from([33.0, 34.0, 34.5, 35.0, math.nextafter(35, 36), 36.0, 37.0, math.nan, math.inf, None])
STEPS = st.lists(st.tuples(st.sampled_from([0, 1, 2, 5, -3]), SENSORS, READINGS), max_size=50)
DELAYS = st.sampled_from([0.0, 2.0, 6.0])
CUTS = st.lists(st.integers(0, 50), max_size=6)


def arrivals(steps: list[tuple[int, Any, Any]]) -> list[Row]:
    rows, now = [], 100
    for step, sensor, value in steps:
        now += step
        rows.append((float(now), sensor, value))
    return rows


@given(STEPS, CUTS, st.booleans(), st.booleans(), st.sampled_from([0.0, 1.0]), DELAYS, DELAYS)
@settings(max_examples=150, deadline=None)
def test_emg_1_2_10_11_12_any_cut_and_restart_gives_what_the_state_machine_gives_sample_by_sample(
    steps: list[Any], cuts: list[int], restart: bool, low: bool, deadband: float, on: float, off: float
) -> None:
    rows = arrivals(steps)

    def make() -> Emergency:
        return threshold(op="<" if low else ">", deadband=deadband, on_delay_s=on, off_delay_s=off)

    alerts = run(make(), rows, [min(cut, len(rows)) for cut in cuts], make if restart else None)
    assert seen(alerts) == oracle(rows, 35.0, low, deadband, on, off)


def test_emg_1_the_worked_example() -> None:
    path = DATA / "semantic_examples.json"
    if not path.exists():
        pytest.skip(f"no test data {path}")
    alarm = json.loads(path.read_text())["alarm"]
    expected = alarm["expected"]
    options = {name: alarm[name] for name in ("limit", "op", "deadband", "on_delay_s", "off_delay_s")}
    for cuts in ([], list(range(1, len(alarm["t_v"])))):
        raised, cleared = run(threshold(**options), [(when, "a", value) for when, value in alarm["t_v"]], cuts)
        assert (raised["event"], seconds(raised["onset_ts"]), seconds(raised["timestamp"])) == (
            "RAISE",
            expected["onset"],
            expected["raised"],
        )
        assert raised["cleared_ts"] is None
        assert (cleared["event"], seconds(cleared["clear_onset_ts"]), seconds(cleared["cleared_ts"])) == (
            "CLEAR",
            expected["clear_onset"],
            expected["cleared"],
        )
        assert cleared["peak"] == expected["peak"]
        assert cleared["alert_id"] == raised["alert_id"]


@given(STEPS, CUTS)
@settings(max_examples=40, deadline=None)
def test_emg_3_4_the_same_rows_again_give_the_same_ids(steps: list[Any], cuts: list[int]) -> None:
    rows = arrivals(steps)
    made = threshold(deadband=1.0, on_delay_s=1.0)
    table = {(alert["alert_id"], alert["event"]): alert for alert in run(made, rows)}
    after_a_crash = run(threshold(deadband=1.0, on_delay_s=1.0), rows, [min(cut, len(rows)) for cut in cuts])
    assert {(alert["alert_id"], alert["event"]): alert for alert in after_a_crash} == table
    assert len(table) == len(after_a_crash)
    assert all(0 <= identity < 2**63 for identity, _ in table)


@given(STEPS)
@settings(max_examples=40, deadline=None)
def test_emg_5_without_deadband_and_delays_each_upward_crossing_raises(steps: list[Any]) -> None:
    rows = [(when, "a", value) for when, _, value in arrivals([(abs(step), None, value) for step, _, value in steps])]
    beyond = [value > 35 for _, _, value in rows if value is not None and math.isfinite(value)]
    assert raises(run(threshold(), rows)) == sum(now and not before for before, now in pairwise([False, *beyond]))


@given(STEPS, st.tuples(st.sampled_from([0.0, 0.5]), DELAYS, DELAYS), st.sampled_from(["deadband", "on_delay_s", "off_delay_s"]))
@settings(max_examples=60, deadline=None)
def test_emg_6_a_longer_delay_or_a_wider_deadband_never_raises_more(steps: list[Any], base: tuple[float, float, float], which: str) -> None:
    rows = arrivals(steps)
    options = dict(zip(("deadband", "on_delay_s", "off_delay_s"), base, strict=True))
    wider = options | {which: options[which] + 1.0}
    assert raises(run(threshold(**wider), rows)) <= raises(run(threshold(**options), rows))


@given(STEPS, CUTS)
@settings(max_examples=40, deadline=None)
def test_emg_7_raise_and_clear_take_turns(steps: list[Any], cuts: list[int]) -> None:
    rows = arrivals(steps)
    for sensor in ("a", "b", None):
        alerts = [one for one in run(threshold(), rows, [min(cut, len(rows)) for cut in cuts]) if one["sensor_id"] == sensor]
        assert [one["event"] for one in alerts] == [("RAISE", "CLEAR")[index % 2] for index in range(len(alerts))]
        assert all(one["alert_id"] == before["alert_id"] for before, one in pairwise(alerts) if one["event"] == "CLEAR")


def test_emg_8_the_limit_itself_does_not_raise_and_the_next_number_does() -> None:
    assert run(threshold(), [(1, "a", 35.0)]) == []
    assert raises(run(threshold(), [(1, "a", math.nextafter(35, 36))])) == 1
    assert raises(run(threshold(op="<"), [(1, "a", 35.0)])) == 0
    assert raises(run(threshold(op="<"), [(1, "a", math.nextafter(35, 34))])) == 1


def test_emg_10_null_and_nan_say_nothing() -> None:
    rows: list[Row] = [(1, "a", 36.0), (2, "a", None), (3, "a", math.nan), (4, "a", 36.0), (5, "b", None)]
    (alert,) = run(threshold(on_delay_s=3), rows)
    assert (seconds(alert["onset_ts"]), seconds(alert["timestamp"]), alert["count"]) == (1, 4, 2)
    with pytest.raises(OptionError, match=r"^severity_thresholds\.message: column 'message' is string; expected numbers"):
        Emergency(severity_thresholds={"message": 1.0}).apply(batch_of([]))


def test_emg_12_late_rows_are_not_held_against_thresholds_but_come_out_whole_and_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    made = Emergency(severity_thresholds={"v": 35.0}, trigger_keywords=["ALERT"])
    made.apply(batch_of([(10, "a", 1.0)]))
    late = batch_of([(9, "a", 99.0), (9, "b", 1.0)], ["ALERT", None], first=1)
    with caplog.at_level(logging.WARNING, "lakeward.emergency"):
        out = made.apply(late)
    assert out["late"].equals(late.slice(0, 1))
    assert "1 rows are older than the newest of their key" in caplog.text
    assert [alert["alert_type"] for alert in out["main"].to_pylist()] == ["keyword"]


def test_emg_14_there_is_one_record_for_each_rule_and_key() -> None:
    def held(rows: int) -> int:
        made = threshold(deadband=1)
        for first in range(0, rows, 100):
            made.apply(batch_of([(first + index, f"s{index % 5}", float(index % 50)) for index in range(100)], first=first))
        return len(made.state())

    assert held(2000) <= 1.2 * held(200)


def test_two_limits_of_different_fields_do_not_know_each_other() -> None:
    batch = batch_of([(1, "a", 36.0), (2, "a", 36.0)]).append_column("w", pa.array([1, 9]))
    made = Emergency(severity_thresholds={"v": 35.0, "w": Threshold(limit=5, op="<", severity="Minor")})
    alerts = made.apply(batch)["main"].to_pylist()
    assert [(one["alert_type"], one["event"], one["severity"], one["urgency"]) for one in alerts] == [
        ("v_high", "RAISE", "Severe", "Immediate"),
        ("w_low", "RAISE", "Minor", "Future"),
        ("w_low", "CLEAR", "Minor", "Past"),
    ]
    assert [one["message"] for one in alerts] == ["v is 36, above 35", "w is 1, below 5", "w is back at 9, after a peak of 1"]


def test_rows_without_a_usable_time_are_rejected_only_if_there_are_thresholds() -> None:
    rows: list[Row] = [
        ("soon", "a", 99.0),
        (None, "a", 99.0),
        ("1901-12-13T20:45:52Z", "a", 99.0),
        ("2100-01-01T00:00Z", "a", 99.0),
        (1, "a", 1.0),
    ]
    both = Emergency(severity_thresholds={"v": 35.0}, trigger_keywords=["ALERT"])
    out = both.apply(batch_of(rows, ["ALERT"] + [None] * 4))
    assert [(row["_row"], row["_reason"]) for row in out["rejected"].to_pylist()] == [
        (0, "time_parse"),
        (1, "time_parse"),
        (2, "time_range"),
        (3, "time_range"),
    ]
    assert [(one["alert_type"], one["timestamp"]) for one in out["main"].to_pylist()] == [("keyword", None)]
    assert "rejected" not in Emergency(trigger_keywords=["ALERT"]).apply(batch_of(rows))


# -- keywords ----------------------------------------------------------------------------------------------------------


def keyword_rows(text: str | None, **options: Any) -> list[dict[str, Any]]:
    made = Emergency(**{"trigger_keywords": ["EMERGENCY", "CRITICAL", "ALERT"]} | options)
    return made.apply(batch_of([(1, "a", 1.0)], [text]))["main"].to_pylist()


@pytest.mark.parametrize("text", ["an alert!", "ALERT", "critical-alert", "\uff21\uff2c\uff25\uff32\uff34 on line 3", "[Alert]"])
def test_emg_9_a_keyword_is_found_as_a_word_in_any_case_and_form(text: str) -> None:
    assert len(keyword_rows(text)) == 1


@pytest.mark.parametrize("text", ["alerted", "realert", "alert_2", "all good", "", None])
def test_emg_9_part_of_a_word_is_not_the_word(text: str | None) -> None:
    assert keyword_rows(text) == []


def test_emg_9_two_keywords_in_one_text_are_one_alert_that_lists_both() -> None:
    (alert,) = keyword_rows("alert: CRITICAL", keyword_severity={"alert": "Minor", "Critical": "Extreme"})
    assert (alert["keywords"], alert["severity"], alert["urgency"]) == (["CRITICAL", "ALERT"], "Extreme", "Immediate")
    assert (alert["event"], alert["message"], seconds(alert["timestamp"]), alert["value"]) == ("RAISE", "alert: CRITICAL", 1, None)


def test_emg_9_other_ways_to_match() -> None:
    assert len(keyword_rows("realerted", keyword_match="substring")) == 1
    assert len(keyword_rows(" Alert ", keyword_match="exact")) == 1
    assert keyword_rows("an alert", keyword_match="exact") == []
    assert len(keyword_rows("STRASSE brennt", trigger_keywords=["straße"])) == 1
    assert keyword_rows("axc", trigger_keywords=["a.c"], keyword_match="substring") == []


@given(st.lists(st.none() | st.text(max_size=12) | st.sampled_from(["ALERT", "alert critical", "Critical."]), max_size=12), CUTS)
@settings(max_examples=60, deadline=None)
def test_emg_9_each_row_with_a_keyword_gives_one_alert_wherever_it_is_cut(texts: list[str | None], cuts: list[int]) -> None:
    rows: list[Row] = [(1.0, "a", None)] * len(texts)
    whole = Emergency(trigger_keywords=["ALERT", "CRITICAL"]).apply(batch_of(rows, texts))["main"].to_pylist()
    parts, made = [], Emergency(trigger_keywords=["ALERT", "CRITICAL"])
    for low, high in pairwise([0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]):
        parts += made.apply(batch_of(rows[low:high], texts[low:high], first=low))["main"].to_pylist()
    assert parts == whole
    assert [one["message"] for one in whole] == [text for text in texts if text in ("ALERT", "alert critical", "Critical.")]
    assert max(Counter(one["alert_id"] for one in whole).values(), default=1) == 1


def test_keywords_are_looked_for_in_the_usual_columns_that_hold_text_or_in_those_named(caplog: pytest.LogCaptureFixture) -> None:
    batch = (
        batch_of([(1, "alert", 1.0)])
        .append_column("status", pa.array([200]))
        .append_column("anomaly_type", pa.array(["ALERT"]).dictionary_encode())
    )
    assert Emergency(trigger_keywords=["alert"]).apply(batch)["main"].column("message").to_pylist() == ["ALERT"]
    named = Emergency(trigger_keywords=["alert"], keyword_fields=["sensor_id", "anomaly_type"], key=[])
    assert named.apply(batch)["main"].column("message").to_pylist() == ["alert | ALERT"]
    made = Emergency(trigger_keywords=["alert"], severity_thresholds={"v": 1})
    for _ in range(2):
        made.apply(batch_of([]).drop_columns("message"))
    assert [record.message for record in caplog.records] == [
        "no keyword can be found: no column of text is named message, status, alert_type, anomaly_type; set keyword_fields"
    ]


# -- the rows that come out, options and mistakes ----------------------------------------------------------------------


def test_an_empty_batch_has_the_schema_of_a_full_one() -> None:
    made = Emergency(trigger_keywords=["ALERT"], severity_thresholds={"v": 35.0})
    empty, full = made.apply(batch_of([])), made.apply(batch_of([(1, "a", 36.0)], ["ALERT"]))
    assert full["main"].num_rows == 2
    assert empty["main"].schema == full["main"].schema
    assert empty["late"].schema == full["late"].schema
    assert full["main"].schema.names[:5] == ["alert_id", "alert_key", "event", "sensor_id", "timestamp"]
    assert "_row" not in full["main"].schema.names


def test_says_which_column_it_misses() -> None:
    for made, path in [
        (Emergency(severity_thresholds={"w": 1}), "severity_thresholds.w"),
        (Emergency(severity_thresholds={"v": 1}, key=["site"]), r"key\[0\]"),
        (Emergency(trigger_keywords=["x"], keyword_fields=["note"]), r"keyword_fields\[0\]"),
        (Emergency(trigger_keywords=["x"], time_field="when"), "time_field"),
    ]:
        with pytest.raises(OptionError, match=f"^{path}: no column"):
            made.apply(batch_of([]))


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, ()),
        ({"trigger_keywords": [" "]}, ("trigger_keywords",)),
        ({"trigger_keywords": ["a"], "keyword_severity": {"b": "Minor"}}, ("keyword_severity",)),
        ({"severity_thresholds": {"v": {"limit": 1, "deadband": -1}}}, ("severity_thresholds", "v", "deadband")),
        ({"severity_thresholds": {"v": {"limit": 1, "op": ">="}}}, ("severity_thresholds", "v", "op")),
        ({"severity_thresholds": {"v": 1}, "key": ["status"]}, ("key",)),
        ({"severity_thresholds": {"v": 1}, "naive_timezone": "Mars"}, ("naive_timezone",)),
    ],
)
def test_says_what_is_wrong_with_its_options(options: dict[str, Any], path: tuple[str, ...]) -> None:
    with pytest.raises(Mistakes) as caught:
        build(Emergency, options, Path())
    assert caught.value.mistakes[0].path == path


def test_takes_limits_as_numbers_and_as_mappings() -> None:
    limits = {"temperature": 35, "pressure": {"op": ">", "limit": 1030, "severity": "Moderate", "deadband": 2, "on_delay_s": 60}}
    built = build(Emergency, {"trigger_keywords": ["EMERGENCY"], "severity_thresholds": limits}, Path())
    assert built.severity_thresholds == {
        "temperature": 35.0,
        "pressure": Threshold(1030.0, severity="Moderate", deadband=2.0, on_delay_s=60.0),
    }


def test_an_alert_stays_raised_when_its_limit_changes_and_a_removed_threshold_is_told(caplog: pytest.LogCaptureFixture) -> None:
    made = threshold()
    made.apply(batch_of([(1, "a", 36.0)]))
    moved = threshold(limit=40.0)
    moved.restore(made.state())
    assert [one["event"] for one in moved.apply(batch_of([(2, "a", 36.0)], first=1))["main"].to_pylist()] == ["CLEAR"]
    pending = threshold(on_delay_s=60)
    pending.apply(batch_of([(1, "a", 36.0)]))
    sooner = threshold(on_delay_s=0)
    sooner.restore(pending.state())
    (alert,) = sooner.apply(batch_of([(2, "a", 37.0)], first=1))["main"].to_pylist()
    assert (seconds(alert["onset_ts"]), seconds(alert["timestamp"]), alert["value"]) == (1, 2, 37.0)
    Emergency(severity_thresholds={"w": 1.0}).restore(made.state())
    assert "1 alerts of v_high are forgotten" in caplog.text
    with pytest.raises(Refused, match="the state holds alerts by sensor_id; put that back as key"):
        Emergency(severity_thresholds={"v": 1.0}, key=["site"]).restore(made.state())


def test_a_million_rows_of_a_thousand_sensors_cost_less_than_a_second() -> None:
    rows = 100_000
    stamps = pa.array(np.arange(rows) * 10_000 + 1_704_067_200_000_000).cast(pa.timestamp("us", "UTC"))
    readings = np.random.default_rng(1).normal(20, 10, rows)
    columns: dict[str, Any] = {
        "timestamp": stamps,
        "sensor_id": pa.array([f"s{index % 1000}" for index in range(rows)]),
        "v": pa.array(readings),
    }
    made = threshold(deadband=1, on_delay_s=20, off_delay_s=30)
    started = time.process_time()
    made.apply(pa.RecordBatch.from_pydict(columns))
    assert time.process_time() - started < 0.1
