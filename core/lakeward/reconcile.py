"""The identity that holds for every batch: read = delivered + filtered by a named rule + dead letters, + held back by a transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from attrs import astuple, frozen

from lakeward.components import ROW, Batch
from lakeward.pipeline import BrokenContract, Outcome, Pipeline

Keys = npt.NDArray[np.int64]


@frozen
class Fates:
    """How many of the rows read met which fate. Each row has one: a dead letter anywhere counts first, then delivery to any sink."""

    read: int
    delivered: int
    """Spooled for at least one sink, or taken into a window or an alert."""
    filtered: int
    dead: int
    held: int = 0
    """Held back, without a fate yet; less than 0 when more rows leave than come."""

    def __add__(self, other: Fates) -> Fates:
        return Fates(*map(sum, zip(astuple(self), astuple(other), strict=True)))


NO_ROWS = Fates(0, 0, 0, 0)
NOTHING = pa.RecordBatch.from_pydict({ROW: pa.nulls(0, pa.int64())})
"""What is read when only rows that were held back leave."""


def transformed(pipeline: Pipeline, batch: Batch) -> tuple[Outcome, Fates]:
    """TRANSFORM: what becomes of a batch, with a fate for each row. Raises BrokenContract."""
    outcome = pipeline.push(batch.rows) if batch.rows.num_rows else Outcome()
    return outcome, fates(batch.rows, batch.rejected.num_rows if batch.rejected is not None else 0, outcome)


def fates(rows: pa.RecordBatch, unread: int, outcome: Outcome) -> Fates:
    """Count by row keys; `unread` rows were rejected by the source itself. Raises BrokenContract when a row has no fate."""
    read = rows.column(ROW)
    rejected = [batch.column(ROW) for _, batch in outcome.dead if ROW in batch.schema.names]
    arrived = [share.column(ROW) for share in outcome.shares.values() if ROW in share.schema.names] + outcome.taken
    held_back = outcome.waited + outcome.waiting
    if not rejected and not held_back and any(each.equals(read) for each in arrived):  # the usual case: a sink takes every row
        return Fates(len(read) + unread, len(read), 0, unread)
    keys = np.unique(_joined([read, *held_back]))
    held = _most(keys, outcome.waiting) - _most(keys, outcome.waited)
    left, counted = np.maximum(_times(keys, [read]) - held, 0), list[int]()  # rows whose fate is known now
    for places in (rejected, arrived, outcome.removed):  # the dead, the delivered, the filtered
        found = np.minimum(left, _times(keys, places))
        left, counted = left - found, [*counted, int(found.sum())]
    if lost := int(left.sum()):
        fate = "neither delivered, filtered nor rejected; a transform lost their keys"
        raise BrokenContract(f"{lost} of {len(read)} rows were read but {fate}")
    return Fates(len(read) + unread, counted[1], counted[2], counted[0] + unread, int(held.sum()))


def _times(keys: Keys, sets: Sequence[pa.Array[Any]]) -> Keys:
    """How often each key is in the sets together: rows of two inputs may have the same."""
    found = np.sort(_joined(sets))
    return np.searchsorted(found, keys, "right") - np.searchsorted(found, keys, "left")


def _most(keys: Keys, sets: Sequence[pa.Array[Any]]) -> Keys:
    """How often each is in the set where it is most often: a row may wait in several transforms."""
    return np.asarray(np.maximum.reduce([np.zeros_like(keys), *(_times(keys, [one]) for one in sets)]))


def _joined(sets: Sequence[pa.Array[Any]]) -> Keys:
    return np.concatenate([np.zeros(0, np.int64), *(each.to_numpy(zero_copy_only=False) for each in sets)])
