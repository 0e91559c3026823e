"""From rejected rows to dead letters: few rows, so here they become Python objects."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pyarrow as pa

from lakeward.components import ROW, Parcel
from lakeward.state import DeadLetter

MARKS = (ROW, "_reason", "_detail")


def letters(stage: str, rows: pa.RecordBatch, origin: str, epoch: int) -> list[DeadLetter]:
    """One dead letter for each row that a source or a transform marked with `rejected()`."""
    return [
        DeadLetter(stage, row["_reason"], row["_detail"] or "", origin, epoch, row.get(ROW), _payload(row)) for row in _python_rows(rows)
    ]


def refused_letters(parcel: Parcel, reason: str) -> list[DeadLetter]:
    """One dead letter for each row of a parcel that a sink will never take."""
    token = parcel.token
    return [
        DeadLetter(f"sink {token.sink}", "sink_rejected", reason, str(token), token.epoch, row.get(ROW), _payload(row))
        for rows in parcel.batches()
        for row in _python_rows(rows)
    ]


def _python_rows(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        return rows.to_pylist()
    except UnicodeDecodeError:  # often the very reason why they are here
        columns = [
            column.cast(pa.binary()) if pa.types.is_string(column.type) and name not in MARKS else column
            for name, column in zip(rows.schema.names, rows.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, rows.schema.names).to_pylist()


def _payload(row: dict[str, Any]) -> str:
    return json.dumps({name: _plain(value) for name, value in row.items() if name not in MARKS}, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """A value as JSON can say it, without losing what it was."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
