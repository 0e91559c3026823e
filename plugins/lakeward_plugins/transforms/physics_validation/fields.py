"""From the fields that rules speak of to columns, and from the unit of a column to that of a rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import frozen

from lakeward import OptionError
from lakeward.units import Conversion, conversion
from lakeward_plugins.transforms.physics_validation.rule import Rule

UNITS: Mapping[str, str] = {
    "temperature": "degC", "dew_point": "degC", "humidity": "%", "relative_humidity": "%", "pressure": "hPa", "wind_speed": "m/s",
    "wind_gust": "m/s", "wind_direction": "deg", "irradiance": "W/m2", "air_density": "kg/m3", "height_meters": "m", "altitude": "m",
    "elevation": "m", "vibration": "mm/s", "voltage": "V", "power_output": "kW", "rated_power": "kW", "expected_power": "kW",
    "rotor_diameter": "m", "rotor_speed": "rpm",
}  # fmt: skip
"""The units in which profiles and formulas take these fields."""
SAME = {"relative_humidity": "humidity", "humidity": "relative_humidity"}
"""Two names of one field: each is found under the other."""
AS_IT_IS = Conversion()


@frozen
class Fields:
    """The options `fields`, `units` and `constants` together."""

    columns: Mapping[str, str]
    units: Mapping[str, str]
    constants: Mapping[str, float]

    def column(self, field: str, names: Collection[str]) -> str:
        """The column of a field among these."""
        if field in self.columns or field in names:
            return self.columns.get(field, field)
        other = SAME.get(field, field)
        return self.columns.get(other, other) if other in self.columns or other in names else field

    def comes_in(self, field: str) -> str | None:
        """The unit of its column, as far as it was said: under its name, its other name, or that of the column."""
        for name in (field, SAME.get(field, field), self.columns.get(field, field)):
            if name in self.units:
                return self.units[name]
        return None

    def unit(self, field: str, rule: Rule | None = None) -> str | None:
        """In which unit a rule wants the field: its own, else the one that the field always has here, else as it comes."""
        own = parts(rule)[0] if rule is not None else None
        incoming = self.comes_in(field)
        return own or (UNITS.get(field, incoming) if incoming else None)

    def conversion(self, field: str, rule: Rule | None = None) -> Conversion:
        """From its column to what a rule wants, or an expression."""
        incoming, wanted = self.comes_in(field), self.unit(field, rule)
        return AS_IT_IS if incoming is None or wanted is None or incoming == wanted else conversion(incoming, wanted)

    def check(self) -> None:
        """Units that do not fit their fields are a mistake at the start."""
        for name, unit in self.units.items():
            _check(name, unit, f"units.{name}", f"expected a unit of {name}")

    def check_rule(self, rule: Rule, place: str) -> None:
        """So is a unit of a rule that its field cannot have."""
        if rule.unit is None:
            return
        try:
            per_second(rule)
            self.conversion(rule.field, rule)
        except ValueError as error:
            raise OptionError(f"{place}.unit", f"rule {rule.id!r}: {error}") from error
        _check(rule.field, parts(rule)[0] or "", f"{place}.unit", f"rule {rule.id!r}: expected a unit of {rule.field}")


def parts(rule: Rule) -> tuple[str | None, str]:
    """The unit of the field in a rule, and of a rate the unit of time: `degC/min` is degC, and min."""
    if rule.unit is None or rule.kind != "rate":
        return rule.unit, "s"
    field, _, time = rule.unit.rpartition("/")
    return field or None, time


def per_second(rule: Rule) -> float:
    """How many seconds the unit of time of a rate has. Raises ValueError."""
    time = parts(rule)[1]
    if rule.kind == "rate" and parts(rule)[0] is None and rule.unit is not None:
        raise ValueError(f"expected a unit per time, such as degC/min, got {rule.unit}")
    return SECONDS[time] if time in SECONDS else conversion(time, "s").scale


SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _check(field: str, unit: str, place: str, message: str) -> None:
    usual = UNITS.get(field)
    if unit == usual:
        return
    try:
        conversion(unit, usual or unit)
    except ValueError as error:
        raise OptionError(place, f"{message}: {error}") from error
