"""What is remembered: rows that wait, a state that stays small and fast, and what becomes of it when options change."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakeward import END_OF_INPUT, OptionError, Refused
from lakeward.components import Clocked, Holding, Stateful
from lakeward.testing import TransformContract
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Rule

MINUTE = 60_000_000
RATE = Rule("rate", "rate", "x", suspect=1 / 60, max_gap=timedelta(minutes=5))
SPIKE = Rule("spike", "spike", "x", suspect=1, fail=5)
FLAT = Rule("flat", "flatline", "x", tolerance=0.3, suspect=timedelta(minutes=4), fail=timedelta(minutes=9))
SMALL = Rule("small", "attenuated", "x", period=timedelta(minutes=6), suspect=1, fail=0.2, min_period=timedelta(minutes=3))


def rows(sensors: list[Any], minutes: list[float], x: list[float | None], first: int = 0, **more: Any) -> pa.RecordBatch:
    times = pa.array([int(1_600_000_000_000_000 + minute * MINUTE) for minute in minutes], pa.int64())
    columns = {"_row": pa.array(range(first, first + len(x)), pa.int64()), "sensor_id": sensors}
    return pa.RecordBatch.from_pydict(
        columns | {"timestamp": times.cast(pa.timestamp("us", "UTC")), "x": pa.array(x, pa.float64()), **more}
    )


def flags(*outputs: Any) -> dict[int, int]:
    return {row["_row"]: row["qc_x"] for output in outputs for part in output.values() for row in part.to_pylist()}


class TestPhysicsValidationOverTimeContract(TransformContract):
    def make(self) -> PhysicsValidation:
        station = Rule("dew", "relation", expr="y <= x + 1", when="y > 0")
        return PhysicsValidation(rules=[RATE, SPIKE, FLAT, SMALL, station], missing_sentinels={"x": [-9999]})

    def rows(self) -> pa.RecordBatch:
        x = [1.0, 1.1, 9, 1, 1, None, -9999, 2, 2, 2, 2, 2.1, 2.2, 2, 2, 7]
        minutes = [0.5, 1, 2, 3, 3, 4, 5, 6, 4, 7, 8, 9, 10, 11, 12, 40]
        return rows(
            ["a", "b", "a", "a"] * 12,
            [*minutes, *(45 + minute for minute in minutes), *(90 + minute for minute in minutes)],
            x * 3,
            y=[1.0, 30, None] * 16,
        )


def test_the_newest_row_of_each_key_waits_for_the_one_after_it() -> None:
    transform = PhysicsValidation(rules=[SPIKE])
    assert isinstance(transform, Holding)
    assert isinstance(transform, Stateful)
    assert isinstance(transform, Clocked)
    first = transform.apply(rows(["a", "b", "a"], [0, 0, 1], [0.0, 0.0, 9.0]))
    assert flags(first) == {0: 2}
    assert transform.held is not None
    assert transform.held["_row"].to_pylist() == [1, 2]
    assert transform.held.schema.names == ["_row", "sensor_id", "timestamp", "x"]
    assert flags(transform.apply(rows(["a"], [2], [0.0], first=3))) == {2: 4}
    assert flags(transform.finish(END_OF_INPUT)) == {1: 2, 3: 2}
    assert transform.held is None
    assert transform.finish(END_OF_INPUT) == {}
    assert flags(transform.apply(rows(["a", "a"], [3, 4], [9.0, 0.0], first=4))) == {4: 4}  # the row before it is not forgotten


def test_without_a_spike_rule_no_row_waits() -> None:
    transform = PhysicsValidation(rules=[RATE, FLAT, SMALL])
    assert flags(transform.apply(rows(["a"], [0], [0.0]))) == {0: 1}  # it is not flat, whatever the others cannot say
    assert transform.held is None


def test_a_late_row_does_not_wait_and_changes_nothing() -> None:
    transform = PhysicsValidation(rules=[SPIKE])
    transform.apply(rows(["a", "a"], [5, 6], [0.0, 9.0]))
    assert flags(transform.apply(rows(["a"], [4], [50.0], first=2))) == {2: 2}
    assert flags(transform.apply(rows(["a"], [7], [0.0], first=3))) == {1: 4}


def test_rows_that_wait_get_a_new_column_and_refuse_to_lose_one() -> None:
    transform = PhysicsValidation(rules=[SPIKE])
    transform.apply(rows(["a"], [0], [0.0]))
    wider = rows(["a"], [1], [0.0], first=1, note=["new"])
    [row] = transform.apply(wider)["valid"].to_pylist()
    assert (row["_row"], row["note"]) == (0, None)
    with pytest.raises(Refused, match="'note' that is gone"):
        transform.apply(rows(["a"], [2], [0.0], first=2))


def test_a_changed_rule_starts_anew_and_no_waiting_row_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    transform = PhysicsValidation(rules=[RATE, SPIKE])
    transform.apply(rows(["a", "a"], [0, 1], [0.0, 0.0]))
    state = transform.state()
    changed = PhysicsValidation(rules=[Rule("rate", "rate", "x", suspect=1 / 60), Rule("far", "range", "x", fail=[-9, 9])])
    with caplog.at_level(logging.WARNING, "lakeward.physics_validation"):
        changed.restore(state)
    assert [record.getMessage() for record in caplog.records] == [
        "rule rate is gone or has changed: what it remembered is forgotten",
        "rule spike is gone or has changed: what it remembered is forgotten",
    ]
    assert flags(changed.apply(rows(["a"], [2], [9.0], first=2))) == {1: 1, 2: 3}  # row 1 has waited; it is compared again
    by_site = PhysicsValidation(rules=[SPIKE], key=[])
    with caplog.at_level(logging.WARNING, "lakeward.physics_validation"):
        by_site.restore(state)
    assert "the key was sensor_id" in caplog.records[-1].getMessage()
    assert by_site.held is not None
    assert by_site.held["_row"].to_pylist() == [1]


def test_a_tighter_limit_keeps_what_is_remembered() -> None:
    transform = PhysicsValidation(rules=[RATE])
    transform.apply(rows(["a"], [0], [0.0]))
    tighter = PhysicsValidation(rules=[Rule("rate", "rate", "x", suspect=0.001, max_gap=timedelta(minutes=5))])
    tighter.restore(transform.state())
    assert flags(tighter.apply(rows(["a"], [1], [0.5], first=1))) == {1: 3}


def test_keys_of_another_type_are_refused() -> None:
    transform = PhysicsValidation(rules=[RATE])
    transform.apply(rows(["a"], [0], [0.0]))
    with pytest.raises(Refused, match="types of sensor_id have changed"):
        transform.apply(rows([7], [1], [0.0]))


def test_keys_and_remembered_readings_are_bounded() -> None:
    many = rows(list("abcdefgh"), [0] * 8, [0.0] * 8)
    with pytest.raises(Refused, match="8 keys, max_keys allows 7"):
        PhysicsValidation(rules=[RATE], max_keys=7).apply(many)
    with pytest.raises(Refused, match="8 readings are remembered, max_remembered allows 7"):
        PhysicsValidation(rules=[SMALL], max_remembered=7).apply(many)


def test_a_stuck_sensor_is_remembered_by_a_few_readings() -> None:
    random, transform = (
        np.random.default_rng(2),
        PhysicsValidation(rules=[Rule("flat", "flatline", "x", tolerance=1, fail=timedelta(days=30))]),
    )
    for day in range(40):
        noise = random.uniform(0, 0.9, 1440).tolist()
        last = transform.apply(rows(["a"] * 1440, [1440 * day + minute for minute in range(1440)], noise, first=1440 * day))
    assert set(flags(last).values()) == {4}
    assert len(transform.state()) < 3000


def test_the_state_of_ten_thousand_keys_is_saved_and_restored_in_a_blink() -> None:
    count = 10_000
    transform = PhysicsValidation(rules=[RATE, SPIKE, FLAT, SMALL])
    for minute in range(3):
        values = np.random.default_rng(minute).normal(0, 1, count).tolist()
        transform.apply(rows([f"sensor-{number}" for number in range(count)], [minute] * count, values))
    taken = []
    for _ in range(5):
        start = time.process_time()
        state = transform.state()
        fresh = PhysicsValidation(rules=[RATE, SPIKE, FLAT, SMALL])
        fresh.restore(state)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.05
    assert fresh.state() == state


def test_a_profile_over_time_leaves_out_what_needs_a_key_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    batch = pa.RecordBatch.from_pydict(
        {"_row": [0, 1], "timestamp": ["2020-01-01T00:00:00Z", "2020-01-01T00:01:00Z"], "temperature": [20.0, 90.0]}
    )
    with caplog.at_level(logging.WARNING, "lakeward.physics_validation"):
        found = PhysicsValidation(profile="outdoor_wmo").apply(batch)
    assert [reason["rule_id"] for reason in found["anomalies"].to_pylist()[0]["qc_reasons"]] == ["temperature-range"]
    assert "sensor_id" in caplog.text
    both = PhysicsValidation(profile="outdoor_wmo", key=[]).apply(batch)
    assert [reason["rule_id"] for reason in both["anomalies"].to_pylist()[0]["qc_reasons"]] == ["temperature-range", "temperature-step"]
    with pytest.raises(OptionError, match="no column 'sensor_id'"):
        PhysicsValidation(rules=[Rule("r", "rate", "temperature", fail=1)]).apply(batch)
