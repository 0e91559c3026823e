"""Gives rows the columns and types that were declared, and no others; a value that does not fit its type exactly is none.

Rows that do not fit are rejected whole, as they came. There is no `now`: what comes out depends on the rows alone, so that a
retry gives the same bytes. A column for the time of insertion, such as `databricks_inserted_at`, is therefore not made here: sinks
have the option `inserted_at` for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field, frozen

from lakeward import ROW, OptionError, option, rejected
from lakeward.grouping import plain
from lakeward.timestamps import Fold, check_timezone, to_utc

log = logging.getLogger("lakeward.schematize")

TypeName = Literal["double", "float", "bigint", "int64", "int", "int32", "text", "string", "boolean", "timestamp", "date", "binary"]
Value = bool | int | float | str
Mask = npt.NDArray[np.bool_]
ReadTimes = Callable[[Any], tuple[Any, Any]]


@define
class Schematize:
    """Casts, renames, orders and drops columns until they are those that were declared; `_row` stays first.

    Text becomes a number, a truth value, a date or a time where it is one. Whole numbers become double, and back, where no digit is
    lost; only double to float rounds. A timestamp becomes a date at midnight only.
    """

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = True

    columns: dict[str, TypeName | Column] = option(help="The columns in their order, each a type or a mapping with more.")
    unknown: Literal["keep", "drop", "refuse"] = option("drop", help="What becomes of columns that are not declared; kept ones come last.")
    missing: Literal["null", "refuse"] = option("refuse", help="What a declared column is that the data lack: all NULL, or a mistake.")
    on_bad: Literal["reject", "null"] = option("reject", help="What a value does that does not fit: reject its row, or become NULL.")
    naive_timezone: str = option("UTC", help="Timezone of times that name none: UTC, an IANA name, or reject.")
    fold: Fold = option("reject", help="A local time that the clocks show twice or never: refused, or with the offset before or after.")
    _read: ReadTimes = field(init=False, repr=False)
    _columns: dict[str, Column] = field(init=False, repr=False)
    _constants: dict[str, Any] = field(init=False, repr=False)
    _told: set[str] = field(init=False, factory=set, repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.columns:
            raise OptionError("columns", "none are declared; write them as in {temperature: double, taken_at: timestamp}")
        if ROW in self.columns:
            raise OptionError(f"columns.{ROW}", "is the row's key, which always stays; it cannot be declared")
        check_timezone(self.naive_timezone)
        self._read = partial(to_utc, naive_timezone=self.naive_timezone, fold=self.fold)
        self._columns = {name: column if isinstance(column, Column) else Column(column) for name, column in self.columns.items()}
        self._constants = {name: self._constant(f"columns.{name}", column) for name, column in self._columns.items()}

    def apply(self, batch: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
        """The declared columns, and the rows that do not fit them as they came."""
        sources = self._sources(batch.schema)
        out: dict[str, Any] = {ROW: batch.column(ROW)} if ROW in batch.schema.names else {}
        bad: dict[str, Mask] = {}
        null: dict[str, Mask] = {}
        for name, column in self._columns.items():
            out[name] = pa.repeat(self._constants[name], batch.num_rows)
            if name in sources:
                values, good = self._values(name, batch.column(sources[name]))
                bad |= {} if good.all() else {name: ~good}
                out[name] = pc.coalesce(values, self._constants[name])
            if column.required and out[name].null_count:
                null[name] = np.asarray(out[name].is_null())
        out |= self._kept(batch, out, set(sources.values()))
        if bad and self.on_bad == "null":
            self._tell("some values became NULL, because they do not fit their type, in", list(bad))
            bad = {}
        if not bad and not null:
            return {"main": pa.RecordBatch.from_pydict(out)}
        unfit, rows = self._unfit(batch, sources, bad, null)
        return {"main": pa.RecordBatch.from_pydict(out).filter(pa.array(~rows)), "rejected": unfit}

    def _sources(self, schema: pa.Schema) -> dict[str, str]:
        """For each declared column that comes from the data, the column that it comes from."""
        wanted = {name: column.source or name for name, column in self._columns.items() if column.value is None}
        absent = [name for name, source in wanted.items() if source not in schema.names]
        for name in absent:
            if self.missing == "refuse" or len(absent) == len(wanted):
                hint = "" if self.missing == "null" else "; `source` names another, and `missing: null` allows it"
                raise OptionError(f"columns.{name}", f"no column {wanted[name]!r}; columns are {', '.join(schema.names)}{hint}")
        unknown = [name for name in schema.names if name != ROW and name not in wanted.values()]
        if unknown and self.unknown == "refuse":
            raise OptionError("unknown", f"the data have columns that are not declared: {', '.join(unknown)}")
        self._tell("columns are NULL, because the data lack them:", absent)
        if self.unknown == "drop":
            self._tell("columns are dropped, because they are not declared:", unknown)
        return {name: source for name, source in wanted.items() if name not in absent}

    def _values(self, name: str, column: Any) -> tuple[Any, Mask]:
        """What the column becomes, and where that is good."""
        wanted = self._columns[name]
        try:
            if wanted.derive is None:
                return _cast(column, wanted.arrow, self._read)
            times, read = self._read(column)
            values, good = _cast(PARTS[wanted.derive](times), wanted.arrow, self._read)
            return values, good & np.asarray(read)
        except (TypeError, pa.ArrowNotImplementedError) as error:
            raise OptionError(f"columns.{name}", f"a column of type {column.type} cannot become {wanted.type}") from error

    def _constant(self, path: str, column: Column) -> Any:
        """What rows have that get no value from the data."""
        value = column.default if column.value is None else column.value
        if value is None:
            return pa.scalar(None, column.arrow)
        if column.value is not None and (column.source or column.default is not None):
            raise OptionError(f"{path}.value", "a column with a `value` has it in every row; `source` and `default` have no place")
        try:
            values, good = _cast(pa.array([value]), column.arrow, self._read)
        except (TypeError, OverflowError, pa.ArrowNotImplementedError):
            good = np.array([False])
        if not good[0]:
            raise OptionError(f"{path}.{'default' if column.value is None else 'value'}", f"{value!r} is not {column.type}")
        return values[0]

    def _kept(self, batch: pa.RecordBatch, declared: dict[str, Any], read: set[str]) -> dict[str, Any]:
        if self.unknown != "keep":
            return {}
        kept = {name: batch.column(name) for name in batch.schema.names if name not in read | {ROW}}
        if both := sorted(kept.keys() & declared.keys()):
            raise OptionError(
                f"columns.{both[0]}", "the data have a column of this name, which `unknown: keep` keeps; give one of them another"
            )
        return kept

    def _unfit(
        self, batch: pa.RecordBatch, sources: dict[str, str], bad: dict[str, Mask], null: dict[str, Mask]
    ) -> tuple[pa.RecordBatch, Mask]:
        """The rejected rows with all that is wrong with them, and a mask of them."""
        none = np.zeros(batch.num_rows, np.bool_)
        wrong_type = np.logical_or.reduce([none, *bad.values()])
        wrong_null = np.logical_or.reduce([none, *null.values()]) & ~wrong_type
        parts = []
        if wrong_type.any():
            rows = batch.filter(pa.array(wrong_type))
            texts = {name: _complaints(name, rows.column(sources[name]), self._columns[name].type) for name in bad}
            parts.append(rejected(rows, "type", _details({name: mask[wrong_type] for name, mask in bad.items()}, texts)))
        if wrong_null.any():
            rows = batch.filter(pa.array(wrong_null))
            texts = {name: pa.repeat(f"{name} is required, but NULL", rows.num_rows) for name in null}
            parts.append(rejected(rows, "null", _details({name: mask[wrong_null] for name, mask in null.items()}, texts)))
        return pa.Table.from_batches(parts).combine_chunks().to_batches()[0], wrong_type | wrong_null

    def _tell(self, what: str, names: list[str]) -> None:
        if new := [name for name in names if f"{what} {name}" not in self._told]:
            log.warning("%s %s", what, ", ".join(new))
            self._told |= {f"{what} {name}" for name in new}


@frozen
class Column:
    """What a declared column is."""

    type: TypeName = option(help="Its type; bigint is int64, int is int32, text is string, timestamp is in microseconds and UTC.")
    source: str = option("", help="Column of the data that it comes from; left out, the one of the same name.")
    derive: Literal["date", "year", "month", "day", "hour"] | None = option(None, help="That part, in UTC, of the time in the column.")
    value: Value | None = option(None, help="The same value in every row, instead of a column of the data.")
    default: Value | None = option(None, help="Value instead of NULL.")
    required: bool = option(False, help="Reject rows in which it is NULL.")

    @property
    def arrow(self) -> pa.DataType:
        """The type as Arrow knows it."""
        return TYPES[self.type]


PARTS: dict[str, Callable[[Any], Any]] = {
    "date": lambda times: times.cast(pa.timestamp("us")).cast(pa.date32(), safe=False),
    "year": pc.year, "month": pc.month, "day": pc.day, "hour": pc.hour,
}  # fmt: skip


# -- casting -----------------------------------------------------------------------------------------------------------

TIMESTAMP = pa.timestamp("us", "UTC")
TYPES: dict[str, pa.DataType] = {
    "double": pa.float64(), "float": pa.float32(), "bigint": pa.int64(), "int64": pa.int64(), "int": pa.int32(), "int32": pa.int32(),
    "text": pa.string(), "string": pa.string(), "boolean": pa.bool_(), "timestamp": TIMESTAMP, "date": pa.date32(), "binary": pa.binary(),
}  # fmt: skip


def _cast(column: Any, kind: Any, read_times: ReadTimes) -> tuple[Any, Mask]:
    """The values, NULL where one does not fit, and where they are good. Raises TypeError when no value of the column could fit."""
    column = plain(column)
    source = column.type
    if source == kind:
        return column, np.ones(len(column), np.bool_)
    if kind == TIMESTAMP:
        values, read = read_times(column)
        return values, np.asarray(read)
    if pa.types.is_temporal(source) and not (pa.types.is_string(kind) or pa.types.is_date(kind)):
        raise TypeError("a time is no number")
    if pa.types.is_date(kind) and (pa.types.is_integer(source) or pa.types.is_floating(source)):
        raise TypeError("a number is no date")
    values = _converted(column, kind)
    good: Mask = np.asarray(pc.and_(pc.or_(values.is_valid(), column.is_null()), _faithful(column, values).fill_null(True)))
    return (values if good.all() else pc.if_else(pa.array(good), values, pa.scalar(None, kind))), good


def _converted(column: Any, kind: Any) -> Any:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:  # some value does not fit: look for it among the different ones, which are fewer
        encoded = column.dictionary_encode()
        return pa.concat_arrays(list(_pieces(encoded.dictionary, kind))).take(encoded.indices)


def _pieces(column: Any, kind: Any) -> Iterator[Any]:
    """Halve until each part casts or is one bad value, so that many good ones cost a few casts."""
    try:
        yield column.cast(kind)
    except pa.ArrowInvalid:
        if len(column) == 1:
            yield pa.nulls(1, kind)
        else:
            yield from _pieces(column.slice(0, len(column) // 2), kind)
            yield from _pieces(column.slice(len(column) // 2), kind)


def _faithful(column: Any, values: Any) -> Any:
    """Where a cast that Arrow allows kept the value; NULL where there is none."""
    source, kind = column.type, values.type
    if pa.types.is_floating(kind) and not pa.types.is_null(source):
        endless = (
            pc.match_substring(column, "inf", ignore_case=True) if _is_text(source) else pc.is_inf(column.cast(pa.float64(), safe=False))
        )
        return pc.or_(pc.is_finite(values), pc.or_(pc.is_nan(values), endless))
    if pa.types.is_boolean(kind) and (pa.types.is_integer(source) or pa.types.is_floating(source)):
        return pc.equal(values.cast(source), column)
    if pa.types.is_date(kind) and pa.types.is_timestamp(source):
        return pc.equal(values.cast(pa.timestamp(source.unit)), column.cast(pa.timestamp(source.unit)))
    return pa.repeat(True, len(column))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


# -- saying what is wrong ----------------------------------------------------------------------------------------------


def _complaints(name: str, column: Any, kind: str) -> Any:
    shown: Any
    column = plain(column)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        shown = pa.array([repr(value.as_py()[:20]) if value.is_valid else None for value in column], pa.string())
    else:
        shown = pc.binary_join_element_wise("'", pc.utf8_slice_codeunits(column.cast(pa.string()), 0, 40), "'", "")
    return pc.binary_join_element_wise(f"{name}: ", shown, f" is not {kind}", "")


def _details(masks: dict[str, Mask], texts: dict[str, Any]) -> Any:
    said = [pc.if_else(pa.array(masks[name]), texts[name], pa.scalar(None, pa.string())) for name in masks]
    return pc.binary_join_element_wise(*said, "; ", null_handling="skip")
