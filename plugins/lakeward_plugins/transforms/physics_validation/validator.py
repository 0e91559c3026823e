"""Checks readings against physics: each row gets flags that say how far to trust it, and leaves by the port they name.

Values are never changed. Rules that look at one row after another go by key, in the order of arrival; a row older than the newest of
its key is late, and no such rule evaluates it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from attrs import define, field, frozen

from lakeward import END_OF_INPUT, OptionError, option
from lakeward.grouping import DAY, NEVER, Array, Plausible, event_times
from lakeward.timestamps import Fold, Unit, check_timezone
from lakeward_plugins.transforms.physics_validation.fields import Fields
from lakeward_plugins.transforms.physics_validation.flags import (
    FAIL,
    FLAGS,
    MISSING,
    SEVERITY,
    SUSPECT,
    Phrase,
    Ranks,
    Verdict,
    ranks_of,
    reasons_of,
)
from lakeward_plugins.transforms.physics_validation.flatness import judge_attenuated, judge_flatline
from lakeward_plugins.transforms.physics_validation.limits import (
    judge_climatology,
    judge_envelope,
    judge_equals,
    judge_range,
    judge_relation,
)
from lakeward_plugins.transforms.physics_validation.past import Past
from lakeward_plugins.transforms.physics_validation.plan import TIME, Plan
from lakeward_plugins.transforms.physics_validation.profiles import PROFILES, Profile
from lakeward_plugins.transforms.physics_validation.readings import Readings, Value
from lakeward_plugins.transforms.physics_validation.rule import TEMPORAL, Rule
from lakeward_plugins.transforms.physics_validation.sample import Memory, Sample
from lakeward_plugins.transforms.physics_validation.tables import TIMES
from lakeward_plugins.transforms.physics_validation.temporal import judge_rate, judge_spike

Port = Literal["valid", "validated", "anomalies"]
JUDGES: Mapping[str, Callable[[Rule, Sample], Verdict]] = {
    "range": judge_range, "equals": judge_equals, "relation": judge_relation, "envelope": judge_envelope, "climatology": judge_climatology,
}  # fmt: skip
JUDGES_OVER_TIME: Mapping[str, Callable[[Rule, Sample, Memory], tuple[Verdict, Memory]]] = {
    "rate": judge_rate, "spike": judge_spike, "flatline": judge_flatline, "attenuated": judge_attenuated,
}  # fmt: skip


@frozen
class Route:
    """Which port rows of each kind take; `validated` is another name of `valid`."""

    fail: Port = option("anomalies", help="Rows with a field that fails.")
    suspect: Port = option("valid", help="Rows with a suspect field and none that fails.")
    missing: Port = option("valid", help="Rows whose checked fields are all missing.")


@define
class PhysicsValidation:
    """Flags each row by the rules of a profile and your own, and parts the anomalies from the valid rows.

    Columns that it adds: `qc_row` (flag of the row), `qc_reasons` (the broken rules, sorted by id), `severity` (none, suspect,
    fail), `validation_error` (the reasons as one text, NULL without any) and `qc_<column>` (flag of each checked column).
    """

    ports: ClassVar[tuple[str, ...]] = ("valid", "anomalies")
    port_synonyms: ClassVar[Mapping[str, str]] = {"validated": "valid"}
    row_wise: ClassVar[bool] = True
    block: ClassVar[str] = "validation"

    profile: Profile = option("none", help="Set of rules to start from.")
    rules: list[Rule] = option(factory=list, help="Rules beside the profile's; one with the id of a profile's rule replaces it.")
    fields: dict[str, str] = option(factory=dict, help="The column behind a rule's field, as in {temperature: temp_c}.")
    units: dict[str, str] = option(factory=dict, help="Units of incoming columns by field: {pressure: Pa, temperature: degF}.")
    constants: dict[str, float] = option(factory=dict, help="Fields that are no columns: {rated_power: 2050, rotor_diameter: 92}.")
    missing_sentinels: dict[str, list[Value]] = option(factory=dict, help="Values that mean missing, by field: {pressure: [-9999]}.")
    route: Route = option(factory=Route, help="Port for each kind of row; good rows are always valid.")
    field_flags: bool = option(True, help="Add a column `qc_<column>` for each checked column.")
    key: list[str] = option(factory=lambda: ["sensor_id"], help="Columns whose values together say which sensor it is.")
    time_field: str = option("timestamp", help="Column with the time of the event.")
    naive_timezone: str = option("UTC", help="Timezone of times without one, or `reject`.")
    fold: Fold = option("reject", help="A local time that the clocks show twice or never: refused, or with the offset before or after.")
    time_unit: Unit = option("auto", help="Unit of times that are numbers; `auto` tells it by their size.")
    min_time: str = option("2000-01-01", help="Rows before this time fail.")
    max_time: str = option("2100-01-01", help="Rows at or after this time fail.")
    max_future_s: timedelta = option(DAY, help="Rows more than this after the time of reading fail.", unit="s", minimum=0)
    max_keys: int = option(100_000, help="The run stops when rules over time have met more keys.", minimum=1)
    max_remembered: int = option(1_000_000, help="The run stops when flatline and attenuated remember more readings.", minimum=1)

    _fields: Fields = field(init=False)
    _plan: Plan = field(init=False)
    _span: Plausible = field(init=False)
    _past: Past = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._fields = Fields(self.fields, self.units, self.constants)
        self._fields.check()
        self._plan = Plan(self.profile, self.rules, self._fields, self.missing_sentinels, self.key, self.time_field)
        self._plan.join(PROFILES[self.profile]())
        self._past = Past(self.key, self.max_keys, self.max_remembered)
        self._span = Plausible.between(self.min_time, self.max_time, self.max_future_s)
        check_timezone(self.naive_timezone)

    @property
    def held(self) -> pa.RecordBatch | None:
        """With a spike rule the newest row of each key, which is judged by the one after it."""
        return self._past.held

    def clock(self, now: datetime) -> None:
        """Times far after it fail."""
        self._span = self._span.at(now)

    def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """Both ports, with the flags and reasons after the columns of the input."""
        return self._checked(self._past.before(batch), wait=True)

    def finish(self, watermark: datetime) -> Mapping[str, pa.RecordBatch]:
        """At the end of the input the rows that wait for the next one, which will not come."""
        if watermark != END_OF_INPUT or self._past.held is None:
            return {}
        return self._checked(self._past.held, wait=False)

    def state(self) -> bytes:
        """Nothing without rules over time."""
        return self._past.to_bytes(self._plan.signatures())

    def restore(self, state: bytes) -> None:
        """A rule that has changed starts anew; rows that wait are never lost."""
        self._past.from_bytes(state, self._plan.signatures())

    def _checked(self, rows: pa.RecordBatch, wait: bool) -> Mapping[str, pa.RecordBatch]:
        rules = self._plan.rules(rows.schema)
        over_time = [rule for rule in rules if rule.kind in TEMPORAL]
        times, impossible = self._times(rows, bool(over_time) or any(set(rule.by) & set(TIMES) for rule in rules))
        series = self._past.series(rows, times, wait and any(rule.kind == "spike" for rule in rules)) if over_time else None
        sentinels: dict[str, list[Value]] = {}
        for name, values in self.missing_sentinels.items():
            sentinels.setdefault(self._fields.column(name, rows.schema.names), []).extend(values)
        sample = Sample(Readings(rows, sentinels), self._fields, times, series)
        verdicts = [JUDGES[rule.kind](rule, sample) for rule in rules if rule.kind in JUDGES]
        for rule in over_time:
            verdict, self._past.memory[rule.id] = JUDGES_OVER_TIME[rule.kind](rule, sample, self._past.memory.get(rule.id, {}))
            verdicts.append(verdict)
        names = dict.fromkeys(name for rule in rules for name in sample.judged(rule))
        ranks = ranks_of(verdicts, {name: sample.readings.missing(name) for name in names})
        row = np.maximum.reduce(list(ranks.values()))
        row[impossible.rows] = FAIL
        verdicts.append(impossible)
        checked = self._flagged(rows, sorted(verdicts, key=lambda verdict: verdict.rule), ranks, row)
        self._past.held = None
        if series is not None:
            self._past.advance(series)
            if not series.leaving.all():
                leaves = np.ones(rows.num_rows, np.bool_)
                leaves[series.rows[~series.leaving]] = False
                self._past.held = rows.filter(_array(~leaves))
                checked, row = checked.filter(_array(leaves)), row[leaves]
        return self._part(checked, row)

    def _times(self, rows: pa.RecordBatch, needed: bool) -> tuple[Array, Verdict]:
        """Microseconds of each row, NEVER where there is no usable time; and the rows whose time cannot be.

        A missing time says nothing against the row. Without a rule that needs times, a column that holds none is passed over.
        """
        micros, wrong = np.full(rows.num_rows, NEVER), np.zeros(0, np.int64)
        if self.time_field in rows.schema.names:
            column = rows.column(self.time_field)
            try:
                micros = event_times(rows, self.time_field, self.naive_timezone, self.time_unit, self.fold)
            except OptionError:
                if needed:
                    raise
                column = pa.nulls(rows.num_rows)
            wrong = np.flatnonzero(~self._span.usable(micros) & np.asarray(column.is_valid()))
        words = ("is no time", *self._span.fault_words[1:])
        phrases = tuple(Phrase(FAIL, f"{self.time_field} {each}") for each in words)
        impossible = Verdict(TIME, (self.time_field,), None, phrases, wrong, self._span.faults(micros[wrong]), np.full(len(wrong), np.nan))
        return np.where(self._span.usable(micros), micros, NEVER), impossible

    def _flagged(self, rows: pa.RecordBatch, verdicts: list[Verdict], ranks: Mapping[str, Ranks], row: Ranks) -> pa.RecordBatch:
        reasons, messages = reasons_of(verdicts, rows.num_rows)
        added = {"qc_row": FLAGS.take(_array(row)), "qc_reasons": reasons}
        added |= {"severity": SEVERITY.take(_array(row)), "validation_error": messages}
        if self.field_flags:
            added |= {f"qc_{name}": FLAGS.take(_array(rank)) for name, rank in ranks.items()}
        schema = rows.schema
        for name, column in added.items():
            if name in schema.names:
                what = f"the data have a column {name!r} already, which would be added here; rename it before, with `schematize`"
                raise OptionError("", what)
            schema = schema.append(pa.field(name, column.type))
        return pa.RecordBatch.from_arrays([*rows.columns, *added.values()], schema=schema)

    def _part(self, rows: pa.RecordBatch, row: Ranks) -> dict[str, pa.RecordBatch]:
        ports = {MISSING: self.route.missing, SUSPECT: self.route.suspect, FAIL: self.route.fail}
        anomalous = np.isin(row, [rank for rank, port in ports.items() if port == "anomalies"])
        if not anomalous.any():  # the usual batch: nothing to copy
            return {"valid": rows, "anomalies": rows.slice(0, 0)}
        if anomalous.all():
            return {"valid": rows.slice(0, 0), "anomalies": rows}
        return {"valid": rows.filter(_array(~anomalous)), "anomalies": rows.filter(_array(anomalous))}


def _array(values: Array) -> Any:
    return pa.array(values)  # the stubs of pyarrow take every numpy array for booleans
