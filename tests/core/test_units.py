"""Units; what is known here is compared with pint, which knows nothing of it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeward.units import UNITS, conversion

REGISTRY = pint.UnitRegistry()
PRESSURE = ["hPa", "Pa", "kPa", "bar", "mbar", "mmHg", "mm[Hg]", "[in_i'Hg]", "[psi]", "atm"]
TEMPERATURE = ["degC", "Cel", "degF", "[degF]", "K"]
NOT_IN_PINT = {"Cel", "Torr", "ppb", "Ohm", "rev", "1"}


def known_to_pint() -> list[str]:
    return [name for names, *_ in UNITS for name in names.split() if name.isidentifier() and name not in NOT_IN_PINT]


@pytest.mark.parametrize("name", known_to_pint())
def test_the_table_agrees_with_pint(name: str) -> None:
    unit = REGISTRY.parse_units("knot" if name == "kn" else name)  # to pint kn is a kilonewton
    root = REGISTRY.get_root_units(unit)[1]
    to_root = conversion(name, f"{root:~C}".replace("dimensionless", "1") or "1")
    for value in (0.0, 1.0, 451.0):
        assert to_root.apply([value])[0] == pytest.approx(REGISTRY.Quantity(value, unit).to(root).magnitude, rel=1e-12, abs=1e-11)


@pytest.mark.parametrize(
    ("ucum", "name"),
    [
        ("Cel", "degC"), ("[degF]", "degF"), ("mm[Hg]", "mmHg"), ("[in_i'Hg]", "inHg"), ("[psi]", "psi"), ("mbar", "hPa"), ("km/h", "kph"),
        ("[mi_i]/h", "mile/hour"), ("[kn_i]", "knot"), ("%", "percent"), ("W/m2", "watt/meter**2"), ("mm/s2", "millimeter / second ** 2"),
        ("m/s2", "m·s⁻²"), ("m/s2", "m s^-2"), ("[g]", "standard_gravity"), ("ug/m3", "microgram / m ** 3"), ("[ppm]", "ppm"),
        ("Cel/min", "degC/minute"), ("hPa/h", "hPa per hour"), ("{rev}/min", "rpm"), ("/min", "1/min"), ("{rpm}", "rpm"), ("%{RH}", "%"),
        ("kW.h", "kilowatt * hour"), ("Cel{air}", "celsius"), ("mm[H2O]", "cmH2O/10"),
    ],
)  # fmt: skip
def test_ucum_and_pint_may_be_mixed(ucum: str, name: str) -> None:
    if name == "cmH2O/10":
        assert conversion(ucum, "cmH2O").scale == pytest.approx(0.1, rel=1e-12)
    else:
        there = conversion(ucum, name)
        assert (there.scale, there.offset) == (1, 0)


@pytest.mark.parametrize(
    ("given_unit", "wanted", "value", "result"),
    [
        ("degF", "degC", 140.0, 60.0), ("degF", "degC", -4.0, -20.0), ("K", "degC", 333.15, 60.0), ("degC", "K", 20.0, 293.15),
        ("Pa", "hPa", 95_000.0, 950.0), ("bar", "hPa", 1.05, 1050.0), ("kPa", "hPa", 101.325, 1013.25), ("g_0", "mm/s2", 1.0, 9806.65),
        ("mV", "V", 24_100.0, 24.1), ("km/h", "m/s", 90.0, 25.0), ("Hz", "rpm", 0.25, 15.0), ("rpm", "Hz", 15.0, 0.25),
        ("deg/s", "rpm", 90.0, 15.0), ("1/min", "Hz", 15.0, 0.25),
    ],
)  # fmt: skip
def test_readings_become_exactly_what_a_person_gets(given_unit: str, wanted: str, value: float, result: float) -> None:
    assert conversion(given_unit, wanted).apply([value]).tolist() == [result]


@given(st.sampled_from([PRESSURE, TEMPERATURE]).flatmap(lambda kind: st.tuples(*[st.sampled_from(kind)] * 2)), st.floats(-40, 1100))
def test_phy_07_limits_decide_the_same_in_every_unit(units: tuple[str, str], value: float) -> None:
    """Of the same reading in two units: what one limit says, its conversion says, but for ties."""
    there = conversion(*units)
    for limit in (-20.0, 60.0, 950.0, 1050.0):
        if not math.isclose(value, limit, rel_tol=1e-9):
            reading, bound = there.apply([value, limit])
            assert (reading < bound) == (value < limit)


@given(st.sampled_from([PRESSURE, TEMPERATURE]).flatmap(lambda kind: st.tuples(*[st.sampled_from(kind)] * 3)), st.floats(-1e6, 1e6))
def test_phy_07_conversions_lead_back_and_add_up(units: tuple[str, str, str], value: float) -> None:
    first, second, third = units
    there, back = conversion(first, second).apply([value]), conversion(second, first)
    assert back.apply(there)[0] == pytest.approx(value, rel=1e-12, abs=1e-9)
    assert conversion(second, third).apply(there)[0] == pytest.approx(conversion(first, third).apply([value])[0], rel=1e-12, abs=1e-9)


def test_a_rate_of_temperature_is_a_difference() -> None:
    assert conversion("degC/s", "degF/min").scale == pytest.approx(108, rel=1e-15)
    for unit in ("degC/s", "delta_degF", "Cel/min"):
        assert conversion(unit, unit.replace("C", "F").replace("Fel", "[degF]")).offset == 0
    step = conversion("degF", "degC", delta=True)
    assert (step.scale, step.offset) == (5 / 9, 0)
    assert conversion("K", "degC").offset == -273.15


def test_the_input_stays_as_it_was_and_nan_stays_nan() -> None:
    given_values = np.array([1.0, math.nan, math.inf, -1e308])
    kept = given_values.copy()
    there = conversion("bar", "Pa").apply(given_values)
    np.testing.assert_array_equal(given_values, kept)
    np.testing.assert_array_equal(there, [1e5, math.nan, math.inf, -math.inf])
    assert conversion("mbar", "hPa").apply(given_values) is given_values
    assert conversion("Pa", "hPa").apply(np.array([95_000], np.int32)).dtype == np.float64


def test_pint_is_imported_for_rare_units_only() -> None:
    asked = "import sys; from lakeward.units import conversion as c; {}; print('pint' in sys.modules)"
    common = "c('degF', 'Cel'); c('hectopascal', 'hPa'); c('kW', 'W'); c('mm/s2', '[g]'); c('ug/m3', 'mg/m3'); c('degC/min', 'K/s')"
    for what, told in ((common, "False"), ("c('degree_Rankine', 'K')", "True")):
        ran = subprocess.run([sys.executable, "-W", "error", "-c", asked.format(what)], capture_output=True, text=True, check=True)
        assert ran.stdout.split() == [told]


def test_rare_units_come_from_pint() -> None:
    assert conversion("degree_Reaumur", "degC").apply([8.0])[0] == pytest.approx(10, rel=1e-12)
    assert conversion("kilowatt_hour", "MJ").scale == pytest.approx(3.6, rel=1e-12)
    assert conversion("dBm", "dBm").scale == 1
    with pytest.raises(ValueError, match="dBm cannot be converted to W"):
        conversion("dBm", "W")


@pytest.mark.parametrize(
    ("given_unit", "wanted", "message"),
    [
        ("V", "hPa", r"^V cannot be converted to hPa: they measure different things; units that can: hPa, Pa, bar, "),
        ("C", "degC", r"^C cannot be converted to degC.* can: degC, degF, K"),  # a coulomb, in both languages
        ("g", "m/s2", r"^g cannot be converted to m/s2.* can: \[g\]"),
        ("%", "deg", r"^% cannot be converted to deg"),
        ("HPA", "Pa", r"^no unit 'HPA' in 'HPA', to be converted from or to Pa; did you mean hPa"),
        ("Pa", "farenheit", r"^no unit 'farenheit' in 'farenheit', to be converted from or to Pa; did you mean fahrenheit"),
        ("blub", "blub", r"^no unit 'blub'"),
        ("", "hPa", r"^no unit '', to be converted from or to hPa; write one such as hPa"),
        ("m//s", "m/s", r"^no unit 'm//s'"),
        ("m/", "m", r"^no unit 'm/'"),
        ("10**10**10", "m", r"^no unit '10\^10\^10'"),
    ],
)
def test_what_cannot_be_is_said_with_both_units(given_unit: str, wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conversion(given_unit, wanted)


@given(st.one_of(st.text(max_size=70), st.text("mskPagbar[]{}/.*^-+ 0123µ%'()_", max_size=12)))
def test_any_text_is_a_unit_or_a_value_error(text: str) -> None:
    try:
        same = conversion(text, text)
    except ValueError:
        return
    assert (same.scale, same.offset) == (1, 0)
