"""What is remembered, as bytes, and back. Read by name, so that rules can come, go and move."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from attrs import asdict

from lakeward import Refused
from lakeward.grouping import NEVER, Array
from lakeward.packing import pack, unpack
from lakeward_plugins.transforms.emergency.alarm import Alarm
from lakeward_plugins.transforms.emergency.flood import Floods
from lakeward_plugins.transforms.emergency.flood import Group as FloodGroup
from lakeward_plugins.transforms.emergency.memory import QUIET
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
    note: dict[str, Any] = {
        "key": key, "label": watch.label_columns, "keys": sensors.keys.names[: len(sensors.newest)], "labels": sensors.labels.names,
        "watermark": sensors.watermark, "late": late, "alarms": {alarm.name: alarm.silent for alarm in watch.alarms},
        "quorums": {quorum.id: _quorum(quorum) for quorum, _ in watch.quorums},
        "floods": _floods(watch.floods) if watch.floods else None,
    }  # fmt: skip
    arrays = {name: getattr(sensors, name) for name in ARRAYS}
    for alarm in watch.alarms:
        kept, raised = _with_something(alarm)
        found = {"kept": kept, "records": alarm.records[kept], "raised": raised, "recent": alarm.recent[raised]}
        arrays |= {f"{what} {alarm.name}": array for what, array in found.items()}
    return pack(note, arrays)


def restored(state: bytes, watch: Watch, key: list[str]) -> int:
    """Put it in place; how many rows came late. Raises `Refused` when it is of other keys."""
    note, arrays, _ = unpack(state)
    if note["key"] != key:
        raise Refused(f"the state holds alerts by {', '.join(note['key'])}; put that back as key, or use a new state directory")
    sensors, count = watch.sensors, len(note["keys"])
    sensors.keys.become([tuple(name) for name in note["keys"]])
    for name in ARRAYS:
        setattr(sensors, name, arrays[name])
    sensors.watermark = note["watermark"]
    if note["label"] == watch.label_columns:
        sensors.labels.become([tuple(name) for name in note["labels"]])
    else:
        sensors.label = np.full(count, NOWHERE, np.int64)
    alarms = {alarm.name: alarm for alarm in watch.alarms}
    for name, silent in note["alarms"].items():
        kept, records, raised, recent = (arrays[f"{what} {name}"] for what in ("kept", "records", "raised", "recent"))
        if alarm := alarms.get(name):
            alarm.silent = silent
            alarm.grow(count)
            alarm.records[kept] = records
            if recent.shape[1] == alarm.recent.shape[1]:
                alarm.recent[raised] = recent
        elif records["active"].any():
            log.warning("%d alerts of %s are forgotten: there is no such rule any more", records["active"].sum(), name)
    _restore_groups(note, watch)
    return int(note["late"])


def _restore_groups(note: dict[str, Any], watch: Watch) -> None:
    quorums = {quorum.id: quorum for quorum, _ in watch.quorums}
    for name, held in note["quorums"].items():
        quorum = quorums.get(name)
        if quorum and quorum.of == held["of"] and quorum.group_by == held["by"]:
            quorum.where = {tuple(key): tuple(group) for key, group in held["where"]}
            quorum.groups = {
                tuple(group): QuorumGroup({tuple(key): when for key, when in raised}, *rest) for group, raised, *rest in held["groups"]
            }
        elif any(group[-1] for group in held["groups"]):
            log.warning("alerts of %s are forgotten: there is no such rule any more", name)
    if watch.floods and note["floods"] and watch.floods.group_by == note["floods"]["by"]:
        watch.floods.groups = {tuple(name): FloodGroup(**group) for name, group in note["floods"]["groups"]}


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
