"""What a rule may say: its options, and the mistakes that can be seen before any data."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import frozen

from lakeward import OptionError, option
from lakeward_plugins.transforms.physics_validation.expression import Expression, parse
from lakeward_plugins.transforms.physics_validation.readings import Value
from lakeward_plugins.transforms.physics_validation.tables import Climatology, Curve, read_climatology, read_curve

Kind = Literal["range", "equals", "rate", "spike", "flatline", "attenuated", "climatology", "relation", "envelope"]
Limits = list[float | None] | float | timedelta | None
LIMITS = ("fail", "suspect")
TAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # what it must have, and what it may have
    "range": (("field",), (*LIMITS, "unit")),
    "equals": (("field", "value"), ("flag",)),
    "rate": (("field",), (*LIMITS, "unit", "max_gap")),
    "spike": (("field",), (*LIMITS, "unit", "max_gap", "method")),
    "flatline": (("field",), (*LIMITS, "unit", "max_gap", "tolerance")),
    "attenuated": (("field", "period"), (*LIMITS, "unit", "measure", "min_period")),
    "climatology": (("field", "table", "by"), ("unit",)),
    "relation": (("expr",), ("fields", "flag")),
    "envelope": (("x", "y", "table"), ("lower", "upper", "flag")),
}
TEMPORAL = ("rate", "spike", "flatline", "attenuated")
"""Kinds that look at the rows of a key one after another."""
US = timedelta(microseconds=1)


def _relation(rule: Rule) -> Expression | None:
    return _parsed(rule, "expr")


def _guard(rule: Rule) -> Expression | None:
    return _parsed(rule, "when")


def _loaded(rule: Rule) -> Curve | Climatology | None:
    if rule.table is None or rule.kind not in ("climatology", "envelope"):
        return None
    try:
        return read_curve(rule.table, rule.x, rule.y) if rule.kind == "envelope" else read_climatology(rule.table, rule.by)
    except (OSError, ValueError) as error:
        raise OptionError("table", f"rule {rule.id!r}: {error}") from error


@frozen
class Rule:
    """One check. Limits are allowed themselves; a limit of 0 is a limit."""

    id: str = option(help="Name of the rule in reasons.")
    kind: Kind = option(help="What is checked; the manual page has a section for each kind.")
    field: str = option("", help="Column that is checked, or a name that `fields` maps to it.")
    fail: Limits = option(None, help="Beyond it the field fails: [low, high] for range, a number, or for flatline a duration.")
    suspect: Limits = option(None, help="Beyond it the field is suspect; never further out than `fail`.")
    value: Value | None = option(None, help="equals: the value that is flagged.")
    flag: Literal["suspect", "fail"] | None = option(None, help="equals: fail unless said; relation, envelope: suspect unless said.")
    unit: str | None = option(None, help="Unit of the limits; of rate with its time, as in degC/min (left out, per second).")
    when: str | None = option(None, help="Condition, such as `humidity < 95`: rows for which it is not true are not evaluated.")
    max_gap: timedelta | None = option(None, help="rate, spike, flatline: readings further apart are not compared.", minimum=0)
    method: Literal["differential", "average"] | None = option(None, help="spike: differential unless said.")
    tolerance: float | None = option(None, help="flatline: readings that differ by no more are the same; 0 unless said.", minimum=0)
    period: timedelta | None = option(None, help="attenuated: how far back it looks.", minimum=0.001)
    measure: Literal["range", "std"] | None = option(None, help="attenuated: what must not be small; range unless said.")
    min_period: timedelta | None = option(None, help="attenuated: how much of the period must have readings.", minimum=0)
    table: Path | None = option(None, help="climatology, envelope: a CSV file.")
    by: list[str] = option(factory=list, help="climatology: month, day_of_year, week, quarter or hour (in UTC), or columns.")
    expr: str | None = option(None, help="relation: what must be true.")
    fields: list[str] = option(factory=list, help="relation: the fields that get the flag; all of `expr` unless said.")
    x: str = option("", help="envelope: field on the x axis of the curve.")
    y: str = option("", help="envelope: field that is checked.")
    lower: float | None = option(None, help="envelope: y must be at least so many times the curve.")
    upper: float | None = option(None, help="envelope: y must be at most so many times the curve.")

    relation: Expression | None = attrs.field(init=False, eq=False, repr=False, default=attrs.Factory(_relation, takes_self=True))
    guard: Expression | None = attrs.field(init=False, eq=False, repr=False, default=attrs.Factory(_guard, takes_self=True))
    loaded: Any = attrs.field(init=False, eq=False, repr=False, default=attrs.Factory(_loaded, takes_self=True))

    def __attrs_post_init__(self) -> None:
        needed, allowed = TAKES[self.kind]
        options = [one for one in attrs.fields(Rule) if one.init and one.name not in ("id", "kind")]
        given = [one.name for one in options if getattr(self, one.name) not in (one.default, [])]
        for name in given:
            if name not in (*needed, *allowed, "when"):
                takes = ", ".join((*needed, *allowed))
                raise OptionError(name, f"rule {self.id!r} is of kind {self.kind}, which takes {takes} and when")
        for name in needed:
            if name not in given:
                raise OptionError(name, f"rule {self.id!r} needs it: a rule of kind {self.kind} has {' and '.join(needed)}")
        CHECKS.get(self.kind, _no_check)(self)

    def judged(self) -> tuple[str, ...]:
        """The fields that get the flag."""
        if self.relation is not None:
            return tuple(dict.fromkeys(self.fields)) or self.relation.fields
        return (self.y,) if self.kind == "envelope" else (self.field,)

    def reads(self) -> tuple[str, ...]:
        """All fields that it needs, `when` included."""
        names = [*self.judged(), *((self.x,) if self.x else ())]
        for expression in (self.relation, self.guard):
            names += expression.fields if expression else ()
        return tuple(dict.fromkeys(names))

    def span(self, name: str) -> tuple[float, float]:
        """`fail` or `suspect` of a range as two numbers, infinite where there is no limit."""
        low, high = getattr(self, name) or (None, None)
        return -math.inf if low is None else low, math.inf if high is None else high

    def threshold(self, name: str) -> float | None:
        """`fail` or `suspect` as one number; of a duration its microseconds."""
        limit = getattr(self, name)
        return limit // US if isinstance(limit, timedelta) else limit


def _parsed(rule: Rule, name: str) -> Expression | None:
    text = getattr(rule, name)
    try:
        return None if text is None else parse(text)
    except OptionError as error:
        raise OptionError(name, f"rule {rule.id!r}: {error.message}") from error


def _no_check(_: Rule) -> None:
    pass


def _check_range(rule: Rule) -> None:
    _some_limit(rule, "fail: [low, high], suspect: [low, high], or both")
    for name in LIMITS:
        limits = getattr(rule, name)
        if limits is None:
            continue
        if not isinstance(limits, list) or len(limits) != 2 or any(limit is not None and math.isnan(limit) for limit in limits):
            raise OptionError(name, f"rule {rule.id!r}: expected [low, high], got {limits}")
        low, high = rule.span(name)
        if low > high:
            raise OptionError(name, f"rule {rule.id!r}: low {low:g} is above high {high:g}")
        if math.isinf(low) and math.isinf(high):
            raise OptionError(name, f"rule {rule.id!r}: {limits} limits nothing")
    low, high = rule.span("fail")
    for limit in rule.span("suspect"):
        if math.isfinite(limit) and not low <= limit <= high:
            raise OptionError("suspect", f"rule {rule.id!r}: {limit:g} is outside of fail [{low:g}, {high:g}]; suspect lies within fail")


def _check_equals(rule: Rule) -> None:
    if isinstance(rule.value, float) and not math.isfinite(rule.value):
        raise OptionError("value", f"rule {rule.id!r} needs text or a finite number that it flags (NULL and NaN are missing)")


def _check_thresholds(rule: Rule) -> None:
    """Of rate and spike: what is beyond `fail` is beyond `suspect` too."""
    fail, suspect = _numbers(rule)
    if fail is not None and suspect is not None and suspect > fail:
        raise OptionError("suspect", f"rule {rule.id!r}: {suspect:g} is above fail {fail:g}; suspect comes first")


def _check_attenuated(rule: Rule) -> None:
    fail, suspect = _numbers(rule)
    if fail is not None and suspect is not None and suspect < fail:
        raise OptionError("suspect", f"rule {rule.id!r}: {suspect:g} is below fail {fail:g}; a smaller {rule.measure or 'range'} is worse")
    if rule.min_period is not None and rule.period is not None and rule.min_period > rule.period:
        raise OptionError("min_period", f"rule {rule.id!r}: it is longer than period")


def _check_flatline(rule: Rule) -> None:
    _some_limit(rule, "suspect: 30m, fail: 60m, or both")
    for name in LIMITS:
        limit = getattr(rule, name)
        if isinstance(limit, int | float) and math.isfinite(limit):
            object.__setattr__(rule, name, timedelta(seconds=limit))  # a number of seconds, as in all durations
        elif limit is not None and not isinstance(limit, timedelta):
            raise OptionError(name, f"rule {rule.id!r}: expected a duration such as 30m, got {limit}")
        if limit is not None and getattr(rule, name) <= timedelta(0):
            raise OptionError(name, f"rule {rule.id!r}: expected a duration longer than 0s")
    if rule.fail is not None and rule.suspect is not None and rule.suspect > rule.fail:  # type: ignore[operator]  # both are durations
        raise OptionError("suspect", f"rule {rule.id!r}: it is longer than fail; suspect comes first")


def _check_envelope(rule: Rule) -> None:
    if rule.lower is None and rule.upper is None:
        raise OptionError("upper", f"rule {rule.id!r} has no limits; write lower: 0.5, upper: 1.25, or one of them")
    if rule.lower is not None and rule.upper is not None and rule.lower > rule.upper:
        raise OptionError("lower", f"rule {rule.id!r}: lower {rule.lower:g} is above upper {rule.upper:g}")


def _numbers(rule: Rule) -> tuple[float | None, float | None]:
    _some_limit(rule, "a number as fail, as suspect, or as both")
    for name in LIMITS:
        limit = getattr(rule, name)
        if limit is not None and (not isinstance(limit, int | float) or not math.isfinite(limit) or limit < 0):
            raise OptionError(name, f"rule {rule.id!r}: expected a number from 0 on, got {limit}")
    return rule.threshold("fail"), rule.threshold("suspect")


def _some_limit(rule: Rule, example: str) -> None:
    if rule.fail is None and rule.suspect is None:
        raise OptionError("fail", f"rule {rule.id!r} has no limits; write {example}")


CHECKS = {
    "range": _check_range, "equals": _check_equals, "rate": _check_thresholds, "spike": _check_thresholds, "flatline": _check_flatline,
    "attenuated": _check_attenuated, "envelope": _check_envelope,
}  # fmt: skip
