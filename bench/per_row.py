"""The four transforms as they are usually written: one row at a time, as Python objects. What `bench/transforms.py` compares with.

Each takes a batch, makes dicts of its rows, and a batch of what comes out. Each does less than the transform that it is compared with:
no flags for each field, no keyed noise, no late rows, no restart in the middle. That is in their favour.
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

Work = Callable[[pa.RecordBatch], pa.Table]


class Reading(BaseModel):
    """Ten limits, as a model."""

    id: int
    sensor_id: str
    timestamp: datetime
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


def validated() -> Work:
    """Each row with the text of what is wrong with it."""

    def work(batch: pa.RecordBatch) -> pa.Table:
        rows = []
        for row in batch.to_pylist():
            try:
                Reading.model_validate(row)
                row["validation_error"] = None
            except ValidationError as error:
                row["validation_error"] = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
            rows.append(row)
        return pa.Table.from_pylist(rows)

    return work


def fuzzed() -> Work:
    """Fresh noise for each row, by degrees: 50 m."""
    drawn = random.Random(1)

    def work(batch: pa.RecordBatch) -> pa.Table:
        rows = []
        for row in batch.to_pylist():
            radius, angle = 50 * math.sqrt(drawn.random()), drawn.uniform(0, 2 * math.pi)
            row["latitude"] += radius * math.cos(angle) / 111_320
            row["longitude"] += radius * math.sin(angle) / (111_320 * math.cos(math.radians(row["latitude"])))
            rows.append(row)
        return pa.Table.from_pylist(rows)

    return work


def windowed() -> Work:
    """Five aggregates of four fields for each sensor and five minutes; closed by the next window of the sensor."""
    fields = ("temperature", "humidity", "pressure", "voltage")
    open_windows: dict[str, tuple[datetime, dict[str, list[float]]]] = {}

    def work(batch: pa.RecordBatch) -> pa.Table:
        closed = []
        for row in batch.to_pylist():
            moment = datetime.fromisoformat(row["timestamp"])
            start = moment - timedelta(minutes=moment.minute % 5, seconds=moment.second, microseconds=moment.microsecond)
            sensor = row["sensor_id"]
            if sensor not in open_windows or open_windows[sensor][0] != start:
                if sensor in open_windows:
                    closed.append(_summary(sensor, *open_windows[sensor]))
                open_windows[sensor] = start, defaultdict(list)
            for name in fields:
                open_windows[sensor][1][name].append(row[name])
        return pa.Table.from_pylist(closed)

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

    def work(batch: pa.RecordBatch) -> pa.Table:
        alerts = []
        for row in batch.to_pylist():
            moment = datetime.fromisoformat(row["timestamp"])
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
        return pa.Table.from_pylist(alerts)

    return work
