"""Arrow types as those of Databricks. What it has no type for goes into the nearest type that keeps every value:

    Arrow                              Databricks
    int8, int16, int32, int64          TINYINT, SMALLINT, INT, BIGINT
    uint8, uint16, uint32, uint64      SMALLINT, INT, BIGINT, DECIMAL(20,0)
    float16, float32, float64          FLOAT, FLOAT, DOUBLE
    decimals                           DECIMAL, of at most 38 digits
    timestamp with zone, without       TIMESTAMP, TIMESTAMP_NTZ (both microseconds)
    date32, date64                     DATE
    time32, time64                     STRING, such as 12:30:00.000005
    duration                           BIGINT, in microseconds
    null                               STRING; fits into any column of a table that is there
    dictionary, extension              the type of the values
    lists, maps, structs               ARRAY, MAP, STRUCT

A value that would change on the way, such as a timestamp with nanoseconds, is rejected and never rounded.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lakeward import Refused
from lakeward_plugins.sinks.databricks.names import quoted

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
NAMES: dict[pa.DataType, str] = {
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INT",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.string(): "STRING",
    pa.binary(): "BINARY",
    pa.date32(): "DATE",
    pa.timestamp("us", "UTC"): "TIMESTAMP",
    pa.timestamp("us"): "TIMESTAMP_NTZ",
}
ARROW = {name.lower(): kind for kind, name in NAMES.items()}
INTEGERS = {"tinyint": pa.int8(), "smallint": pa.int16(), "int": pa.int32(), "bigint": pa.int64()}


def nearest(kind: Type, name: str) -> Type:
    """The type of the table above that keeps every value, as an Arrow type. Refused when there is none."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return nearest(kind.storage_type, name)
    if types.is_dictionary(kind):
        return nearest(kind.value_type, name)
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
        return pa.map_(nearest(kind.key_type, name), nearest(kind.item_type, name))
    if types.is_struct(kind):
        return pa.struct([pa.field(one.name, nearest(one.type, name)) for one in _fields(kind, name)])
    if types.is_nested(kind) and hasattr(kind, "value_type"):
        return pa.list_(nearest(_fields(kind, name)[0].type, name))
    found: Type = NEAREST.get(kind, kind)
    if found not in NAMES and not types.is_decimal(found):
        raise Refused(f"column {name!r}: Databricks has no type for {kind}; cast it with schematize")
    return found


def _fields(kind: Type, name: str) -> list[Any]:
    fields = [kind.field(place) for place in range(kind.num_fields)]
    if any(pa.types.is_duration(one.type) for one in fields):
        raise Refused(f"column {name!r}: durations inside of {kind} cannot be stored; cast them with schematize")
    return fields


def sql_type(kind: Type) -> str:
    """Of a type that `nearest` gave: as in CREATE TABLE."""
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_map(kind):
        return f"MAP<{sql_type(kind.key_type)}, {sql_type(kind.item_type)}>"
    if pa.types.is_list(kind):
        return f"ARRAY<{sql_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        fields = (kind.field(place) for place in range(kind.num_fields))
        return f"STRUCT<{', '.join(f'{quoted(one.name)}: {sql_type(one.type)}' for one in fields)}>"
    return NAMES[kind]


def same_type(ours: str, theirs: str) -> bool:
    """Whether what we would write in CREATE TABLE is what DESCRIBE says, which has no blanks and quotes."""
    return _plain(ours) == _plain(theirs)


def _plain(text: str) -> str:
    return text.lower().replace(" ", "").replace("`", "")


def readable(kind: Type) -> bool:
    """Whether Databricks reads it from Parquet as pyarrow writes it, and as the type that `nearest` says."""
    types = pa.types
    if types.is_dictionary(kind):
        return readable(kind.value_type)
    if types.is_timestamp(kind):
        return bool(kind.unit != "ns")
    if types.is_nested(kind):
        return all(readable(kind.field(place).type) for place in range(kind.num_fields))
    unread = (types.is_time, types.is_null, types.is_float16, types.is_duration, types.is_interval)
    return not isinstance(kind, pa.BaseExtensionType) and not any(is_one(kind) for is_one in unread)
