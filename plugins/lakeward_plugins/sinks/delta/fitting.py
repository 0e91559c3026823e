"""From the types of rows to those of a Delta table, and from rows as they are spooled to rows as they are stored.

What Delta has no type for goes into the nearest type that keeps every value:

    Arrow                              Delta
    uint8, uint16, uint32              short, integer, long
    uint64                             decimal(20,0)
    float16                            float
    decimals of other widths           decimal of the same scale
    timestamp without zone, any unit   timestamp_ntz (microseconds)
    timestamp with zone, any unit      timestamp (UTC, microseconds)
    date64                             date
    time32, time64                     string, such as 12:30:00.000005
    duration                           long, in microseconds
    large, view, fixed-size types      the plain type
    dictionary, extension              the type of the values
    null                               string; fits into any column of a table that is there

A value that would change on the way, such as a timestamp with nanoseconds, is rejected and never rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Literal

import pyarrow as pa
from deltalake import DeltaTable, Field, Schema

from lakeward import Refused, Rejected
from lakeward_plugins.sinks.delta.place import NO_HOOKS, short

Policy = Literal["refuse", "add", "dead_letter"]
FORBIDDEN = re.compile(r"[ ,;{}()\n\t=]")  # in column names, by the Delta protocol when there is no column mapping
WIDER = {"byte": ("short", "integer", "long"), "short": ("integer", "long"), "integer": ("long",), "float": ("double",)}
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


# -- from the schema of the rows to the schema of the table ------------------------------------------------------------


def fitting(schema: pa.Schema, table: DeltaTable | None, where: str, policy: Policy = "refuse") -> tuple[pa.Schema, list[str]]:
    """The types to cast the rows to, and the columns to add to the table first.

    `Refused` when Delta or this table cannot hold them, `Rejected` when the policy says that such rows are dead letters.
    """
    stored = pa.schema([pa.field(field.name, _nearest(field.type, field.name)) for field in schema])
    for name in stored.names:
        alike = [other for other in stored.names if other.lower() == name.lower()]
        if not name or FORBIDDEN.search(name):
            raise Refused(
                f"column {name!r}: Delta allows no empty name, nor blank, tab, newline or ,;{{}}()= in it; rename it with schematize"
            )
        if len(alike) > 1:
            raise Refused(f"columns {alike} are one for Delta, which does not tell upper and lower case apart; rename one with schematize")
    return stored, _difference(schema, stored, table, where, policy) if table else []


def _difference(schema: pa.Schema, stored: pa.Schema, table: DeltaTable, where: str, policy: Policy) -> list[str]:
    """delta-rs would cast 1.5 to 1 to make rows fit; so only the same type, a wider one of its kind, or no value at all is let through."""
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise Refused(f"{where}: the table has column mapping, under which delta-rs loses values; give this sink another path")
    theirs = {field.name: field for field in table.schema().fields}
    ours = {field.name: field.type for field in Schema.from_arrow(stored).fields}
    alike, added = {name.lower() for name in theirs}, []
    for name in [*theirs, *ours]:
        if name not in ours:
            problem = f"the table has a column {name!r} that the rows do not have; add it with schematize"
            if policy == "add" and theirs[name].nullable:
                continue
        elif name not in theirs:
            problem = f"the table has no column {name!r}; add it to the table or set `new_columns: add`, leave it out with schematize"
            if policy == "add" and name.lower() not in alike:
                added.append(name)
                continue
        elif _fits(ours[name], theirs[name].type) or pa.types.is_null(schema.field(name).type):
            continue
        else:
            kinds = f"{_words(ours[name])} in rows and {_words(theirs[name].type)} in the table"
            problem = f"column {name!r} is {kinds}; cast it with schematize"
        if policy == "dead_letter":
            raise Rejected(f"{where}: {problem}")
        raise Refused(f"{where}: {problem}, or choose another path")
    return added


def columns_of(table: DeltaTable) -> pa.Schema:
    """The table's own types, as Arrow has them."""
    return pa.schema(table.schema())  # type: ignore[arg-type]  # it exports itself to Arrow


def add_columns(table: DeltaTable, fields: list[pa.Field[Any]]) -> None:
    """In a commit of its own; older rows have no value there."""
    table.alter.add_columns(
        [Field(one.name, one.type, nullable=True) for one in Schema.from_arrow(pa.schema(fields)).fields],
        post_commithook_properties=NO_HOOKS,
    )


def _fits(ours: Any, theirs: Any) -> bool:
    return bool(ours == theirs) or _words(theirs) in WIDER.get(_words(ours), ())


def _words(kind: Any) -> str:
    return str(getattr(kind, "type", kind))


def _nearest(kind: Any, name: str) -> Any:
    """The type in the table of the docstring above."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _nearest(kind.storage_type, name)
    if types.is_dictionary(kind):
        return _nearest(kind.value_type, name)
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
    if types.is_nested(kind):
        return _nearest_nested(kind, name)
    if types.is_interval(kind):
        raise Refused(f"column {name!r}: Delta has no type for {kind}; cast it with schematize")
    return NEAREST.get(kind, kind)


def _nearest_nested(kind: Any, name: str) -> pa.DataType:
    children = [kind.field(place) for place in range(kind.num_fields)]
    if any(pa.types.is_duration(child.type) for child in children):
        raise Refused(f"column {name!r}: durations inside of {kind} cannot be stored; cast them with schematize")
    if pa.types.is_map(kind):
        return pa.map_(_nearest(kind.key_type, name), _nearest(kind.item_type, name))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(child.name, _nearest(child.type, name)) for child in children])
    return pa.list_(_nearest(kind.value_type, name))


# -- from the rows as they are spooled to the rows as they are stored --------------------------------------------------


def fitted(batches: Iterable[pa.RecordBatch], schema: pa.Schema, misfits: list[Exception]) -> Iterator[pa.RecordBatch]:
    """The rows in the types of the table. What goes wrong is told in `misfits`, as delta-rs makes text of any exception."""
    done = 0
    for batch in batches:
        columns = []
        for column, field in zip(batch.columns, schema, strict=True):
            try:
                columns.append(_cast(column, field.type))
            except pa.ArrowInvalid as error:
                rows = [done + row for row in _misfits(column, field.type)]
                misfits.append(Rejected(f"column {field.name!r} does not fit into {field.type}: {short(error)}", rows))
                raise
            except pa.ArrowNotImplementedError:
                misfits.append(Refused(f"column {field.name!r}: {column.type} cannot be stored as {field.type}; cast it with schematize"))
                raise
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        done += batch.num_rows


def _cast(column: pa.Array[Any], kind: pa.DataType) -> pa.Array[Any]:
    if pa.types.is_duration(column.type):
        column = column.cast(pa.duration("us"))
    return column.cast(kind)  # a safe cast: raises when a value would change


def _misfits(column: pa.Array[Any], kind: pa.DataType, first: int = 0) -> Iterator[int]:
    """Where the values are that cannot be cast; halves what is left, as there are few."""
    with suppress(pa.ArrowInvalid):
        _cast(column, kind)
        return
    half = len(column) // 2
    if not half:
        yield first
        return
    yield from _misfits(column.slice(0, half), kind, first)
    yield from _misfits(column.slice(half), kind, first + half)
