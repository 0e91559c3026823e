"""Rows that come out: identity, message, columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward.grouping import NEVER, Array, Key
from lakeward_plugins.transforms.emergency.memory import CLEAR, EVENTS, FLOODED, RAISE, SHELVED
from lakeward_plugins.transforms.emergency.options import Severity, Urgency

TIMES = {"timestamp": "raised", "onset_ts": "onset", "clear_onset_ts": "clear_onset", "cleared_ts": "cleared"}
UTC = pa.timestamp("us", "UTC")
BEFORE_KEYS: Mapping[str, pa.DataType] = {"alert_id": pa.int64(), "alert_key": pa.string(), "event": pa.string()}
AFTER_KEYS: Mapping[str, pa.DataType] = {
    "event_ts": UTC, **dict.fromkeys(TIMES, UTC),
    **dict.fromkeys(["alert_type", "severity", "urgency", "certainty", "status", "message"], pa.string()),
    **dict.fromkeys(["value", "limit"], pa.float64()), "unit": pa.string(), "peak": pa.float64(), "count": pa.int64(),
    "reasons": pa.list_(pa.string()), "suppressed": pa.bool_(), "chattering": pa.bool_(), "references": pa.string(),
}  # fmt: skip
OWN = (*BEFORE_KEYS, *AFTER_KEYS)


@frozen(eq=False)
class Look:
    """What the rows of one alarm have in common."""

    alert_type: str
    severities: Sequence[Severity]
    """By step, the mildest first."""
    limits: Sequence[float | None]
    unit: str
    certainty: str
    sign: float
    words: Callable[[str, float, float, float], str]
    """The message, from event, value, limit and peak."""
    reasons: Sequence[str]
    """By step; what they say of an alert that has none of its own."""


@frozen(eq=False)
class Spoken:
    """Events of one alarm, and what is not the same for all of them."""

    look: Look
    events: Array
    groups: Sequence[Key] = ()
    """For alerts of no single sensor: the values of the columns that they are grouped by."""
    group_by: Sequence[str] = ()
    messages: Any = None
    reasons: Any = None


@frozen(eq=False)
class Paper:
    """How alerts are written down: what all of them need."""

    key_schema: pa.Schema
    label_schema: pa.Schema
    """Columns beside the key by which alerts are grouped."""
    status: str
    urgency: Mapping[Severity, Urgency]
    never_suppress: Sequence[Severity]

    @property
    def schema(self) -> pa.Schema:
        """Of the rows that come out."""
        extra = [one for one in self.label_schema if one.name not in self.key_schema.names]
        named = [(one.name, one.type) for one in (*self.key_schema, *extra)]
        return pa.schema([*BEFORE_KEYS.items(), *named, *AFTER_KEYS.items()])

    def rows(self, spoken: Spoken, keys: Sequence[Key], labels: Sequence[Key]) -> pa.RecordBatch:
        """One row for each event, in their order."""
        look, events, steps = spoken.look, spoken.events, spoken.events["step"]
        hexes, number = _hexes(look.alert_type, spoken, keys)
        never = np.array([severity in self.never_suppress for severity in look.severities], np.bool_)[steps]
        marked, urgency = events["suppressed"], [self.urgency[severity] for severity in look.severities]
        columns: dict[str, Any] = {
            "alert_id": events["id"].copy(),
            "alert_key": _taken(hexes, number),
            "event": _taken(EVENTS, events["event"]),
            **self._who(spoken, keys, labels),
            "event_ts": _moments(np.choose(events["event"], [events["raised"], events["updated"], events["cleared"]])),
            **{name: _moments(events[column]) for name, column in TIMES.items()},
            "alert_type": pa.repeat(pa.scalar(look.alert_type), len(events)),
            "severity": _taken(look.severities, steps),
            "urgency": _taken([*urgency, "Past"], np.where(events["event"] == CLEAR, len(urgency), steps)),
            "certainty": pa.repeat(pa.scalar(look.certainty), len(events)),
            "status": pa.repeat(pa.scalar(self.status), len(events)),
            "message": _messages(look, events) if spoken.messages is None else spoken.messages,
            "value": _numbers(events["value"] * look.sign),
            "limit": pa.array(look.limits, pa.float64()).take(pa.array(steps, pa.int64())),
            "unit": pa.repeat(pa.scalar(look.unit or None, pa.string()), len(events)),
            "peak": _numbers(events["peak"] * look.sign),
            "count": pa.array(events["count"], mask=events["count"] < 1),
            "reasons": _one_each(_taken(look.reasons, steps)) if spoken.reasons is None else spoken.reasons,
            "suppressed": (marked == SHELVED) | ((marked == FLOODED) & ~never),
            "chattering": events["chattering"].copy(),
            "references": _references(events, hexes, number),
        }
        schema = self.schema
        return pa.RecordBatch.from_arrays([_column(columns[one.name], one.type) for one in schema], schema=schema)

    def _who(self, spoken: Spoken, keys: Sequence[Key], labels: Sequence[Key]) -> dict[str, Any]:
        """The columns of the key, and those by which alerts are grouped."""
        events, found = spoken.events, {}
        for index, one in enumerate(self.key_schema):
            found[one.name] = _of_numbers(events["key"], keys, index, one.type)
        for index, one in enumerate(self.label_schema):
            if one.name not in found:
                found[one.name] = _of_numbers(events["label"], labels, index, one.type)
        for index, name in enumerate(spoken.group_by):
            values = [group[index] for group in spoken.groups]
            found[name] = pa.array(values, found[name].type)
        return found


def identity(rule: str, key: Key, onset: int | None, row: int) -> int:
    """63 bits that are the same for the same alert in every run, and differ otherwise."""
    moment = None if onset is None else f"{np.datetime64(onset, 'us')}Z"
    return _number(json.dumps([rule, key, moment, row]))


def identities(rule: str, events: Array, keys: Sequence[Key]) -> list[int]:
    """`identity` for many events at once."""
    known, which = np.unique(events["key"], return_inverse=True)
    heads = [json.dumps([rule, keys[number]])[:-1] for number in known.tolist()]
    onsets = np.where(events["onset"] == NEVER, np.datetime64("NaT", "us"), events["onset"].astype("M8[us]"))
    moments = np.datetime_as_string(onsets, timezone="UTC").tolist()
    return [
        _number(f'{heads[head]}, "{moment}", {row}]') if moment != "NaT" else _number(f"{heads[head]}, null, {row}]")
        for head, moment, row in zip(which.tolist(), moments, events["onset_row"].tolist(), strict=True)
    ]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _hexes(rule: str, spoken: Spoken, keys: Sequence[Key]) -> tuple[list[str], Array]:
    """Names of the alarm with its sensor, or group, that every alert of them has; and which one each event has."""
    if spoken.groups:
        names, which = list(spoken.groups), np.arange(len(spoken.groups))
    else:
        known, which = np.unique(spoken.events["key"], return_inverse=True)
        names = [keys[number] for number in known.tolist()]
    return [hashlib.sha256(json.dumps([rule, name]).encode()).hexdigest()[:16] for name in names], which


def _messages(look: Look, events: Array) -> list[str]:
    limits = [look.limits[step] for step in events["step"].tolist()]
    kinds = [EVENTS[kind] for kind in events["event"].tolist()]
    return list(map(look.words, kinds, (events["value"] * look.sign).tolist(), limits, (events["peak"] * look.sign).tolist()))


def _references(events: Array, hexes: Sequence[str], which: Array) -> Any:
    """As CAP has it: sender, identifier and time of the message that this one is about."""
    later = events["event"] != RAISE
    moments = np.datetime_as_string(np.where(later, events["raised"], 0).astype("M8[us]"), timezone="UTC")
    numbers = pa.array(events["id"], mask=~later).cast(pa.string())
    return pc.binary_join_element_wise(_taken(hexes, which), numbers, pa.array(moments), ",")


def _taken(words: Sequence[str], which: Array) -> Any:
    return pa.array(words, pa.string()).take(pa.array(which, pa.int64()))


def _one_each(words: Any) -> Any:
    return pa.ListArray.from_arrays(pa.array(np.arange(len(words) + 1), pa.int32()), words)


def _of_numbers(numbers: Array, names: Sequence[Key], index: int, kind: pa.DataType) -> Any:
    known, which = np.unique(numbers, return_inverse=True)
    values = pa.array([names[number][index] if number >= 0 else None for number in known.tolist()], kind)
    return values.take(pa.array(which, pa.int64()))


def _moments(micros: Array) -> Any:
    return pa.array(micros, mask=micros == NEVER).cast(UTC)


def _numbers(values: Array) -> Any:
    return pa.array(values, mask=~np.isfinite(values))


def _column(values: Any, kind: pa.DataType) -> Any:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)
