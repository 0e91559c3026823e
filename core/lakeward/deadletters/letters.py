"""From rejected rows to dead letters, and back: few rows, so here they become Python objects."""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lakeward.components import ROW, ROW_HIGH, Parcel
from lakeward.config import Limits
from lakeward.deadletters.box import DeadLetter, Letters
from lakeward.errors import Refused

MARKS = (ROW, ROW_HIGH, "_reason", "_detail")
BLOB = re.compile(r"x'((?:[0-9a-f]{2})*)'")  # how a source that gives all values as text writes bytes


def letters(stage: str, rows: pa.RecordBatch, origin: str, epoch: int) -> list[DeadLetter]:
    """One dead letter for each row, or range of them, that a source or a transform marked with `rejected()`."""
    return [
        DeadLetter(stage, row["_reason"], row["_detail"] or "", origin, epoch, row.get(ROW), _payload(row), row.get(ROW_HIGH))
        for row in _python_rows(rows)
    ]


def all_letters(dead: Iterable[tuple[str, pa.RecordBatch]], origin: str, epoch: int) -> list[DeadLetter]:
    """Of several nodes, each with the rows that it rejected."""
    return [letter for stage, rows in dead for letter in letters(stage, rows, origin, epoch)]


def refused_letters(parcel: Parcel, reasons: Mapping[int, str]) -> list[DeadLetter]:
    """One dead letter for each of these rows, by place, that a sink will never take. Without a row key, the place says which it is."""
    stage, epoch, found = f"sink {parcel.token.sink}", parcel.token.epoch, []
    rows = parcel.table().take(pa.array(list(reasons), pa.int64()))
    for (place, reason), row in zip(reasons.items(), _python_rows(rows), strict=True):
        origin = parcel.origin if ROW in row else f"{parcel.token}#{place}"
        found.append(DeadLetter(stage, "sink_rejected", reason, origin, epoch, row.get(ROW), _payload(row)))
    return found


def require_few(limits: Limits, dead: Sequence[DeadLetter], bad: int, tried: int) -> None:
    """Raises Refused when that many rows are bad that the mistake is rather in the table or the rules; `dead` are examples."""
    if bad <= limits.spare or bad <= limits.max_ratio * tried:
        return
    (stage, reason), _ = Counter((one.stage, one.reason) for one in dead).most_common(1)[0]
    detail = next(one.detail for one in dead if (one.stage, one.reason) == (stage, reason))
    raise Refused(
        f"{bad:,} of {tried:,} rows would become dead letters, most of them from {stage} ({reason}: {detail}); has the table changed, "
        "or is a rule wrong? Correct that, or accept them with --set dead_letters.max_ratio=1"
    )


def require_room(limits: Limits, kept: Letters, dead: Sequence[DeadLetter]) -> None:
    """Raises Refused when the letters that nobody has looked after become too many to keep."""
    if dead and not kept.have_room_for(dead, limits.max_mb * 1e6):
        raise Refused(
            f"the dead letters would fill more than {limits.max_mb:g} MB, and none is ever dropped; look at them with "
            "`lakeward dead-letters list`, replay or discard them, or raise dead_letters.max_mb"
        )


def rows_again(dead: Sequence[Mapping[str, Any]], schema: pa.Schema) -> tuple[pa.RecordBatch, list[Mapping[str, Any]], dict[int, str]]:
    """The rows of letters under a schema, the letters that fit it, and why the others (by id) do not."""
    fitting: list[Mapping[str, Any]] = []
    cells: list[list[pa.Array[Any]]] = []
    unfit: dict[int, str] = {}
    for letter in dead:
        try:
            cells.append(_cells(letter, schema))
            fitting.append(letter)
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
            unfit[letter["id"]] = str(error)
    columns = [pa.concat_arrays(column) for column in zip(*cells, strict=True)] or [pa.array([], kind) for kind in schema.types]
    return pa.RecordBatch.from_arrays(columns, schema=schema), fitting, unfit


def _cells(letter: Mapping[str, Any], schema: pa.Schema) -> list[pa.Array[Any]]:
    values = {**json.loads(letter["payload"]), ROW: letter["row_low"]}
    missing = [name for name in schema.names if name not in values]
    if missing:
        raise ValueError(f"has no column {', '.join(missing)}; replay it by a pipeline file that leaves out what came later")
    cells = []
    for column in schema:
        try:
            cells.append(_cell(_read(values[column.name], letter["stage"] == "source"), column.type))
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise ValueError(f"column {column.name!r} ({column.type}): {str(error).partition(chr(10))[0]}") from error
    return cells


def _cell(value: Any, kind: pa.DataType) -> pa.Array[Any]:
    if isinstance(value, bytes) and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        value = value.decode()
    elif isinstance(value, str) and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError("holds text, not bytes")
    found: pa.Array[Any] = pa.array([value])  # of its own type first: pa.array([2.5], pa.int64()) would cut it to 2
    return found.cast(kind)  # "3.5" to a number, ISO text to a time; raises when a value would change


def _read(value: Any, as_text: bool) -> Any:
    """The other way round than `_plain`."""
    if isinstance(value, dict):
        return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else {key: _read(item, False) for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item, False) for item in value]
    blob = BLOB.fullmatch(value) if as_text and isinstance(value, str) else None
    return bytes.fromhex(blob[1]) if blob else value


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
    held = {} if row.get(ROW_HIGH) is not None else row  # nothing is known of the rows of a range
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
