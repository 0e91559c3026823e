"""Rules that judge each row alone: range, equals, climatology, envelope and relation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakeward.grouping import NEVER, Array
from lakeward_plugins.transforms.physics_validation.fields import AS_IT_IS
from lakeward_plugins.transforms.physics_validation.flags import FAIL, SUSPECT, Phrase, Verdict, in_unit, number
from lakeward_plugins.transforms.physics_validation.readings import equal
from lakeward_plugins.transforms.physics_validation.rule import Rule
from lakeward_plugins.transforms.physics_validation.sample import Sample
from lakeward_plugins.transforms.physics_validation.tables import TIMES, Climatology, Curve

SIDES = (("fail", 0, FAIL), ("fail", 1, FAIL), ("suspect", 0, SUSPECT), ("suspect", 1, SUSPECT))
"""Of a range: which limits, which end of them, and how strong; in the order of a table's columns too."""


def judge_range(rule: Rule, sample: Sample) -> Verdict:
    """Outside of `fail`, or of `suspect`."""
    column, unit = sample.column(rule.field), sample.fields.unit(rule.field, rule)
    convert = sample.fields.conversion(rule.field, rule) != AS_IT_IS
    values = sample.numbers(rule.field, rule) if convert else sample.readings.plain(column)
    low, high = _exact(rule.span("fail"), values.dtype)
    suspect_low, suspect_high = _exact(rule.span("suspect"), values.dtype)
    asked = sample.asked(rule)
    outside = ((values < max(low, suspect_low)) | (values > min(high, suspect_high))) & ~sample.readings.missing(column)
    rows = np.flatnonzero(outside if asked is None else outside & asked)
    values = values[rows]  # from here on only rows that break the rule cost anything
    failed, below = (values < low) | (values > high), values < max(low, suspect_low)
    phrases = []
    for name, end, rank in SIDES:
        limit = rule.span(name)[end]
        word = "is above" if end else "is below"
        phrases.append(Phrase(rank, f"{column} ", f" {word} {number(limit)}{in_unit(unit)}", limit))
    which = np.where(failed, 0, 2) + np.where(below, 0, 1)
    return Verdict(rule.id, (column,), unit, tuple(phrases), rows, which, values.astype(np.float64), evaluated=asked)


def judge_equals(rule: Rule, sample: Sample) -> Verdict:
    """The value that is not to be."""
    column, asked = sample.column(rule.field), sample.asked(rule)
    assert rule.value is not None  # noqa: S101  # for mypy; the rule saw to it
    found = equal(sample.readings.plain(column), rule.value) & ~sample.readings.missing(column)
    rows = np.flatnonzero(found if asked is None else found & asked)
    value = None if isinstance(rule.value, str) else float(rule.value)
    shown = f"is {rule.value!r}" if value is None else "is "
    phrase = Phrase(SUSPECT if rule.flag == "suspect" else FAIL, f"{column} {shown}", limit=value)
    values = np.full(len(rows), math.nan if value is None else value)
    return Verdict(rule.id, (column,), None, (phrase,), rows, np.zeros(len(rows), np.int64), values, evaluated=asked)


def judge_relation(rule: Rule, sample: Sample) -> Verdict:
    """What must be true and is not. Where an input is missing nothing can be said."""
    assert rule.relation is not None  # noqa: S101  # for mypy; the rule saw to it
    columns, truth = sample.judged(rule), sample.truth(rule.relation)
    evaluated = truth >= 0
    for column in columns:
        evaluated &= ~sample.readings.missing(column)
    if (asked := sample.asked(rule)) is not None:
        evaluated &= asked
    rows, rank = np.flatnonzero(evaluated & (truth == 0)), FAIL if rule.flag == "fail" else SUSPECT
    broken = {name: sample.numbers(name)[rows] for name in rule.relation.fields}
    compared = rule.relation.sides(broken, len(rows))
    phrase = Phrase(rank, f"not true: {rule.expr}") if compared is None else Phrase(rank, f"not true: {rule.expr}, with ", " and ")
    values, limits = compared or (np.full(len(rows), math.nan), None)
    return Verdict(rule.id, columns, None, (phrase,), rows, np.zeros(len(rows), np.int64), values, limits, evaluated)


def judge_envelope(rule: Rule, sample: Sample) -> Verdict:
    """y too far from the curve at x. Beside the curve's ends nothing can be said."""
    curve: Curve = rule.loaded
    x, y = sample.numbers(rule.x), sample.numbers(rule.y)
    middle, rank = curve.at(x), FAIL if rule.flag == "fail" else SUSPECT
    low, high = _around(middle, rule.lower, -math.inf), _around(middle, rule.upper, math.inf)
    columns, unit = sample.judged(rule), sample.fields.unit(rule.y)
    evaluated = ~np.isnan(middle) & ~np.isnan(y)
    if (asked := sample.asked(rule)) is not None:
        evaluated &= asked
    return _beside(rule, columns, unit, y, evaluated, ((rank, low, high),))


def judge_climatology(rule: Rule, sample: Sample) -> Verdict:
    """Outside of the limits of its time of the year, or of its place. What is not in the table is not evaluated."""
    table: Climatology = rule.loaded
    values = sample.numbers(rule.field, rule)
    lines = table.lines([_places(name, known, sample) for name, known in zip(table.by, table.values, strict=True)])
    evaluated = (lines >= 0) & ~np.isnan(values)
    if (asked := sample.asked(rule)) is not None:
        evaluated &= asked
    fail_low, fail_high, suspect_low, suspect_high = table.limits[:, lines]
    both = (FAIL, fail_low, fail_high), (SUSPECT, suspect_low, suspect_high)
    return _beside(rule, sample.judged(rule), sample.fields.unit(rule.field, rule), values, evaluated, both)


def _around(middle: Array, factor: float | None, nothing: float) -> Array:
    return np.full(len(middle), nothing) if factor is None else middle * factor


def _beside(
    rule: Rule, columns: tuple[str, ...], unit: str | None, values: Array, evaluated: Array, pairs: tuple[tuple[int, Array, Array], ...]
) -> Verdict:
    """Outside of limits that each row has for itself, the strongest first."""
    which, limits = np.full(len(values), -1), np.full(len(values), math.nan)
    phrases: list[Phrase] = []
    for rank, low, high in pairs:
        for end, outside in ((low, values < low), (high, values > high)):
            found = outside & evaluated & (which < 0)
            which[found], limits[found] = len(phrases), end[found]
            phrases.append(Phrase(rank, f"{columns[0]} ", f" is {'below' if end is low else 'above'} "))
    rows = np.flatnonzero(which >= 0)
    return Verdict(rule.id, columns, unit, tuple(phrases), rows, which[rows], values[rows], limits[rows], evaluated)


def _places(name: str, known: list[Any], sample: Sample) -> Array:
    """The place of each row's value among those of the table, -1 for none."""
    if name in TIMES:
        never = sample.times == NEVER
        times: Any = pa.array(sample.times, mask=never).cast(pa.timestamp("us"))
        values = PARTS[name](times)
    else:
        column = sample.readings.rows.column(name)
        values = (column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column).cast(pa.string())
    found: Any = pc.index_in(values, pa.array(known, values.type))
    return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))


PARTS: Mapping[str, Callable[[Any], Any]] = {
    "month": pc.month, "day_of_year": pc.day_of_year, "week": pc.iso_week, "quarter": pc.quarter, "hour": pc.hour,
}  # fmt: skip


def _exact(limits: tuple[float, float], kind: np.dtype[Any]) -> tuple[float, float]:
    """The limits as numbers of this type, which compare without rounding; large whole numbers would lose digits as floats."""
    low, high = limits
    if kind.kind == "f":
        most = float(np.finfo(kind).max)
        return max(low, -most), min(high, most)
    bounds = np.iinfo(kind)
    return math.ceil(max(low, bounds.min)), math.floor(min(high, bounds.max))
