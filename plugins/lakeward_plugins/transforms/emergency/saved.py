"""What is remembered, as bytes: a line of JSON, then arrays. Read by name, so that rules can come, go and move."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
from attrs import asdict

from lakeward import Refused
from lakeward.grouping import NEVER, Array
from lakeward_plugins.transforms.emergency.alarm import Alarm
from lakeward_plugins.transforms.emergency.flood import Floods
from lakeward_plugins.transforms.emergency.flood import Group as FloodGroup
from lakeward_plugins.transforms.emergency.memory import QUIET, RECORD
from lakeward_plugins.transforms.emergency.quorum import Group as QuorumGroup
from lakeward_plugins.transforms.emergency.quorum import Quorum
from lakeward_plugins.transforms.emergency.sensors import ARRAYS, NOWHERE
from lakeward_plugins.transforms.emergency.watch import Watch

log = logging.getLogger("lakeward.emergency")


def saved(watch: Watch, key: list[str], late: int) -> bytes:
    """Of the whole watch, and how many rows came late."""
    sensors = watch.sensors
    for alarm in watch.alarms:
        alarm.grow(len(sensors.newest))
    head: dict[str, Any] = {
        "key": key, "label": watch.label_columns, "keys": sensors.keys.names[: len(sensors.newest)], "labels": sensors.labels.names,
        "watermark": sensors.watermark, "late": late, "alarms": [],
        "quorums": {quorum.id: _quorum(quorum) for quorum, _ in watch.quorums},
        "floods": _floods(watch.floods) if watch.floods else None,
    }  # fmt: skip
    arrays = [getattr(sensors, name) for name in ARRAYS]
    for alarm in watch.alarms:
        kept, raised = _with_something(alarm)
        head["alarms"].append([alarm.name, alarm.raises, alarm.silent, len(kept), len(raised)])
        arrays += [kept, alarm.records[kept], raised, alarm.recent[raised]]
    return b"".join([json.dumps(head).encode(), b"\n", *(array.tobytes() for array in arrays)])


def restored(state: bytes, watch: Watch, key: list[str]) -> int:
    """Put it in place; how many rows came late. Raises `Refused` when it is of other keys."""
    end = state.index(b"\n")
    head = json.loads(state[:end])
    if head["key"] != key:
        raise Refused(f"the state holds alerts by {', '.join(head['key'])}; put that back as key, or use a new state directory")
    arrays = _Arrays(state, end + 1)
    sensors, count = watch.sensors, len(head["keys"])
    sensors.keys.become([tuple(name) for name in head["keys"]])
    for name in ARRAYS:
        setattr(sensors, name, arrays.next(np.dtype(np.int64), (count,)))
    sensors.watermark = head["watermark"]
    if head["label"] == watch.label_columns:
        sensors.labels.become([tuple(name) for name in head["labels"]])
    else:
        sensors.label = np.full(count, NOWHERE, np.int64)
    alarms = {alarm.name: alarm for alarm in watch.alarms}
    for name, raises, silent, kept_count, raised_count in head["alarms"]:
        kept, records = arrays.next(np.dtype(np.int64), (kept_count,)), arrays.next(RECORD, (kept_count,))
        raised, recent = arrays.next(np.dtype(np.int64), (raised_count,)), arrays.next(np.dtype(np.int64), (raised_count, raises - 1))
        if alarm := alarms.get(name):
            alarm.silent = silent
            alarm.grow(count)
            alarm.records[kept] = records
            if raises == alarm.raises:
                alarm.recent[raised] = recent
        elif records["active"].any():
            log.warning("%d alerts of %s are forgotten: there is no such rule any more", records["active"].sum(), name)
    _restore_groups(head, watch)
    return int(head["late"])


def _restore_groups(head: dict[str, Any], watch: Watch) -> None:
    quorums = {quorum.id: quorum for quorum, _ in watch.quorums}
    for name, held in head["quorums"].items():
        quorum = quorums.get(name)
        if quorum and quorum.of == held["of"] and quorum.group_by == held["by"]:
            quorum.where = {tuple(key): tuple(group) for key, group in held["where"]}
            quorum.groups = {
                tuple(group): QuorumGroup({tuple(key): when for key, when in raised}, *rest) for group, raised, *rest in held["groups"]
            }
        elif any(group[-1] for group in held["groups"]):
            log.warning("alerts of %s are forgotten: there is no such rule any more", name)
    if watch.floods and head["floods"] and watch.floods.group_by == head["floods"]["by"]:
        watch.floods.groups = {tuple(name): FloodGroup(**group) for name, group in head["floods"]["groups"]}


def _quorum(quorum: Quorum) -> dict[str, Any]:
    groups = [
        [name, list(group.raised.items()), group.alerting, group.newest, group.seen, group.alert] for name, group in quorum.groups.items()
    ]
    return {"of": quorum.of, "by": quorum.group_by, "where": list(quorum.where.items()), "groups": groups}


def _floods(floods: Floods) -> dict[str, Any]:
    return {"by": floods.group_by, "groups": [[name, asdict(group)] for name, group in floods.groups.items()]}


def _with_something(alarm: Alarm) -> tuple[Array, Array]:
    """Which sensors have a record that says more than nothing, and which have raised alerts."""
    records = alarm.records
    something = records["active"] | (records["level"] != QUIET) | (records["before"] != NEVER)
    return np.flatnonzero(something), np.flatnonzero(alarm.recent[:, -1] != NEVER)


class _Arrays:
    """Arrays one after the other in bytes."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._at = data, start

    def next(self, kind: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        count = int(np.prod(shape))
        found = np.frombuffer(self._data, kind, count, self._at).reshape(shape).copy()
        self._at += count * kind.itemsize
        return found
