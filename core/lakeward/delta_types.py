"""Arrow types as Delta tables have them. What they have no type for goes into the nearest type that keeps every value:

    Arrow                              Delta, Databricks
    int8, int16, int32, int64          byte TINYINT, short SMALLINT, integer INT, long BIGINT
    uint8, uint16, uint32              short, integer, long
    uint64                             decimal(20,0)
    float16, float32, float64          float, float, double
    decimals                           decimal of the same scale, of at most 38 digits
    timestamp with zone, any unit      timestamp (UTC, microseconds)
    timestamp without zone, any unit   timestamp_ntz (microseconds)
    date32, date64                     date
    time32, time64                     string, such as 12:30:00.000005
    duration                           long, in microseconds
    null                               string; fits into any column of a table that is there
    large, view, fixed-size types      the plain type
    dictionary, extension              the type of the values
    lists, maps, structs               the same of such types

A value that would change on the way, such as a timestamp with nanoseconds, is rejected and never rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa

from lakeward.errors import Refused, Rejected
from lakeward.wording import first_line

Type = Any  # pa.DataType; its stubs do not know which attributes go with which type
NEAREST: dict[pa.DataType, pa.DataType] = {
    pa.null(): pa.string(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}
SAME = {
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
    *(pa.bool_(), pa.string(), pa.binary(), pa.date32(), pa.decimal128(20, 0)),
}


def nearest(kind: Type, name: str, where: str) -> Type:
    """The type of the table above, as an Arrow type; Refused when `where`, such as Databricks, has none for the column of this name."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return nearest(kind.storage_type, name, where)
    if types.is_dictionary(kind):
        return nearest(kind.value_type, name, where)
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_decimal(kind):
        return pa.decimal128(min(38, kind.precision + max(0, -kind.scale)), max(0, kind.scale))
    if types.is_time(kind):
        return pa.string()
    if types.is_duration(kind):
        return pa.int64()
    if types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_map(kind):
        return pa.map_(nearest(kind.key_type, name, where), nearest(kind.item_type, name, where))
    if types.is_struct(kind):
        return pa.struct([pa.field(one.name, nearest(one.type, name, where)) for one in _fields(kind, name)])
    if types.is_nested(kind) and hasattr(kind, "value_type"):
        return pa.list_(nearest(_fields(kind, name)[0].type, name, where))
    found: Type = NEAREST.get(kind, kind)
    if found not in SAME:
        raise Refused(f"column {name!r}: {where} has no type for {kind}; cast it with schematize")
    return found


def _fields(kind: Type, name: str) -> list[Any]:
    fields = [kind.field(place) for place in range(kind.num_fields)]
    if any(pa.types.is_duration(one.type) for one in fields):
        raise Refused(f"column {name!r}: durations inside of {kind} cannot be stored; cast them with schematize")
    return fields


def cast(column: Any, name: str, kind: Type) -> Any:
    """The values in that type. Raises Rejected with the places of values that would change, Refused when there is no way."""
    try:
        return _safe(column, kind)
    except pa.ArrowInvalid as error:
        raise Rejected(f"column {name!r} does not fit into {kind}: {first_line(error)}", list(_misfits(column, kind))) from None
    except pa.ArrowNotImplementedError:
        raise Refused(f"column {name!r}: {column.type} cannot be stored as {kind}; cast it with schematize") from None


def _safe(column: Any, kind: Type) -> Any:
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pa.types.is_duration(column.type):
        column = column.cast(pa.duration("us")).cast(pa.int64())
    return column.cast(kind)  # raises when a value would change


def _misfits(column: Any, kind: Type, first: int = 0) -> Iterator[int]:
    """Where the values are that cannot be cast; halves what is left, as there are few."""
    with suppress(pa.ArrowInvalid):
        _safe(column, kind)
        return
    half = len(column) // 2
    if not half:
        yield first
        return
    yield from _misfits(column.slice(0, half), kind, first)
    yield from _misfits(column.slice(half), kind, first + half)
