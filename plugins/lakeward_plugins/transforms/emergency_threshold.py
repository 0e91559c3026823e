"""Thresholds of `emergency`: options, and the state machine that judges the readings of every sensor at once.

Per rule and key, as OPC UA Part 9 (5.8, alarms with deadband and delays) describes it: normal, pending, active, clearing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from attrs import define, frozen

from lakeward import option
from lakeward.grouping import Array, running_maximum, starts

Severity = Literal["Extreme", "Severe", "Moderate", "Minor", "Unknown"]  # the words of CAP 1.2, worst first


@frozen
class Threshold:
    """A limit of one field."""

    limit: float = option(help="Readings beyond this raise the alert; the limit itself does not.")
    op: Literal[">", "<"] = option(">", help="Which side of the limit is beyond.")
    severity: Severity | None = option(None, help="Severity of the alert; left out, it is default_severity.")
    deadband: float = option(0.0, help="How far a reading must be back before it counts as clear, in the unit of the field.", minimum=0)
    on_delay_s: float = option(0.0, help="How long readings must be beyond the limit.", unit="s", minimum=0, maximum=1e9)
    off_delay_s: float = option(0.0, help="How long readings must be clear.", unit="s", minimum=0, maximum=1e9)


CLEAR, BETWEEN, BEYOND = 1, 2, 3  # levels; 0 in a record: no reading yet
WHOLE = ("started", "started_row", "onset", "onset_row", "raised", "count")
RECORD = np.dtype([("level", "i1"), ("active", "?"), ("peak", "<f8"), *((name, "<i8") for name in WHOLE)])


@define
class Rule:
    """The state machine of one threshold. A lower limit is an upper limit of the negative readings."""

    name: str
    field: str
    side: str
    sign: float
    limit: float
    deadband: float
    delays: Array  # by level, in microseconds
    severity: Severity
    records: Array  # of each key: the run of equal levels that it is in, and its alert

    def judge(self, places: Array, keys: Array, micros: Array, values: Array, rows: Array) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Readings sorted by key, then by arrival. Only a run of one level that lasts for its delay changes anything."""
        if not len(keys):
            return
        values = values * self.sign
        level = np.where(values > self.limit, BEYOND, np.where(values <= self.limit - self.deadband, CLEAR, BETWEEN))
        # the run that a key was in goes on, if its first row stands before the key's readings once more
        at = np.flatnonzero(starts(keys))
        at = at[self.records["level"][keys[at]] > 0]
        old, count = self.records[keys[at]], np.insert(np.where(level == BEYOND, 1, 0), at, 0)
        values, level, keys = np.insert(values, at, old["peak"]), np.insert(level, at, old["level"]), np.insert(keys, at, keys[at])
        places, micros, rows = np.insert(places, at, -1), np.insert(micros, at, old["started"]), np.insert(rows, at, old["started_row"])
        count[places < 0] = old["count"]
        begins = starts(keys) | starts(level)
        head = np.flatnonzero(begins)[np.cumsum(begins) - 1]
        due = np.flatnonzero((places >= 0) & (level != BETWEEN) & (micros - micros[head] >= self.delays[level]))
        due = due[starts(head[due])]
        raising = level[due] == BEYOND
        raised = np.where(starts(keys[due]), self.records["active"][keys[due]], np.roll(raising, 1))
        since, key_at = np.flatnonzero(starts(keys)), np.cumsum(starts(keys)) - 1  # where the episode of each key begins
        for index in due[raising != raised].tolist():
            record = self.records[keys[index]]  # a view: what is set here is set in the array
            record["active"] = level[index] == BEYOND
            if record["active"]:
                since[key_at[index]] = head[index]
                record["raised"], record["onset"], record["onset_row"] = micros[index], micros[head[index]], rows[head[index]]
            episode = slice(since[key_at[index]], index + 1)
            what = self._event(record, values[episode], int(count[episode].sum()))
            if not record["active"]:
                what |= {"event": "CLEAR", "clear_onset_ts": int(micros[head[index]]), "cleared_ts": int(micros[index])}
            yield int(places[index]), int(keys[index]), what
        # what is held of each key: the run it is in, and the peak of what is raised or may be
        last = np.append(np.flatnonzero(starts(keys))[1:], len(keys)) - 1
        record = self.records[keys[last]]
        record["level"], record["started"], record["started_row"] = level[last], micros[head[last]], rows[head[last]]
        held = record["active"] | (level[last] == BEYOND)
        spans = np.stack([np.where(record["active"], since, head[last]), last + 1], axis=1).ravel()
        record["peak"] = np.where(held, np.maximum.reduceat(np.append(values, -np.inf), spans)[::2], -np.inf)
        record["count"] = np.where(held, np.add.reduceat(np.append(count, 0), spans)[::2], 0)
        self.records[keys[last]] = record

    def _event(self, record: Any, values: Array, count: int) -> dict[str, Any]:
        value, limit, peak = (float(number) * self.sign for number in (values[-1], self.limit, values.max()))
        words = f"{value:.10g}, {self.side} {limit:.10g}" if record["active"] else f"back at {value:.10g}, after a peak of {peak:.10g}"
        moments = {"onset": int(record["onset"]), "onset_row": int(record["onset_row"]), "timestamp": int(record["raised"])}
        readings = {"value": value, "limit": limit, "peak": peak, "count": count}
        return {"message": f"{self.field} is {words}", "severity": self.severity} | moments | readings


def make_rule(name: str, threshold: float | Threshold, severity: Severity) -> Rule:
    """The rule of a threshold as written; `severity` is that of rules that do not say."""
    given = threshold if isinstance(threshold, Threshold) else Threshold(threshold)
    sign, side, end = (1.0, "above", "high") if given.op == ">" else (-1.0, "below", "low")
    delays = np.array([0, given.off_delay_s * 1e6, 0, given.on_delay_s * 1e6]).round().astype(np.int64)
    limit, records = sign * given.limit, np.zeros(0, RECORD)
    return Rule(f"{name}_{end}", name, side, sign, limit, given.deadband, delays, given.severity or severity, records)


def late_rows(keys: Array, micros: Array, newest: Array) -> Array:
    """Which rows, sorted by key and then by arrival, are older than one before them."""
    floor = np.where(starts(keys), np.maximum(micros, newest[keys]), micros)
    return np.asarray(micros < running_maximum(keys, floor))
