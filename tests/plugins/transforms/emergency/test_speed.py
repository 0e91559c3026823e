"""What a core does in a second. The bars leave room for slow machines; `make bench-transforms` measures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from alarm_oracle import emergency
from attrs import evolve

ROWS, SENSORS = 100_000, 1000
LIMIT = {"severity_thresholds": {"v": {"limit": 35, "deadband": 1, "on_delay_s": 20, "off_delay_s": 30}}}


def readings(values: Any, sensors: int = SENSORS) -> pa.RecordBatch:
    seconds = np.arange(len(values)) // sensors
    stamps = pa.array(seconds * 1_000_000 + 1_704_067_200_000_000).cast(pa.timestamp("us", "UTC"))
    names = pa.array([f"s{index}" for index in range(sensors)]).take(pa.array(np.arange(len(values)) % sensors))
    return pa.record_batch({"timestamp": stamps, "sensor_id": names, "v": pa.array(values)})


USUAL = np.random.default_rng(1).normal(20, 10, ROWS)
SWINGING = np.where(np.arange(ROWS) // SENSORS % 2, 40.0, 20.0)


def least(work: Callable[[], object]) -> float:
    """CPU seconds, the least of three times: what else the machine does can only add to it."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


@pytest.mark.parametrize(
    ("options", "values", "per_second"),
    [(LIMIT, USUAL, 1e6), (LIMIT, SWINGING, 1e6), ({"severity_thresholds": {"v": 35}}, SWINGING, 0.1e6)],
    ids=["usual", "swinging", "an event for every row"],
)
def test_rows_per_second_of_a_thousand_sensors(options: dict[str, Any], values: Any, per_second: float) -> None:
    made, batch = emergency(**options), readings(values)

    def run() -> None:
        fresh = evolve(made)
        for first in range(0, ROWS, 50_000):
            fresh.apply(batch.slice(first, 50_000))

    assert least(run) < ROWS / per_second


def test_the_state_of_ten_thousand_sensors_is_saved_and_restored_in_a_moment() -> None:
    made = emergency(**LIMIT, rules=[{"id": "rise", "kind": "rate", "field": "v", "per_s": 1}])
    made.apply(readings(np.full(20_000, 36.0), sensors=10_000))
    fresh = evolve(made)
    assert least(lambda: fresh.restore(made.state())) < 0.05
    assert fresh.state() == made.state()
