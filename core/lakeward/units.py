"""From one unit of measurement to another.

A unit is written as pint names it (`degC`, `hectopascal`, `m/s**2`) or as a UCUM code (`Cel`, `m/s2`, `[in_i'Hg]`, `{rev}/min`). The
units that sensors usually have are known here, with exact factors; for any other name pint is asked, and only then imported.

A temperature that stands alone is a point on its scale; within a larger unit (`degC/min`) or as `delta_degC` it is a difference. An
angle is a quantity of its own, so that percent are no degrees; but a frequency counts turns: 1 Hz is 60 rpm and 360 deg/s. Mercury
is the conventional one of 13595.1 kg/m3; UCUM rounds it in the sixth digit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fractions import Fraction
from functools import cache, lru_cache, reduce
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from attrs import evolve, field, frozen

if TYPE_CHECKING:
    import pint

EXACT = 2**53
"""Whole numbers up to here are floats without rounding."""
LONGEST = 60
"""Characters of a unit."""


@frozen
class Conversion:
    """`to = from * scale + offset`."""

    factor: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    @property
    def scale(self) -> float:
        """What values are multiplied by."""
        return float(self.factor)

    @property
    def offset(self) -> float:
        """What is added to them afterwards."""
        return float(self.shift)

    def apply(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The values in the other unit, as float64; a float64 array that needs no change is given back itself. NaN stays NaN.

        The arithmetic is that of a person, in whole numbers where these are exact: 140 degF are (140 * 5 - 160) / 9 = 60 degC.
        """
        given = np.asarray(values, np.float64)
        if self == Conversion():
            return given
        divisor = math.lcm(self.factor.denominator, self.shift.denominator)
        multiplier, summand = int(self.factor * divisor), int(self.shift * divisor)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, as in any other arithmetic
            if max(divisor, abs(multiplier), abs(summand)) <= EXACT:
                return np.asarray((given * float(multiplier) + float(summand)) / float(divisor))
            return np.asarray(given * self.scale + self.offset)


def conversion(from_unit: str, to_unit: str, *, delta: bool = False) -> Conversion:
    """How values in one unit become values in the other; with `delta`, how differences between two values do.

    Raises `ValueError`, which names both units and some that would do, when one is unknown or they measure different things.
    """
    given, wanted = _unit(from_unit, to_unit), _unit(to_unit, from_unit)
    turn = _turn(given.dimension, wanted.dimension)
    if turn is None:
        alike = [names.split()[0] for names, *_ in UNITS if _known()[names.split()[0]].dimension == wanted.dimension]
        hint = f"; units that can: {', '.join(alike)}" if alike else ""
        raise ValueError(f"{from_unit} cannot be converted to {to_unit}: they measure different things{hint}")
    points = not (delta or given.difference or wanted.difference)
    shift = (given.offset - wanted.offset) / wanted.scale if points else Fraction(0)
    return Conversion(given.scale * turn / wanted.scale, shift)


# -- one unit ----------------------------------------------------------------------------------------------------------


@frozen
class Unit:
    """A unit in the base units m, g, s, A, K, mol, cd and rad: `base = value * scale + offset`."""

    scale: Fraction = Fraction(1)
    dimension: Mapping[str, float] = field(factory=dict)
    """Exponents of the base units."""
    offset: Fraction = Fraction(0)
    difference: bool = False
    """Of temperatures, never a point on the scale."""

    def __mul__(self, other: Unit) -> Unit:
        exponents = {base: self.dimension.get(base, 0) + other.dimension.get(base, 0) for base in {**self.dimension, **other.dimension}}
        return Unit(self.scale * other.scale, {base: exponent for base, exponent in exponents.items() if exponent}, difference=True)

    def __pow__(self, exponent: int) -> Unit:
        if exponent == 1:
            return self
        return Unit(self.scale**exponent, {base: power * exponent for base, power in self.dimension.items()}, difference=True)


TURN = Fraction(2 * math.pi)


def _turn(given: Mapping[str, float], wanted: Mapping[str, float]) -> Fraction | None:
    """1 for units of one dimension; radians in a turn, or their inverse, between frequency and angular speed; None for others."""
    frequency, speed = {"s": -1}, {"s": -1, "rad": 1}
    if given == wanted:
        return Fraction(1)
    if {"rad", "s"} == {*given, *wanted}:
        return TURN if (given, wanted) == (frequency, speed) else 1 / TURN if (given, wanted) == (speed, frequency) else None
    return None


SUPERSCRIPTS = str.maketrans("⁻¹²³⁴", "-1234")
SPELLING = (
    (r"(?<![^\s./*·])\{[^{}]*\}", "1"),  # UCUM's annotations: `{rev}/min` is 1/min,
    (r"\{[^{}]*\}", ""),  # and `%{RH}` is %
    (r"\s+per\s+", "/"),
    (r"\s*(?:\*\*|\^)\s*", "^"),
    (r"\s*([*/.·])\s*", r"\1"),
    (r"[*·\s]", "."),
)
"""What brings a product, however it is written, to the form of UCUM, with `.` and `/`."""
RAISED = re.compile(r"(.*[^\d+^-])\^?([+-]?[1-9])")


@lru_cache(maxsize=256)
def _unit(text: str, other: str) -> Unit:
    """A unit, or a product of units. `other` is for the message when there is no such unit."""
    tidy = text.strip().translate(SUPERSCRIPTS)
    if tidy in _known():
        return _known()[tidy]
    for pattern, replacement in SPELLING:
        tidy = re.sub(pattern, replacement, tidy)
    parts = re.findall(r"([./]?)([^./]+)", tidy)
    if not parts or "".join(operator + name for operator, name in parts) != tidy or len(text) > LONGEST:
        raise ValueError(f"no unit {text[:LONGEST]!r}, to be converted from or to {other}; write one such as hPa, m/s2 or degC/min")
    units = []
    for operator, name in parts:
        raised = RAISED.fullmatch(name) if name not in _known() else None
        unit = _named(raised[1] if raised else name)
        if unit is None:
            raise ValueError(f"no unit {name!r} in {text!r}, to be converted from or to {other}; {_hint(name)}")
        units.append(unit ** (int(raised[2] if raised else 1) * (-1 if operator == "/" else 1)))
    return units[0] if len(units) == 1 else reduce(mul, units, Unit())


def _hint(name: str) -> str:
    folded = {known.lower(): known for known in reversed([*_known(), "hPa", "kPa", "kW", "mV", "kV"])}
    near = [folded[close] for close in get_close_matches(name.lower(), folded, 3, 0.5)]
    return f"did you mean {' or '.join(near)}?" if near else "write it as UCUM or pint do, such as hPa, m/s2 or degC/min"


def _named(name: str) -> Unit | None:
    """A unit that is no product: a known one, one with a prefix, or one that pint knows."""
    if name in _known():
        return _known()[name]
    for prefix, power in PREFIXES.items():
        if name.startswith(prefix) and name.removeprefix(prefix) in (SYMBOLS if len(prefix) == 1 else WORDS).split():
            unit = _known()[name.removeprefix(prefix)]
            return evolve(unit, scale=unit.scale * Fraction(10) ** power)
    return _of_pint(name) if re.fullmatch(r"[\w°]+", name) else None


# -- what is known here ------------------------------------------------------------------------------------------------

PREFIXES = {"n": -9, "u": -6, "µ": -6, "μ": -6, "m": -3, "c": -2, "d": -1, "h": 2, "k": 3, "M": 6, "G": 9}
PREFIXES |= {"nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "hecto": 2, "kilo": 3, "mega": 6, "giga": 9}
SYMBOLS = "m g s A K mol cd rad N Pa bar J W Wh V VA Ohm Hz lm lx L l m[Hg] m[H2O]"
WORDS = "meter metre gram second ampere kelvin newton pascal bar joule watt volt ohm hertz lux liter litre radian"
"""What can have a prefix, a short one or a long one."""
PRESSURE, POWER, SPEED = "g m-1 s-2", "g m2 s-3", "m s-1"
UNITS: tuple[tuple[str, str, str], ...] = (  # spellings; how much it is in base units, and in which
    ("m meter metre meters metres", "1", "m"),
    ("[in_i] inch inches", "0.0254", "m"),
    ("[ft_i] ft foot feet", "0.3048", "m"),
    ("[mi_i] mi mile miles", "1609.344", "m"),
    ("[nmi_i] nmi nautical_mile", "1852", "m"),
    ("L l liter litre", "0.001", "m3"),
    ("g gram grams", "1", "g"),
    ("[lb_av] lb pound", "453.59237", "g"),
    ("s sec second seconds", "1", "s"),
    ("min minute minutes", "60", "s"),
    ("h hr hour hours", "3600", "s"),
    ("d day days", "86400", "s"),
    ("Hz hertz", "1", "s-1"),
    ("degC Cel celsius degree_Celsius degreeC °C", "1", "K"),
    ("degF [degF] fahrenheit degree_Fahrenheit degreeF °F", "5/9", "K"),
    ("K kelvin", "1", "K"),
    ("delta_degC delta_degree_Celsius", "1", "K"),
    ("delta_degF delta_degree_Fahrenheit", "5/9", "K"),
    ("hPa", "100000", PRESSURE),
    ("Pa pascal", "1000", PRESSURE),
    ("bar", "100000000", PRESSURE),
    ("atm atmosphere standard_atmosphere", "101325000", PRESSURE),
    ("mmHg mm_Hg millimeter_Hg", "133322.387415", PRESSURE),
    ("inHg in_Hg inch_Hg [in_i'Hg]", "3386388.640341", PRESSURE),
    ("psi [psi]", "44482216152605/6451600", PRESSURE),
    ("torr Torr", "101325000/760", PRESSURE),
    ("m[Hg]", "133322387.415", PRESSURE),
    ("m[H2O]", "9806650", PRESSURE),
    ("kph kilometer_per_hour", "1000/3600", SPEED),
    ("mph mile_per_hour", "0.44704", SPEED),
    ("kn kt knot knots [kn_i]", "1852/3600", SPEED),
    ("[g] g_0 g0 g_n standard_gravity", "9.80665", "m s-2"),
    ("N newton", "1000", "g m s-2"),
    ("J joule", "1000", "g m2 s-2"),
    ("Wh watt_hour", "3600000", "g m2 s-2"),
    ("W watt", "1000", POWER),
    ("VA volt_ampere", "1000", POWER),
    ("A ampere amperes", "1", "A"),
    ("V volt volts", "1000", "g m2 s-3 A-1"),
    ("Ohm ohm Ω Ω", "1000", "g m2 s-3 A-2"),
    ("mol mole moles", "1", "mol"),
    ("cd candela", "1", "cd"),
    ("lm lumen", "1", "cd rad2"),
    ("lx lux", "1", "cd rad2 m-2"),
    ("1 dimensionless", "1", ""),
    ("% percent %RH", "1/100", ""),
    ("ppm [ppm]", "1/1000000", ""),
    ("ppb [ppb]", "1/1000000000", ""),
    ("deg degree degrees °", str(TURN / 360), "rad"),
    ("rad radian radians", "1", "rad"),
    ("rev turn revolution", str(TURN), "rad"),
    ("rpm {rpm} revolutions_per_minute", str(TURN / 60), "rad s-1"),
)
OFFSETS = {"degC": Fraction("273.15"), "degF": Fraction("459.67") * 5 / 9}


@cache
def _known() -> Mapping[str, Unit]:
    """The units of the table, by each of their spellings."""
    units: dict[str, Unit] = {}
    for spellings, scale, bases in UNITS:
        first, *others = spellings.split()
        dimension = {base: int(exponent or 1) for base, exponent in re.findall(r"([A-Za-z]+)(-?\d)?", bases)}
        unit = Unit(Fraction(scale), dimension, OFFSETS.get(first, Fraction(0)), first.startswith("delta_"))
        units |= dict.fromkeys([first, *others], unit)
    return units


# -- what pint knows ---------------------------------------------------------------------------------------------------

BASES = {"meter": "m", "gram": "g", "second": "s", "ampere": "A", "kelvin": "K", "mole": "mol", "candela": "cd", "radian": "rad"}


@cache
def _registry() -> pint.UnitRegistry[float]:
    import pint  # a quarter of a second, which most pipelines need not pay

    return pint.UnitRegistry()


def _of_pint(name: str) -> Unit | None:
    """What pint makes of one name; a unit without a linear scale, such as dB, can become itself only."""
    from pint.errors import PintError

    registry = _registry()
    try:
        unit = registry.parse_units(name)
        zero, one, two = (registry.Quantity(value, unit).to_root_units() for value in (0.0, 1.0, 2.0))
    except (PintError, ValueError):
        return None
    if not math.isclose(two.magnitude - one.magnitude, one.magnitude - zero.magnitude, rel_tol=1e-9):
        return Unit(Fraction(1), {name: 1})
    powers: Iterable[tuple[str, Any]] = one.unit_items()
    dimension = {BASES.get(base, base): float(power) for base, power in powers}
    return Unit(Fraction(one.magnitude - zero.magnitude), dimension, Fraction(zero.magnitude))
