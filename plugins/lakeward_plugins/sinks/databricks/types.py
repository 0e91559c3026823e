"""Types of Databricks as SQL has them, for the Arrow types of `lakeward.delta_types`."""

from __future__ import annotations

import pyarrow as pa

from lakeward.delta_types import Type
from lakeward_plugins.sinks.databricks.names import quoted

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
