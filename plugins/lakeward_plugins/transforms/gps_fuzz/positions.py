"""Latitude and longitude of rows, and what can be wrong with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward import ROW, OptionError
from lakeward_plugins.transforms.gps_fuzz.cells import Floats, Ints

Bools = npt.NDArray[np.bool_]

NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
PLAIN_NUMBER = r"^[+-]?(?:\d{1,15}(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,2})?$"  # a decimal comma could be two things, so it is none
GOOD, MISSING, ONE_MISSING, NO_NUMBER, OUT_OF_RANGE, NO_TIME = range(6)
CAUSES = pa.array([
    "valid", "no latitude and no longitude", "latitude or longitude is missing", "latitude or longitude is no finite number",
    "latitude or longitude is out of range", "no time that can be read, to know the bucket",
])  # fmt: skip


@frozen(eq=False)
class Positions:
    """One for each row. Never change the arrays: they may be the rows' own."""

    lat: Floats
    lon: Floats
    causes: Ints
    """Why a row has no position, or GOOD."""
    null_island: int
    """Rows at exactly (0, 0)."""

    def counts(self) -> str:
        """How many rows have no position and why, in words; never where any of them is."""
        counts = zip(CAUSES.to_pylist(), np.bincount(self.causes, minlength=len(CAUSES)).tolist(), strict=True)
        found = [f"{cause}: {count}" for cause, count in [*counts, ("suspect_null_island", self.null_island)] if count and cause != "valid"]
        return f"of {len(self.causes)} rows: {', '.join(found)}" if found else ""


def positions(batch: pa.RecordBatch, lat_column: str, lon_column: str, *, wrap: bool) -> Positions:
    """Those in two columns. With `wrap`, longitudes beyond 180 and up to 540 degrees are once around too far."""
    lat, no_lat = _degrees(batch, "lat", lat_column)
    lon, no_lon = _degrees(batch, "lon", lon_column)
    if wrap:
        lon = np.where((np.abs(lon) > 180) & (np.abs(lon) <= 540), lon - np.copysign(360, lon), lon)
    return Positions(lat, lon, _causes(lat, no_lat, lon, no_lon), int(((lat == 0) & (lon == 0)).sum()))


def _causes(lat: Floats, no_lat: Bools, lon: Floats, no_lon: Bools) -> Ints:
    inside = (np.abs(lat) <= 90) & (np.abs(lon) <= 180)  # false for NaN
    if inside.all():
        return np.full(len(lat), GOOD)
    finite = np.isfinite(lat) & np.isfinite(lon)
    return np.select([no_lat & no_lon, no_lat | no_lon, ~finite, ~inside], [MISSING, ONE_MISSING, NO_NUMBER, OUT_OF_RANGE], GOOD)


def _degrees(batch: pa.RecordBatch, which: str, name: str) -> tuple[Floats, Bools]:
    """Degrees, NaN where they cannot be read; and where there is nothing to read."""
    column = plain(batch.column(name))
    kind, empty = column.type, column.is_null()
    if pa.types.is_large_string(kind):
        text = pc.ascii_trim_whitespace(column)
        empty = pc.equal(text, pa.scalar("", kind)).fill_null(True)
        column = pc.if_else(pc.match_substring_regex(text, PLAIN_NUMBER), text, pa.scalar(None, kind))
    elif pa.types.is_boolean(kind):  # true is not one degree
        column = pa.nulls(len(column), pa.float64())
    elif not any(test(kind) for test in NUMERIC):
        raise OptionError(f"fields.{which}", f"column {name!r} is {kind}; expected numbers or text")
    degrees = column.cast(pa.float64(), safe=False).fill_null(np.nan)  # unsafe: integers that lose digits are out of range
    return np.asarray(degrees), np.asarray(empty)


def devices(column: pa.Array[Any]) -> tuple[Any, Ints]:
    """The distinct devices as bytes of their text, and the number of each row's among them. NULL is a device, too."""
    column = plain(column)
    if pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())  # text from SQLite need not be UTF-8
    found = column.dictionary_encode(null_encoding="encode")
    names = found.dictionary
    if pa.types.is_integer(names.type):
        names = names.cast(pa.large_string())
    if pa.types.is_binary(names.type) or pa.types.is_large_string(names.type):
        names = names.cast(pa.large_binary())
    if names.type != pa.large_binary():
        names = pa.array([None if name is None else str(name).encode() for name in names.to_pylist()], pa.large_binary())
    return names.fill_null(b""), np.asarray(found.indices).astype(np.int64)


def plain(column: Any) -> Any:
    """Without a dictionary, and with one type for all text."""
    column = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    return column.cast(pa.large_string()) if pa.types.is_string(column.type) else column


def in_order(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    """As one batch in the order of the rows, which must not depend on how they were cut into batches."""
    return pa.Table.from_batches(parts).sort_by(ROW).combine_chunks().to_batches()[0]
