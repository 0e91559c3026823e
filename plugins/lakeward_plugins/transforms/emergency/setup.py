"""From options to alarms, with all that can be wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from fractions import Fraction

import numpy as np
from attrs import frozen

from lakeward import OptionError
from lakeward.grouping import MICROSECOND, Array, moment
from lakeward.units import Conversion, conversion
from lakeward_plugins.transforms.emergency.alarm import Alarm
from lakeward_plugins.transforms.emergency.alerts import Look
from lakeward_plugins.transforms.emergency.evidence import Equal, Judge, Limit, Rate
from lakeward_plugins.transforms.emergency.machine import Machine
from lakeward_plugins.transforms.emergency.options import Certainty, Chatter, Kind, Rule, Severity, Shelf, Threshold
from lakeward_plugins.transforms.emergency.quorum import Quorum
from lakeward_plugins.transforms.emergency.silence import Silence

FOREVER = 2**61  # microseconds


@frozen(eq=False)
class Setup:
    """What all alarms have in common."""

    default_severity: Severity
    certainty: Mapping[Kind, Certainty]
    units: Mapping[str, str]
    latch: bool
    realarm: int | None
    chatter: Chatter
    forget: int

    def threshold(self, path: str, name: str, given: Threshold) -> Alarm:
        """The alarm of a limit. A lower limit is an upper limit of the negative readings."""
        sign, side, end = (1.0, "above", "high") if given.op == ">" else (-1.0, "below", "low")
        unit, converted = self._converted(path, name, given.unit)
        steps = given.steps(self.default_severity)
        limits = [_exactly(converted, limit) for _, limit in steps]
        shown = f" {unit}" if unit else ""

        def words(event: str, value: float, limit: float, peak: float) -> str:
            if event == "CLEAR":
                return f"{name} is back at {value:.10g}{shown}, after a peak of {peak:.10g}"
            return f"{name} is {value:.10g}{shown}, {side} {limit:.10g}"

        severities = [severity for severity, _ in steps]
        reasons = [f"{name} {given.op} {limit:.10g}{shown}" for limit in limits]
        look = Look(f"{name}_{end}", severities, limits, unit, self.certainty["threshold"], sign, words, reasons)
        machine = self._machine([sign * limit for limit in limits], given.on_delay_s, given.off_delay_s)
        return self._alarm(look, Limit(name, sign, given.deadband * abs(converted.scale), machine))

    def rule(self, path: str, given: Rule) -> Alarm | Quorum:
        """What a rule becomes."""
        if given.kind == "quorum":
            window = micros(given.window_s or timedelta(0))
            return Quorum(given.id, given.of or "", given.k or 1, list(given.group_by), window, self.forget)
        severity = given.severity or self.default_severity
        if given.kind == "stale":
            return self._silence(path, given, severity)
        return self._rate(path, given, severity) if given.kind == "rate" else self._equal(given, severity)

    def quorum_look(self, given: Rule) -> Look:
        """How its alerts look."""
        k, of, window = given.k or 1, given.of, (given.window_s or timedelta(0)).total_seconds()

        def words(event: str, value: float, limit: float, peak: float) -> str:
            if event == "CLEAR":
                return f"{value:.10g} sensors have {of} now, after {peak:.10g} together"
            return f"{value:.10g} sensors raised {of} within {window:.10g} s"

        return Look(given.id, [given.severity or self.default_severity], [float(k)], "", self.certainty["quorum"], 1.0, words, [""])

    def _rate(self, path: str, given: Rule, severity: Severity) -> Alarm:
        name, per_s = given.field or "", given.per_s or 0.0
        op = given.op or ("<" if per_s < 0 else ">")
        sign, side = (1.0, "faster than") if op == ">" else (-1.0, "below")
        unit, converted = self._converted(path, name, given.unit, delta=True)
        limit, unit = _exactly(converted, per_s), f"{unit}/s" if unit else "1/s"

        def words(event: str, value: float, limit: float, peak: float) -> str:
            if event == "CLEAR":
                return f"{name} changes by {value:.4g} {unit} again, after a peak of {peak:.4g}"
            return f"{name} changes by {value:.4g} {unit}, {side} {limit:.10g}"

        look = Look(
            given.id, [severity], [limit], unit, self.certainty["rate"], sign, words, [f"change of {name} {op} {limit:.10g} {unit}"]
        )
        machine = self._machine([sign * limit], given.on_delay_s, given.off_delay_s)
        least = max(1, micros(given.min_dt_s or timedelta(0)))
        most = min(micros(given.max_gap_s) if given.max_gap_s is not None else FOREVER, FOREVER)
        return self._alarm(look, Rate(name, sign, (given.deadband or 0.0) * abs(converted.scale), machine, least, most))

    def _silence(self, path: str, given: Rule, severity: Severity) -> Alarm:
        after = given.after_s or timedelta(0)
        if micros(after) >= self.forget:
            raise OptionError(
                f"{path}.after_s", f"expected less than forget_after_s, {self.forget / 1e6:.15g} s: who is forgotten is not missed"
            )

        def words(event: str, value: float, limit: float, peak: float) -> str:
            return (
                f"heard again after {value:.10g} s of silence"
                if event == "CLEAR"
                else f"silent for {value:.10g} s, longer than {limit:.10g}"
            )

        seconds = after.total_seconds()
        look = Look(given.id, [severity], [seconds], "s", self.certainty["stale"], 1.0, words, [f"silent for more than {seconds:.10g} s"])
        return self._alarm(look, Silence(micros(after)))

    def _equal(self, given: Rule, severity: Severity) -> Alarm:
        name, value = given.field or "", given.value
        assert value is not None  # noqa: S101  # a rule of this kind has one
        number = None if isinstance(value, (str, bool)) else float(value)
        shown = f"{number:.10g}" if number is not None else str(value)

        def words(event: str, value: float, limit: float, peak: float) -> str:
            return f"{name} is {shown}{' no more' if event == 'CLEAR' else ''}"

        reasons = [f"{name} = {shown}"]
        look = Look(given.id, [severity], [number], self.units.get(name, ""), self.certainty["equals"], 1.0, words, reasons)
        return self._alarm(look, Equal(name, value, self._machine([0.0], given.on_delay_s, given.off_delay_s)))

    def _machine(self, limits: Sequence[float], on: timedelta | None, off: timedelta | None) -> Machine:
        delays = np.array([0, micros(off or timedelta(0)), 0, micros(on or timedelta(0))], np.int64)
        return Machine(np.array(limits), delays, self.latch, self.realarm)

    def _alarm(self, look: Look, judge: Judge) -> Alarm:
        return Alarm(look, judge, self.chatter.raises, micros(self.chatter.within_s))

    def _converted(self, path: str, name: str, unit: str, *, delta: bool = False) -> tuple[str, Conversion]:
        """The unit of the column, and what takes limits that are given in `unit` to it. It is done once, with the limits."""
        theirs = self.units.get(name, "")
        if not unit or not theirs or unit == theirs:
            return unit or theirs, Conversion()
        try:
            return theirs, conversion(unit, theirs, delta=delta)
        except ValueError as error:
            raise OptionError(f"{path}.unit", str(error)) from error


def _exactly(converted: Conversion, limit: float) -> float:
    """The limit as a person wrote it, in the other unit: 273.15 K are 32 degF, not nearly."""
    return float(Fraction(repr(limit)) * converted.factor + converted.shift) if math.isfinite(limit) else limit


def shelves(given: Sequence[Shelf], longest: timedelta, known: Sequence[str]) -> list[tuple[str, int, int]]:
    """Rules, and from when to when they are shelved."""
    found = []
    for index, shelf in enumerate(given):
        since, until = moment(f"shelve[{index}].since", shelf.since), moment(f"shelve[{index}].until", shelf.until)
        if shelf.rule not in known:
            raise OptionError(f"shelve[{index}].rule", f"no rule {shelf.rule!r}; there are {', '.join(known)}")
        if not since < until:
            raise OptionError(f"shelve[{index}].until", f"expected a time after {shelf.since}")
        if until - since > micros(longest):
            raise OptionError(
                f"shelve[{index}].until", f"expected at most shelve_max_s, {longest.total_seconds():.15g} s, after {shelf.since}"
            )
        found.append((shelf.rule, since, until))
    return found


def micros(duration: timedelta) -> int:
    """Microseconds."""
    return duration // MICROSECOND


def marked_shelved(name: str, events: Array, shelved: Sequence[tuple[str, int, int]]) -> Array:
    """Which of the alerts of a rule were raised while it was shelved."""
    found = np.zeros(len(events), np.bool_)
    for rule, since, until in shelved:
        if rule == name:
            found |= (events["raised"] >= since) & (events["raised"] < until)
    return found
