"""Keeps the rows that meet every rule; each other row is counted under the first rule that it does not meet.

NaN counts as NULL, because lakes do not tell them apart alike. A comparison with NULL is not met, also `!=` and `not_in`, so the
row goes; with `nulls: keep` it is met, and only `remove_nulls` looks for NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial, reduce
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field, frozen

from lakeward import ROW, OptionError, filtered, option
from lakeward.timestamps import to_utc

Value = bool | int | float | str
Where = dict[str, Value | dict[str, Value | list[Value]]]


@frozen
class Sanitize:
    """What makes a reading incomplete."""

    remove_nulls: list[str] = option(factory=list, help="Columns in which NULL or NaN removes the row.")


@define
class Filter:
    """Removes rows with NULL in named columns, then rows that do not meet a comparison, in the order in which they are written."""

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = True

    where: Where = option(
        factory=dict, help='What rows must meet: {temperature: {">": -50, "<": 150}, status: ok}, with > >= < <= == != in not_in.'
    )
    remove_nulls: list[str] = option(factory=list, help="Columns in which NULL or NaN removes the row.")
    filter_config: Where = option(factory=dict, help="Another name for `where`, as older uploaders have it; may be JSON in a text.")
    sanitize_config: Sanitize = option(factory=Sanitize, help="The same for `remove_nulls`; may be JSON in a text.")
    nulls: Literal["remove", "keep"] = option("remove", help="What becomes of a row when its NULL or NaN is compared in `where`.")
    _rules: list[Rule] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        places = {"remove_nulls": self.remove_nulls, "sanitize_config.remove_nulls": self.sanitize_config.remove_nulls}
        self._rules = [Rule(f"{place}[{number}]", column) for place in places for number, column in enumerate(places[place])]
        self._rules += [rule for place in ("where", "filter_config") for rule in _comparisons(place, getattr(self, place))]
        if not self._rules:
            raise OptionError("", "no rules, so nothing would be filtered; write `where` or `remove_nulls`")

    def apply(self, batch: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
        """The rows that meet all rules, and the keys of the others."""
        passed = len(self._rules)
        first = np.full(batch.num_rows, passed)
        for number, rule in reversed(list(enumerate(self._rules))):  # the first rule has the last word
            first[~self._met(rule, batch)] = number
        broken = [number for number in range(passed) if (first == number).any()]
        if not broken:
            return {"main": batch}
        keys = batch.select([ROW]) if ROW in batch.schema.names else batch
        removed = [filtered(keys.filter(pa.array(first == number)), self._rules[number].name) for number in broken]
        merged = pa.Table.from_batches(removed).combine_chunks().to_batches()[0]
        return {"main": batch.filter(pa.array(first == passed)), "filtered": merged}

    def _met(self, rule: Rule, batch: pa.RecordBatch) -> Any:
        if rule.column not in batch.schema.names:
            raise OptionError(rule.path, f"no column {rule.column!r}; columns are {', '.join(batch.schema.names)}")
        column = batch.column(rule.column)
        column = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
        null = np.asarray(pc.is_null(column, nan_is_null=True))
        if not rule.operator:
            return ~null
        column, values = _comparable(rule, column)
        met = np.asarray(OPERATORS[rule.operator](column, values).fill_null(False))
        return np.where(null, self.nulls == "keep", met)


@frozen
class Rule:
    """One comparison of one column; without operator: it is not NULL."""

    path: str
    column: str
    operator: str = ""
    values: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        """Under which removed rows are counted: `temperature > -50`, `humidity is null`."""
        if not self.operator:
            return f"{self.column} is null"
        shown = ", ".join(map(str, self.values))
        return f"{self.column} {self.operator} {f'[{shown}]' if self.operator in LISTS else shown}"


# -- from options to rules ---------------------------------------------------------------------------------------------


def _comparisons(place: str, where: Where) -> Iterator[Rule]:
    for column, wanted in where.items():
        if not isinstance(wanted, dict):
            yield _comparison(f"{place}.{column}", column, "==", wanted)
            continue
        if not wanted:
            raise OptionError(f"{place}.{column}", 'compares nothing; write {">": 0}, or a value that it must equal')
        for operator, value in wanted.items():
            yield _comparison(f"{place}.{column}.{operator}", column, operator, value)


def _comparison(path: str, column: str, operator: str, value: Value | list[Value]) -> Rule:
    if operator not in OPERATORS:
        close = get_close_matches(operator, OPERATORS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {' '.join(OPERATORS)}"
        raise OptionError(path, f"unknown operator {operator!r}, {hint}")
    values = tuple(value) if isinstance(value, list) else (value,)
    if isinstance(value, list) != (operator in LISTS) or not values:
        raise OptionError(path, f"{operator!r} takes {'a list of values, such as [1, 2]' if operator in LISTS else 'one value'}")
    if any(isinstance(one, int) and abs(one) >= 2**64 for one in values):
        raise OptionError(path, "is beyond the whole numbers that a column can hold; write it as 1e30")
    if any(one != one for one in values):
        raise OptionError(path, "nothing equals NaN; write the column into `remove_nulls` to remove it")
    return Rule(path, column, operator, values)


# -- comparing ---------------------------------------------------------------------------------------------------------


def _comparable(rule: Rule, column: Any) -> tuple[Any, list[Any]]:
    """The column and the values in one type, so that comparing them rounds nothing."""
    kind, values = column.type, rule.values
    text, truth = (all(isinstance(value, wanted) for value in values) for wanted in (str, bool))
    if pa.types.is_null(kind):
        return column.cast(pa.bool_()), [pa.scalar(False)]  # every row is NULL: any value will do
    if (text and (pa.types.is_string(kind) or pa.types.is_large_string(kind))) or (truth and pa.types.is_boolean(kind)):
        return column, [pa.scalar(value, kind) for value in values]
    if text and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return column, [_time(rule, str(value), kind) for value in values]
    if any(test(kind) for test in NUMERIC) and not any(isinstance(value, str) for value in values):
        return _numbers(column, [float(value) if isinstance(value, float) else int(value) for value in values])
    hint = "; `schematize` it before" if pa.types.is_string(kind) else ""
    raise OptionError(rule.path, f"column {rule.column!r} is {kind} and cannot be compared with {', '.join(map(repr, values))}{hint}")


def _numbers(column: Any, values: list[float]) -> tuple[Any, list[Any]]:
    if pa.types.is_integer(column.type) and all(value == value // 1 and abs(value) < 2**63 for value in values):
        return column, [pa.scalar(int(value)) for value in values]
    # whole numbers that lose digits here are far from any fraction that they are compared with
    return column.cast(pa.float64(), safe=False), [pa.scalar(float(value)) for value in values]


def _time(rule: Rule, value: str, kind: Any) -> Any:
    times, good = to_utc(pa.array([value]))
    if not good[0].as_py():
        raise OptionError(rule.path, f"column {rule.column!r} is {kind}, but {value!r} is no time; write 2026-01-31T12:00:00Z")
    return times[0].cast(pa.timestamp("us", getattr(kind, "tz", None)))


def _any_equal(column: Any, values: list[Any]) -> Any:
    return reduce(pc.or_, [pc.equal(column, value) for value in values])


def _compare(function: Callable[[Any, Any], Any], column: Any, values: list[Any]) -> Any:
    return function(column, values[0])


LISTS = ("in", "not_in")
OPERATORS: dict[str, Callable[[Any, list[Any]], Any]] = {
    ">": partial(_compare, pc.greater),
    ">=": partial(_compare, pc.greater_equal),
    "<": partial(_compare, pc.less),
    "<=": partial(_compare, pc.less_equal),
    "==": partial(_compare, pc.equal),
    "!=": partial(_compare, pc.not_equal),
    "in": _any_equal,
    "not_in": lambda column, values: pc.invert(_any_equal(column, values)),
}
NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
