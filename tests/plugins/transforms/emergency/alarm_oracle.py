"""The state machine of section 2.3, sample by sample, as it is written; and how the tests make rows and read alerts."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
from attrs import define, evolve, field, frozen
from hypothesis import strategies as st

from lakeward.yamlfile.build import build, unwrapped
from lakeward_plugins.transforms.emergency import Emergency

DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[4].parent / "shared" / "data"))
START = datetime(2024, 1, 1, tzinfo=UTC)
Alert = dict[str, Any]


@frozen
class Row:
    """A reading."""

    when: float | str | None
    """Seconds after START, or a text that stands for a time."""
    sensor: Any
    v: float | None = None
    message: str | None = None
    site: str | None = None
    reset: bool | None = None
    flag: int | None = None


def emergency(**options: Any) -> Emergency:
    """As a pipeline makes it from its YAML."""
    return build(Emergency, unwrapped(Emergency, options), Path())


def batch_of(rows: Sequence[Row], first: int = 0) -> pa.RecordBatch:
    times = [row.when if not isinstance(row.when, (int, float)) else (START + timedelta(seconds=row.when)).isoformat() for row in rows]
    return pa.RecordBatch.from_pydict(
        {
            "_row": pa.array(range(first, first + len(rows)), pa.int64()),
            "timestamp": pa.array(times, pa.string()),
            "sensor_id": pa.array([row.sensor for row in rows], pa.string()),
            "site_id": pa.array([row.site for row in rows], pa.string()),
            "v": pa.array([row.v for row in rows], pa.float64()),
            "qc_v": pa.array([row.flag for row in rows], pa.int8()),
            "message": pa.array([row.message for row in rows], pa.string()),
            "reset": pa.array([row.reset for row in rows], pa.bool_()),
        }
    )


def run(made: Emergency, rows: Sequence[Row], cuts: Iterable[int] = (), restart: bool = False) -> list[Alert]:
    """All alerts when the rows are cut there; with `restart` a fresh one, made as the kernel does, takes over the state at each cut."""
    alerts: list[Alert] = []
    places = sorted(min(cut, len(rows)) for cut in cuts)
    for low, high in pairwise([0, *places, len(rows)]):
        alerts += made.apply(batch_of(rows[low:high], first=low))["main"].to_pylist()
        if restart:
            state, made = made.state(), evolve(made)
            made.restore(state)
    return alerts


def seconds(moment: datetime | None) -> float | None:
    return None if moment is None else (moment - START).total_seconds()


def raises(alerts: Iterable[Alert]) -> int:
    return sum(alert["event"] == "RAISE" for alert in alerts)


TIMES = ("event_ts", "onset_ts", "timestamp", "clear_onset_ts", "cleared_ts")


def seen(alerts: Iterable[Alert]) -> list[tuple[Any, ...]]:
    """What the oracle says of an alert."""
    columns = ("value", "peak", "count", "severity")
    return [(one["event"], one["sensor_id"], *(seconds(one[name]) for name in TIMES), *(one[name] for name in columns)) for one in alerts]


# -- the machine -------------------------------------------------------------------------------------------------------


@frozen
class Rule:
    """A rule, and how it is judged."""

    steps: tuple[tuple[str, float], ...] = (("Severe", 35.0),)
    low: bool = False
    deadband: float = 0.0
    on: float = 0.0
    off: float = 0.0
    latch: bool = False
    realarm: float | None = None

    def exceed(self, v: float, step: int = 0) -> bool:
        limit = self.steps[step][1]
        return v < limit if self.low else v > limit

    def clear(self, v: float) -> bool:
        limit = self.steps[0][1]
        return v >= limit + self.deadband if self.low else v <= limit - self.deadband

    def severity(self, peak: float) -> str:
        return [name for index, (name, _) in enumerate(self.steps) if index == 0 or self.exceed(peak, index)][-1]

    def options(self) -> dict[str, Any]:
        """The same as YAML."""
        limits: dict[str, Any] = dict(self.steps) if len(self.steps) > 1 else {"limit": self.steps[0][1], "severity": self.steps[0][0]}
        limits |= {"op": "<" if self.low else ">", "deadband": self.deadband, "on_delay_s": self.on, "off_delay_s": self.off}
        found: dict[str, Any] = {"severity_thresholds": {"v": limits}}
        if self.latch:
            found |= {"latch": True, "reset_field": "reset"}
        return found | ({"realarm_s": self.realarm} if self.realarm else {})


@define
class Machine:
    """One rule and one sensor."""

    rule: Rule
    sensor: Any
    state: str = "NORMAL"
    onset: float = 0
    raised: float | None = None
    clear_onset: float = 0
    peak: float = 0
    count: int = 0
    severity: str = ""
    said: float = 0
    events: list[tuple[Any, ...]] = field(factory=list)

    def sample(self, t: float, v: float, reset: bool = False) -> None:
        rule, exceed, clear = self.rule, self.rule.exceed(v), self.rule.clear(v)
        if self.state == "NORMAL" and exceed:
            self.state, self.onset, self.peak, self.count = "PENDING", t, v, 0
        if self.state != "NORMAL":
            self.peak, self.count = (min if rule.low else max)(self.peak, v), self.count + exceed
        if self.state == "PENDING":
            if not exceed:
                self.state = "NORMAL"
            elif t - self.onset >= rule.on:
                self.state, self.raised, self.said, self.severity = "ACTIVE", t, t, rule.severity(self.peak)
                self.say(t, "RAISE", v)
            return
        if self.state == "ACTIVE" and clear:
            self.state, self.clear_onset = "CLEARING", t
        elif self.state in ("CLEARING", "RETURNED") and not clear:
            self.state = "ACTIVE"
        if self.state == "CLEARING" and t - self.clear_onset >= rule.off:
            if rule.latch:
                self.state = "RETURNED"
            else:
                self.state = "NORMAL"
                self.say(t, "CLEAR", v, self.clear_onset)
        if self.state == "RETURNED" and reset:
            self.state = "NORMAL"
            self.say(t, "CLEAR", v, self.clear_onset)
        if self.state != "NORMAL":
            self.update(t, v)

    def update(self, t: float, v: float) -> None:
        worse = self.rule.severity(self.peak) != self.severity
        if worse or (self.rule.realarm is not None and t - self.said >= self.rule.realarm):
            self.severity, self.said = self.rule.severity(self.peak), t
            self.say(t, "UPDATE", v)

    def reset(self, t: float) -> None:
        """By a row without a reading."""
        if self.state == "RETURNED":
            self.state = "NORMAL"
            self.say(t, "CLEAR", None, self.clear_onset)

    def say(self, t: float, event: str, v: float | None, clear_onset: float | None = None) -> None:
        times = (t, self.onset, self.raised, clear_onset, t if event == "CLEAR" else None)
        self.events.append((event, self.sensor, *times, v, self.peak, self.count, self.severity))


def usable(v: float | None) -> bool:
    return v is not None and math.isfinite(v)


def in_time(rows: Iterable[Row]) -> list[Row]:
    """Without those older than one of their sensor before them."""
    newest: dict[Any, float] = {}
    found = []
    for row in rows:
        assert isinstance(row.when, (int, float))
        if row.when >= newest.get(row.sensor, -math.inf):
            newest[row.sensor] = row.when
            found.append(row)
    return found


def oracle(rows: Iterable[Row], rule: Rule) -> list[tuple[Any, ...]]:
    """What is said, in the order of the rows."""
    machines: dict[Any, Machine] = {}
    events: list[tuple[Any, ...]] = []
    for row in in_time(rows):
        machine = machines.setdefault(row.sensor, Machine(rule, row.sensor, events=events))
        if usable(row.v) and row.flag != 9:
            machine.sample(row.when, row.v, bool(rule.latch and row.reset))
        elif rule.latch and row.reset:
            machine.reset(row.when)
    return events


def rates(rows: Iterable[Row], least: float, most: float) -> list[Row]:
    """The same rows with the change per second in place of the reading, None where there is none."""
    before: dict[Any, Row] = {}
    found = []
    for row in in_time(rows):
        rate = None
        old = before.get(row.sensor)
        if usable(row.v) and (old is None or row.when - old.when >= max(least, 1e-6)):
            before[row.sensor] = row
            if old is not None and row.when - old.when <= most:
                rate = (row.v - old.v) / (row.when - old.when)
        found.append(evolve(row, v=rate))
    return found


# -- strategies --------------------------------------------------------------------------------------------------------

SENSORS = st.sampled_from(["a", "b", None])
READINGS = st.sampled_from([33.0, 34.0, 34.5, 35.0, math.nextafter(35, 36), 36.0, 37.0, 40.0, math.nan, math.inf, None])
DELAYS = st.sampled_from([0.0, 2.0, 6.0])
CUTS = st.lists(st.integers(0, 50), max_size=6)


@st.composite
def arrivals(draw: st.DrawFn, late: bool = True, readings: st.SearchStrategy[Any] = READINGS) -> list[Row]:
    """Rows of a few sensors, some of them late."""
    steps = st.sampled_from([0, 1, 2, 5, -3] if late else [0, 1, 2, 5])
    marks = st.sampled_from([None, None, True, False])
    flags = st.sampled_from([None, 1, 1, 9])
    rows, now = [], 100
    for step, sensor, value, reset, flag in draw(st.lists(st.tuples(steps, SENSORS, readings, marks, flags), max_size=50)):
        now += step
        rows.append(Row(float(now), sensor, value, reset=reset, flag=flag))
    return rows


RULES = st.builds(
    Rule,
    steps=st.sampled_from(
        [(("Severe", 35.0),), (("Minor", 35.0), ("Severe", 36.0), ("Extreme", 39.0)), (("Moderate", 34.0), ("Severe", 36.5))]
    ),
    deadband=st.sampled_from([0.0, 1.0]),
    on=DELAYS,
    off=DELAYS,
    latch=st.booleans(),
    realarm=st.sampled_from([None, None, 3.0]),
) | st.builds(
    Rule,
    steps=st.sampled_from([(("Severe", 35.0),), (("Minor", 35.0), ("Extreme", 34.0))]),
    low=st.just(True),
    deadband=st.sampled_from([0.0, 1.0]),
    on=DELAYS,
    off=DELAYS,
)


# -- silence and forgetting --------------------------------------------------------------------------------------------


def silences(rows: Iterable[Row], after: float) -> list[tuple[Any, ...]]:
    """(event, sensor, onset, raised, cleared) in the order of the rows; of one row, by onset."""
    last: dict[Any, tuple[float, float]] = {}  # time of the newest row in time, and the watermark when it came
    told: dict[Any, tuple[float, float]] = {}
    watermark, events = -math.inf, []
    for row in rows:
        assert isinstance(row.when, (int, float))
        watermark = max(watermark, row.when)
        now = [(one + after, sensor) for sensor, (one, heard) in last.items() if sensor not in told and watermark > heard + after]
        in_time = row.sensor not in last or row.when >= last[row.sensor][0]
        own = row.sensor in last and row.sensor not in told and row.when - last[row.sensor][0] > after
        if own and not any(sensor == row.sensor for _, sensor in now):
            now.append((last[row.sensor][0] + after, row.sensor))
        for onset, sensor in sorted(now, key=lambda one: (one[0], str(one[1]))):
            told[sensor] = onset, row.when if sensor == row.sensor and in_time else watermark
            events.append(("RAISE", sensor, onset, told[sensor][1], None))
        if in_time:
            if row.sensor in told:
                onset, raised = told.pop(row.sensor)
                events.append(("CLEAR", row.sensor, onset, raised, row.when))
            last[row.sensor] = row.when, watermark
    return events


def forgetful(rows: Iterable[Row], rule: Rule, forget: float) -> list[tuple[Any, ...]]:
    """As `oracle`, but a sensor is as new when the watermark has moved that far since its last row; alerts stay."""
    machines: dict[Any, Machine] = {}
    newest: dict[Any, float] = {}
    seen_at: dict[Any, float] = {}
    watermark, events = -math.inf, []
    for row in rows:
        assert isinstance(row.when, (int, float))
        watermark = max(watermark, row.when)
        machine = machines.setdefault(row.sensor, Machine(rule, row.sensor, events=events))
        if watermark - forget > seen_at.get(row.sensor, watermark):
            newest.pop(row.sensor, None)
            if machine.state == "PENDING":
                machine.state = "NORMAL"
        seen_at[row.sensor] = watermark
        if row.when >= newest.get(row.sensor, -math.inf):
            newest[row.sensor] = row.when
            if usable(row.v) and row.flag != 9:
                machine.sample(row.when, row.v)
    return events
