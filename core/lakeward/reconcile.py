"""The identity that holds for every batch: read = delivered + filtered by a named rule + dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from attrs import astuple, frozen

from lakeward.components import ROW
from lakeward.pipeline import BrokenContract, Outcome


@frozen
class Fates:
    """How many of the rows read met which fate. Each row has one: a dead letter anywhere counts first, then delivery to any sink."""

    read: int
    delivered: int
    """Spooled for at least one sink, or taken into a window or an alert."""
    filtered: int
    dead: int

    def __add__(self, other: Fates) -> Fates:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Fates(*(one + more for one, more in pairs))


NO_ROWS = Fates(0, 0, 0, 0)


def fates(rows: pa.RecordBatch, unread: int, outcome: Outcome) -> Fates:
    """Count by row keys; `unread` rows were rejected by the source itself. Raises BrokenContract when a row has no fate."""
    keys = rows.column(ROW)
    rejected = [batch.column(ROW) for _, batch in outcome.dead if ROW in batch.schema.names]
    arrived = [share.column(ROW) for share in outcome.shares.values() if ROW in share.schema.names] + outcome.taken
    dead = _among(keys, rejected)
    delivered = pc.and_not(_among(keys, arrived), dead)
    filtered = pc.and_not(_among(keys, outcome.removed), pc.or_(dead, delivered))
    counted = [mask.true_count for mask in (delivered, filtered, dead)]
    lost = len(keys) - sum(counted)
    if lost:
        fate = "neither delivered, filtered nor rejected; a transform lost their keys"
        raise BrokenContract(f"{lost} of {len(keys)} rows were read but {fate}")
    return Fates(len(keys) + unread, counted[0], counted[1], counted[2] + unread)


def _among(keys: pa.Array[Any], sets: Sequence[pa.Array[Any]]) -> pa.BooleanArray:
    if not sets or not len(keys):
        return pa.repeat(False, len(keys))
    if any(each.equals(keys) for each in sets):  # the usual case: a sink takes every row
        return pa.repeat(True, len(keys))
    return pc.is_in(keys, value_set=pa.chunked_array(sets).combine_chunks())
