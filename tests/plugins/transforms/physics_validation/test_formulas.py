"""Physics, beside formulas by others: MetPy, IAPWS-97, the tables of ISO 2533, and a year of a real turbine."""

from __future__ import annotations

import math
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward.units import conversion
from lakeward_plugins.transforms.physics_validation import formulas
from lakeward_plugins.transforms.physics_validation.expression import parse
from lakeward_plugins.transforms.physics_validation.formulas import FORMULAS

pytestmark = pytest.mark.one_python
calc, units = pytest.importorskip("metpy.calc", exc_type=ModuleNotFoundError), pytest.importorskip("metpy.units").units
iapws97 = pytest.importorskip("iapws.iapws97", exc_type=ModuleNotFoundError)
DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[4].parent / "shared" / "data"))
Values = npt.NDArray[np.float64]
temperatures, humidities = st.floats(-60, 100), st.floats(0.5, 100)


def of(values: Any, unit: str) -> Any:
    return units.Quantity(values, unit)


def weather() -> tuple[Values, Values]:
    """Every temperature of -40 to 60 degC with every humidity of 1 to 100 %."""
    temperature, humidity = np.meshgrid(np.arange(-40, 60.1, 0.5), np.arange(1, 100.1, 1.5))
    return temperature.ravel(), humidity.ravel()


# -- humidity ----------------------------------------------------------------------------------------------------------


def test_phy_10_saturation_pressure_beside_metpy_and_iapws() -> None:
    temperature = np.arange(-40, 60.1, 0.1)
    theirs = calc.saturation_vapor_pressure(of(temperature, "degC")).to("hPa").m
    error = np.abs(formulas.saturation_pressure(temperature) / theirs - 1)
    assert error.max() <= 0.0102
    assert error[(temperature >= -20) & (temperature <= 50)].max() <= 0.0052
    warm = np.arange(0.01, 50, 0.5)
    steam = np.array([iapws97._PSat_T(one + 273.15) * 1e4 for one in warm.tolist()])
    assert np.abs(formulas.saturation_pressure(warm) / steam - 1).max() <= 0.0031
    assert formulas.saturation_pressure(100) / (iapws97._PSat_T(373.15) * 1e4) - 1 == pytest.approx(0.024, abs=0.001)


def test_phy_10_saturation_pressure_beside_murphy_and_koop() -> None:
    """Q. J. R. Meteorol. Soc. 131 (2005), equations 10 (supercooled water) and 7 (ice): how far the ends are off is in the docstring."""
    kelvin = np.array([193.15, 173.15])
    low = 53.878 - 1331.22 / kelvin - 9.44523 * np.log(kelvin) + 0.014025 * kelvin
    water = 54.842763 - 6763.22 / kelvin - 4.21 * np.log(kelvin) + 0.000367 * kelvin + np.tanh(0.0415 * (kelvin - 218.8)) * low
    error = formulas.saturation_pressure(kelvin - 273.15) / (np.exp(water) / 100) - 1
    assert error == pytest.approx([0.02, -0.10], abs=0.005)
    kelvin = np.arange(208.15, 273.16, 1)
    ice = 9.550426 - 5723.265 / kelvin + 3.53068 * np.log(kelvin) - 0.00728332 * kelvin
    assert np.abs(formulas.saturation_pressure_ice(kelvin - 273.15) / (np.exp(ice) / 100) - 1).max() < 0.003


def test_phy_10_dew_point_and_humidity_beside_metpy() -> None:
    temperature, humidity = weather()
    theirs = calc.dewpoint_from_relative_humidity(of(temperature, "degC"), of(humidity, "percent")).to("degC").m
    error = np.abs(formulas.dew_point(temperature, humidity) - theirs)
    damp = humidity >= 10
    assert error[damp].max() <= 0.34
    assert error[damp & (temperature >= -20) & (temperature <= 50)].max() <= 0.20
    back = calc.relative_humidity_from_dewpoint(of(temperature, "degC"), of(theirs, "degC")).to("percent").m
    near = (temperature >= -20) & (temperature <= 50) & (theirs >= -40)
    assert np.abs(formulas.rh_from_dewpoint(temperature, theirs) - back)[near].max() <= 1.0


def test_phy_10_humidity_ratio_and_density_beside_metpy() -> None:
    temperature, humidity = weather()
    usual = (temperature >= -20) & (temperature <= 50)
    temperature, humidity = temperature[usual], humidity[usual]
    for pressure in (600.0, 1013.25):
        ratio = calc.mixing_ratio_from_relative_humidity(of(pressure, "hPa"), of(temperature, "degC"), of(humidity, "percent"))
        assert np.abs(formulas.humidity_ratio(temperature, pressure, humidity) / ratio.to("g/kg").m - 1).max() <= 0.01
        density = calc.density(of(pressure, "hPa"), of(temperature, "degC"), ratio).to("kg/m**3").m
        assert np.abs(formulas.air_density(temperature, pressure, humidity) / density - 1).max() <= 0.001
    gas = iapws97.IAPWS97(T=303.15, x=1)  # steam that is just saturated
    assert formulas.absolute_humidity(30, 100) == pytest.approx(gas.rho * 1000, rel=0.005)


@given(temperatures, humidities)
def test_phy_10_dew_points_lead_back(temperature: float, humidity: float) -> None:
    dew = formulas.dew_point(temperature, humidity)
    assert dew <= temperature + 1e-9
    assert formulas.rh_from_dewpoint(temperature, dew) == pytest.approx(humidity, rel=1e-9, nan_ok=dew < -100)
    assert formulas.dew_point(temperature, 100) == pytest.approx(temperature, abs=1e-9)
    assert formulas.vapour_pressure(temperature, humidity) == pytest.approx(
        float(formulas.saturation_pressure(dew)), rel=1e-9, nan_ok=dew < -100
    )


@given(temperatures, st.floats(1e-3, 10))
def test_phy_10_saturation_pressure_grows_with_temperature(temperature: float, step: float) -> None:
    warmer = min(temperature + step, 100)
    cooler = min(temperature, warmer - 1e-3)  # steps of a few ulp are below what exp() tells apart
    assert formulas.saturation_pressure(warmer) > formulas.saturation_pressure(cooler) or cooler < -100
    if -65 <= warmer <= 0:
        assert formulas.saturation_pressure_ice(warmer) <= formulas.saturation_pressure(warmer)


# -- pressure ----------------------------------------------------------------------------------------------------------

ISO_2533 = [
    (-1000, 1139.29),
    (0, 1013.25),
    (500, 954.61),
    (1000, 898.746),
    (2000, 794.952),
    (3000, 701.085),
    (5000, 540.199),
    (8000, 355.998),
    (11000, 226.321),
]
"""Geopotential metres and hPa, of the printed table."""


def test_phy_11_standard_atmosphere_within_a_thousandth_up_to_11_km() -> None:
    heights, pressures = (np.array(column, np.float64) for column in zip(*ISO_2533, strict=True))
    assert np.abs(formulas.std_pressure(heights) / pressures - 1).max() < 2e-5
    assert np.abs(formulas.std_height(pressures[1:-1]) - heights[1:-1]).max() < 0.2
    fine = np.linspace(-900, 11_000, 1000)
    theirs = calc.height_to_pressure_std(of(fine, "m")).to("hPa").m  # with 288 K at the sea, not 288.15
    assert np.abs(formulas.std_pressure(fine) / theirs - 1).max() < 0.001
    np.testing.assert_allclose(formulas.std_height(formulas.std_pressure(fine)), fine, rtol=0, atol=1e-8)
    assert np.isnan(formulas.std_pressure([-1001.0, 11_001.0])).all()


@given(st.floats(-500, 750), st.floats(-60, 45), st.floats(900, 1060))
def test_sea_level_pressure_is_the_hydrostatic_one(height: float, temperature: float, pressure: float) -> None:
    """Beside 287.05 J/(kg K) and the virtual temperature in the middle of the column of air: within a hundredth of the difference."""
    reduced = float(formulas.sea_level_pressure(pressure, height, temperature, 50))
    vapour = float(formulas.vapour_pressure(temperature, 50))
    mean = (temperature + 273.15 + 0.0065 * height / 2) / (1 - 0.378 * vapour / pressure)
    wanted = pressure * math.exp(9.80665 * height / (287.05 * mean))
    assert reduced - pressure == pytest.approx(wanted - pressure, rel=0.01, abs=1e-6)


# -- wind --------------------------------------------------------------------------------------------------------------


def test_wind_turbines_beside_hand_calculations() -> None:
    area = math.pi * 46**2
    assert formulas.betz_kw(10, 92, 1.225) == pytest.approx(16 / 27 * 0.5 * 1.225 * area * 1000 / 1000, rel=1e-12)
    assert formulas.tip_speed_ratio(15, 92, 10) == pytest.approx(math.pi * 92 / 4 / 10, rel=1e-12)
    assert formulas.normalised_wind_speed(10, 1.225) == 10
    assert formulas.betz_kw(10, 92, 1.1) == pytest.approx(
        float(formulas.betz_kw(formulas.normalised_wind_speed(10, 1.1), 92, 1.225)), rel=1e-12
    )
    assert formulas.angle_between([350, 10, 0, 90, -10, 725], [10, 350, 180, 90, 370, 5]).tolist() == [20, 20, 180, 0, 20, 0]


def test_a_real_turbine_is_above_betz_as_often_as_was_counted() -> None:
    """Kelmarsh 2 in 2020, rotor of 92 m: 2992 of 51998 ten-minute means, at wind from 3 m/s and 1.225 kg/m3."""
    power, wind = columns_of("kelmarsh_t2_2020", "power_output_kw", "wind_speed_ms")
    given_columns = {"power_output": power, "wind_speed": wind, "rotor_diameter": np.full(len(wind), 92.0)}
    within = parse("power_output <= betz_kw(wind_speed, rotor_diameter, standard_density)").evaluate(given_columns, len(wind))
    windy = parse("wind_speed >= 3").evaluate(given_columns, len(wind))
    assert int((within >= 0).sum()) == 51_998
    assert int(((within == 0) & (windy == 1)).sum()) == 2992


def test_real_airports_measure_what_metpy_computes() -> None:
    """Newark and La Guardia in 2013: humidity from temperature and dew point is that of the report, and of MetPy within a percent."""
    fahrenheit, dew_fahrenheit, humidity = columns_of("nyc_asos_ewr_lga_2013", "temperature_f", "dew_point_f", "humidity_pct")
    to_celsius = conversion("[degF]", "Cel")
    columns = {"t": to_celsius.apply(fahrenheit), "td": to_celsius.apply(dew_fahrenheit), "rh": humidity}
    flags = parse("abs(rh - rh_from_dewpoint(t, td)) <= 15").evaluate(columns, len(humidity))
    theirs = calc.relative_humidity_from_dewpoint(of(fahrenheit, "degF"), of(dew_fahrenheit, "degF")).to("percent").m
    there = np.isfinite(theirs + humidity)
    np.testing.assert_array_equal(flags >= 0, there)
    np.testing.assert_array_equal(flags[there] == 1, np.abs(humidity - theirs)[there] <= 15)
    assert np.nanmax(np.abs(parse("rh_from_dewpoint(t, td)", number=True).values(columns, len(humidity)) - theirs)) <= 1


def columns_of(name: str, *columns: str) -> list[Values]:
    path = DATA / f"{name}.db"
    if not path.exists():
        pytest.skip(f"{path.name} is not in {DATA}; set LAKEWARD_TEST_DATA")
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(f"SELECT {', '.join(columns)} FROM sensor_readings ORDER BY id").fetchall()
    return [np.array(column, np.float64) for column in zip(*rows, strict=True)]


# -- all of them -------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_every_formula_is_finite_or_nan_and_quiet(name: str, data: st.DataObject) -> None:
    """Warnings are errors here; rows give the same alone as among others."""
    extremes = st.sampled_from(
        [0.0, -0.0, 5e-324, 1e-300, -1.0, 100.0, 1e308, -1e308, math.nan, math.inf, -math.inf, 60.0, -273.15, -243.12]
    )
    rows = data.draw(st.lists(st.tuples(*[extremes | st.floats(-150, 1200)] * len(FORMULAS[name].arguments)), min_size=1, max_size=5))
    given_arrays = [np.array(column) for column in zip(*rows, strict=True)]
    kept = [array.copy() for array in given_arrays]
    result = FORMULAS[name].call(*given_arrays)
    assert not np.isinf(result).any()
    assert np.isnan(result[np.isnan(given_arrays).any(axis=0)]).all()
    np.testing.assert_array_equal(given_arrays, kept)
    alone = [FORMULAS[name].call(*(array[place : place + 1] for array in given_arrays)) for place in range(len(rows))]
    np.testing.assert_array_equal(result, np.concatenate(alone))


def test_every_formula_says_its_units_as_lakeward_reads_them() -> None:
    for name, formula in FORMULAS.items():
        assert formula.about.endswith("."), name
        for unit in (formula.unit, *formula.arguments.values()):
            assert conversion(unit, unit).scale == 1
