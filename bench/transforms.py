"""Measure the four transforms beside the same work done row by row, and write it into RESULTS.md: `make bench-transforms`.

    python bench/transforms.py [ROUNDS, 5]

A million rows in batches of 65,536, in this process, on one thread; the row-by-row way gets the first batch only, scaled up. They take
turns. CPU is what counts. The rows are in memory before: reading and writing are measured by `bench/run.py`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import per_row
import pyarrow as pa
from report import heading, replace

from lakeward.secrets import Secret
from lakeward.yamlfile.build import build, unwrapped
from lakeward_plugins.transforms.emergency import Emergency
from lakeward_plugins.transforms.gps_fuzz import GpsFuzz
from lakeward_plugins.transforms.physics_validation import PhysicsValidation
from lakeward_plugins.transforms.window import Window

ROWS, BATCH = 1_000_000, 65_536
MARK = "<!-- written by make bench-transforms -->\n"
KEY = Secret("0123456789abcdef" * 4, "bench")
LIMITS = {
    "temperature": [-20, 60], "humidity": [5, 95], "pressure": [950, 1050], "vibration": [0, 10], "voltage": [20, 25],
    "wind_speed": [0, 75], "wind_direction": [0, 360], "power_output": [-50, 2100], "rotor_speed": [0, 30], "irradiance": [0, 1600],
}  # fmt: skip
TEN = {"validation": {"rules": [{"id": name, "kind": "range", "field": name, "fail": limits} for name, limits in LIMITS.items()]}}
TEMPORAL = [
    {"id": "rate", "kind": "rate", "field": "temperature", "fail": 5, "unit": "degC/s", "max_gap": "10m"},
    {"id": "flat", "kind": "flatline", "field": "pressure", "tolerance": 0.0, "suspect": "30m", "fail": "60m"},
    {"id": "spike", "kind": "spike", "field": "humidity", "suspect": 30, "fail": 60},
]
FUZZ = {"gps_fuzzing": {"key": KEY, "radius_meters": 50, "cell_m": 100}}
FIVE = ["mean", "min", "max", "count", "std"]
SUMS = {"window_minutes": 5, "aggregations": dict.fromkeys(["temperature", "humidity", "pressure", "voltage"], FIVE)}
WINDOWS = {"aggregate_config": {**SUMS, "max_open_windows": 500_000}}
ALERTS = {
    "emergency_config": {
        "severity_thresholds": {
            "temperature": {"op": ">", "Severe": 35, "deadband": 1, "on_delay_s": 60, "off_delay_s": 60},
            "pressure": {"op": ">", "Moderate": 1030, "Severe": 1045, "deadband": 2, "on_delay_s": 60, "off_delay_s": 120},
        }
    }
}


def readings(sensors: int, *, wild: bool = False) -> pa.RecordBatch:
    """A reading a second from each sensor in turn; a wild one swings across every limit from row to row."""
    chance = np.random.default_rng(1)
    row = np.arange(ROWS)
    seconds = row // sensors
    columns: dict[str, Any] = {"_row": row, "id": row}
    columns["timestamp"] = pa.array(np.datetime64("2026-01-01") + seconds.astype("timedelta64[s]")).cast(pa.string())
    columns["sensor_id"] = pa.array([f"sensor-{number:06}" for number in range(sensors)]).take(pa.array(row % sensors))
    for name, (low, high) in LIMITS.items():
        middle, width = (low + high) / 2, high - low
        columns[name] = middle + (np.where(row // sensors % 2, 0.7, -0.7) if wild else chance.normal(0, 0.1, ROWS)) * width
    if not wild:
        columns["temperature"] = 20 + 16 * np.sin(seconds / 200 + row % sensors) + chance.normal(0, 0.3, ROWS)
        columns["pressure"] = 1013 + 20 * np.sin(seconds / 300 + row % sensors) + chance.normal(0, 0.5, ROWS)
    return pa.record_batch(columns)


def fixes(devices: int, speed: float) -> pa.RecordBatch:
    """A fix a second of devices all over the Earth, each on its own straight way at so many metres a second."""
    chance = np.random.default_rng(1)
    device, second = np.arange(ROWS) % devices, np.arange(ROWS) // devices
    heading_of, way = chance.uniform(0, 2 * np.pi, devices)[device], second * speed / 111_320
    lat = chance.uniform(-60, 60, devices)[device] + way * np.cos(heading_of)
    lon = chance.uniform(-179, 179, devices)[device] + way * np.sin(heading_of)
    names = pa.array([f"sensor-{number:05}" for number in range(devices)]).take(pa.array(device))
    return pa.record_batch({"_row": np.arange(ROWS), "timestamp": 1.7e9 + second, "sensor_id": names, "latitude": lat, "longitude": lon})


@dataclass
class Job:
    """One transform with its rows, what it is compared with, and what was measured: rows per CPU second."""

    name: str
    cls: type
    options: dict[str, Any]
    rows: pa.RecordBatch
    row_by_row: Callable[[], per_row.Work] | None = None
    speeds: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def make(self) -> Any:
        """A fresh transform, made from its options as a pipeline would."""
        return build(self.cls, unwrapped(self.cls, self.options), Path())

    def measure(self) -> None:
        """One turn."""
        transform = self.make()
        if hasattr(transform, "state"):
            self.speeds.append(speed(self.rows, lambda batch: (transform.apply(batch), transform.state())))
        else:
            self.speeds.append(speed(self.rows, transform.apply))
        if self.row_by_row:
            self.others.append(speed(self.rows.slice(0, BATCH), self.row_by_row()))


def speed(rows: pa.RecordBatch, work: Callable[[pa.RecordBatch], object]) -> float:
    """Rows per CPU second."""
    began = time.process_time()
    for start in range(0, rows.num_rows, BATCH):
        work(rows.slice(start, BATCH))
    return rows.num_rows / (time.process_time() - began)


def jobs() -> list[Job]:
    """What the bars are about, then what is harder."""
    usual, wild, many = readings(1000), readings(1000, wild=True), readings(500_000)
    return [
        Job("validation, ten ranges", PhysicsValidation, TEN, usual, per_row.validated),
        Job("GPS noise, 10,000 devices at 10 m/s, cells of 100 m", GpsFuzz, FUZZ, fixes(10_000, 10), per_row.fuzzed),
        Job("windows, four fields with five aggregates, 1,000 sensors", Window, WINDOWS, usual, per_row.windowed),
        Job("alerts, two limits with deadband and delays, 1,000 sensors", Emergency, ALERTS, usual, per_row.alerted),
        Job("validation over time (rate, flat line, spike), 1,000 sensors", PhysicsValidation, {"validation": {"rules": TEMPORAL}}, usual),
        Job("validation, every row breaks all ten", PhysicsValidation, TEN, wild),
        Job("GPS noise, each row in a cell of its own", GpsFuzz, FUZZ, fixes(10_000, 200)),
        Job("windows, 500,000 sensors with two rows each", Window, WINDOWS, many),
        Job("alerts, every reading on the other side of the limit", Emergency, ALERTS, wild),
    ]


def states() -> list[str]:
    """Milliseconds to save and restore what is remembered of 10,000 keys, the median of eleven."""
    lines = []
    rows = readings(10_000).slice(0, 10_000)
    for name, cls, options in (("10,000 open windows", Window, WINDOWS), ("10,000 sensors with alerts", Emergency, ALERTS)):
        job, taken, size = Job(name, cls, options, rows), [], 0
        transform = job.make()
        transform.apply(rows)
        for _ in range(11):
            fresh = job.make()
            began = time.process_time()
            state = transform.state()
            fresh.restore(state)
            taken.append((time.process_time() - began) * 1000)
            size = len(state)
        lines.append(f"| {name} | {statistics.median(taken):.1f} ms ({min(taken):.1f}-{max(taken):.1f}) | {size / 1e6:.2f} MB |")
    return lines


def table(measured: Sequence[Job]) -> list[str]:
    """One line a job."""
    lines = ["| transform | rows per CPU second | row by row | ratio | runs |", "| --- | --- | --- | --- | --- |"]
    for job in measured:
        cells = [millions(job.speeds), "", "", str(len(job.speeds))]
        if job.others:
            ratios = [ours / theirs for ours, theirs in zip(job.speeds, job.others, strict=True)]
            cells[1:3] = [millions(job.others), f"{statistics.median(ratios):.0f} x"]
        lines.append(f"| {job.name} | {' | '.join(cells)} |")
    return lines


def millions(speeds: Sequence[float]) -> str:
    middle, least, most = (f"{value / 1e6:.2f}" for value in (statistics.median(speeds), min(speeds), max(speeds)))
    return f"{middle} M ({least}-{most})"


def main(rounds: int) -> None:
    """Measure in turns and write."""
    measured = jobs()
    for turn in range(rounds):
        for job in measured:
            job.measure()
            print(f"turn {turn + 1}: {job.name}: {job.speeds[-1]:,.0f} rows per CPU second", flush=True)
    saved = ["| what is remembered | saved and restored | size |", "| --- | --- | --- |", *states()]
    section = "\n".join([heading().replace("## ", "## Transforms, ", 1), *table(measured), "", *saved, ""])
    replace(Path(__file__).parent / "RESULTS.md", MARK, section)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5)
