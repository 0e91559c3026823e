"""Floods: more alerts than anybody can read. They are marked, never lost, and one alert says that there is a flood.

It starts with the alert that makes more than `start` within `window`. It ends with the first row of its group that is so late that
fewer than `end` lie within the window before it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import define, field, frozen

from lakeward.grouping import NEVER, Array, Key
from lakeward_plugins.transforms.emergency.alerts import identity
from lakeward_plugins.transforms.emergency.memory import CLEAR, RAISE, new_events

ALARM_FLOOD = "ALARM_FLOOD"


RowsOf = Callable[[Key], tuple[Array, Array]]
"""For a group: the places of its rows that have a time, and these times."""


@frozen(eq=False)
class Raised:
    """Alerts that are raised, in order."""

    places: list[int]
    moments: list[int]
    rows: list[int]
    groups: list[Key]


@define(eq=False)
class Group:
    """What is remembered of one group."""

    newest: list[int] = field(factory=list)
    """When the newest alerts were raised, ascending; only as many as matter."""
    seen: int = NEVER
    """The watermark at the newest alert."""
    alert: dict[str, Any] | None = None
    """The flood that is on."""


@define(eq=False)
class Floods:
    """All floods."""

    start: int
    end: int
    window: int
    group_by: list[str]
    forget: int
    groups: dict[Key, Group] = field(factory=dict)

    def judge(self, raised: Raised, rows_of: RowsOf, watermarks: Array) -> tuple[list[bool], Array, list[Key]]:
        """Which of the alerts are in a flood; and the alerts about floods, with their groups."""
        events: list[tuple[Key, dict[str, Any]]] = []
        marks = []
        looked = dict.fromkeys(self.groups, -1)
        for place, moment, row, name in zip(raised.places, raised.moments, raised.rows, raised.groups, strict=True):
            group = self._group(name, int(watermarks[place]))
            events += self._ended(name, group, rows_of, looked.get(name, -1), place)
            looked[name] = place
            if moment != NEVER:
                insort(group.newest, moment)
                del group.newest[: -self.start - 1]
                group.seen = max(group.seen, int(watermarks[place]))
                events += self._started(name, group, place, row)
            marks.append(group.alert is not None)
            if group.alert:
                group.alert["count"] += 1
        for name, group in self.groups.items():
            events += self._ended(name, group, rows_of, looked[name], len(watermarks))
        made = new_events(len(events), key=-1)
        for event, (_, alert) in zip(made, events, strict=True):
            for column, value in alert.items():
                event[column] = value
        return marks, made, [name for name, _ in events]

    def _group(self, name: Key, mark: int) -> Group:
        group = self.groups.get(name)
        if group is None or self._is_past(group, mark):
            group = self.groups[name] = Group()
        return group

    def _started(self, name: Key, group: Group, place: int, row: int) -> list[tuple[Key, dict[str, Any]]]:
        now = group.newest[-1]
        within = len(group.newest) - bisect_right(group.newest, now - self.window)
        if group.alert or within <= self.start:
            return []
        onset = int(group.newest[-within])
        group.alert = {"id": identity(ALARM_FLOOD, name, onset, row), "onset": onset, "onset_row": row, "raised": now, "count": within - 1}
        return [(name, group.alert | {"event": RAISE, "place": place, "value": within, "peak": within, "count": within})]

    def _ended(self, name: Key, group: Group, rows_of: RowsOf, looked: int, place: int) -> list[tuple[Key, dict[str, Any]]]:
        """The flood is over if a row of the group after `looked`, and not after `place`, says so."""
        if not group.alert:
            return []
        over = group.newest[-self.end] + self.window
        places, micros = rows_of(name)
        first, last = np.searchsorted(places, [looked, place], side="right")
        late = np.flatnonzero(micros[first:last] >= over)
        if not len(late):
            return []
        alert, group.alert = group.alert, None
        ended = {"event": CLEAR, "place": int(places[first + late[0]]), "clear_onset": over, "cleared": over, "value": self.end - 1}
        return [(name, alert | ended | {"peak": alert["count"]})]

    def forget_groups(self, watermark: int) -> None:
        """Those of which the next alert would find nothing."""
        self.groups = {name: group for name, group in self.groups.items() if not self._is_past(group, watermark)}

    def _is_past(self, group: Group, watermark: int) -> bool:
        return not group.alert and watermark - self.forget > group.seen
