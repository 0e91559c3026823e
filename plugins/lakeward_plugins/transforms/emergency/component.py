"""Raises alerts when a text holds a keyword, or readings break a rule; says when they get worse, and when they are over.

A rule is judged for each key, a sensor, alone, in event time, as OPC UA Part 9 describes it. NULL, NaN and infinity say nothing. A row
older than its key's newest one is too late for rules: it goes whole to the port `late`, and into the log. If there are rules, rows
without a usable time are rejected, because a clock gone wrong must not make all later rows late. Keywords are looked for in all rows,
those too. An alert has the same `alert_id` in every run and on all that is said of it later, so that a sink can replace what it has by
(alert_id, event).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from attrs import define, field

from lakeward import END_OF_INPUT, ROW, OptionError, option
from lakeward.grouping import KEY_TYPES, LETTERS, NEVER, Array, Plausible, event_times, group_codes, plain, plain_types
from lakeward.timestamps import Fold, Unit, check_timezone
from lakeward_plugins.transforms.emergency import options as o
from lakeward_plugins.transforms.emergency.alerts import OWN, Paper
from lakeward_plugins.transforms.emergency.evidence import Given
from lakeward_plugins.transforms.emergency.keywords import Keywords, Match
from lakeward_plugins.transforms.emergency.saved import restored, saved
from lakeward_plugins.transforms.emergency.setup import Setup, micros
from lakeward_plugins.transforms.emergency.watch import Moment, Watch

KEYWORD_FIELDS = ["message", "status", "alert_type", "anomaly_type"]
NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
FLAGS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
TRUTHS = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
log = logging.getLogger("lakeward.emergency")


@define
class Emergency:
    """One row for each alert that is raised, gets worse, or is cleared."""

    ports: ClassVar[tuple[str, ...]] = ("main", "late")
    row_wise: ClassVar[bool] = False
    block: ClassVar[str] = "emergency_config"

    trigger_keywords: list[str] = option(factory=list, help="Words that raise an alert, in any case and any Unicode form.")
    keyword_fields: list[str] = option(factory=list, help=f"Columns of text; left out, those there are of {', '.join(KEYWORD_FIELDS)}.")
    keyword_match: Match = option("word", help="A keyword is a whole word, any part, all of the text, or a regular expression (RE2).")
    keyword_severity: dict[str, o.Severity] = option(factory=dict, help="Severity of single keywords.")
    severity_thresholds: dict[str, float | o.Threshold | list[o.Threshold]] = option(
        factory=dict, help="For each field a limit, a mapping with more about it, or several of these."
    )
    default_severity: o.Severity = option("Severe", help="Severity where nothing else is said.")
    rules: list[o.Rule] = option(factory=list, help="Rules about changes, silence, several sensors at once, and single values.")
    key: list[str] = option(factory=lambda: ["sensor_id"], help="Columns whose values together say which sensor it is.")
    units: dict[str, str] = option(factory=dict, help="Units of incoming columns.")
    exclude_flags: list[int] = option(factory=lambda: [9], help="A reading whose column `qc_<field>` has one of these says nothing.")
    latch: bool = option(False, help="An alert that is over is not cleared before somebody resets it.")
    reset_field: str = option("", help="Column that is true, or not 0, in a row that resets the latched alerts of its sensor.")
    realarm_s: timedelta | None = option(
        None, help="Say again (UPDATE) what has been said of an active alert so long ago.", unit="s", minimum=1, maximum=o.LONG
    )
    shelve: list[o.Shelf] = option(factory=list, help="Rules whose alerts are marked as suppressed for a while.")
    shelve_max_s: timedelta = option(timedelta(days=1), help="How long a rule can be shelved at most.", unit="s", minimum=0, maximum=o.LONG)
    chatter: o.Chatter = option(factory=lambda: o.Chatter(), help="When alerts come and go too often; they are marked as chattering.")
    flood: o.Flood | None = option(None, help="When there are too many alerts to read; they are marked as suppressed.")
    status: o.Status = option("Actual", help="Of every alert; Test or Exercise for drills.")
    certainty: dict[o.Kind, o.Certainty] = option(factory=dict, help="By kind of rule, where it is not as usual.")
    urgency: dict[o.Severity, o.Urgency] = option(factory=dict, help="By severity, where it is not as usual.")
    stale_at_eof: bool = option(False, help="At the end of all input (--once --finish), every sensor counts as silent.")
    forget_after_s: timedelta = option(
        timedelta(days=30),
        help="A sensor without an alert is forgotten when it was silent for so long.",
        unit="s",
        minimum=1,
        maximum=o.LONG,
    )
    time_field: str = option("timestamp", help="Column with the time of the event.")
    time_unit: Unit = option("auto", help="Unit of times that are numbers; `auto` tells it by their size.")
    naive_timezone: str = option("UTC", help="Timezone of times without one, or `reject`.")
    fold: Fold = option("reject", help="A local time that the clocks show twice or never: refused, or with the offset before or after.")
    min_time: str = option("2000-01-01", help="Rows before this time are rejected when there are rules.")
    max_time: str = option("2100-01-01", help="Rows at or after this time are rejected when there are rules.")
    max_future_s: timedelta = option(
        timedelta(days=1), help="Rows more than this after the time of reading are rejected too.", unit="s", minimum=0
    )

    _span: Plausible = field(init=False)
    _words: Keywords = field(init=False)
    _watch: Watch = field(init=False)
    _layouts: dict[pa.Schema, tuple[Paper, list[str]]] = field(init=False, factory=dict)
    _rows_late: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        if not self.trigger_keywords and not self.severity_thresholds and not self.rules:
            raise OptionError("", "there is nothing to look for; give trigger_keywords, severity_thresholds, rules, or several of these")
        check_timezone(self.naive_timezone)
        self._span = Plausible.between(self.min_time, self.max_time, self.max_future_s)
        self._words = Keywords.of(self.trigger_keywords, self.keyword_match, self.keyword_severity, self.default_severity)
        if self.reset_field and not self.latch:
            raise OptionError("reset_field", "only latched alerts are reset; set latch: true, or leave it out")
        forget, realarm = micros(self.forget_after_s), None if self.realarm_s is None else micros(self.realarm_s)
        setup = Setup(self.default_severity, {**o.CERTAINTY, **self.certainty}, self.units, self.latch, realarm, self.chatter, forget)
        self._watch = Watch.of(setup, self.severity_thresholds, self.rules, self.flood, self.shelve, self.shelve_max_s)
        for name in dict.fromkeys([*self.key, *self._watch.label_columns]):
            if name in OWN:
                raise OptionError(
                    "key" if name in self.key else "rules", f"alerts have a column {name!r} of their own; rename that of the input"
                )

    @property
    def counted(self) -> dict[str, int]:
        """How many rows were too late for rules, and how many readings said nothing, by alert_type."""
        return {"late": self._rows_late} | {alarm.name: alarm.silent for alarm in self._watch.alarms if alarm.judge.field}

    def clock(self, now: datetime) -> None:
        """Rows from the future are not believed."""
        self._span = self._span.at(now)

    def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """Alerts in the order of the rows that caused them."""
        paper, fields = self._layout(batch.schema)
        times = event_times(batch, self.time_field, self.naive_timezone, self.time_unit, self.fold)
        usable, rejections = self._span.part(batch, times, self.time_field)
        if not self._watch.has_rules:
            usable, rejections = times != NEVER, {}
        codes, keys = group_codes(batch, paper.key_schema)
        label_codes, labels = group_codes(batch, paper.label_schema)
        ids = batch.column(ROW).to_numpy() if ROW in batch.schema.names else np.arange(batch.num_rows)
        moment = Moment(batch, times, ids, usable, self._watch.numbers_of(keys)[codes], self._watch.labels_of(labels)[label_codes])
        rows = self._watch.arrive(moment)
        given = Given(batch, rows, self._watch.sensors, self.exclude_flags, self._resets(batch))
        alerts = self._watch.alerts(paper, moment, given, self._words, self._words.found(batch, fields))
        late = rows.late if self._watch.has_rules else rows.late[:0]
        if len(late):
            self._rows_late += len(late)
            log.warning("%d rows are older than the newest of their key: not held against rules", len(late))
        return {**rejections, "late": batch.take(pa.array(late, pa.int64())), "main": alerts}

    def finish(self, watermark: datetime) -> Mapping[str, pa.RecordBatch]:
        """Sensors that are silent at the watermark; at the end of all input only with `stale_at_eof`."""
        if not self._layouts or (watermark == END_OF_INPUT and not self.stale_at_eof):
            return {}
        paper = next(iter(self._layouts.values()))[0]
        alerts = self._watch.at_the_end(paper, None if watermark == END_OF_INPUT else watermark)
        return {"main": alerts} if alerts.num_rows else {}

    def state(self) -> bytes:
        """Small and fast: what is remembered of sensors is arrays."""
        return saved(self._watch, self.key, self._rows_late)

    def restore(self, state: bytes) -> None:
        """Alerts stay raised when limits have changed; those of a rule that is gone are forgotten, with a word in the log."""
        self._rows_late = restored(state, self._watch, self.key)

    def _resets(self, batch: pa.RecordBatch) -> Array:
        if not self.reset_field:
            return np.zeros(0, np.bool_)
        numbers = plain(batch.column(self.reset_field)).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.asarray((numbers != 0) & ~np.isnan(numbers))

    def _layout(self, schema: pa.Schema) -> tuple[Paper, list[str]]:
        """How alerts are written, and the columns to look for keywords in; checked once for each schema."""
        if schema not in self._layouts:
            kinds = plain_types(schema)
            self._check(kinds)
            columns = (self.key, self._watch.label_columns)
            key_schema, label_schema = (pa.schema([(name, kinds[name]) for name in names]) for names in columns)
            never = self.flood.never_suppress if self.flood else []
            paper = Paper(key_schema, label_schema, self.status, {**o.URGENCY, **self.urgency}, never)
            self._layouts = {schema: (paper, self._fields(kinds))}
        return self._layouts[schema]

    def _check(self, kinds: Mapping[str, pa.DataType]) -> None:
        needed = [("time_field", self.time_field)] + [(f"key[{index}]", name) for index, name in enumerate(self.key)]
        needed += self._watch.columns + ([("reset_field", self.reset_field)] if self.reset_field else [])
        for path, name in needed:
            if name not in kinds:
                raise OptionError(path, f"no column {name!r}; columns are {', '.join(kinds)}")
            wanted, types = self._usable(path)
            if types and not any(suits(kinds[name]) for suits in types):
                raise OptionError(path, f"column {name!r} is {kinds[name]}; expected {wanted}")
            if self.exclude_flags and (flags := kinds.get(f"qc_{name}")) and not any(suits(flags) for suits in FLAGS):
                raise OptionError(
                    path, f"column 'qc_{name}' is {flags}; expected numbers as its flags; rename it, or set exclude_flags: []"
                )

    def _usable(self, path: str) -> tuple[str, tuple[Any, ...]]:
        if path.startswith("key[") or "group_by" in path:
            return "text, whole numbers or booleans", KEY_TYPES
        rule = re.match(r"rules\[(\d+)\]", path)
        if rule and self.rules[int(rule[1])].kind == "equals":
            value = self.rules[int(rule[1])].value
            if isinstance(value, str):
                return "text", (*LETTERS, pa.types.is_null)
            return ("true or false, or numbers", TRUTHS) if isinstance(value, bool) else ("numbers", NUMBERS)
        usable = {"reset_field": ("true or false, or numbers", TRUTHS)}
        return usable.get(path, ("numbers", NUMBERS)) if path != "time_field" else ("", ())

    def _fields(self, kinds: Mapping[str, pa.DataType]) -> list[str]:
        """Columns of text. Those of older configurations are in some tables only, so a missing one is told, and no mistake."""
        asked, text = self.keyword_fields or KEYWORD_FIELDS, (*LETTERS, pa.types.is_null)
        for index, name in enumerate(self.keyword_fields):
            if name in kinds and not any(suits(kinds[name]) for suits in text):
                raise OptionError(f"keyword_fields[{index}]", f"column {name!r} is {kinds[name]}; expected text")
        found = [name for name in asked if name in kinds and any(suits(kinds[name]) for suits in text)]
        missing = [name for name in self.keyword_fields if name not in kinds]
        if self.trigger_keywords and not found:
            message = f"no keyword can be found: no column of text is named {', '.join(asked)}"
            if self.keyword_fields and not self._watch.has_rules:
                raise OptionError("keyword_fields", f"{message}; columns are {', '.join(kinds)}")
            log.warning("%s; set keyword_fields", message)
        elif self.trigger_keywords and missing:
            log.warning("keywords are not looked for in %s: no such column", ", ".join(missing))
        return found
