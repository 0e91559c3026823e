"""All alarms together: who judges what in which order, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from attrs import define, field, frozen

from lakeward import OptionError
from lakeward.grouping import EPOCH, MICROSECOND, Array, Key
from lakeward_plugins.transforms.emergency.alarm import Alarm, Judged
from lakeward_plugins.transforms.emergency.alerts import Look, Paper, Spoken, identities
from lakeward_plugins.transforms.emergency.evidence import Given
from lakeward_plugins.transforms.emergency.flood import ALARM_FLOOD, Floods, Raised, RowsOf
from lakeward_plugins.transforms.emergency.keywords import Found, Keywords
from lakeward_plugins.transforms.emergency.memory import FLOODED, RAISE, SHELVED, new_events
from lakeward_plugins.transforms.emergency.options import WORST_FIRST, Flood, Rule, Shelf, Threshold, finite
from lakeward_plugins.transforms.emergency.quorum import Quorum
from lakeward_plugins.transforms.emergency.sensors import Arrivals, Sensors
from lakeward_plugins.transforms.emergency.setup import Setup, marked_shelved, micros, shelves
from lakeward_plugins.transforms.emergency.silence import Silence

KEYWORD = "keyword"


@frozen(eq=False)
class Moment:
    """The rows of a batch as they came."""

    batch: pa.RecordBatch
    micros: Array
    ids: Array
    usable: Array
    """Which have a usable time."""
    keys: Array
    labels: Array


@define(eq=False)
class Watch:
    """Every rule, and all that is remembered."""

    setup: Setup
    sensors: Sensors
    alarms: list[Alarm]
    quorums: list[tuple[Quorum, Look]]
    floods: Floods | None
    shelved: list[tuple[str, int, int]]
    columns: list[tuple[str, str]]
    """Columns that rules need, with the place in the options that names them."""
    label_columns: list[str] = field(factory=list)
    """Columns by which alerts are grouped."""

    @classmethod
    def of(
        cls,
        setup: Setup,
        thresholds: Mapping[str, Any],
        rules: Sequence[Rule],
        flood: Flood | None,
        shelf: Sequence[Shelf],
        longest: timedelta,
    ) -> Watch:
        """From the options of such names."""
        alarms: list[Alarm] = []
        quorums: list[tuple[Quorum, Look]] = []
        columns: list[tuple[str, str]] = []
        for name, given in thresholds.items():
            several = isinstance(given, list)
            if several and not given:
                raise OptionError(f"severity_thresholds.{name}", "expected at least one limit, got none; leave the field out")
            finite(f"severity_thresholds.{name}", given)
            for index, one in enumerate(given if several else [given]):
                path = f"severity_thresholds.{name}" + (f"[{index}]" if several else "")
                alarms.append(setup.threshold(path, name, one if isinstance(one, Threshold) else Threshold(one)))
                columns.append((path, name))
        for index, rule in enumerate(rules):
            made = setup.rule(f"rules[{index}]", rule)
            if isinstance(made, Quorum):
                quorums.append((made, setup.quorum_look(rule)))
            else:
                alarms.append(made)
            columns += [(f"rules[{index}].field", rule.field)] if rule.field else []
            columns += [(f"rules[{index}].group_by[{place}]", column) for place, column in enumerate(rule.group_by)]
        known = [alarm.name for alarm in alarms] + [quorum.id for quorum, _ in quorums]
        _refuse_doubles(known, rules)
        for index, rule in enumerate(rules):
            if rule.of is not None and rule.of not in [alarm.name for alarm in alarms]:
                names = ", ".join(alarm.name for alarm in alarms) or "none"
                raise OptionError(f"rules[{index}].of", f"no rule {rule.of!r} of single sensors; there are {names}")
        floods = None
        if flood:
            floods = Floods(flood.start, flood.end, micros(flood.window_s), list(flood.group_by), setup.forget)
            columns += [(f"flood.group_by[{place}]", column) for place, column in enumerate(flood.group_by)]
        grouped = [*(quorum.group_by for quorum, _ in quorums), flood.group_by if flood else []]
        labels = list(dict.fromkeys(column for names in grouped for column in names))
        shelved = shelves(shelf, longest, [*known, KEYWORD])
        return cls(setup, Sensors(setup.forget), alarms, quorums, floods, shelved, columns, labels)

    @property
    def has_rules(self) -> bool:
        """Whether anything but keywords is looked for."""
        return bool(self.alarms)

    def numbers_of(self, keys: list[Key]) -> Array:
        """Of sensors."""
        return self.sensors.keys.of(keys)

    def labels_of(self, labels: list[Key]) -> Array:
        """Numbers of the values of the columns by which alerts are grouped."""
        return self.sensors.labels.of(labels)

    def arrive(self, moment: Moment) -> Arrivals:
        """The rows that are in time."""
        return self.sensors.arrive(moment.keys, moment.micros, moment.ids, moment.labels, moment.usable)

    def alerts(self, paper: Paper, moment: Moment, given: Given, words: Keywords, found: Found) -> pa.RecordBatch:
        """What the rows of a batch bring about, in the order of the rows."""
        keys, rows = self.sensors.keys.names, given.rows
        for alarm in self.alarms:
            alarm.grow(len(keys))
        judged = [(alarm, alarm.hear(given, keys)) for alarm in self.alarms]
        spoken = [_keyword_alerts(self.setup, moment, words, found, keys)] if len(found.places) else []
        alerts = self._together(paper, spoken, judged, moment, rows.watermarks)
        self.sensors.remember(rows, moment.keys, moment.usable)
        self._forget()
        return alerts

    def at_the_end(self, paper: Paper, watermark: datetime | None) -> pa.RecordBatch:
        """Sensors that are silent when no row older than this comes any more; None: no row at all."""
        keys = self.sensors.keys.names
        mark = None if watermark is None else (watermark - EPOCH) // MICROSECOND
        judged: list[tuple[Alarm, Judged]] = []
        for alarm in self.alarms:
            if isinstance(alarm.judge, Silence):
                alarm.grow(len(keys))
                events = alarm.judge.at_the_end(self.sensors, mark, alarm.records)
                judged.append((alarm, alarm.identified(events, keys, np.zeros(0, np.int64))))
        return self._together(paper, [], judged, None, np.full(1, self.sensors.watermark))

    def _together(
        self, paper: Paper, spoken: list[Spoken], judged: Sequence[tuple[Alarm, Judged]], moment: Moment | None, watermarks: Array
    ) -> pa.RecordBatch:
        """What single sensors bring about for groups of them; then all that is said, in order."""
        spoken += [Spoken(alarm.look, one.events) for alarm, one in judged if len(one.events)]
        of_groups = self._quorum_alerts([(alarm.name, one.events) for alarm, one in judged], watermarks)
        spoken += [said for _, said in of_groups]
        spoken += self._flood_alerts(spoken, moment, watermarks)
        for alarm, one in judged:
            alarm.settle(one)
        for quorum, said in of_groups:
            quorum.mark(said.events)
        return _in_order(paper, spoken, self.sensors.keys.names, self.sensors.labels.names)

    def _quorum_alerts(self, judged: Sequence[tuple[str, Array]], watermarks: Array) -> list[tuple[Quorum, Spoken]]:
        keys, labels = self.sensors.keys.names, self.sensors.labels.names
        spoken: list[tuple[Quorum, Spoken]] = []
        for quorum, look in self.quorums:
            events = next((events for name, events in judged if name == quorum.of), new_events(0))
            events = events[np.argsort(events["place"], kind="stable")]
            names = [keys[number] for number in events["key"].tolist()]
            groups = self._groups(events["label"].tolist(), labels, quorum.group_by)
            made, of, reasons = quorum.judge(events, names, groups, watermarks[events["place"]])
            if len(made):
                spoken.append((quorum, Spoken(look, made, of, quorum.group_by, reasons=reasons)))
        return spoken

    def _flood_alerts(self, spoken: Sequence[Spoken], moment: Moment | None, watermarks: Array) -> list[Spoken]:
        """Mark what is shelved or raised in a flood; and tell of floods."""
        for one in spoken:
            shelved = marked_shelved(one.look.alert_type, one.events, self.shelved)
            one.events["suppressed"][shelved & (one.events["event"] == RAISE)] = SHELVED
        if self.floods is None:
            return []
        raises = [np.flatnonzero(one.events["event"] == RAISE) for one in spoken]
        events = np.concatenate([new_events(0), *(one.events[places] for one, places in zip(spoken, raises, strict=True))])
        order = np.argsort(events["place"], kind="stable")
        places, moments, rows, labels = (events[name][order].tolist() for name in ("place", "raised", "onset_row", "label"))
        groups = self._groups(labels, self.sensors.labels.names, self.floods.group_by)
        marks, made, of = self.floods.judge(Raised(places, moments, rows, groups), self._rows_of(moment), watermarks)
        flooded = np.zeros(len(order), np.bool_)
        flooded[order] = marks
        for one, which in zip(spoken, raises, strict=True):
            mark, flooded = flooded[: len(which)], flooded[len(which) :]
            one.events["suppressed"][which[mark & (one.events["suppressed"][which] != SHELVED)]] = FLOODED
        look = _flood_look(self.setup, self.floods)
        return [Spoken(look, made, of, self.floods.group_by, reasons=[[]] * len(made))] if len(made) else []

    def _rows_of(self, moment: Moment | None) -> RowsOf:
        """For a group: where its rows with a time stand in the batch, and their times."""

        @cache
        def rows_of(group: Key) -> tuple[Array, Array]:
            if moment is None or self.floods is None:
                return np.zeros(0, np.int64), np.zeros(0, np.int64)
            names = self._groups(range(len(self.sensors.labels.names)), self.sensors.labels.names, self.floods.group_by)
            among = np.array([name == group for name in names], np.bool_)
            places = np.flatnonzero(among[moment.labels] & moment.usable)
            return places, moment.micros[places]

        return rows_of

    def _groups(self, numbers: Sequence[int], labels: Sequence[Key], group_by: Sequence[str]) -> list[Key]:
        columns = [self.label_columns.index(name) for name in group_by]
        by_label = [tuple(label[column] for column in columns) for label in labels]
        nowhere = (None,) * len(columns)  # of a sensor from before these columns were asked for
        return [by_label[number] if number >= 0 else nowhere for number in numbers]

    def _forget(self) -> None:
        if not self.has_rules:  # nothing is remembered of sensors
            self.sensors.keep(np.zeros(len(self.sensors.keys.names), np.bool_))
        active = np.zeros(len(self.sensors.keys.names), np.bool_)
        for alarm in self.alarms:
            active |= alarm.records["active"]
        stay = self.sensors.due_to_go(active)
        if stay is not None:
            self.sensors.keep(stay)
            for alarm in self.alarms:
                alarm.keep(stay)
        for quorum, _ in self.quorums:
            quorum.forget_groups(self.sensors.watermark)
        if self.floods:
            self.floods.forget_groups(self.sensors.watermark)


def _refuse_doubles(known: Sequence[str], rules: Sequence[Rule]) -> None:
    for name in known:
        if known.count(name) > 1 or name in (KEYWORD, ALARM_FLOOD):
            path = next((f"rules[{index}].id" for index, rule in enumerate(rules) if rule.id == name), "severity_thresholds")
            raise OptionError(path, f"two rules have the name {name!r}" if known.count(name) > 1 else f"the name {name!r} is taken")


def _flood_look(setup: Setup, floods: Floods) -> Look:
    def words(event: str, value: float, limit: float, peak: float) -> str:
        seconds = floods.window / 1e6
        return (
            f"fewer than {floods.end} alerts in {seconds:.10g} s again" if event == "CLEAR" else f"{value:.10g} alerts in {seconds:.10g} s"
        )

    return Look(ALARM_FLOOD, [setup.default_severity], [float(floods.start)], "", setup.certainty["flood"], 1.0, words, [""])


def _keyword_alerts(setup: Setup, moment: Moment, words: Keywords, found: Found, keys: Sequence[Key]) -> Spoken:
    places = found.places
    events = new_events(len(places), place=places, event=RAISE, key=moment.keys[places], label=moment.labels[places])
    events["onset"] = events["raised"] = moment.micros[places]
    events["onset_row"], events["value"], events["peak"] = moment.ids[places], np.nan, np.nan
    events["step"] = np.array([WORST_FIRST.index(words.worst(numbers)) for numbers in found.sets])[found.which]
    events["id"] = identities(KEYWORD, events, keys)
    look = Look(KEYWORD, WORST_FIRST, [None] * len(WORST_FIRST), "", setup.certainty["keyword"], 1.0, lambda *_: "", [""])
    reasons = pa.array([[words.words[number] for number in numbers] for numbers in found.sets], pa.list_(pa.string()))
    return Spoken(look, events, messages=found.messages, reasons=reasons.take(pa.array(found.which, pa.int64())))


def _in_order(paper: Paper, spoken: Sequence[Spoken], keys: Sequence[Key], labels: Sequence[Key]) -> pa.RecordBatch:
    """All rows, by the place of the row that caused them, then as the rules stand in the options."""
    if not spoken:
        return pa.RecordBatch.from_pylist([], schema=paper.schema)
    rows = pa.Table.from_batches([paper.rows(one, keys, labels) for one in spoken])
    places = np.concatenate([one.events["place"] for one in spoken])
    if len(spoken) > 1 or (places[1:] < places[:-1]).any():
        rows = rows.take(pa.array(np.argsort(places, kind="stable"), pa.int64()))
    return rows.combine_chunks().to_batches()[0]
