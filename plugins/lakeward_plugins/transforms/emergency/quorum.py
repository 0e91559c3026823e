"""Several sensors at once: an alert of a group of sensors when so many of them raise one rule within a time.

It is raised by the alert of the k-th different sensor within `window`. It is cleared when an alert of that rule is cleared and fewer than
k sensors of the group still have one. Alerts are rare, so this goes event by event.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from attrs import define, field

from lakeward.grouping import NEVER, Array, Key
from lakeward_plugins.transforms.emergency.alerts import identity
from lakeward_plugins.transforms.emergency.memory import CLEAR, RAISE, new_events

Alert = dict[str, Any]


@define(eq=False)
class Group:
    """What is remembered of one group."""

    raised: dict[Key, int] = field(factory=dict)
    """Who raised an alert within the window, and when last."""
    alerting: int = 0
    """How many have an alert that is not cleared."""
    newest: int = NEVER
    seen: int = NEVER
    """The watermark at the newest alert."""
    alert: Alert | None = None
    """What is raised for the group."""
    _queue: list[tuple[int, int, Key]] = field(factory=list)
    _count: int = 0

    def __attrs_post_init__(self) -> None:
        self._queue = [(when, index, key) for index, (key, when) in enumerate(self.raised.items())]
        self._count = len(self._queue)
        heapify(self._queue)

    def note(self, key: Key, when: int, window: int) -> None:
        """A sensor raises; those from before the window do not count any more."""
        self.newest = max(self.newest, when)
        self.raised[key] = max(when, self.raised.get(key, when))
        self._count += 1
        heappush(self._queue, (self.raised[key], self._count, key))  # the count, because keys cannot always be compared
        while self._queue and self._queue[0][0] < self.newest - window:
            past, _, one = heappop(self._queue)
            if self.raised.get(one) == past:
                del self.raised[one]


@define(eq=False)
class Quorum:
    """One rule of this kind."""

    id: str
    of: str
    k: int
    group_by: list[str]
    window: int
    forget: int
    groups: dict[Key, Group] = field(factory=dict)
    where: dict[Key, Key] = field(factory=dict)
    """The group of each sensor that has an alert."""

    def judge(
        self, events: Array, keys: Sequence[Key], groups: Sequence[Key], watermarks: Array
    ) -> tuple[Array, list[Key], list[list[str]]]:
        """What alerts of the other rule bring about: given in order, with sensor, group, and the watermark at each."""
        found: list[tuple[int, Key, Alert]] = []
        columns = (events[name].tolist() for name in ("event", "raised", "cleared", "onset_row"))
        for index, (key, name, event, raised, cleared, row) in enumerate(zip(keys, groups, *columns, strict=True)):
            if event == RAISE:
                self.where[key] = name
                alert = self._raised(name, key, raised, row, int(watermarks[index]))
            elif event == CLEAR and key in self.where:
                name = self.where.pop(key)
                alert = self._cleared(self.groups[name], cleared)
            else:
                continue
            if alert:
                found.append((index, name, alert))
        made = new_events(len(found), key=-1)
        for event, (index, _, alert) in zip(made, found, strict=True):
            event["place"], event["label"] = events["place"][index], events["label"][index]
            for name in ("event", "value", "peak", "count", "id", "onset", "onset_row", "raised", "suppressed", "clear_onset", "cleared"):
                event[name] = alert[name]
        return made, [name for _, name, _ in found], [alert["reasons"] for _, _, alert in found]

    def _raised(self, name: Key, key: Key, when: int, row: int, mark: int) -> Alert | None:
        group = self.groups.get(name)
        if group is None or self._is_past(group, mark):
            group = self.groups[name] = Group()
        group.alerting += 1
        group.note(key, when, self.window)
        group.seen = max(group.seen, mark)
        sensors = len(group.raised)
        if group.alert:
            group.alert["peak"], group.alert["count"] = max(group.alert["peak"], sensors), group.alert["count"] + 1
        if group.alert or sensors < self.k:
            return None
        moment = group.newest
        group.alert = {
            "event": RAISE, "value": sensors, "peak": sensors, "count": sensors, "id": identity(self.id, name, moment, row),
            "onset": moment, "onset_row": row, "raised": moment, "suppressed": 0, "clear_onset": NEVER, "cleared": NEVER,
            "reasons": sorted(" ".join(map(str, one)) for one in group.raised),
        }  # fmt: skip
        return dict(group.alert)

    def _cleared(self, group: Group, when: int) -> Alert | None:
        group.alerting -= 1
        if not group.alert or group.alerting >= self.k:
            return None
        alert, group.alert = group.alert, None
        return alert | {"event": CLEAR, "value": group.alerting, "clear_onset": when, "cleared": when}

    def mark(self, events: Array) -> None:
        """What a RAISE is marked with goes for all of its alert, in later batches too."""
        marks = {event["id"]: int(event["suppressed"]) for event in events if event["event"] == RAISE}
        for event in events:
            event["suppressed"] = marks.get(event["id"], event["suppressed"])
        for group in self.groups.values():
            if group.alert:
                group.alert["suppressed"] = marks.get(group.alert["id"], group.alert["suppressed"])

    def forget_groups(self, watermark: int) -> None:
        """Those of which the next alert would find nothing."""
        self.groups = {name: group for name, group in self.groups.items() if not self._is_past(group, watermark)}

    def _is_past(self, group: Group, watermark: int) -> bool:
        return not group.alert and not group.alerting and watermark - self.forget > group.seen
