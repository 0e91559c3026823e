"""Columns that a sink meets sooner or later: awkward names, every type, extreme values."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

NAMES = (
    "with space", " padded ", 'double"quote', "single'quote", "back`tick", "select", "a.b.c", "naïve_größe_温度", "🌡️",
    "comma,semicolon;{}()=", "slash/back\\slash", "../up", "percent%20", "$dollar", "#hash", "tab\tnewline\n", "1st",
    "_underscore", "VALUE", "", "n" * 300,
)  # fmt: skip
"""Column names. Parquet holds them all, `VALUE` beside `value` too."""

INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
_DAY, _NOON = date(2024, 2, 29), datetime(2024, 2, 29, 12, 0, 0, 123456)
_STRUCT = pa.struct([("x", pa.float64()), ("label", pa.string())])

TYPES: dict[str, pa.Array[Any]] = {
    **{str(kind): pa.array([1, None, 127]).cast(kind) for kind in INTEGERS},
    "float32": pa.array([0.5, None, -2.25], pa.float32()),
    "float64": pa.array([0.1, None, -1e300], pa.float64()),
    "bool": pa.array([True, None, False]),
    "string": pa.array(["a", None, "Ω\n\"'"]),
    "large_string": pa.array(["a", None, "b"], pa.large_string()),
    "binary": pa.array([b"\x00\xff", None, b""]),
    "date32": pa.array([_DAY, None, date(1969, 12, 31)], pa.date32()),
    "time64": pa.array([time(12, 30, 0, 5), None, time(0)], pa.time64("us")),
    "timestamp": pa.array([_NOON, None, datetime(1969, 12, 31, 23, 59)], pa.timestamp("us")),
    "timestamp_utc": pa.array([_NOON.replace(tzinfo=UTC), None, datetime(1, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
    "decimal": pa.array([Decimal("1.10"), None, Decimal("-99999999.99")], pa.decimal128(10, 2)),
    "list": pa.array([[1, None, 3], None, []], pa.list_(pa.int64())),
    "struct": pa.array([{"x": 1.5, "label": None}, None, {"x": None, "label": "a"}], _STRUCT),
    "dictionary": pa.array(["a", None, "a"]).dictionary_encode(),
    "null": pa.nulls(3),
}
"""Three values of every type that Parquet can hold, a NULL among them. The keys are the words for `SinkContract.unsupported`."""

EXTREMES: dict[str, pa.Array[Any]] = {
    "big_integers": pa.array([2**53 + 1, -(2**63), 2**63 - 1]),
    "not_finite": pa.array([float("inf"), float("-inf"), float("nan")]),
    "tiny_and_huge": pa.array([5e-324, 1.7976931348623157e308, -0.0]),
    "odd_text": pa.array(["", "x" * 1_000_000, "NULL"]),
}
"""Values at the edge of what their type can hold. The keys are words for `SinkContract.unsupported` too."""
