"""The columns of a batch as rules see them: numbers in the unit that a rule asks for, or text, and where they are missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field

from lakeward.grouping import Array
from lakeward.units import Conversion

Value = bool | int | float | str
TEXT = pa.string()
NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)


def is_text(kind: pa.DataType) -> bool:
    """Text of either width."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


@define(eq=False)
class Readings:
    """Each column is read once, when the first rule asks. NULL, NaN, infinity and sentinels are missing: no rule judges them."""

    rows: pa.RecordBatch
    sentinels: Mapping[str, Sequence[Value]]
    """By column."""
    _plain: dict[str, Any] = field(init=False, factory=dict)
    _missing: dict[str, Array] = field(init=False, factory=dict)
    _numbers: dict[tuple[str, Conversion], Array] = field(init=False, factory=dict)

    def plain(self, column: str) -> Any:
        """As it came: numbers of their own type, or text. Where it is missing the value means nothing."""
        if column not in self._plain:
            self._plain[column], missing = _read(self.rows.column(column))
            for sentinel in self.sentinels.get(column, ()):
                missing = missing | equal(self._plain[column], sentinel)
            self._missing[column] = missing
        return self._plain[column]

    def missing(self, column: str) -> Array:
        """Which rows have no value."""
        self.plain(column)
        return self._missing[column]

    def numbers(self, column: str, convert: Conversion) -> Array:
        """float64 in another unit, NaN where missing. Not to be changed: rules share it."""
        if (column, convert) not in self._numbers:
            values = self.plain(column).astype(np.float64)  # always a copy
            values[self._missing[column]] = math.nan
            self._numbers[column, convert] = convert.apply(values)
        return self._numbers[column, convert]


def equal(values: Any, value: Value) -> Array:
    """Where the values are this one; text is no number."""
    if isinstance(values, np.ndarray):
        return np.zeros(len(values), np.bool_) if isinstance(value, str) else np.asarray(values == value)
    return np.asarray(pc.equal(values, pa.scalar(value)).fill_null(False))


def _read(column: Any) -> tuple[Any, Array]:
    column = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    missing = np.asarray(column.is_null())
    if is_text(column.type):
        return column.cast(TEXT), missing
    if pa.types.is_integer(column.type):
        return column.fill_null(0).to_numpy(zero_copy_only=False), missing
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int8()).fill_null(0).to_numpy(zero_copy_only=False), missing
    single = pa.types.is_float32(column.type)  # stays, so that 0.1 is within a limit of 0.1
    values = column.cast(pa.float32() if single else pa.float64()).fill_null(math.nan).to_numpy(zero_copy_only=False)
    return values, ~np.isfinite(values)
