"""What an alarm remembers of each sensor, and what it says: numpy records, so that thousands are judged and saved at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from lakeward.grouping import NEVER, Array

RAISE, UPDATE, CLEAR = 0, 1, 2
EVENTS = ("RAISE", "UPDATE", "CLEAR")

QUIET, BACK, BETWEEN, BEYOND = 0, 1, 2, 3
"""Levels of a reading: back by the deadband, between, beyond the limit. QUIET in a record: there is nothing to remember."""

SHOWN, FLOODED, SHELVED = 0, 1, 2
"""Whether an alert is marked as suppressed, and why."""

OF_THE_ALERT = [
    ("id", "<i8"), ("onset", "<i8"), ("onset_row", "<i8"), ("raised", "<i8"), ("chattering", "?"), ("suppressed", "i1"), ("step", "i1"),
]  # fmt: skip
RECORD = np.dtype(
    [
        ("active", "?"), ("level", "i1"), ("due", "?"), ("started", "<i8"), ("started_row", "<i8"), ("said", "<i8"), ("peak", "<f8"),
        ("count", "<i8"), ("before", "<i8"), ("reading", "<f8"), *OF_THE_ALERT,
    ]
)  # fmt: skip
"""Of one sensor: whether its alert is raised; the run of equal levels that it is in, since when, and whether that run has lasted for
its delay; when it was last spoken of; the reading that the next one is compared with; and the alert."""
NOTHING = np.array((False, QUIET, False, 0, 0, 0, -np.inf, 0, NEVER, 0.0, 0, 0, 0, 0, False, 0, 0), RECORD)
"""The record of a new sensor."""
EVENT = np.dtype(
    [
        ("place", "<i8"), ("event", "i1"), ("key", "<i8"), ("label", "<i8"), ("clear_onset", "<i8"), ("cleared", "<i8"), ("updated", "<i8"),
        ("value", "<f8"), ("peak", "<f8"), ("count", "<i8"), *OF_THE_ALERT,
    ]
)  # fmt: skip
"""One row that comes out. `place` is that of the row in the batch that caused it; `key` numbers the sensor, `label` its groups."""


def new_events(count: int, **columns: Any) -> Array:
    """So many, without a time of clearing unless given."""
    events = np.zeros(count, EVENT)
    events["clear_onset"] = events["cleared"] = events["updated"] = NEVER
    events["label"] = -1
    for name, values in columns.items():
        events[name] = values
    return events


def grown(array: Array, count: int, fill: Any = 0) -> Array:
    """The same with room for so many sensors."""
    if len(array) == count:
        return array
    return np.concatenate([array, np.full((count - len(array), *array.shape[1:]), fill, array.dtype)])
