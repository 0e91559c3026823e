"""The identity that holds for every batch: read = delivered + filtered by a named rule + dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from attrs import astuple, frozen

from lakeward.components import ROW, Batch
from lakeward.pipeline import BrokenContract, Outcome, Pipeline


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


def transformed(pipeline: Pipeline, batch: Batch) -> tuple[Outcome, Fates]:
    """TRANSFORM: what becomes of a batch, with a fate for each row. Raises BrokenContract."""
    outcome = pipeline.push(batch.rows) if batch.rows.num_rows else Outcome()
    return outcome, fates(batch.rows, batch.rejected.num_rows if batch.rejected is not None else 0, outcome)


def fates(rows: pa.RecordBatch, unread: int, outcome: Outcome) -> Fates:
    """Count by row keys; `unread` rows were rejected by the source itself. Raises BrokenContract when a row has no fate."""
    keys = rows.column(ROW)
    rejected = [batch.column(ROW) for _, batch in outcome.dead if ROW in batch.schema.names]
    arrived = [share.column(ROW) for share in outcome.shares.values() if ROW in share.schema.names] + outcome.taken
    if not rejected and any(each.equals(keys) for each in arrived):  # the usual case: a sink takes every row
        return Fates(len(keys) + unread, len(keys), 0, unread)
    dead = _among(keys, rejected)
    delivered = _among(keys, arrived) & ~dead
    filtered = _among(keys, outcome.removed) & ~dead & ~delivered
    counted = [int(mask.sum()) for mask in (delivered, filtered, dead)]
    lost = len(keys) - sum(counted)
    if lost:
        fate = "neither delivered, filtered nor rejected; a transform lost their keys"
        raise BrokenContract(f"{lost} of {len(keys)} rows were read but {fate}")
    return Fates(len(keys) + unread, counted[0], counted[1], counted[2] + unread)


def _among(keys: pa.Array[Any], sets: Sequence[pa.Array[Any]]) -> npt.NDArray[np.bool_]:
    if not sets:
        return np.zeros(len(keys), np.bool_)
    import pyarrow.compute as pc  # takes 25 ms, which most runs need not pay

    return pc.is_in(keys, value_set=pa.chunked_array(sets).combine_chunks()).to_numpy(zero_copy_only=False)
