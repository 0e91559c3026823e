"""Which rules there are, and which of them can be evaluated for the columns of a batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pyarrow as pa
from attrs import define, field

from lakeward import OptionError
from lakeward.grouping import KEY_TYPES, plain_types
from lakeward_plugins.transforms.physics_validation.fields import SAME, Fields
from lakeward_plugins.transforms.physics_validation.readings import NUMERIC, Value, is_text
from lakeward_plugins.transforms.physics_validation.rule import TEMPORAL, Rule
from lakeward_plugins.transforms.physics_validation.tables import TIMES

log = logging.getLogger("lakeward.physics_validation")
TIME = "time"
"""Id of the reasons about a time that cannot be; no rule may have it."""


@define(eq=False)
class Plan:
    """The rules of a profile and your own, by id. Your own must find their columns; a rule of the profile may lack some."""

    profile: str
    own: Sequence[Rule]
    fields: Fields
    sentinels: Mapping[str, Sequence[Value]]
    key: Sequence[str]
    time_field: str
    _all: list[Rule] = field(init=False)
    _told: set[str] = field(init=False, factory=set)
    _for: tuple[pa.Schema, list[Rule]] | None = field(init=False, default=None)  # the columns that were asked about last

    def join(self, of_profile: Sequence[Rule]) -> None:
        """With the rules of the profile. Mistakes that need no data are found here."""
        own: dict[str, Rule] = {}
        for number, rule in enumerate(self.own):
            if rule.id in own:
                raise OptionError(f"rules[{number}].id", f"there is a rule {rule.id!r} already; give each an id of its own")
            if rule.id == TIME:
                raise OptionError(f"rules[{number}].id", f"{TIME!r} is the id of reasons about times that cannot be; choose another")
            self.fields.check_rule(rule, f"rules[{number}]")
            own[rule.id] = rule
        rules = {rule.id: rule for rule in of_profile} | own
        if not rules:
            raise OptionError("profile", "there is nothing to check; name a profile, such as seed, or write rules")
        self._all = sorted(rules.values(), key=lambda rule: rule.id)
        known = sorted({name for rule in self._all for name in rule.reads()})
        if unread := sorted(self.fields.columns.keys() - {*known, *(SAME[name] for name in known if name in SAME)}):
            raise OptionError(f"fields.{unread[0]}", f"no rule checks a field {unread[0]!r}; the rules check {', '.join(known)}")

    def rules(self, schema: pa.Schema) -> list[Rule]:
        """Those that can be evaluated."""
        if self._for is None or not self._for[0].equals(schema):
            self._for = schema, self._found(schema)
        return self._for[1]

    def _found(self, schema: pa.Schema) -> list[Rule]:
        kinds, rules, columns = plain_types(schema), [], ", ".join(schema.names)
        lost: set[str] = set()
        for rule in self._all:
            absent = self._absent(rule, kinds)
            if not absent:
                self._check_types(rule, kinds)
                rules.append(rule)
                continue
            name, (place, words) = next(iter(absent.items()))
            if rule in self.own or place.startswith("fields."):
                where = place if place.startswith(("fields.", "key", "time_field")) else f"{self._place(rule)}.{place}"
                raise OptionError(where, f"no column {name!r}{words} for rule {rule.id!r}; columns are {columns}")
            lost |= absent.keys()
        if not rules:
            raise OptionError("fields", f"no rule finds its column: none of {', '.join(sorted(lost))} is among {columns}; map them here")
        self._tell(lost, f"profile {self.profile}: not checked, because there is no such column: %s; `fields` can map them")
        unknown = {name for name in self.sentinels if self.fields.column(name, kinds) not in kinds}
        self._tell(unknown, "missing_sentinels: there is no such column: %s")
        return rules

    def signatures(self) -> dict[str, str]:
        """What readings that a rule over time remembers depend on."""
        signatures = {}
        for rule in self._all:
            if rule.kind in TEMPORAL:
                column = self.fields.columns.get(rule.field, rule.field)
                meaning = (column, self.fields.comes_in(rule.field), self.fields.unit(rule.field, rule), rule.kind, rule.when, rule.max_gap)
                spans = (rule.tolerance, rule.period, (rule.fail, rule.suspect) if rule.kind == "flatline" else None)
                signatures[rule.id] = repr((*meaning, *spans))
        return signatures

    def _tell(self, names: set[str], words: str) -> None:
        if new := sorted(names - self._told):
            log.warning(words, ", ".join(new))
            self._told.update(new)

    def _absent(self, rule: Rule, kinds: Mapping[str, pa.DataType]) -> dict[str, tuple[str, str]]:
        """The columns that a rule lacks, each with the option that names it."""
        absent = {}
        for name in rule.reads():
            column = self.fields.column(name, kinds)
            if column not in kinds and name not in self.fields.constants:
                place = f"fields.{name}" if name in self.fields.columns else _option(rule, name)
                absent[column] = (place, "")
        if rule.kind in TEMPORAL:
            absent |= {name: (f"key[{number}]", " (the key)") for number, name in enumerate(self.key) if name not in kinds}
        if (rule.kind in TEMPORAL or set(rule.by) & set(TIMES)) and self.time_field not in kinds:
            absent[self.time_field] = ("time_field", " (the time)")
        absent |= {name: ("by", "") for name in rule.by if name not in kinds and name not in TIMES}
        return absent

    def _check_types(self, rule: Rule, kinds: Mapping[str, pa.DataType]) -> None:
        place = self._place(rule)
        for name in rule.reads():
            column = self.fields.column(name, kinds)
            if column not in kinds:
                continue  # a constant
            kind, text = kinds[column], is_text(kinds[column])
            equals = rule.kind == "equals" and name == rule.field
            if not text and not any(test(kind) for test in NUMERIC):
                raise OptionError(place, f"rule {rule.id!r} can judge numbers and text, but column {column!r} is {kind}")
            if text and not (equals and isinstance(rule.value, str)):
                what = f"rule {rule.id!r} needs numbers, but column {column!r} is text; `schematize` it to double before"
                raise OptionError(place, what)
            if equals and isinstance(rule.value, str) and not (text or pa.types.is_null(kind)):
                raise OptionError(place, f"rule {rule.id!r} looks for the text {rule.value!r}, but column {column!r} is {kind}")
            if any(isinstance(value, str) != text for value in self.sentinels.get(name, [])):
                raise OptionError(f"missing_sentinels.{name}", f"column {column!r} is {kind} and cannot have these values")
        if not any(self.fields.column(name, kinds) in kinds for name in rule.judged()):
            raise OptionError(place, f"rule {rule.id!r} checks constants only, and no row can be blamed for them")
        for number, name in enumerate(self.key if rule.kind in TEMPORAL else ()):
            if not any(suits(kinds[name]) for suits in KEY_TYPES):
                raise OptionError(f"key[{number}]", f"column {name!r} is {kinds[name]}; keys are text, whole numbers or booleans")

    def _place(self, rule: Rule) -> str:
        return f"rules[{self.own.index(rule)}]" if rule in self.own else "profile"


def _option(rule: Rule, name: str) -> str:
    for option in ("field", "x", "y"):
        if getattr(rule, option) == name:
            return option
    if name in rule.fields:
        return f"fields[{rule.fields.index(name)}]"
    return "expr" if rule.relation is not None and name in rule.relation.fields else "when"
