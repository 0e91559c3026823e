"""The state machine of an alert, for all sensors at once.

Per rule and sensor, as OPC UA Part 9 (5.8, alarms with deadband and delays) describes it: normal, pending, active, clearing. With
`latch` an alert that is over stays returned until somebody resets it.

Readings come as levels. Of a run of equal levels only the first reading that is as old as the delay can raise or clear. So the machine
is: cut the readings of each sensor into runs, keep those readings, and of these the ones that change something.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import astuple, evolve, frozen

from lakeward.grouping import Array, starts
from lakeward_plugins.transforms.emergency.memory import BACK, BEYOND, CLEAR, QUIET, RAISE, UPDATE, new_events


@frozen(eq=False)
class Readings:
    """What says something, sorted by sensor, then as it came."""

    places: Array
    keys: Array
    micros: Array
    ids: Array
    labels: Array
    lives: Array
    """Where this changes nothing from before counts: a pending alert starts anew. 0: as in the batch before."""
    levels: Array
    """BACK, BETWEEN or BEYOND; QUIET for a reset without a reading."""
    values: Array
    """The greater the worse."""
    resets: Array
    """Where somebody resets alerts."""

    def where(self, which: Array) -> Readings:
        """Some of them."""
        return Readings(*(column[which] for column in astuple(self, recurse=False)))


@frozen(eq=False)
class Machine:
    """How one rule is judged."""

    limits: Array
    """Of its severities, the mildest first."""
    delays: Array
    """By level, in microseconds."""
    latch: bool
    realarm: int | None
    """Say again what has been said of an active alert so many microseconds ago."""

    def judge(self, readings: Readings, records: Array) -> Array:
        """What is raised, gets worse and is cleared, sorted by sensor and time; the records are of the end afterwards."""
        readings = self._that_matter(readings, records)
        if not len(readings.keys):
            return new_events(0)
        rows = _Rows.of(readings, records)
        if self.latch:
            rows = rows.with_resets_levelled()
        turns = self._turns(rows, records)
        spans = _Spans.of(rows, turns, records)
        step = np.searchsorted(self.limits, rows.peaks, side="left") - 1  # of each reading, -1 where it is not beyond
        worst = spans.running_maximum(step) if len(self.limits) > 1 else np.zeros(len(step), np.int64)
        updates = self._updates(rows, spans, worst, records)
        events = self._events(rows, spans, turns, updates, worst, records)
        self._remember(rows, spans, turns, updates, worst, events, records)
        return events

    def _that_matter(self, readings: Readings, records: Array) -> Readings:
        """Without sensors that are normal all the time: they are most."""
        matters = records["active"].copy()
        matters[readings.keys[readings.levels == BEYOND]] = True
        which = matters[readings.keys]
        if which.all():
            return readings
        records["level"][readings.keys[~which & (readings.levels != QUIET)]] = QUIET  # what was pending is not so any more
        return readings.where(which)

    def _turns(self, rows: _Rows, records: Array) -> Array:
        """Where alerts are raised and cleared, by turns."""
        lasts = (rows.levels == BEYOND) | (rows.levels == BACK)
        due = rows.real & lasts & (rows.micros - rows.micros[rows.head] >= self.delays[rows.levels])
        if self.latch:
            due = rows.cleared_by_resets(due, records)
        places = np.flatnonzero(due)
        places = places[starts(rows.run[places])]
        raising = rows.levels[places] == BEYOND
        before = np.where(starts(rows.keys[places]), records["active"][rows.keys[places]], np.roll(raising, 1))
        return np.asarray(places[raising != before])

    def _updates(self, rows: _Rows, spans: _Spans, worst: Array, records: Array) -> Array:
        """Where an active alert becomes worse, or is to be told again."""
        worse = np.zeros(0, np.int64)
        if len(self.limits) > 1:
            worse = np.flatnonzero(spans.active & np.append(False, worst[1:] > worst[:-1]))
        if self.realarm is None:
            return worse
        found: list[int] = []
        for start, end, first in zip(spans.said.tolist(), spans.end.tolist(), spans.first.tolist(), strict=True):
            said = int(rows.micros[start] if rows.real[start] else records["said"][rows.keys[start]])
            readings = first + np.flatnonzero(rows.real[first:end])
            places, times = [*readings.tolist(), end], rows.micros[readings]
            steps = iter([*worse[(worse >= first) & (worse < end)].tolist(), end])
            step, index = next(steps), int(np.searchsorted(times, said + self.realarm))
            while (place := min(places[index], step)) < end:
                found.append(place)
                step = next(steps) if place == step else step
                after = int(np.searchsorted(readings, place, side="right"))
                index = max(after, int(np.searchsorted(times, rows.micros[place] + self.realarm)))
        return np.array(found, np.int64)

    def _events(self, rows: _Rows, spans: _Spans, turns: Array, updates: Array, worst: Array, records: Array) -> Array:
        at = np.concatenate([turns, updates])
        raising = rows.levels[turns] == BEYOND
        kinds = np.concatenate([np.where(raising, RAISE, CLEAR), np.full(len(updates), UPDATE)])
        order = np.argsort(at, kind="stable")
        at, kinds = at[order], kinds[order]
        events = new_events(len(at), place=rows.places[at], event=kinds, key=rows.keys[at], label=rows.labels[at], value=rows.values[at])
        span = spans.number[at - (kinds == CLEAR)]  # the row that clears is not part of it
        since = spans.since[span]
        events["count"] = rows.counted(since, at)
        events["peak"] = rows.peak(since, at) if not len(updates) else rows.peak_so_far(since, at, spans.end[span])
        events["step"] = worst[at - (kinds == CLEAR)]
        raised = spans.raise_at[span]  # -1: before this batch
        old, new = raised < 0, np.maximum(raised, 0)
        for name in ("id", "onset", "onset_row", "raised", "chattering", "suppressed"):
            events[name][old] = records[name][events["key"][old]]
        for name, column, where in (("onset", rows.micros, rows.head), ("onset_row", rows.ids, rows.head), ("raised", rows.micros, None)):
            source = new if where is None else where[new]
            events[name] = np.where(old, events[name], column[source])
        clear, update = kinds == CLEAR, kinds == UPDATE
        events["updated"][update] = rows.micros[at[update]]
        events["clear_onset"][clear], events["cleared"][clear] = rows.micros[rows.head[at[clear]]], rows.micros[at[clear]]
        return events

    def _remember(self, rows: _Rows, spans: _Spans, turns: Array, updates: Array, worst: Array, events: Array, records: Array) -> None:
        last = np.append(np.flatnonzero(starts(rows.keys))[1:], len(rows.keys)) - 1
        keys = rows.keys[last]
        record = records[keys]
        record["level"], record["started"], record["started_row"] = (
            rows.levels[last],
            rows.micros[rows.head[last]],
            rows.ids[rows.head[last]],
        )
        if self.latch:
            record["due"] = rows.lasted(last, self.delays[BACK], records)
        record["active"][np.searchsorted(keys, rows.keys[turns])] = rows.levels[turns] == BEYOND  # of several the last one stays
        active = record["active"]
        span = np.where(active, spans.number[last], 0)
        since = np.where(active, spans.since[span] if len(spans.since) else 0, rows.head[last])
        held = active | (record["level"] == BEYOND)
        record["peak"] = np.where(held, rows.peak(since, last), -np.inf)
        record["count"] = np.where(held, rows.counted(since, last), 0)
        if len(spans.since):
            record["step"] = np.where(active, worst[last], 0)
            at = spans.raise_at[span]
            new = active & (at >= 0)
            record["raised"][new] = record["said"][new] = rows.micros[at[new]]
            record["onset"][new], record["onset_row"][new] = rows.micros[rows.head[at[new]]], rows.ids[rows.head[at[new]]]
        if len(updates):
            told = np.searchsorted(keys, rows.keys[updates])
            now = spans.number[updates] == spans.number[last][told]
            record["said"][told[now]] = rows.micros[updates[now]]  # of several the last one stays
        records[keys] = record


@frozen(eq=False)
class _Rows:
    """Readings with one more before those of a sensor that is in a run: the first of that run, with what was carried so far."""

    places: Array
    keys: Array
    micros: Array
    ids: Array
    labels: Array
    levels: Array
    values: Array
    resets: Array
    real: Array
    """False for those added, and for resets without a reading."""
    peaks: Array
    """Values of those beyond, else -inf."""
    totals: Array
    """How many were beyond, before each one; and at last all of them."""
    run: Array
    head: Array
    """Where the run of each reading begins."""
    breaks: Array

    @classmethod
    def of(cls, readings: Readings, records: Array) -> _Rows:
        at = np.flatnonzero(starts(readings.keys))
        at = at[records["level"][readings.keys[at]] != QUIET]
        old, keys = records[readings.keys[at]], readings.keys[at]
        real = np.ones(len(readings.keys) + len(at), np.bool_)
        real[at + np.arange(len(at))] = False

        def both(new: Array, added: Any) -> Array:
            column = np.empty(len(real), np.result_type(new.dtype, np.asarray(added).dtype))
            column[real], column[~real] = new, added
            return column

        beyond = readings.levels == BEYOND
        keys, levels = both(readings.keys, keys), both(readings.levels, old["level"])
        peaks = both(np.where(beyond, readings.values, -np.inf), old["peak"])
        totals = np.append(0, np.cumsum(both(beyond, old["count"])))
        breaks = starts(both(readings.lives, 0))
        run, head = _runs(keys, levels, breaks)
        return cls(
            both(readings.places, -1), keys, both(readings.micros, old["started"]), both(readings.ids, old["started_row"]),
            both(readings.labels, -1), levels, both(readings.values, old["peak"]), both(readings.resets, False),
            real & (levels != QUIET), peaks, totals, run, head, breaks,
        )  # fmt: skip

    def counted(self, since: Array, to: Array) -> Array:
        """How many were beyond."""
        return np.asarray(self.totals[to + 1] - self.totals[since])

    def peak(self, since: Array, to: Array) -> Array:
        """The greatest value."""
        spans = np.stack([since, to + 1], axis=1).ravel()
        return np.asarray(np.maximum.reduceat(np.append(self.peaks, -np.inf), spans)[::2]) if len(spans) else np.zeros(0)

    def peak_so_far(self, since: Array, to: Array, ends: Array) -> Array:
        """The same for many within one span."""
        found, so_far, start = np.empty(len(to)), np.zeros(0), -1
        for index, (first, at, end) in enumerate(zip(since.tolist(), to.tolist(), ends.tolist(), strict=True)):
            if first != start:
                start, so_far = first, np.maximum.accumulate(self.peaks[first : end + 1])
            found[index] = so_far[at - first]
        return found

    # -- resets --------------------------------------------------------------------------------------------------------

    def with_resets_levelled(self) -> _Rows:
        """A reset without a reading stands in the run that its sensor is in."""
        known = np.maximum.accumulate(np.where(self.levels != QUIET, np.arange(len(self.levels)), 0))
        levels = np.where(self.keys[known] == self.keys, self.levels[known], QUIET)
        run, head = _runs(self.keys, levels, self.breaks)
        return evolve(self, levels=levels, run=run, head=head)

    def cleared_by_resets(self, due: Array, records: Array) -> Array:
        """A latched alert is cleared by the first reset after its readings have been back for the delay."""
        back = self.levels == BACK
        lasted = due & back | (~self.real & (self.places < 0) & back & records["due"][self.keys])
        counts = np.cumsum(lasted)
        in_run = counts - (counts - lasted)[self.head] > 0
        return np.asarray(due & ~back | self.resets & back & in_run)

    def lasted(self, last: Array, delay: int, records: Array) -> Array:
        """Whether the run that a sensor is in at the end has lasted: by a reading, not by a reset."""
        newest = np.maximum.accumulate(np.where(self.real, np.arange(len(self.real)), 0))[last]
        now = (newest >= self.head[last]) & (self.levels[last] == BACK) & (self.micros[newest] - self.micros[self.head[last]] >= delay)
        carried = (self.places[self.head[last]] < 0) & (self.levels[last] == BACK) & records["due"][self.keys[last]]
        return np.asarray(now | carried)


def _runs(keys: Array, levels: Array, breaks: Array) -> tuple[Array, Array]:
    begins = starts(keys) | starts(levels) | (breaks & (levels == BEYOND))
    run = np.cumsum(begins) - 1
    return run, np.flatnonzero(begins)[run]


@frozen(eq=False)
class _Spans:
    """From the onset of each alert to before its clearing, or to the last reading of its sensor."""

    since: Array
    said: Array
    """Where it was raised, or where its sensor's readings begin."""
    first: Array
    """The first reading at which it could be updated."""
    end: Array
    raise_at: Array
    """-1 when it was raised in an earlier batch."""
    number: Array
    """By reading: its span; where there is none, one before, or -1."""
    active: Array
    """By reading: whether it stands after the raising, in a span."""

    @classmethod
    def of(cls, rows: _Rows, turns: Array, records: Array) -> _Spans:
        firsts = np.flatnonzero(starts(rows.keys))
        ends = np.append(firsts[1:], len(rows.keys))
        carried = firsts[records["active"][rows.keys[firsts]]]
        raising = turns[rows.levels[turns] == BEYOND]
        since = np.concatenate([carried, rows.head[raising]])
        order = np.argsort(since, kind="stable")
        said = np.concatenate([carried, raising])[order]
        raise_at = np.concatenate([np.full(len(carried), -1), raising])[order]
        first = said + 1
        key_end = ends[np.searchsorted(firsts, said, side="right") - 1] if len(said) else said
        clearing = np.append(turns[rows.levels[turns] != BEYOND], len(rows.keys))
        end = np.minimum(key_end, clearing[np.searchsorted(clearing, said, side="left")])
        since = since[order]
        bounds, inside = np.zeros(len(rows.keys), np.int64), np.zeros(len(rows.keys) + 1, np.int64)
        bounds[since] = 1
        number = np.cumsum(bounds) - 1
        inside[first] += 1
        inside[end] -= 1
        return cls(since, said, first, end, raise_at, number, np.cumsum(inside)[:-1] > 0)

    def running_maximum(self, steps: Array) -> Array:
        """The greatest step so far within each span."""
        lift = self.number * 8
        return np.asarray(np.maximum(np.maximum.accumulate(lift + steps + 1) - lift - 1, 0))
