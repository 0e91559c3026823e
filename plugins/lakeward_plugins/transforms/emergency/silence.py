"""Sensors that say nothing.

A sensor is silent from `after_s` after its newest row on. That is noticed by the first row, of whatever sensor, which shows that more
time than that has passed since that newest row came: the watermark goes by the rows, never by the machine's clock. A sensor that is
heard again before anybody noticed is noticed by its own row, at the time of that row. So whether a silence is told does not depend on
other sensors, and one whose rows come late, but come, is not silent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen

from lakeward.grouping import NEVER, Array, starts
from lakeward_plugins.transforms.emergency.evidence import Given
from lakeward_plugins.transforms.emergency.memory import CLEAR, RAISE, new_events
from lakeward_plugins.transforms.emergency.sensors import Sensors, last_places


@frozen(eq=False)
class Silence:
    """A sensor is silent for longer than `after` microseconds."""

    after: int
    field: str = ""
    sign: float = 1.0

    def judge(self, given: Given, records: Array) -> tuple[Array, int]:
        """First the silences that ended in this batch, then those that go on."""
        rows, before = given.rows, given.sensors
        first = starts(rows.keys)
        newest = np.where(first, before.newest[rows.keys], np.roll(rows.micros, 1))
        heard = np.where(first, before.heard[rows.keys], np.roll(rows.watermarks[rows.places], 1))
        told = first & records["active"][rows.keys]
        passed = (rows.micros - newest > self.after) | (rows.watermarks[rows.places] - self.after > heard)
        ended = np.flatnonzero(told | ((newest != NEVER) & passed))
        told, keys, places = told[ended], rows.keys[ended], rows.places[ended]
        noticed = np.minimum(np.searchsorted(rows.watermarks, heard[ended] + self.after, side="right"), places)
        clear = new_events(len(ended), event=CLEAR, place=places, key=keys, label=rows.labels[ended], cleared=rows.micros[ended])
        clear["clear_onset"] = clear["cleared"]
        clear["onset"], clear["raised"] = newest[ended] + self.after, rows.watermarks[noticed] if len(ended) else 0
        own = noticed == places  # its rows may be long behind the watermark: the silence was no longer than until this one
        clear["raised"][own] = clear["cleared"][own]
        clear["onset_row"] = np.where(first[ended], before.newest_row[keys], np.roll(rows.ids, 1)[ended])
        for name in ("id", "onset", "onset_row", "raised", "chattering", "suppressed"):
            clear[name][told] = records[name][keys[told]]
        clear["value"] = clear["peak"] = (clear["cleared"] - clear["onset"] + self.after) / 1e6
        raised = clear[~told]
        raised["event"], raised["place"] = RAISE, noticed[~told]
        raised["label"] = np.where(first[ended], before.label[keys], np.roll(rows.labels, 1)[ended])[~told]
        raised["clear_onset"] = raised["cleared"] = NEVER
        raised["value"] = raised["peak"] = (raised["raised"] - raised["onset"] + self.after) / 1e6
        records["active"][keys] = False
        return _in_order(np.concatenate([raised, clear, self._going_on(given, records)])), 0

    def _going_on(self, given: Given, records: Array) -> Array:
        rows, before = given.rows, given.sensors
        ends = last_places(rows.keys)
        now = {name: getattr(before, name).copy() for name in ("newest", "newest_row", "heard", "label")}
        for name, column in (("newest", rows.micros), ("newest_row", rows.ids), ("label", rows.labels)):
            now[name][rows.keys[ends]] = column[ends]
        now["heard"][rows.keys[ends]] = rows.watermarks[rows.places[ends]]
        if not len(rows.watermarks):
            return new_events(0)
        silent = self._silent(now["newest"], now["heard"], int(rows.watermarks[-1]), records)
        places = np.searchsorted(rows.watermarks, now["heard"][silent] + self.after, side="right")
        return self._raised(silent, now, places, rows.watermarks[places], records)

    def at_the_end(self, sensors: Sensors, watermark: int | None, records: Array) -> Array:
        """When no row older than this will come; None: no row at all."""
        silent = self._silent(sensors.newest, sensors.heard, 2**62 if watermark is None else watermark, records)
        now = {name: getattr(sensors, name) for name in ("newest", "newest_row", "label")}
        raised = now["newest"][silent] + self.after if watermark is None else np.full(len(silent), watermark)
        return _in_order(self._raised(silent, now, np.zeros(len(silent), np.int64), raised, records))

    def _silent(self, newest: Array, heard: Array, watermark: int, records: Array) -> Array:
        return np.flatnonzero((newest != NEVER) & (watermark - self.after > heard) & ~records["active"])

    def _raised(self, keys: Array, now: dict[str, Any], places: Array, raised: Array, records: Array) -> Array:
        onset = now["newest"][keys] + self.after
        events = new_events(len(keys), event=RAISE, place=places, key=keys, label=now["label"][keys], onset=onset, raised=raised)
        events["onset_row"] = now["newest_row"][keys]
        events["value"] = events["peak"] = (events["raised"] - onset + self.after) / 1e6
        records["active"][keys] = True
        for name in ("onset", "onset_row", "raised"):
            records[name][keys] = events[name]
        return events


def _in_order(events: Array) -> Array:
    """Sorted by what does not depend on how the rows were cut into batches."""
    return events[np.lexsort((events["event"], events["onset_row"], events["onset"], events["place"]))]
