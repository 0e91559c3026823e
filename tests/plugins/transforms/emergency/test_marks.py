"""Marks on alerts: chatter, floods, shelving."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

import pytest
from alarm_oracle import CUTS, START, Row, arrivals, emergency, raises, run, seconds
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import OptionError

MANY = settings(max_examples=40, deadline=None)
LIMIT = {"severity_thresholds": {"v": 35}}


@given(arrivals(late=False), CUTS, st.sampled_from([2, 3, 5]), st.sampled_from([2.0, 10.0, 60.0]))
@MANY
def test_so_many_alerts_of_one_sensor_within_the_time_are_chatter(rows: list[Row], cuts: list[int], least: int, within: float) -> None:
    alerts = run(emergency(**LIMIT, chatter={"raises": least, "within_s": within}), rows, cuts, restart=True)
    raised: dict[Any, list[float]] = defaultdict(list)
    marks: dict[int, bool] = {}
    for one in alerts:
        if one["event"] == "RAISE":
            when = seconds(one["timestamp"]) or 0.0
            raised[one["sensor_id"]].append(when)
            marks[one["alert_id"]] = sum(when - other <= within for other in raised[one["sensor_id"]]) >= least
        assert one["chattering"] == marks[one["alert_id"]]


# -- floods ------------------------------------------------------------------------------------------------------------


def floods(rows: list[Row], start: int, end: int, window: float) -> tuple[list[bool], list[tuple[Any, ...]]]:
    """Row by row: which alerts are marked, and (event, site, raised, cleared) of the floods. Each row with a message is an alert."""
    times: dict[Any, list[float]] = defaultdict(list)
    on: dict[Any, float] = {}
    marks, told = [], []
    for row in rows:
        assert isinstance(row.when, float)
        mine = times[row.site]
        if row.site in on and row.when >= sorted(mine)[-end] + window:
            told.append(("CLEAR", row.site, on.pop(row.site), sorted(mine)[-end] + window))
        if row.message:
            mine.append(row.when)
            if row.site not in on and sum(when > max(mine) - window for when in mine) > start:
                on[row.site] = max(mine)
                told.append(("RAISE", row.site, max(mine), None))
            marks.append(row.site in on)
    return marks, told


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 1, 3, 12, -4]), st.sampled_from(["x", "y", None]), st.booleans()), max_size=50),
    CUTS,
    st.booleans(),
    st.sampled_from([(1, 1), (2, 1), (3, 3)]),
    st.sampled_from([3.0, 10.0]),
)
@MANY
def test_floods_start_and_end_as_counted_row_by_row(
    steps: list[Any], cuts: list[int], restart: bool, limits: tuple[int, int], window: float
) -> None:
    rows, now = [], 100.0
    for step, site, alert in steps:
        now += step
        rows.append(Row(now, "a", None, "ALERT" if alert else None, site))
    flood = {"start": limits[0], "end": limits[1], "window_s": window, "group_by": ["site_id"]}
    alerts = run(emergency(trigger_keywords=["ALERT"], flood=flood), rows, cuts, restart)
    marks, told = floods(rows, *limits, window)
    assert [one["suppressed"] for one in alerts if one["alert_type"] == "keyword"] == marks
    seen = [one for one in alerts if one["alert_type"] == "ALARM_FLOOD"]
    assert [(one["event"], one["site_id"], seconds(one["timestamp"]), seconds(one["cleared_ts"])) for one in seen] == told
    assert not any(one["suppressed"] for one in seen)


def test_a_flood_as_operators_know_it() -> None:
    rows = [Row(second * 30.0, f"s{second}", 36.0, site="mill") for second in range(15)] + [Row(5000.0, "s0", 30.0, site="mill")]
    alerts = run(emergency(**LIMIT, flood={"group_by": ["site_id"]}), rows)
    assert [one["suppressed"] for one in alerts if one["alert_type"] == "v_high"] == [False] * 10 + [True] * 5 + [False]
    start, end = (one for one in alerts if one["alert_type"] == "ALARM_FLOOD")
    assert (start["event"], start["site_id"], start["sensor_id"], seconds(start["timestamp"])) == ("RAISE", "mill", None, 300)
    assert (start["message"], start["limit"], start["value"]) == ("11 alerts in 600 s", 10, 11)
    assert (end["event"], seconds(end["cleared_ts"]), end["peak"]) == ("CLEAR", 10 * 30 + 600, 15)
    assert start["alert_id"] == end["alert_id"]


def test_what_becomes_extreme_in_a_flood_is_shown_from_then_on() -> None:
    rows = [Row(float(second), f"s{second}", 36.0) for second in range(4)] + [
        Row(10.0, "s3", 50.0),
        Row(11.0, "s3", 30.0),
        Row(12.0, "s2", 30.0),
    ]
    steps = {"severity_thresholds": {"v": {"Minor": 35, "Extreme": 45}}}
    alerts = [one for one in run(emergency(**steps, flood={"start": 2, "end": 1}), rows, range(7), restart=True) if one["sensor_id"]]
    assert [(one["event"], one["sensor_id"], one["suppressed"]) for one in alerts][2:] == [
        ("RAISE", "s2", True),
        ("RAISE", "s3", True),
        ("UPDATE", "s3", False),
        ("CLEAR", "s3", False),
        ("CLEAR", "s2", True),
    ]


# -- shelving ----------------------------------------------------------------------------------------------------------


def at(second: float) -> str:
    return (START + timedelta(seconds=second)).isoformat()


def test_shelved_alerts_are_marked_and_go_on_as_ever() -> None:
    rows = [Row(float(second), "a", 36.0 if second % 4 == 1 else 30.0, "ALERT" if second == 6 else None) for second in range(20)]
    shelf = [{"rule": "v_high", "since": at(5), "until": at(9), "reason": "Kim: the fan is being changed"}]
    rules: dict[str, Any] = {**LIMIT, "trigger_keywords": ["ALERT"]}
    alerts = run(emergency(**rules, shelve=shelf), rows, range(20), restart=True)
    assert [one | {"suppressed": False} for one in alerts] == run(emergency(**rules), rows)
    assert [seconds(one["timestamp"]) for one in alerts if one["suppressed"]] == [5, 5]  # its RAISE and its CLEAR
    assert raises(alerts) == 6


@pytest.mark.parametrize(
    ("shelf", "mistake"),
    [
        ({"rule": "w_high"}, r"^shelve\[0\]\.rule: no rule 'w_high'; there are v_high, keyword"),
        ({"until": at(-1)}, r"^shelve\[0\]\.until: expected a time after"),
        ({"until": at(3601)}, r"^shelve\[0\]\.until: expected at most shelve_max_s, 3600 s, after"),
        ({"since": "now"}, r"^shelve\[0\]\.since: expected a time such as"),
    ],
)
def test_a_shelf_says_for_what_and_how_long(shelf: dict[str, str], mistake: str) -> None:
    good = {"rule": "v_high", "since": at(0), "until": at(3600), "reason": "Kim"}
    made = emergency(**LIMIT, shelve=[good], shelve_max_s=3600)
    with pytest.raises(OptionError, match=mistake):
        evolve(made, shelve=[evolve(made.shelve[0], **shelf)])


def test_chatter_is_counted_to_the_very_end_of_the_time() -> None:
    for last, chatters in ((20.0, True), (20.000001, False)):
        rows = [Row(when + gap, "a", 30.0 if gap else 36.0) for when in (0.0, 10.0, last) for gap in (0.0, 1.0)]
        alerts = run(emergency(**LIMIT, chatter={"raises": 3, "within_s": 20}), rows, range(6), restart=True)
        assert [one["chattering"] for one in alerts] == [False] * 4 + [chatters] * 2


@pytest.mark.parametrize("cuts", [[], range(9), [4], [5]])
def test_alerts_of_before_a_sensor_was_forgotten_are_no_chatter(cuts: list[int]) -> None:
    rows = [Row(0, "a", 36.0), Row(1, "a", 30.0), Row(2, "a", 36.0), Row(3, "a", 30.0)]
    rows += [Row(4, "b", 0.0), Row(200, "b", 0.0), Row(201, "a", 36.0), Row(202, "a", 30.0), Row(203, "a", 36.0)]
    places = [*cuts, 8]
    alerts = run(emergency(**LIMIT, chatter={"raises": 3, "within_s": 1000}, forget_after_s=100), rows, places, restart=True)
    assert (raises(alerts), any(one["chattering"] for one in alerts)) == (4, False)


# -- several sensors ---------------------------------------------------------------------------------------------------


def quorum_events(rows: list[Row]) -> list[tuple[str, float | None]]:
    rules = [{"id": "two", "kind": "quorum", "of": "v_high", "k": 2, "window_s": 10}]
    whole, cut = run(emergency(**LIMIT, rules=rules), rows), run(emergency(**LIMIT, rules=rules), rows, range(20), restart=True)
    assert whole == cut
    return [(one["event"], seconds(one["event_ts"])) for one in whole if one["alert_type"] == "two"]


def test_emg_15_sensors_count_to_the_end_of_the_window_and_with_their_newest_alert() -> None:
    once = [Row(0, "a", 36.0), Row(1, "a", 30.0)]
    assert quorum_events([*once, Row(10, "b", 36.0), Row(11, "b", 30.0)]) == [("RAISE", 10), ("CLEAR", 11)]
    assert quorum_events([*once, Row(10.000001, "b", 36.0)]) == []
    assert quorum_events([*once, Row(8, "a", 36.0), Row(9, "a", 30.0), Row(15, "b", 36.0)]) == [("RAISE", 15)]


def test_emg_15_a_quorum_lasts_as_long_as_k_sensors_alert() -> None:
    rows = [Row(0, "a", 36.0), Row(1, "b", 36.0), Row(2, "c", 36.0), Row(3, "a", 30.0), Row(4, "b", 30.0), Row(5, "c", 30.0)]
    assert quorum_events(rows) == [("RAISE", 1), ("CLEAR", 4)]
