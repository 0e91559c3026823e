"""From rejected rows to dead letters: few rows, so here they become Python objects."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lakeward.components import ROW, Parcel
from lakeward.state import DeadLetter

HIGH = "_row_high"
MARKS = (ROW, HIGH, "_reason", "_detail")


def letters(stage: str, rows: pa.RecordBatch, origin: str, epoch: int) -> list[DeadLetter]:
    """One dead letter for each row, or range of them, that a source or a transform marked with `rejected()`."""
    return [
        DeadLetter(stage, row["_reason"], row["_detail"] or "", origin, epoch, row.get(ROW), _payload(row), row.get(HIGH))
        for row in _python_rows(rows)
    ]


def refused_letters(parcel: Parcel, reason: str) -> Iterator[DeadLetter]:
    """One dead letter for each row of a parcel that a sink will never take; a few at a time, as there may be many."""
    token = parcel.token
    for rows in parcel.batches(1_000):
        for row in _python_rows(rows):
            yield DeadLetter(f"sink {token.sink}", "sink_rejected", reason, str(token), token.epoch, row.get(ROW), _payload(row))


def _python_rows(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = [_python_values(column) for column in rows.columns]
    return [dict(zip(rows.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def _python_values(column: Any) -> Any:
    """What Python cannot hold is often the very reason why a row is here: bad UTF-8 becomes bytes, a strange time its number."""
    try:
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":  # with pandas these would be a type of its own
            return column.cast(pa.timestamp("us", column.type.tz)).to_pylist()
        return column.to_pylist()
    except (ValueError, OverflowError):
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return column.cast(pa.binary()).to_pylist()
        return column.view(pa.int32() if column.type.bit_width == 32 else pa.int64()).to_pylist()


def _payload(row: dict[str, Any]) -> str:
    held = {} if row.get(HIGH) is not None else row  # nothing is known of the rows of a range
    return json.dumps({name: _plain(value) for name, value in held.items() if name not in MARKS}, ensure_ascii=False)


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
