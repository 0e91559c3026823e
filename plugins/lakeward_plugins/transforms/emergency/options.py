"""Options of `emergency` that are mappings: thresholds, rules, chatter, floods, shelving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Literal

from attrs import frozen

from lakeward import OptionError, option

# the words of CAP 1.2
Severity = Literal["Extreme", "Severe", "Moderate", "Minor", "Unknown"]
Urgency = Literal["Immediate", "Expected", "Future", "Past", "Unknown"]
Certainty = Literal["Observed", "Likely", "Possible", "Unlikely", "Unknown"]
Status = Literal["Actual", "Exercise", "System", "Test", "Draft"]
WORST_FIRST: tuple[Severity, ...] = ("Extreme", "Severe", "Moderate", "Minor", "Unknown")
STEPS: tuple[Severity, ...] = ("Minor", "Moderate", "Severe", "Extreme")
Kind = Literal["keyword", "threshold", "rate", "stale", "quorum", "equals", "flood"]
CERTAINTY: Mapping[Kind, Certainty] = {
    "keyword": "Observed", "threshold": "Observed", "rate": "Likely", "stale": "Possible", "quorum": "Likely", "equals": "Observed",
    "flood": "Observed",
}  # fmt: skip
URGENCY: Mapping[Severity, Urgency] = {
    "Extreme": "Immediate", "Severe": "Immediate", "Moderate": "Expected", "Minor": "Future", "Unknown": "Unknown",
}  # fmt: skip
LONG = 1e9  # seconds; 31 years


def finite(path: str, number: object) -> None:
    """Refuse what no reading is ever beyond: an alarm that can never sound must not look like one that can."""
    if isinstance(number, float) and not math.isfinite(number):
        raise OptionError(path, f"expected a finite number, got {number}; leave it out")


@frozen
class Threshold:
    """A limit of one field, or several of rising severity."""

    limit: float | None = option(None, help="Readings beyond this raise the alert; the limit itself does not.")
    op: Literal[">", "<"] = option(">", help="Which side of the limit is beyond.")
    severity: Severity | None = option(None, help="Severity beyond `limit`; left out, it is default_severity.")
    unit: str = option("", help="Unit of the limits and the deadband; left out, that of the column.")
    Minor: float | None = option(None, help="Beyond this, the alert is Minor.")
    Moderate: float | None = option(None, help="Beyond this, the alert is Moderate.")
    Severe: float | None = option(None, help="Beyond this, the alert is Severe.")
    Extreme: float | None = option(None, help="Beyond this, the alert is Extreme.")
    deadband: float = option(0.0, help="How far a reading must be back before it counts as clear, from the mildest limit.", minimum=0)
    on_delay_s: timedelta = option(timedelta(0), help="How long readings must be beyond the limit.", unit="s", minimum=0, maximum=LONG)
    off_delay_s: timedelta = option(timedelta(0), help="How long readings must be clear.", unit="s", minimum=0, maximum=LONG)

    def __attrs_post_init__(self) -> None:
        for name in ("limit", *STEPS):
            finite(name, getattr(self, name))
        given = [(name, limit) for name in STEPS if (limit := getattr(self, name)) is not None]
        if bool(given) == (self.limit is not None):
            raise OptionError("", f"expected either limit, or limits by severity: {', '.join(STEPS)}")
        if given and self.severity:
            raise OptionError("severity", "the limits say it already; leave it out, or give one `limit`")
        for (mild, limit), (worse, beyond) in pairwise(given):
            if not (beyond > limit if self.op == ">" else beyond < limit):
                raise OptionError(
                    worse, f"expected a limit {'above' if self.op == '>' else 'below'} {mild}, {limit:.15g}; got {beyond:.15g}"
                )

    def steps(self, default: Severity) -> list[tuple[Severity, float]]:
        """Severities and their limits, the mildest first."""
        if self.limit is not None:
            return [(self.severity or default, self.limit)]
        return [(name, limit) for name in STEPS if (limit := getattr(self, name)) is not None]


NEEDS = {"rate": ("field", "per_s"), "stale": ("after_s",), "quorum": ("of", "k", "window_s"), "equals": ("field", "value")}
DELAYS = ("on_delay_s", "off_delay_s")
MAY = {"rate": ("unit", "op", "deadband", "min_dt_s", "max_gap_s", *DELAYS), "stale": (), "quorum": ("group_by",), "equals": DELAYS}


@frozen
class Rule:
    """One rule; its kind says which options it takes."""

    id: str = option(help="Name of the rule; the alert_type of its alerts.")
    kind: Literal["rate", "stale", "quorum", "equals"] = option(
        help="`rate`: a field changes too fast; `stale`: a sensor is silent; `quorum`: several sensors raise another rule; "
        "`equals`: a field has a value."
    )
    severity: Severity | None = option(None, help="Severity of the alert; left out, it is default_severity.")
    field: str | None = option(None, help="Column to look at.")
    unit: str = option("", help="Unit of the field that per_s is in; left out, that of the column.")
    per_s: float | None = option(None, help="Changes beyond this, per second, raise the alert; below 0 it is about falling.")
    op: Literal[">", "<"] | None = option(None, help="Which side of per_s is beyond; left out, `<` for a per_s below 0, else `>`.")
    deadband: float | None = option(None, help="How far a rate must be back before it counts as clear.", minimum=0)
    min_dt_s: timedelta | None = option(None, help="Readings closer than this are not compared.", unit="s", minimum=0, maximum=LONG)
    max_gap_s: timedelta | None = option(None, help="Nor are those farther apart than this.", unit="s", minimum=0, maximum=LONG)
    on_delay_s: timedelta | None = option(None, help="How long it must be so.", unit="s", minimum=0, maximum=LONG)
    off_delay_s: timedelta | None = option(None, help="How long it must be over.", unit="s", minimum=0, maximum=LONG)
    after_s: timedelta | None = option(None, help="Silence longer than this raises the alert.", unit="s", minimum=1e-6, maximum=LONG)
    of: str | None = option(None, help="The rule, or alert_type, that sensors have to raise.")
    k: int | None = option(None, help="How many different sensors.", minimum=1)
    group_by: list[str] = option(factory=list, help="Columns: sensors with the same values there belong together.")
    window_s: timedelta | None = option(None, help="Within this time.", unit="s", minimum=0, maximum=LONG)
    value: bool | float | str | None = option(None, help="The value that raises the alert.")

    def __attrs_post_init__(self) -> None:
        if not self.id.strip():
            raise OptionError("id", "expected a name; it becomes the alert_type")
        finite("per_s", self.per_s)
        finite("value", self.value)
        needs, may = NEEDS[self.kind], MAY[self.kind]
        for name in needs:
            if getattr(self, name) is None:
                raise OptionError(name, f"rule {self.id!r} is of kind {self.kind} and needs it")
        for name in {one for names in (*NEEDS.values(), *MAY.values()) for one in names} - {*needs, *may}:
            if getattr(self, name) not in (None, "", []):
                raise OptionError(name, f"rule {self.id!r} is of kind {self.kind}, which takes {', '.join((*needs, *may, 'severity'))}")
        if self.min_dt_s and self.max_gap_s and self.min_dt_s > self.max_gap_s:
            raise OptionError("max_gap_s", f"rule {self.id!r}: expected at least min_dt_s, {self.min_dt_s.total_seconds():.15g} s")


@frozen
class Chatter:
    """When an alert comes and goes too often."""

    raises: int = option(3, help="So many alerts of one rule and sensor ...", minimum=2, maximum=100)
    within_s: timedelta = option(timedelta(seconds=60), help="... within this time are chatter.", unit="s", minimum=0, maximum=LONG)


@frozen
class Flood:
    """When there are more alerts than anybody can read."""

    start: int = option(10, help="More alerts than this in window_s start a flood.", minimum=1, maximum=100_000)
    end: int = option(5, help="Fewer than this in window_s end it.", minimum=1)
    window_s: timedelta = option(timedelta(minutes=10), help="The time in which alerts are counted.", unit="s", minimum=1, maximum=LONG)
    group_by: list[str] = option(factory=list, help="Columns: alerts of rows with the same values there are counted together.")
    never_suppress: list[Severity] = option(factory=lambda: ["Extreme"], help="Severities that are never marked as suppressed.")

    def __attrs_post_init__(self) -> None:
        if self.end > self.start:
            raise OptionError("end", f"expected at most start, {self.start}")


@frozen
class Shelf:
    """Alerts that an operator does not want to be told of for a while."""

    rule: str = option(help="The rule, or alert_type.")
    since: str = option(help="From this time on, such as 2026-01-31T08:00Z.")
    until: str = option(help="Until before this time.")
    reason: str = option(help="Who shelved it, and why.")
