"""Checks readings against physics: each row gets flags that say how far to trust it, and leaves by the port they name.

The flags are QARTOD's (the quality control manuals of the U.S. Integrated Ocean Observing System): 1 good, 2 not evaluated,
3 suspect, 4 fail, 9 missing. A row has the strongest flag of its fields: fail, then suspect, good, not evaluated, missing.
Values are never changed. NULL, NaN, infinity and the field's sentinels are missing: no rule judges them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field, frozen

from lakeward import OptionError, option

log = logging.getLogger("lakeward.physics_validation")

Value = bool | int | float | str
Port = Literal["valid", "anomalies"]


@define
class PhysicsValidation:
    """Flags each row by the rules of a profile and your own, and parts the anomalies from the valid rows.

    Columns that it adds: `qc_row` (flag of the row), `qc_reasons` (the broken rules, sorted by id), `severity` (none, suspect,
    fail), `validation_error` (the reasons as one text, NULL without any) and `qc_<column>` (flag of each checked column).
    """

    ports: ClassVar[tuple[str, ...]] = ("valid", "anomalies")
    row_wise: ClassVar[bool] = True

    profile: Literal["seed", "none"] = option("none", help="Set of rules to start from.")
    rules: list[Rule] = option(factory=list, help="Rules beside the profile's; one with the id of a profile's rule replaces it.")
    fields: dict[str, str] = option(factory=dict, help="The column behind a rule's field, as in {temperature: temp_c}.")
    missing_sentinels: dict[str, list[Value]] = option(factory=dict, help="Values that mean missing, by field: {pressure: [-9999]}.")
    route: Route = option(factory=lambda: Route(), help="Port for each kind of row; good rows are always valid.")
    field_flags: bool = option(True, help="Add a column `qc_<column>` for each checked column.")
    _rules: list[Rule] = field(init=False, repr=False)
    _told: set[str] = field(init=False, factory=set, repr=False)

    def __attrs_post_init__(self) -> None:
        own: dict[str, Rule] = {}
        for number, rule in enumerate(self.rules):
            if rule.id in own:
                raise OptionError(f"rules[{number}].id", f"there is a rule {rule.id!r} already; give each an id of its own")
            own[rule.id] = rule
        rules = {rule.id: rule for rule in PROFILES[self.profile]} | own
        if not rules:
            raise OptionError("profile", "there is nothing to check; name a profile, such as seed, or write rules")
        self._rules = sorted(rules.values(), key=lambda rule: rule.id)
        known = sorted({rule.field for rule in self._rules})
        for option_name, mapping in (("fields", self.fields), ("missing_sentinels", self.missing_sentinels)):
            for unread in sorted(mapping.keys() - set(known)):
                raise OptionError(f"{option_name}.{unread}", f"no rule checks a field {unread!r}; the rules check {', '.join(known)}")

    def apply(self, batch: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
        """Both ports, with the flags and reasons after the columns of the input."""
        readings: dict[str, Readings] = {}
        ranks: dict[str, Ranks] = {}
        broken: list[Broken] = []
        for rule in self._evaluable(batch.schema):
            name = self._column(rule.field)
            if name not in ranks:
                readings[name] = _readings(name, batch.column(name), self._sentinels(name))
                ranks[name] = np.where(readings[name].missing, np.uint8(MISSING), np.uint8(GOOD))
            found = KINDS[rule.kind].judge(rule, readings[name])
            ranks[name][found.rows] = np.maximum(ranks[name][found.rows], found.ranks)
            broken.append(found)
        row = np.maximum.reduce(list(ranks.values()))
        reasons, messages = _reasons(broken, batch.num_rows)
        added = {"qc_row": FLAGS.take(_array(row)), "qc_reasons": reasons}
        added |= {"severity": SEVERITY.take(_array(row)), "validation_error": messages}
        if self.field_flags:
            added |= {f"qc_{name}": FLAGS.take(_array(rank)) for name, rank in ranks.items()}
        return self._part(_with(batch, added), row)

    def _part(self, rows: pa.RecordBatch, row: Ranks) -> dict[str, pa.RecordBatch]:
        ports = {MISSING: self.route.missing, SUSPECT: self.route.suspect, FAIL: self.route.fail}
        anomalous = np.isin(row, [rank for rank, port in ports.items() if port == "anomalies"])
        if not anomalous.any():  # the usual batch: nothing to copy
            return {"valid": rows, "anomalies": rows.slice(0, 0)}
        return {"valid": rows.filter(_array(~anomalous)), "anomalies": rows.filter(_array(anomalous))}

    def _evaluable(self, schema: pa.Schema) -> list[Rule]:
        """The rules whose column is there, by id. Your own must be among them; a rule of the profile may lack its column."""
        rules, absent, columns = [], [], ", ".join(schema.names)
        for rule in self._rules:
            name = self._column(rule.field)
            if name in schema.names:
                self._check_type(rule, name, schema.field(name).type)
                rules.append(rule)
            elif rule.field in self.fields:
                raise OptionError(f"fields.{rule.field}", f"no column {name!r}; columns are {columns}")
            elif rule in self.rules:
                raise OptionError(f"{self._place(rule)}.field", f"no column {name!r} for rule {rule.id!r}; columns are {columns}")
            else:
                absent.append(name)
        if not rules:
            raise OptionError("fields", f"no rule finds its column: none of {', '.join(absent)} is among {columns}; map them here")
        if new := sorted(set(absent) - self._told):
            log.warning("profile %s: not checked, because there is no such column: %s; `fields` can map them", self.profile, ", ".join(new))
            self._told.update(new)
        return rules

    def _check_type(self, rule: Rule, name: str, kind: pa.DataType) -> None:
        kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
        text, place = _is_text(kind), self._place(rule)
        if not text and not any(test(kind) for test in NUMERIC):
            raise OptionError(place, f"rule {rule.id!r} can judge numbers and text, but column {name!r} is {kind}")
        if text and not isinstance(rule.value, str):
            raise OptionError(place, f"rule {rule.id!r} needs numbers, but column {name!r} is text; `schematize` it to double before")
        if isinstance(rule.value, str) and not (text or pa.types.is_null(kind)):
            raise OptionError(place, f"rule {rule.id!r} looks for the text {rule.value!r}, but column {name!r} is {kind}")
        if any(isinstance(value, str) != text for value in self.missing_sentinels.get(rule.field, [])):
            raise OptionError(f"missing_sentinels.{rule.field}", f"column {name!r} is {kind} and cannot have these values")

    def _column(self, field: str) -> str:
        return self.fields.get(field, field)

    def _place(self, rule: Rule) -> str:
        return f"rules[{self.rules.index(rule)}]" if rule in self.rules else "profile"

    def _sentinels(self, column: str) -> list[Value]:
        return [value for field, values in self.missing_sentinels.items() if self._column(field) == column for value in values]


@frozen
class Route:
    """Which port rows of each kind take."""

    fail: Port = option("anomalies", help="Rows with a field that fails.")
    suspect: Port = option("valid", help="Rows with a suspect field and none that fails.")
    missing: Port = option("valid", help="Rows whose checked fields are all missing.")


@frozen
class Rule:
    """One check of one field. Limits are allowed themselves; a limit of null or infinity is none."""

    id: str = option(help="Name of the rule in reasons.")
    kind: Literal["range", "equals"] = option(help="`range` checks limits; `equals` flags one value.")
    field: str = option(help="Column that is checked, or a name that `fields` maps to it.")
    fail: list[float | None] = option(factory=list, help="range: outside of [low, high] fails.")
    suspect: list[float | None] = option(factory=list, help="range: outside of [low, high] is suspect; within `fail`.")
    value: Value | None = option(None, help="equals: the value that is flagged.")
    flag: Literal["suspect", "fail"] | None = option(None, help="equals: how it is flagged; left out, it fails.")

    def __attrs_post_init__(self) -> None:
        for name in ("fail", "suspect", "value", "flag"):
            if name not in KINDS[self.kind].options and getattr(self, name) not in ([], None):
                raise OptionError(name, f"rule {self.id!r} is of kind {self.kind}, which takes {' and '.join(KINDS[self.kind].options)}")
        KINDS[self.kind].check(self)


# -- kinds of rules ----------------------------------------------------------------------------------------------------

Ranks = npt.NDArray[np.uint8]
MISSING, NOT_EVALUATED, GOOD, SUSPECT, FAIL = range(5)  # so that the strongest flag is the greatest rank
FLAGS = pa.array([9, 2, 1, 3, 4], pa.int8())
SEVERITY = pa.array(["none", "none", "none", "suspect", "fail"])


@frozen(eq=False)
class Readings:
    """One column, ready to be judged: numbers, or text. Where it is missing the value means nothing."""

    column: str
    values: Any
    missing: npt.NDArray[np.bool_]


@frozen(eq=False)
class Broken:
    """The rows that break one rule, with the rank that it gives them and the reason; all of one length."""

    rows: npt.NDArray[np.intp]
    ranks: Ranks
    reasons: pa.StructArray


@frozen
class Kind:
    """What rules of one kind take, how they are checked beforehand, and how they judge."""

    options: tuple[str, ...]
    check: Callable[[Rule], None]
    judge: Callable[[Rule, Readings], Broken]


def _check_range(rule: Rule) -> None:
    if not rule.fail and not rule.suspect:
        raise OptionError("fail", f"rule {rule.id!r} has no limits; write fail: [low, high], suspect: [low, high], or both")
    for name, limits in (("fail", rule.fail), ("suspect", rule.suspect)):
        if limits and (len(limits) != 2 or any(limit is not None and math.isnan(limit) for limit in limits)):
            raise OptionError(name, f"rule {rule.id!r}: expected [low, high], got {limits}")
        low, high = _limits(limits)
        if low > high:
            raise OptionError(name, f"rule {rule.id!r}: low {low:g} is above high {high:g}")
        if limits and math.isinf(low) and math.isinf(high):
            raise OptionError(name, f"rule {rule.id!r}: {limits} limits nothing")
    low, high = _limits(rule.fail)
    for limit in _limits(rule.suspect):
        if math.isfinite(limit) and not low <= limit <= high:
            raise OptionError("suspect", f"rule {rule.id!r}: {limit:g} is outside of fail [{low:g}, {high:g}]; suspect lies within fail")


def _judge_range(rule: Rule, readings: Readings) -> Broken:
    values = readings.values
    low, high = _exact(_limits(rule.fail), values.dtype)
    suspect_low, suspect_high = _exact(_limits(rule.suspect), values.dtype)
    least, most = max(low, suspect_low), min(high, suspect_high)
    rows = np.flatnonzero(((values < least) | (values > most)) & ~readings.missing)
    values = values[rows]  # from here on only rows that break the rule cost anything
    failed, below = (values < low) | (values > high), values < least
    limits = np.array([_limits(rule.suspect), _limits(rule.fail)], np.float64)[failed.astype(int), np.where(below, 0, 1)]
    side = pa.array([" is above ", " is below "]).take(_array(below.astype(np.int8)))
    messages = pc.binary_join_element_wise(readings.column + " ", _array(values).cast(TEXT), side, _array(limits).cast(TEXT), "")
    ranks = np.where(failed, FAIL, SUSPECT).astype(np.uint8)
    return _broken(rule, readings.column, rows, ranks, _array(values).cast(pa.float64(), safe=False), _array(limits), messages)


def _check_equals(rule: Rule) -> None:
    if rule.value is None or (isinstance(rule.value, float) and not math.isfinite(rule.value)):
        raise OptionError("value", f"rule {rule.id!r} needs the value that it flags: text or a finite number (NULL and NaN are missing)")


def _judge_equals(rule: Rule, readings: Readings) -> Broken:
    assert rule.value is not None  # noqa: S101  # for mypy; _check_equals saw to it
    rows = np.flatnonzero(_equal(readings.values, rule.value) & ~readings.missing)
    number = pa.scalar(None if isinstance(rule.value, str) else float(rule.value), pa.float64())
    numbers: Any = pa.repeat(number, len(rows))
    shown = repr(rule.value) if isinstance(rule.value, str) else number.cast(TEXT)
    messages = pa.repeat(f"{readings.column} is {shown}", len(rows))
    ranks = np.full(len(rows), SUSPECT if rule.flag == "suspect" else FAIL, np.uint8)
    return _broken(rule, readings.column, rows, ranks, numbers, numbers, messages)


KINDS = {
    "range": Kind(("fail", "suspect"), _check_range, _judge_range),
    "equals": Kind(("value", "flag"), _check_equals, _judge_equals),
}


def _limits(pair: list[float | None]) -> tuple[float, float]:
    low, high = pair or (None, None)
    return -math.inf if low is None else low, math.inf if high is None else high


def _exact(limits: tuple[float, float], kind: np.dtype[Any]) -> tuple[float, float]:
    """The limits as numbers of this type, which compare without rounding; large whole numbers would lose digits as floats."""
    low, high = limits
    if kind.kind == "f":
        most = float(np.finfo(kind).max)
        return max(low, -most), min(high, most)
    bounds = np.iinfo(kind)
    return math.ceil(max(low, bounds.min)), math.floor(min(high, bounds.max))


# -- from a column to readings -----------------------------------------------------------------------------------------

TEXT = pa.string()
NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _readings(name: str, column: Any, sentinels: list[Value]) -> Readings:
    column = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    missing = np.asarray(column.is_null())
    if _is_text(column.type):
        values = column.cast(TEXT)
    elif pa.types.is_integer(column.type):
        values = column.fill_null(0).to_numpy()
    elif pa.types.is_boolean(column.type):
        values = column.cast(pa.int8()).fill_null(0).to_numpy()
    else:
        single = pa.types.is_float32(column.type)  # stays, so that 0.1 is within a limit of 0.1
        values = column.cast(pa.float32() if single else pa.float64()).fill_null(math.nan).to_numpy()
        missing = ~np.isfinite(values)
    for sentinel in sentinels:
        missing = missing | _equal(values, sentinel)
    return Readings(name, values, missing)


def _equal(values: Any, value: Value) -> npt.NDArray[np.bool_]:
    if isinstance(values, np.ndarray):
        return np.zeros(len(values), np.bool_) if isinstance(value, str) else values == value
    return np.asarray(pc.equal(values, pa.scalar(value)).fill_null(False))


# -- from broken rules to columns --------------------------------------------------------------------------------------


def _broken(rule: Rule, column: str, rows: npt.NDArray[np.intp], ranks: Ranks, values: Any, limits: Any, messages: Any) -> Broken:
    repeated = [pa.repeat(rule.id, len(rows)), pa.repeat(column, len(rows))]
    columns = [*repeated, FLAGS.take(_array(ranks)), values, limits, messages]
    return Broken(rows, ranks, pa.StructArray.from_arrays(columns, names=["rule_id", "field", "flag", "value", "limit", "message"]))


def _reasons(broken: list[Broken], count: int) -> tuple[Any, Any]:
    """For each row the list of its reasons, in the order of the rules, and their messages as one text."""
    rows = np.concatenate([found.rows for found in broken])
    order = _array(np.argsort(rows, kind="stable"))
    counts = np.bincount(rows, minlength=count)
    offsets = _array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    reasons: Any = pa.concat_arrays([found.reasons for found in broken]).take(order)
    messages = pa.ListArray.from_arrays(offsets, reasons.field("message"), mask=_array(counts == 0))
    return pa.ListArray.from_arrays(offsets, reasons), pc.binary_join(messages, "; ")


def _with(batch: pa.RecordBatch, added: dict[str, Any]) -> pa.RecordBatch:
    schema = batch.schema
    for name, column in added.items():
        if name in schema.names:
            raise OptionError(
                "", f"the data have a column {name!r} already, which would be added here; rename it before, with `schematize`"
            )
        schema = schema.append(pa.field(name, column.type))
    return pa.RecordBatch.from_arrays([*batch.columns, *added.values()], schema=schema)


def _array(values: npt.NDArray[Any]) -> Any:
    return pa.array(values)  # the stubs of pyarrow take every numpy array for booleans


# -- profiles ----------------------------------------------------------------------------------------------------------

PROFILES: dict[str, tuple[Rule, ...]] = {
    "none": (),
    "seed": (  # degrees Celsius, percent, hPa, mm/s², volts
        Rule("temperature-range", "range", "temperature", fail=[-20, 60]),
        Rule("humidity-range", "range", "humidity", fail=[5, 95]),
        Rule("pressure-range", "range", "pressure", fail=[950, 1050]),
        Rule("vibration-range", "range", "vibration", fail=[None, 10]),
        Rule("voltage-range", "range", "voltage", fail=[20, 25]),
        Rule("anomaly-flag", "equals", "anomaly_flag", value=1),
    ),
}
