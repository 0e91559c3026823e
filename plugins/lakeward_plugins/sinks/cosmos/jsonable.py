"""Arrow columns as what JSON knows, and what every value is for one who reads the items.

Arrow                              JSON
integers up to 2^53, bool, text    as they are
integers beyond 2^53               text: numbers are doubles in Cosmos DB, and it would round them in silence
floats                             numbers; "NaN", "Infinity", "-Infinity"
decimals                           text, with all their digits
timestamp with zone                "2024-02-29T12:00:00.123456Z": UTC, as many digits as the unit has, so that text sorts as time
timestamp without zone             the same without Z
date, time                         "2024-02-29", "12:30:00.000005"
duration                           "1500us"
binary                             base64
list, struct, map                  list, object, object with the keys as text
dictionary, extension              as the type of the values
null                               null: a property is always there
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

EXACT = 2**53
"""Greatest integer up to which a double holds each of them."""
FIXED = 40
"""Bytes that a number, a truth value or a time needs at most, with quotes."""
ANY = 2**40
"""More bytes than any value has."""
types = pa.types


def unsupported(schema: pa.Schema) -> str:
    """The first column that has no place in JSON, with its type; empty when all have."""
    return next((f"column {one.name!r} ({one.type})" for one in schema if _is_strange(one.type)), "")


def _is_strange(kind: Any) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _is_strange(kind.storage_type)
    inner = [kind.field(place) for place in range(kind.num_fields)] if types.is_nested(kind) else []
    twice = types.is_struct(kind) and len({one.name for one in inner}) < len(inner)
    odd = types.is_interval(kind) or types.is_union(kind) or types.is_run_end_encoded(kind) or twice
    return bool(odd) or any(_is_strange(one.type) for one in inner)


def jsonable(column: Any) -> list[Any]:
    """The values of a column. Raises ValueError for what JSON cannot say, such as text that is not UTF-8 (UnicodeDecodeError)."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return jsonable(column.storage)
    if types.is_dictionary(kind):
        return jsonable(column.dictionary_decode())
    for fits, convert in CONVERSIONS:
        if fits(kind):
            return convert(column)
    return list(column.to_pylist())


def most_bytes(column: Any) -> int:
    """Bytes of JSON that no value of the column has more of: a safe bound, found without making JSON. For nested ones it is `ANY`."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return most_bytes(column.storage)
    if types.is_dictionary(kind):
        return most_bytes(column.dictionary)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return 6 * int(pc.max(pc.binary_length(column)).as_py() or 0) + 4  # a control character is six bytes: \u0001
    if types.is_decimal(kind):
        return 2 * int(kind.precision) + abs(int(kind.scale))
    return FIXED if types.is_primitive(kind) or types.is_null(kind) else ANY


def _integers(column: Any) -> list[Any]:
    values: list[Any] = column.to_pylist()
    ends: Any = pc.min_max(column).as_py()
    if ends["min"] is None or (ends["min"] >= -EXACT and ends["max"] <= EXACT):
        return values
    return [value if value is None or -EXACT <= value <= EXACT else str(value) for value in values]


def _floats(column: Any) -> list[Any]:
    if types.is_float16(column.type):
        column = column.cast(pa.float32())
    values: list[Any] = column.to_pylist()
    if pc.all(pc.is_finite(column)).as_py() in (True, None):
        return values
    return [value if value is None or math.isfinite(value) else _not_finite(value) for value in values]


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _timestamps(column: Any) -> list[Any]:
    unit, end = column.type.unit, "Z" if column.type.tz else ""
    moments = column.cast(pa.int64()).cast(pa.timestamp(unit))  # as it stands in UTC; needs no time zone database
    return [text and text.replace(" ", "T", 1) + end for text in moments.cast(pa.string()).to_pylist()]


def _durations(column: Any) -> list[Any]:
    return [None if count is None else f"{count}{column.type.unit}" for count in column.cast(pa.int64()).to_pylist()]


def _decimals(column: Any) -> list[Any]:
    return [value if value is None else format(value, "f") for value in column.to_pylist()]


def _text(column: Any) -> list[Any]:
    return list(column.cast(pa.string()).to_pylist())


def _bytes(column: Any) -> list[Any]:
    return [value if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]


def _lists(column: Any) -> list[Any]:
    values = iter(jsonable(column.flatten()))
    sizes = _sizes(column)
    return [None if size is None else [next(values) for _ in range(size)] for size in sizes]


def _maps(column: Any) -> list[Any]:
    parts = column.cast(pa.list_(pa.struct([pa.field("key", column.type.key_type, False), pa.field("value", column.type.item_type)])))
    return [None if entries is None else _object(entries) for entries in _lists(parts)]


def _object(entries: list[dict[str, Any]]) -> dict[str, Any]:
    found = {_key(one["key"]): one["value"] for one in entries}
    if len(found) < len(entries):
        raise ValueError("a key is there twice in one map")
    return found


def _key(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _structs(column: Any) -> list[Any]:
    names = [column.type.field(place).name for place in range(column.type.num_fields)]
    rows: Iterable[tuple[Any, ...]] = zip(*map(jsonable, column.flatten()), strict=True) if names else [()] * len(column)
    return [dict(zip(names, row, strict=True)) if there else None for there, row in zip(column.is_valid().to_pylist(), rows, strict=True)]


def _sizes(column: Any) -> list[int | None]:
    if types.is_fixed_size_list(column.type):
        return [column.type.list_size if there else None for there in column.is_valid().to_pylist()]
    return list(pc.list_value_length(column).to_pylist())


def _is_any_list(kind: Any) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_any_binary(kind: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or types.is_binary_view(kind))


CONVERSIONS: list[tuple[Callable[[Any], bool], Callable[[Any], list[Any]]]] = [
    (lambda kind: types.is_integer(kind) and kind.bit_width == 64, _integers),
    (types.is_floating, _floats),
    (types.is_timestamp, _timestamps),
    (lambda kind: types.is_date(kind) or types.is_time(kind), _text),
    (types.is_duration, _durations),
    (types.is_decimal, _decimals),
    (_is_any_binary, _bytes),
    (_is_any_list, _lists),
    (types.is_map, _maps),
    (types.is_struct, _structs),
]
"""By type; all others are what JSON knows already."""
