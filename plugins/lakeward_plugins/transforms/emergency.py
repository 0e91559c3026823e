"""Raises alerts when a text holds a keyword, or a reading passes a limit; and says when a reading is back.

A threshold is judged for each key alone, in event time, as OPC UA Part 9 describes it: the alert is raised when the readings have been
beyond the limit for `on_delay_s` without a break, and cleared when they have been back by the deadband for `off_delay_s` without a
break. NULL, NaN and infinity say nothing. A row older than its key's newest one is too late for this: it goes whole to the port
`late`, and into the log. If there are thresholds, rows without a time from `min_time` to `max_time` are rejected, because a clock
gone wrong must not make all later rows late. Keywords are looked for in all rows, those too. An alert has the same `alert_id` in every
run and on its CLEAR, so that a sink can replace what it has by (alert_id, event).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa
from attrs import define, field

from lakeward import ROW, OptionError, Refused, option
from lakeward.grouping import KEY_TYPES, LETTERS, NEVER, Array, Key, Plausible, event_times, group_codes, plain_types
from lakeward.timestamps import to_utc
from lakeward_plugins.transforms.emergency_threshold import RECORD, Rule, Severity, Threshold, late_rows, make_rule

Keyword = tuple[str, re.Pattern[str], "Severity"]
URGENCY = {"Extreme": "Immediate", "Severe": "Immediate", "Moderate": "Expected", "Minor": "Future", "Unknown": "Unknown"}
KEYWORD_FIELDS = ["message", "status", "alert_type", "anomaly_type"]
log = logging.getLogger("lakeward.emergency")


@define
class Emergency:
    """One row for each alert that is raised or cleared."""

    ports: ClassVar[tuple[str, ...]] = ("main", "late")
    row_wise: ClassVar[bool] = False

    trigger_keywords: list[str] = option(factory=list, help="Words that raise an alert, in any case and any Unicode form.")
    keyword_fields: list[str] = option(factory=list, help=f"Columns of text; left out, those there are of {', '.join(KEYWORD_FIELDS)}.")
    keyword_match: Literal["word", "substring", "exact"] = option("word", help="A keyword is a whole word, any part, or all of the text.")
    keyword_severity: dict[str, Severity] = option(factory=dict, help="Severity of single keywords.")
    severity_thresholds: dict[str, float | Threshold] = option(
        factory=dict, help="For each field a limit, or a mapping with more about it."
    )
    default_severity: Severity = option("Severe", help="Severity where nothing else is said.")
    key: list[str] = option(factory=lambda: ["sensor_id"], help="Columns whose values together say which sensor it is.")
    time_field: str = option("timestamp", help="Column with the time of the event.")
    naive_timezone: str = option("UTC", help="Timezone of times without one, or `reject`.")
    min_time: str = option("2000-01-01", help="Rows before this time are rejected when there are thresholds.")
    max_time: str = option("2100-01-01", help="Rows at or after this time are rejected when there are thresholds.")
    status: Literal["Actual", "Exercise", "System", "Test", "Draft"] = option("Actual", help="Of every alert; Test or Exercise for drills.")

    _span: Plausible = field(init=False)
    _words: list[Keyword] = field(init=False)
    _rules: list[Rule] = field(init=False)
    _keys: dict[Key, int] = field(init=False, factory=dict)
    _newest: Array = field(init=False, factory=lambda: np.zeros(0, np.int64))  # time of the newest row of each key
    _warned: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        if not self.trigger_keywords and not self.severity_thresholds:
            raise OptionError("", "there is nothing to look for; give trigger_keywords, severity_thresholds, or both")
        to_utc(pa.array([], pa.string()), naive_timezone=self.naive_timezone)  # says so when there is no such zone
        self._span = Plausible.between(self.min_time, self.max_time)
        severities = {_folded(word): severity for word, severity in self.keyword_severity.items()}
        self._words = [_keyword(word, self.keyword_match, severities, self.default_severity) for word in self.trigger_keywords]
        if unused := severities.keys() - {_folded(word) for word in self.trigger_keywords}:
            raise OptionError("keyword_severity", f"{', '.join(sorted(unused))} not among trigger_keywords")
        self._rules = [make_rule(name, threshold, self.default_severity) for name, threshold in self.severity_thresholds.items()]
        if taken := set(self.key) & set(ALERT.names):
            raise OptionError("key", f"alerts have a column {min(taken)!r} of their own; rename that of the input")

    def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """Alerts in the order of the rows that caused them."""
        key_schema, fields = self._check(batch.schema)
        micros = event_times(batch, self.time_field, self.naive_timezone)
        codes, keys = group_codes(batch, key_schema)
        rows = batch.column(ROW).to_numpy() if ROW in batch.schema.names else np.arange(batch.num_rows)
        alerts = []
        for place, what in _found(batch, fields, self._words):
            onset = None if micros[place] == NEVER else int(micros[place])
            alerts.append((place, self._alert(keys[codes[place]], "keyword", onset, int(rows[place]), timestamp=onset, **what)))
        ports = {"late": batch.slice(0, 0)}
        if self._rules:
            usable, rejections = self._span.part(batch, micros, self.time_field)
            ports |= rejections
            ports["late"] = self._judge(batch, micros, usable, self._known(keys)[codes], rows, alerts)
        alerts.sort(key=lambda placed: placed[0])
        schema = pa.schema([*list(ALERT)[:3], *key_schema, *list(ALERT)[3:]])
        return ports | {"main": pa.RecordBatch.from_pylist([alert for _, alert in alerts], schema=schema)}

    def finish(self, watermark: datetime) -> Mapping[str, pa.RecordBatch]:
        """Nothing: only a row raises or clears an alert."""
        return {}

    def state(self) -> bytes:
        """A line of JSON, then the records of each rule."""
        rules = [[rule.name, len(rule.records)] for rule in self._rules]
        head = {"key": self.key, "keys": list(self._keys), "newest": self._newest.tolist(), "rules": rules}
        return json.dumps(head).encode() + b"\n" + b"".join(rule.records.tobytes() for rule in self._rules)

    def restore(self, state: bytes) -> None:
        """Alerts stay raised when limits have changed; those of a threshold that is gone are forgotten, with a word in the log."""
        line, _, records = state.partition(b"\n")
        head = json.loads(line)
        if head["key"] != self.key:
            raise Refused(f"the state holds alerts by {', '.join(head['key'])}; put that back as key, or use a new state directory")
        self._keys = {tuple(key): code for code, key in enumerate(head["keys"])}
        self._newest = np.array(head["newest"], np.int64)
        rules = {rule.name: rule for rule in self._rules}
        for name, count in head["rules"]:
            held, records = np.frombuffer(records, RECORD, count), records[count * RECORD.itemsize :]
            if name in rules:
                rules[name].records = held.copy()
            elif held["active"].any():
                log.warning("%d alerts of %s are forgotten: there is no such threshold any more", held["active"].sum(), name)

    def _check(self, schema: pa.Schema) -> tuple[pa.Schema, list[str]]:
        """The types of the key, and the columns to look for keywords in."""
        kinds = plain_types(schema)
        needed = {"time_field": self.time_field} | {f"key[{index}]": name for index, name in enumerate(self.key)}
        needed |= {f"severity_thresholds.{rule.field}": rule.field for rule in self._rules}
        needed |= {f"keyword_fields[{index}]": name for index, name in enumerate(self.keyword_fields)}
        for path, name in needed.items():
            if name not in kinds:
                raise OptionError(path, f"no column {name!r}; columns are {', '.join(kinds)}")
            wanted, types = USABLE.get(re.split(r"[.\[]", path)[0], ("", ()))
            if types and not any(suits(kinds[name]) for suits in types):
                raise OptionError(path, f"column {name!r} is {kinds[name]}; expected {wanted}")
        fields = self.keyword_fields or [name for name in KEYWORD_FIELDS if name in kinds and any(suits(kinds[name]) for suits in LETTERS)]
        if self._words and not fields and not self._warned:
            log.warning("no keyword can be found: no column of text is named %s; set keyword_fields", ", ".join(KEYWORD_FIELDS))
            self._warned = True
        return pa.schema([(name, kinds[name]) for name in self.key]), fields

    def _known(self, keys: list[Key]) -> Array:
        """The number of each key, the same for ever."""
        numbers = np.array([self._keys.setdefault(key, len(self._keys)) for key in keys], np.int64)
        self._newest = np.concatenate([self._newest, np.full(len(self._keys) - len(self._newest), NEVER)])
        for rule in self._rules:
            rule.records = np.concatenate([rule.records, np.zeros(len(self._keys) - len(rule.records), RECORD)])
        return numbers

    def _judge(self, batch: pa.RecordBatch, micros: Array, usable: Array, keys: Array, rows: Array, alerts: list[Any]) -> pa.RecordBatch:
        """Give every rule its readings, key by key in the order of arrival; give back the rows that came too late."""
        order = np.argsort(keys.astype(np.uint16) if len(self._keys) < 2**16 else keys, kind="stable")  # 16 bits sort much faster
        order = order[usable[order]]
        late = late_rows(keys[order], micros[order], self._newest)
        if late.any():
            log.warning("%d rows are older than the newest of their key: not held against thresholds", late.sum())
        held, names = order[~late], list(self._keys)
        for rule in self._rules:
            values = batch.column(rule.field).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)[held]
            places, values = held[np.isfinite(values)], values[np.isfinite(values)]
            for place, key, what in rule.judge(places, keys[places], micros[places], values, rows[places]):
                alerts.append((place, self._alert(names[key], rule.name, **what)))
        np.maximum.at(self._newest, keys[held], micros[held])
        return batch.take(pa.array(np.sort(order[late]), pa.int64()))

    def _alert(self, key: Key, kind: str, onset: int | None, onset_row: int, severity: Severity, event: str = "RAISE", **what: Any) -> Any:
        moment = None if onset is None else f"{np.datetime64(onset, 'us')}Z"
        number, urgency = int(_digest(kind, key, moment, onset_row)[:16], 16) >> 1, URGENCY[severity] if event == "RAISE" else "Past"
        identity = {"alert_id": number, "alert_key": _digest(kind, key)[:16], "event": event, "onset_ts": onset, "keywords": []}
        words = {"alert_type": kind, "severity": severity, "urgency": urgency, "certainty": "Observed", "status": self.status}
        return identity | dict(zip(self.key, key, strict=True)) | words | what


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


# -- keywords ----------------------------------------------------------------------------------------------------------


def _keyword(text: str, match: str, severities: Mapping[str, Severity], severity: Severity) -> Keyword:
    folded = _folded(text)
    if not folded.strip():
        raise OptionError("trigger_keywords", "expected words, got an empty one")
    before, after = {"word": (r"(?<!\w)", r"(?!\w)"), "substring": ("", ""), "exact": (r"\A\s*", r"\s*\Z")}[match]
    return text, re.compile(before + re.escape(folded) + after), severities.get(folded, severity)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _found(batch: pa.RecordBatch, fields: list[str], words: list[Keyword]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The place of each row with keywords in any of the fields, and what was found. Each distinct text is looked at once."""
    hits: dict[int, tuple[set[int], list[str]]] = {}
    for name in fields if words else []:
        column = batch.column(name)
        encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        matches = [{number for number, (_, pattern, _) in enumerate(words) if pattern.search(_folded(text or ""))} for text in texts]
        places = encoded.indices.cast(pa.int64()).fill_null(len(texts)).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(np.array([*map(bool, matches), False])[places]).tolist():
            found, lines = hits.setdefault(place, (set(), []))
            found |= matches[places[place]]
            lines.append(texts[places[place]])
    for place, (found, lines) in hits.items():
        keywords, _, severities = zip(*(words[number] for number in sorted(found)), strict=True)
        yield place, {"keywords": keywords, "severity": min(severities, key=get_args(Severity).index), "message": " | ".join(lines)}


IDENTITY: dict[str, pa.DataType] = {"alert_id": pa.int64(), "alert_key": pa.string(), "event": pa.string()}
TIMES = dict.fromkeys(["timestamp", "onset_ts", "clear_onset_ts", "cleared_ts"], pa.timestamp("us", "UTC"))
TEXTS = dict.fromkeys(["alert_type", "severity", "urgency", "certainty", "status", "message"], pa.string())
NUMBERS = dict.fromkeys(["value", "limit", "peak"], pa.float64())
ALERT = pa.schema(IDENTITY | TIMES | TEXTS | NUMBERS | {"count": pa.int64(), "keywords": pa.list_(pa.string())})
USABLE: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "key": ("text, whole numbers or booleans", KEY_TYPES),
    "severity_thresholds": ("numbers", (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)),
    "keyword_fields": ("text", LETTERS),
}
