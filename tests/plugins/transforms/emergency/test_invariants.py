"""EMG-1 to EMG-15: what is promised of alerts, whatever the rows."""

from __future__ import annotations

import json
import logging
import math
import sqlite3
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from alarm_oracle import (
    CUTS,
    DATA,
    RULES,
    START,
    Alert,
    Row,
    Rule,
    arrivals,
    batch_of,
    emergency,
    oracle,
    raises,
    run,
    seconds,
    seen,
    usable,
)  # fmt: skip
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import OptionError
from lakeward.testing import TransformContract
from lakeward_plugins.transforms.emergency import Emergency

MANY = settings(max_examples=30, deadline=None)
FEW = settings(max_examples=15, deadline=None)
LIMIT = {"severity_thresholds": {"v": 35}}
FULL: dict[str, Any] = {
    "trigger_keywords": ["ALERT"],
    "severity_thresholds": {"v": {"Moderate": 5, "Extreme": 6.5, "deadband": 1, "on_delay_s": 3, "off_delay_s": 3}},
    "rules": [
        {"id": "rise", "kind": "rate", "field": "v", "per_s": 0.3, "min_dt_s": 2, "max_gap_s": 20},
        {"id": "silent", "kind": "stale", "after_s": 4},
        {"id": "two", "kind": "quorum", "of": "rise", "k": 2, "group_by": ["site_id"], "window_s": 5},
        {"id": "seven", "kind": "equals", "field": "v", "value": 7, "severity": "Minor"},
    ],
    "realarm_s": 5,
    "chatter": {"raises": 3, "within_s": 30},
    "flood": {"start": 3, "end": 2, "window_s": 10, "group_by": ["site_id"]},
    "forget_after_s": 100,
}


def everything(rows: int = 90) -> pa.RecordBatch:
    made = [
        Row(float(second), f"s{second % 3}", float(second // 9 % 8), "ALERT" if second % 20 == 0 else "fine", f"site {second % 2}")
        for second in range(rows)
    ]
    made[40] = evolve(made[40], when=3.0, sensor="s1", v=9.0)
    made[50] = evolve(made[50], when="soon", sensor="s1", v=9.0)
    return batch_of(made)


class TestEmergencyContract(TransformContract):
    def make(self) -> Emergency:
        return emergency(**FULL)

    def rows(self) -> pa.RecordBatch:
        return everything()


class TestLatchedContract(TransformContract):
    def make(self) -> Emergency:
        return emergency(**FULL | {"latch": True, "reset_field": "reset", "forget_after_s": 20})

    def rows(self) -> pa.RecordBatch:
        rows = everything()
        return rows.set_column(rows.schema.names.index("reset"), "reset", pa.array([second % 13 == 0 for second in range(90)]))


# -- episodes ----------------------------------------------------------------------------------------------------------


def test_emg_01_the_worked_example() -> None:
    path = DATA / "semantic_examples.json"
    if not path.exists():
        pytest.skip(f"no test data {path}")
    alarm = json.loads(path.read_text())["alarm"]
    expected = alarm["expected"]
    limit = {name: alarm[name] for name in ("limit", "op", "deadband", "on_delay_s", "off_delay_s")}
    rows = [Row(when, "a", value) for when, value in alarm["t_v"]]
    for cuts in ([], list(range(1, len(rows)))):
        raised, cleared = run(emergency(severity_thresholds={"v": limit}), rows, cuts)
        got = {
            "onset": raised["onset_ts"],
            "raised": raised["timestamp"],
            "clear_onset": cleared["clear_onset_ts"],
            "cleared": cleared["cleared_ts"],
        }
        assert {name: seconds(moment) for name, moment in got.items()} | {"peak": cleared["peak"]} == expected
        assert (raised["event"], raised["cleared_ts"], cleared["event"]) == ("RAISE", None, "CLEAR")
        assert cleared["alert_id"] == raised["alert_id"]


STATIONS = {
    "nyc_asos_ewr_lga_2013": [
        ("temperature_f", Rule(steps=(("Severe", 85.0),), deadband=3, on=3600, off=7200)),
        ("wind_speed_mph", Rule(steps=(("Moderate", 25.0), ("Severe", 30.0), ("Extreme", 100.0)), deadband=5, off=3600)),
        ("pressure_msl_hpa", Rule(low=True, steps=(("Severe", 1005.0),), deadband=2, on=7200, off=10800)),
    ],
    "kelmarsh_t2_2020": [
        ("wind_speed_ms", Rule(steps=(("Severe", 15.0),), deadband=1, on=1200, off=1800)),
        ("power_output_kw", Rule(low=True, steps=(("Minor", 0.0), ("Moderate", -10.0)))),
    ],
    "nab_ambient_temperature": [("temperature_f", Rule(steps=(("Severe", 77.0),), deadband=1.5, on=10800, off=7200))],
}


@pytest.mark.slow
@pytest.mark.one_python
@pytest.mark.parametrize("station", sorted(STATIONS))
def test_emg_01_02_episodes_of_real_stations_however_the_rows_are_cut(station: str) -> None:
    path = DATA / f"{station}.db"
    if not path.exists():
        pytest.skip(f"no test data {path}")
    database = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    for name, rule in STATIONS[station]:
        read = database.execute(f'SELECT id, timestamp, sensor_id, "{name}" FROM sensor_readings ORDER BY timestamp, id').fetchall()
        columns = dict(zip(("_row", "timestamp", "sensor_id", "v"), map(list, zip(*read, strict=True)), strict=True))
        rows = pa.record_batch(
            {"_row": pa.array(columns["_row"], pa.int64())} | {key: columns[key] for key in ("timestamp", "sensor_id", "v")}
        )
        instants = (
            pa.array(text.replace(" ", "T").rstrip("Z") for text in columns["timestamp"])
            .cast(pa.timestamp("s"))
            .cast(pa.int64())
            .to_pylist()
        )
        begin = int(START.timestamp())
        plain = oracle(
            [
                Row(float(at - begin), *rest)
                for at, rest in zip(instants, zip(columns["sensor_id"], columns["v"], strict=True), strict=True)
            ],
            rule,
        )
        assert len(plain) > 4
        for size in (500, 7001, rows.num_rows):
            made, alerts = emergency(**rule.options()), []
            for first in range(0, rows.num_rows, size):
                alerts += made.apply(rows.slice(first, size))["main"].to_pylist()
                state, made = made.state(), evolve(made)
                made.restore(state)
            assert seen(alerts) == plain
    database.close()


@given(arrivals(), CUTS, st.booleans(), RULES)
@settings(max_examples=40, deadline=None)
def test_emg_01_02_any_cut_and_restart_gives_what_the_state_machine_gives_sample_by_sample(
    rows: list[Row], cuts: list[int], restart: bool, rule: Rule
) -> None:
    assert seen(run(emergency(**rule.options()), rows, cuts, restart)) == oracle(rows, rule)


@given(arrivals(), CUTS)
@FEW
def test_emg_02_any_cut_gives_the_same_alerts_of_all_kinds(rows: list[Row], cuts: list[int]) -> None:
    rows = [
        evolve(row, v=None if row.v is None else row.v - 32, message=["ALERT", None][index % 2], site=row.sensor)
        for index, row in enumerate(rows)
    ]
    made = emergency(**FULL)
    assert same(run(made, rows, cuts, restart=True)) == same(run(evolve(made), rows))


def same(alerts: list[Alert]) -> Counter[str]:
    return Counter(json.dumps(alert, default=str) for alert in alerts)


@given(arrivals(), CUTS)
@FEW
def test_emg_03_a_batch_that_is_fed_twice_changes_no_table(rows: list[Row], cuts: list[int]) -> None:
    made = emergency(**FULL | {"realarm_s": None})
    table: dict[Any, Alert] = {}
    places = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for low, high in pairwise(places):
        state, batch = made.state(), batch_of(rows[low:high], first=low)
        once = made.apply(batch)["main"].to_pylist()
        again = evolve(made)
        again.restore(state)
        twice = again.apply(batch)["main"].to_pylist()
        assert [one["alert_id"] for one in twice] == [one["alert_id"] for one in once]
        table |= {(one["alert_id"], one["event"]): one for one in once}
        before = dict(table)
        table |= {(one["alert_id"], one["event"]): one for one in twice}
        assert table == before
        assert all(0 <= one["alert_id"] < 2**63 for one in once)


def test_emg_03_different_alerts_have_different_ids() -> None:
    rows = [Row(float(second), f"s{second % 5}", 36.0 if second // 5 % 2 else 30.0, "ALERT") for second in range(500)]
    alerts = run(emergency(**LIMIT, trigger_keywords=["ALERT"]), rows)
    assert len({one["alert_id"] for one in alerts}) == raises(alerts) > 700
    again = run(emergency(severity_thresholds={"v": {"limit": 35, "op": "<"}}), rows)
    assert not {one["alert_id"] for one in alerts} & {one["alert_id"] for one in again}


@pytest.mark.parametrize("lost", ["the alerts", "the state"])
def test_emg_04_a_crash_between_saving_and_giving_out_loses_no_alert(lost: str) -> None:
    """What was not recorded is read again; what was recorded is delivered again."""
    rows = [Row(float(second), "a", 36.0 if second % 7 > 3 else 30.0) for second in range(60)]
    whole = {(one["alert_id"], one["event"]): one for one in run(emergency(**LIMIT), rows)}
    made, table = emergency(**LIMIT), {}
    for first in range(0, 60, 5):
        before, batch = made.state(), batch_of(rows[first : first + 5], first)
        given_out = made.apply(batch)["main"].to_pylist()
        after = made.state()
        made = evolve(made)
        if lost == "the alerts":  # recorded with the state; given out again after the crash
            made.restore(after)
        else:  # given out, but not recorded: the batch is read again
            table |= {(one["alert_id"], one["event"]): one for one in given_out}
            made.restore(before)
            given_out = made.apply(batch)["main"].to_pylist()
        table |= {(one["alert_id"], one["event"]): one for one in given_out}
    assert table == whole


@given(arrivals())
@MANY
def test_emg_05_without_deadband_and_delays_each_upward_crossing_raises(rows: list[Row]) -> None:
    rows = [evolve(row, sensor="a", flag=None) for row in rows]
    by_time = sorted(rows, key=lambda row: float(row.when or 0))
    beyond = [row.v > 35 for row in by_time if usable(row.v)]
    assert raises(run(emergency(**LIMIT), by_time)) == sum(now and not before for before, now in pairwise([False, *beyond]))


@given(arrivals(), RULES.filter(lambda rule: not rule.latch), st.sampled_from(["deadband", "on", "off"]), st.sampled_from([0.5, 1.0, 4.0]))
@MANY
def test_emg_06_a_longer_delay_or_a_wider_deadband_never_raises_more(rows: list[Row], rule: Rule, which: str, more: float) -> None:
    wider = evolve(rule, **{which: getattr(rule, which) + more})
    assert raises(run(emergency(**wider.options()), rows)) <= raises(run(emergency(**rule.options()), rows))


@given(arrivals(), CUTS)
@FEW
def test_emg_07_raise_and_clear_take_turns_for_each_rule_and_sensor(rows: list[Row], cuts: list[int]) -> None:
    rows = [evolve(row, v=None if row.v is None else row.v - 32, site="here") for row in rows]
    turns = defaultdict(list)
    for one in run(emergency(**FULL), rows, cuts, restart=True):
        if one["event"] != "UPDATE" and one["alert_type"] != "keyword":
            turns[one["alert_type"], one["sensor_id"]].append(one)
    for alerts in turns.values():
        assert [one["event"] for one in alerts] == [("RAISE", "CLEAR")[index % 2] for index in range(len(alerts))]
        assert all(one["alert_id"] == before["alert_id"] for before, one in pairwise(alerts) if one["event"] == "CLEAR")
        assert all(
            one["references"].endswith(f",{before['alert_id']},{before['timestamp']:%Y-%m-%dT%H:%M:%S.%f}Z")
            for before, one in pairwise(alerts)
            if one["event"] == "CLEAR"
        )


@pytest.mark.parametrize("limit", [35.0, -1e300, 5e-324, 0.1])
def test_emg_08_the_limit_itself_does_not_raise_and_the_next_number_does(limit: float) -> None:
    for op, beyond in ((">", math.inf), ("<", -math.inf)):
        rule = {"v": {"limit": limit, "op": op}}
        assert run(emergency(severity_thresholds=rule), [Row(1, "a", limit)]) == []
        assert raises(run(emergency(severity_thresholds=rule), [Row(1, "a", math.nextafter(limit, beyond))])) == 1


def test_emg_08_the_limit_of_a_step_does_not_step() -> None:
    rows = [Row(1, "a", 36.0), Row(2, "a", math.nextafter(36, 37)), Row(3, "a", 36.5)]
    alerts = run(emergency(severity_thresholds={"v": {"Minor": 35, "Severe": 36}}), rows)
    assert [(one["event"], one["severity"], one["limit"]) for one in alerts] == [("RAISE", "Minor", 35), ("UPDATE", "Severe", 36)]


# EMG-9 is in test_keywords.py


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf])
def test_emg_10_what_is_no_number_says_nothing_and_is_counted(nothing: float | None) -> None:
    rows = [Row(1, "a", 36.0), Row(2, "a", nothing), Row(3, "a", nothing), Row(4, "a", 36.0), Row(5, "b", nothing)]
    made = emergency(severity_thresholds={"v": {"limit": 35, "on_delay_s": 3}})
    (alert,) = run(made, rows)
    assert (seconds(alert["onset_ts"]), seconds(alert["timestamp"]), alert["count"]) == (1, 4, 2)
    assert made.counted == {"late": 0, "v_high": 3}
    again = evolve(made)
    again.restore(made.state())
    assert again.counted == {"late": 0, "v_high": 3}


def test_emg_10_a_reading_with_flag_nine_says_nothing_and_other_flags_may_be_left_out_too() -> None:
    rows = [Row(1, "a", 36.0, flag=9), Row(2, "b", 36.0, flag=4), Row(3, "c", 36.0, flag=1), Row(4, "d", 36.0)]
    assert [one["sensor_id"] for one in run(emergency(**LIMIT), rows)] == ["b", "c", "d"]
    assert [one["sensor_id"] for one in run(emergency(**LIMIT, exclude_flags=[4, 9]), rows)] == ["c", "d"]
    assert [one["sensor_id"] for one in run(emergency(**LIMIT, exclude_flags=[]), rows)] == ["a", "b", "c", "d"]


def test_emg_10_a_column_of_text_or_a_missing_one_is_a_mistake_at_the_start() -> None:
    with pytest.raises(OptionError, match=r"^severity_thresholds\.message: column 'message' is string; expected numbers"):
        emergency(severity_thresholds={"message": 1.0}).apply(batch_of([]))
    with pytest.raises(OptionError, match=r"^severity_thresholds\.w: no column 'w'; columns are _row, timestamp, sensor_id"):
        emergency(severity_thresholds={"w": 1.0}).apply(batch_of([]))


@given(arrivals(), RULES, st.randoms(use_true_random=False))
@MANY
def test_emg_11_sensors_do_not_know_each_other(rows: list[Row], rule: Rule, chance: Any) -> None:
    alone = {sensor: run(emergency(**rule.options()), [row for row in rows if row.sensor == sensor]) for sensor in ("a", "b", None)}
    queues = [[row for row in rows if row.sensor == sensor] for sensor in alone]
    mixed = []
    while any(queues):
        mixed.append(chance.choice([queue for queue in queues if queue]).pop(0))
    together = run(emergency(**rule.options()), mixed)
    for sensor, alerts in alone.items():
        assert seen(one for one in together if one["sensor_id"] == sensor) == seen(alerts)


def test_emg_12_late_rows_are_not_held_against_rules_but_come_out_whole_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    made = emergency(**LIMIT, trigger_keywords=["ALERT"])
    made.apply(batch_of([Row(10, "a", 1.0)]))
    late = batch_of([Row(9, "a", 99.0, "ALERT"), Row(9, "b", 1.0)], first=1)
    with caplog.at_level(logging.WARNING, "lakeward.emergency"):
        out = made.apply(late)
    assert out["late"].equals(late.slice(0, 1))
    assert "1 rows are older than the newest of their key" in caplog.text
    assert made.counted["late"] == 1
    assert [alert["alert_type"] for alert in out["main"].to_pylist()] == ["keyword"]


@given(arrivals(late=False), st.sampled_from([1, 3]), st.sampled_from([3.0, 20.0]))
@FEW
def test_emg_13_a_flood_marks_alerts_and_loses_none(rows: list[Row], start: int, window: float) -> None:
    rules = {
        "severity_thresholds": {"v": {"Minor": 35, "Extreme": 36.5}},
        "trigger_keywords": ["ALERT"],
        "keyword_severity": {"ALERT": "Moderate"},
    }
    rows = [evolve(row, message="an ALERT" if index % 3 == 0 else None) for index, row in enumerate(rows)]
    flood = {"start": start, "end": 1, "window_s": window}
    calm, flooded = run(emergency(**rules), rows), run(emergency(**rules, flood=flood), rows)
    assert not any(one["suppressed"] for one in calm)
    told = [one for one in flooded if one["alert_type"] == "ALARM_FLOOD"]
    assert [one | {"suppressed": False} for one in flooded if one["alert_type"] != "ALARM_FLOOD"] == calm
    assert not any(one["suppressed"] for one in flooded if one["severity"] == "Extreme")
    assert any(one["suppressed"] for one in flooded) <= bool(told)
    assert [one["event"] for one in told] == [("RAISE", "CLEAR")[index % 2] for index in range(len(told))]


def test_emg_14_there_is_one_record_for_each_rule_and_sensor_and_none_for_those_who_are_gone() -> None:
    def held(made: Emergency, count: int, sensors: int, each: float = 1.0) -> int:
        for first in range(0, count, 100):
            rows = [Row((first + index) * each, f"s{(first + index) % sensors}", float(index % 30), site="x") for index in range(100)]
            made.apply(batch_of(rows, first=first))
        return len(made.state())

    rules = {name: FULL[name] for name in ("severity_thresholds", "flood")} | {"rules": [FULL["rules"][0]]}
    assert held(emergency(**rules), 2000, 5) <= 1.2 * held(emergency(**rules), 200, 5)
    assert held(emergency(**rules, forget_after_s=50), 4000, 10**9) <= 1.2 * held(emergency(**rules, forget_after_s=50), 400, 10**9)


def test_emg_14_an_active_alert_is_never_forgotten() -> None:
    made = emergency(**LIMIT, forget_after_s=60)
    run(made, [Row(0, "a", 36.0), Row(1, "b", 30.0), *(Row(float(second), f"other {second}", 1.0) for second in range(100, 5000, 10))])
    assert b'"a"' in made.state()
    assert b'"b"' not in made.state()
    (cleared,) = run(made, [Row(6000, "a", 1.0)])
    assert (cleared["event"], seconds(cleared["onset_ts"])) == ("CLEAR", 0)


@given(arrivals(late=False), st.integers(1, 3), CUTS, st.sampled_from([2.0, 10.0]))
@MANY
def test_emg_15_fewer_than_k_sensors_never_raise_however_many_rows_they_send(
    rows: list[Row], k: int, cuts: list[int], window: float
) -> None:
    rows = [evolve(row, v=36.0 if usable(row.v) and row.v > 35 else 30.0, flag=None) for row in rows]
    rules = [{"id": "fire", "kind": "quorum", "of": "v_high", "k": k, "group_by": [], "window_s": window, "severity": "Extreme"}]
    alerts = run(emergency(**LIMIT, rules=rules), rows, cuts, restart=True)
    raised: dict[Any, float] = {}
    active: set[Any] = set()
    on, expected = False, []
    for one in alerts:
        if one["alert_type"] != "v_high":
            continue
        if one["event"] == "RAISE":
            active.add(one["sensor_id"])
            raised[one["sensor_id"]] = seconds(one["timestamp"]) or 0.0
            if not on and sum(max(raised.values()) - when <= window for when in raised.values()) >= k:
                on = True
                expected.append(("RAISE", max(raised.values())))
        else:
            active.remove(one["sensor_id"])
            if on and len(active) < k:
                on = False
                expected.append(("CLEAR", seconds(one["cleared_ts"])))
    fires = [one for one in alerts if one["alert_type"] == "fire"]
    assert [(one["event"], seconds(one["timestamp"] if one["event"] == "RAISE" else one["cleared_ts"])) for one in fires] == expected
    assert all(len(one["reasons"]) >= k for one in fires)
    if len({row.sensor for row in rows}) < k:
        assert fires == []
