"""The names in `aggregations`: which columns they make, and what must be known of a window for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward import OptionError
from lakeward.grouping import LETTERS, plain_types

NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null)
PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")
ROWS = "readings"
"""`count` of a column that is not there, under this name, counts rows: old configurations have it."""

SUMMED = ("count", "sum", "avg", "min", "max", "range", "var", "std")
CIRCULAR = ("circ_mean", "circ_r", "circ_std", "yamartino")
PICKED = ("first", "last")
OTHER = ("record_count", "good_fraction", "mode", "median", "time_weighted_mean")
NAMES = (*SUMMED, "mean", *CIRCULAR, *PICKED, *OTHER)
OF_TEXT = ("count", "record_count", "min", "max", "first", "last", "mode", "good_fraction")
Role = Literal["value", "sin", "cos", "good", "present"]


@frozen
class Measure:
    """Numbers made of a field that are summed up: its values, the sine or cosine of angles, or 1 for each row that is counted."""

    field: str
    role: Role


@frozen
class Column:
    """One column of the output that says something about a field."""

    field: str
    function: str

    @property
    def name(self) -> str:
        """`avg_temperature`."""
        return f"{self.function}_{self.field}"

    @property
    def quantile(self) -> float | None:
        """The part of the values that is below, for median and percentiles."""
        match = PERCENTILE.fullmatch("p50" if self.function == "median" else self.function)
        return float(match[1]) / 100 if match else None


def columns_of(aggregations: Mapping[str, Sequence[str] | str]) -> tuple[Column, ...]:
    """The columns that are asked for, each once; `mean` is `avg`."""
    columns = []
    for name, functions in aggregations.items():
        listed = [(f"aggregations.{name}", functions)] if isinstance(functions, str) else []
        listed += [] if listed else [(f"aggregations.{name}[{index}]", function) for index, function in enumerate(functions)]
        for path, function in listed:
            if function not in NAMES and not PERCENTILE.fullmatch(function):
                close = get_close_matches(function, NAMES, 1)
                guess = f", did you mean {close[0]!r}?" if close else ""
                raise OptionError(path, f"expected one of {', '.join(NAMES)}, or a percentile such as p95; got text ({function!r}){guess}")
            columns.append(Column(name, "avg" if function == "mean" else function))
    return tuple(dict.fromkeys(columns))


@frozen
class Plan:
    """What must be known of a window so that its columns can be told."""

    columns: tuple[Column, ...]
    text: frozenset[str]
    """Fields that hold text."""
    absent: frozenset[str]
    """Fields that are no columns, as only rows are counted."""

    @classmethod
    def of(cls, columns: tuple[Column, ...], schema: pa.Schema) -> Plan:
        """For rows with this schema. Raises `OptionError` when they cannot have such aggregates."""
        kinds, text, absent = plain_types(schema), set(), set()
        for column in columns:
            path = f"aggregations.{column.field}"
            if column.field not in kinds:
                if column.function != "record_count" and (column.field, column.function) != (ROWS, "count"):
                    raise OptionError(path, f"no column {column.field!r}; columns are {', '.join(schema.names)}")
                absent.add(column.field)
            elif any(suits(kinds[column.field]) for suits in LETTERS):
                if column.function not in OF_TEXT:
                    raise OptionError(path, f"column {column.field!r} is text; of text there are {', '.join(OF_TEXT)}")
                text.add(column.field)
            elif not any(suits(kinds[column.field]) for suits in NUMBERS):
                raise OptionError(path, f"column {column.field!r} is {kinds[column.field]}; only numbers and text can be aggregated")
        return cls(columns, frozenset(text), frozenset(absent))

    def measures(self) -> list[Measure]:
        """What is summed up."""
        found: dict[Measure, None] = {}
        for column in self.columns:
            for role in self._roles(column):
                found[Measure(column.field, role)] = None
        return list(found)

    def _roles(self, column: Column) -> Sequence[Role]:
        if column.field in self.absent:
            return ()
        if column.function == "good_fraction":
            return ("good",)
        if column.function in CIRCULAR:
            return ("sin", "cos")
        if column.field in self.text:
            return ("present",) if column.function == "count" else ()
        return ("value",) if column.function in SUMMED else ()

    def picks(self) -> list[Column]:
        """First and last values, and the extremes of text."""
        return [
            column
            for column in self.columns
            if column.function in PICKED or (column.field in self.text and column.function in ("min", "max"))
        ]

    def fields(self, *functions: str) -> list[str]:
        """The fields that have one of these functions; `quantile` stands for all quantiles."""
        found = [one for one in self.columns if one.function in functions or ("quantile" in functions and one.quantile is not None)]
        return list(dict.fromkeys(column.field for column in found))


def numbers(column: pa.Array[Any]) -> pa.Array[Any]:
    """Any column of numbers as doubles."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return pc.cast(column, pa.float64(), safe=False)
