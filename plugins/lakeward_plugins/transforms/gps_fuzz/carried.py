"""Other columns that tell the position: all rows, all columns of text, bytes and numbers are compared with the true one."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakeward_plugins.transforms.gps_fuzz.cells import Floats
from lakeward_plugins.transforms.gps_fuzz.positions import plain

NEAR = 5e-5  # degrees: the same to four decimals, some five metres
NUMBER = re.compile(r"\d{1,3}\.\d+")
SCALES = (1e4, 1e5, 1e6, 1e7)  # whole numbers often count millionths of a degree, or smaller parts


def rows_that_tell(column: pa.Array[Any], lat: Floats, lon: Floats) -> int:
    """In how many rows a column has the row's own latitude or longitude, to four decimals."""
    column = plain(column)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        values = np.asarray(column.cast(pa.float64(), safe=False).fill_null(np.nan))
        tells = np.zeros(len(values), np.bool_)
        for degrees in (lat, lon):
            tells |= np.abs(values - degrees) < NEAR
            for scale in SCALES if pa.types.is_integer(column.type) else ():
                tells |= np.abs(values - degrees * scale) <= 1
        return int(tells.sum())
    if pa.types.is_large_string(column.type):
        return _count(column.cast(pa.large_binary()), lat, lon, _in_text)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return _count(column.cast(pa.large_binary()), lat, lon, _in_bytes)
    return 0


def _count(column: Any, lat: Floats, lon: Floats, tells: Callable[[bytes, float, float], bool]) -> int:
    if tells is _in_text:  # most texts have no such number in them
        likely = np.asarray(pc.match_substring_regex(column, NUMBER.pattern).fill_null(False))
        column, lat, lon = column.filter(pa.array(likely)), lat[likely], lon[likely]
    rows = zip(column.to_pylist(), lat.tolist(), lon.tolist(), strict=True)
    return sum(value is not None and tells(value, *at) for value, *at in rows)


def _in_text(value: bytes, lat: float, lon: float) -> bool:
    numbers = [float(number) for number in NUMBER.findall(value.decode(errors="replace"))]
    return any(abs(number - abs(degrees)) < NEAR for number in numbers for degrees in (lat, lon))


def _in_bytes(value: bytes, lat: float, lon: float) -> bool:
    """As text, or as doubles, the way geometries are kept (WKB)."""
    doubles = [struct.pack(form, degrees) for form in ("<d", ">d") for degrees in (lat, lon)]
    return any(double in value for double in doubles) or _in_text(value, lat, lon)
