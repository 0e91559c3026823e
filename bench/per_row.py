"""The four transforms as they are usually written: one row at a time. What `bench/transforms.py` compares with.

Rows are made dicts, either as they are (plain Python) or through a pydantic model (validated types and times). What comes out becomes a
table again. Each does less than the transform that it is compared with: no flags for each field, no noise that sticks, no late rows, no
restart in the middle. That is in their favour.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError

LIMITS = {
    "temperature": (-20, 60), "humidity": (5, 95), "pressure": (950, 1050), "vibration": (0, 10), "voltage": (20, 25),
    "wind_speed": (0, 75), "wind_direction": (0, 360), "power_output": (-50, 2100), "rotor_speed": (0, 30), "irradiance": (0, 1600),
}  # fmt: skip
Rows = list[dict[str, Any]]
Work = Callable[[Rows], Rows]


class Reading(BaseModel):
    """A row with its types."""

    reading_id: int
    sensor_id: str
    timestamp: datetime
    temperature: float
    humidity: float
    pressure: float
    vibration: float
    voltage: float
    wind_speed: float
    wind_direction: float
    power_output: float
    rotor_speed: float
    irradiance: float
    latitude: float
    longitude: float
    firmware_version: str
    model: str
    location: str
    original_timezone: str
    status_code: int
    anomaly_flag: int
    synced: int


class LimitedReading(Reading):
    """A row with its types and ten limits."""

    temperature: Annotated[float, Field(ge=-20, le=60)]
    humidity: Annotated[float, Field(ge=5, le=95)]
    pressure: Annotated[float, Field(ge=950, le=1050)]
    vibration: Annotated[float, Field(ge=0, le=10)]
    voltage: Annotated[float, Field(ge=20, le=25)]
    wind_speed: Annotated[float, Field(ge=0, le=75)]
    wind_direction: Annotated[float, Field(ge=0, le=360)]
    power_output: Annotated[float, Field(ge=-50, le=2100)]
    rotor_speed: Annotated[float, Field(ge=0, le=30)]
    irradiance: Annotated[float, Field(ge=0, le=1600)]


def plain(work: Work) -> Callable[[pa.RecordBatch], pa.Table]:
    """With dicts."""

    def batchwise(batch: pa.RecordBatch) -> pa.Table:
        rows = batch.to_pylist()
        for row in rows:
            row["timestamp"] = datetime.fromisoformat(row["timestamp"])
        return pa.Table.from_pylist(work(rows))

    return batchwise


def modelled(work: Work) -> Callable[[pa.RecordBatch], pa.Table]:
    """With pydantic models."""
    return lambda batch: pa.Table.from_pylist(work([Reading.model_validate(row).__dict__ for row in batch.to_pylist()]))


def limited(batch: pa.RecordBatch) -> pa.Table:
    """Validation with the model that has the limits; each row with the text of what is wrong with it."""
    rows = []
    for row in batch.to_pylist():
        try:
            LimitedReading.model_validate(row)
            row["validation_error"] = None
        except ValidationError as error:
            row["validation_error"] = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        rows.append(row)
    return pa.Table.from_pylist(rows)


def validated(rows: Rows) -> Rows:
    """Each row with the text of what is wrong with it."""
    for row in rows:
        wrong = [f"{name} is outside of {low} to {high}" for name, (low, high) in LIMITS.items() if not low <= row[name] <= high]
        row["validation_error"] = "; ".join(wrong) or None
    return rows


def fuzzed() -> Work:
    """Fresh noise for each row, by degrees: 50 m."""
    drawn = random.Random(1)

    def work(rows: Rows) -> Rows:
        for row in rows:
            radius, angle = 50 * math.sqrt(drawn.random()), drawn.uniform(0, 2 * math.pi)
            row["latitude"] += radius * math.cos(angle) / 111_320
            row["longitude"] += radius * math.sin(angle) / (111_320 * math.cos(math.radians(row["latitude"])))
        return rows

    return work


def windowed() -> Work:
    """Five aggregates of four fields for each sensor and five minutes; closed by the next window of the sensor."""
    fields = ("temperature", "humidity", "pressure", "voltage")
    open_windows: dict[str, tuple[datetime, dict[str, list[float]]]] = {}

    def work(rows: Rows) -> Rows:
        closed = []
        for row in rows:
            moment, sensor = row["timestamp"], row["sensor_id"]
            start = moment - timedelta(minutes=moment.minute % 5, seconds=moment.second, microseconds=moment.microsecond)
            if sensor not in open_windows or open_windows[sensor][0] != start:
                if sensor in open_windows:
                    closed.append(_summary(sensor, *open_windows[sensor]))
                open_windows[sensor] = start, defaultdict(list)
            for name in fields:
                open_windows[sensor][1][name].append(row[name])
        return closed

    return work


def _summary(sensor: str, start: datetime, values: dict[str, list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"sensor_id": sensor, "window_start": start}
    for name, numbers in values.items():
        mean = sum(numbers) / len(numbers)
        spread = math.sqrt(sum((number - mean) ** 2 for number in numbers) / max(len(numbers) - 1, 1))
        row |= {f"avg_{name}": mean, f"min_{name}": min(numbers), f"max_{name}": max(numbers), f"count_{name}": len(numbers)}
        row[f"std_{name}"] = spread
    return row


def alerted() -> Work:
    """Two limits with deadband and delays for each sensor."""
    limits = {"temperature": (35.0, 1.0, 60, 60), "pressure": (1030.0, 2.0, 60, 120)}
    since: dict[tuple[str, str], tuple[str, datetime]] = {}
    active: set[tuple[str, str]] = set()

    def work(rows: Rows) -> Rows:
        alerts = []
        for row in rows:
            moment = row["timestamp"]
            for name, (limit, deadband, on_delay, off_delay) in limits.items():
                key, value = (row["sensor_id"], name), row[name]
                level = "beyond" if value > limit else "clear" if value <= limit - deadband else "between"
                if key not in since or since[key][0] != level:
                    since[key] = level, moment
                lasted = (moment - since[key][1]).total_seconds()
                if level == "beyond" and key not in active and lasted >= on_delay:
                    active.add(key)
                    alerts.append({"sensor_id": key[0], "event": "RAISE", "timestamp": moment, "value": value})
                elif level == "clear" and key in active and lasted >= off_delay:
                    active.discard(key)
                    alerts.append({"sensor_id": key[0], "event": "CLEAR", "timestamp": moment, "value": value})
        return alerts

    return work
