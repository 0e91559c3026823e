"""All of the state machine, compared with the plain one."""

from __future__ import annotations

import pytest
from alarm_oracle import CUTS, DELAYS, RULES, Row, Rule, arrivals, emergency, forgetful, oracle, rates, run, seconds, seen, silences, usable
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.slow, pytest.mark.one_python]  # long searches, which tell nothing about the version of Python


@given(arrivals(), CUTS, st.booleans(), RULES)
@settings(max_examples=200, deadline=None)
def test_steps_latches_and_realarms_are_those_of_the_plain_machine(rows: list[Row], cuts: list[int], restart: bool, rule: Rule) -> None:
    made = emergency(**rule.options())

    assert seen(run(made, rows, cuts, restart)) == oracle(rows, rule)


RATES = st.builds(Rule, steps=st.just((("Severe", 0.5),)), deadband=st.sampled_from([0.0, 0.3]), on=DELAYS, off=DELAYS)


@given(arrivals(), CUTS, st.booleans(), RATES, st.sampled_from([0.0, 1.0, 3.0]), st.sampled_from([4.0, 100.0]))
@settings(max_examples=150, deadline=None)
def test_rates_are_those_between_readings_far_enough_from_each_other(
    rows: list[Row], cuts: list[int], restart: bool, rule: Rule, least: float, most: float
) -> None:
    limits = {"per_s": 0.5, "deadband": rule.deadband, "on_delay_s": rule.on, "off_delay_s": rule.off}

    made = emergency(rules=[{"id": "rise", "kind": "rate", "field": "v", "min_dt_s": least, "max_gap_s": most, **limits}])

    rows = [evolve(row, v=None) if row.flag == 9 else row for row in rows]
    assert seen(run(made, rows, cuts, restart)) == oracle(rates(rows, least, most), rule)


@given(arrivals(), CUTS, st.booleans(), DELAYS, DELAYS)
@settings(max_examples=60, deadline=None)
def test_equals_is_a_machine_with_nothing_between(rows: list[Row], cuts: list[int], restart: bool, on: float, off: float) -> None:
    made = emergency(rules=[{"id": "flagged", "kind": "equals", "field": "v", "value": 36, "on_delay_s": on, "off_delay_s": off}])

    alerts = run(made, rows, cuts, restart)
    said = oracle(
        [evolve(row, v=float(row.v == 36) if usable(row.v) else None) for row in rows], Rule(steps=(("Severe", 0.0),), on=on, off=off)
    )
    plain = [(*one[:7], one[8] * 36, *one[9:]) for one in said]  # of 36 the peak is 36, and not 1; values are left out
    assert [(*one[:7], *one[8:]) for one in seen(alerts)] == plain


@given(arrivals(), CUTS, st.booleans(), st.sampled_from([2.0, 5.0, 9.0]))
@settings(max_examples=150, deadline=None)
def test_silence_is_told_when_the_watermark_passes(rows: list[Row], cuts: list[int], restart: bool, after: float) -> None:
    made = emergency(rules=[{"id": "silent", "kind": "stale", "after_s": after}])

    alerts = run(made, rows, cuts, restart)
    got = [(one["event"], one["sensor_id"], *(seconds(one[name]) for name in ("onset_ts", "timestamp", "cleared_ts"))) for one in alerts]
    assert sorted(got, key=str) == sorted(silences(rows, after), key=str)


@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 4, 5, 6]])
def test_a_sensor_whose_rows_come_after_those_of_another_was_silent_at_its_own_times(cuts: list[int]) -> None:
    rows = [Row(0, "first"), Row(1000, "first"), Row(0, "then"), Row(1, "then"), Row(100, "then"), Row(200, "then"), Row(201, "then")]
    alerts = run(emergency(rules=[{"id": "silent", "kind": "stale", "after_s": 10}]), rows, cuts)

    times = [[seconds(one[name]) for name in ("event_ts", "onset_ts", "timestamp", "cleared_ts")] for one in alerts]
    assert times[2:] == [[100, 11, 100, None], [100, 11, 100, 100], [200, 110, 200, None], [200, 110, 200, 200]]
    assert [one["value"] for one in alerts[2:]] == [99, 99, 100, 100]
    assert not any(one["chattering"] for one in alerts)


@given(arrivals(), CUTS, st.booleans(), RULES.filter(lambda rule: not rule.latch), st.sampled_from([3.0, 8.0, 20.0]))
@settings(max_examples=200, deadline=None)
def test_who_is_forgotten_is_as_new_wherever_the_batches_are_cut(
    rows: list[Row], cuts: list[int], restart: bool, rule: Rule, forget: float
) -> None:
    made = emergency(**rule.options(), forget_after_s=forget)

    assert seen(run(made, rows, cuts, restart)) == forgetful(rows, rule, forget)
