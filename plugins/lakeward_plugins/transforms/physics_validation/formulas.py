"""The functions of physics that expressions may name: meteorology, and wind turbines.

Each takes float64 arrays, or numbers, in the units of its announcement and gives a float64 array. Where an argument is NaN or outside
of the domain of the formula the result is NaN: of such a row nothing is known, which is better than something wrong.

Sources: WMO-No. 8, Guide to Instruments and Methods of Observation, volume I, annex 4.B (humidity) and chapter 3 (pressure); ISO 2533
(standard atmosphere); IEC 61400-12-1 (air density, normalised wind speed).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps

import numpy as np
import numpy.typing as npt
from attrs import frozen

Values = npt.NDArray[np.float64]
Function = Callable[..., Values]

ZERO_CELSIUS = 273.15
"""In K."""
R_DRY, R_VAPOUR = 287.05, 461.5
"""J/(kg K), of dry air and of water vapour, as in IEC 61400-12-1."""
EPSILON = 0.62198
"""Molar mass of water by that of dry air, as in WMO-No. 8."""
P_0, T_0, LAPSE, EXPONENT, TROPOPAUSE = 1013.25, 288.15, 0.0065, 5.255880, 11_000.0
"""hPa, K, K/m, 1, m: ISO 2533 from the sea to the tropopause; the exponent is 9.80665 / (287.05287 * 0.0065)."""
RHO_0 = 1.225
"""kg/m3, at the sea in ISO 2533."""
LEAST = float(np.nextafter(0, 1))
"""The smallest number above 0."""


@frozen
class Formula:
    """A function that expressions may name."""

    call: Function
    arguments: dict[str, str]
    """Their names, in order, with their units."""
    unit: str
    about: str


FORMULAS: dict[str, Formula] = {}


def formula(unit: str, **arguments: str) -> Callable[[Function], Function]:
    """Announces a function with the unit of its result and of each argument, and keeps it quiet where it has no value."""

    def announce(function: Function) -> Function:
        @wraps(function)
        def quiet(*given: npt.ArrayLike) -> Values:
            with np.errstate(all="ignore"):
                result = function(*(np.asarray(values, np.float64) for values in given))
                return np.where(np.isfinite(result), result, np.nan)

        assert [*inspect.signature(function).parameters] == [*arguments], function.__name__  # noqa: S101  # a mistake in this file
        FORMULAS[function.__name__] = Formula(quiet, arguments, unit, " ".join((function.__doc__ or "").split()))
        return quiet

    return announce


def _within(values: Values, low: float, high: float) -> Values:
    return np.where((values >= low) & (values <= high), values, np.nan)


def _liquid(temperature: Values) -> Values:
    return _within(temperature, -100, 100)


def _damp(relative_humidity: Values) -> Values:
    return _within(relative_humidity, LEAST, 100)


# -- humidity ----------------------------------------------------------------------------------------------------------


@formula("hPa", temperature="degC")
def saturation_pressure(temperature: Values) -> Values:
    """Saturation vapour pressure over water, 6.112 exp(17.62 t / (243.12 + t)): Magnus, WMO-No. 8.

    From -100 to 100 degC. It is fitted from -45 to 60 and then leaves the truth: 2 % at -80 and at 100, 10 % at -100.
    """
    t = _liquid(temperature)
    return np.asarray(6.112 * np.exp(17.62 * t / (243.12 + t)))


@formula("hPa", temperature="degC")
def saturation_pressure_ice(temperature: Values) -> Values:
    """Saturation vapour pressure over ice, 6.112 exp(22.46 t / (272.62 + t)): Magnus, WMO-No. 8. From -65 to 0 degC."""
    t = _within(temperature, -65, 0)
    return np.asarray(6.112 * np.exp(22.46 * t / (272.62 + t)))


@formula("hPa", temperature="degC", relative_humidity="%")
def vapour_pressure(temperature: Values, relative_humidity: Values) -> Values:
    """Vapour pressure, relative_humidity / 100 * saturation_pressure(temperature). Above 0 to 100 %."""
    return np.asarray(saturation_pressure(temperature) * _damp(relative_humidity) / 100)


@formula("degC", temperature="degC", relative_humidity="%")
def dew_point(temperature: Values, relative_humidity: Values) -> Values:
    """Dew point over water, at which saturation_pressure is the vapour pressure. Above 0 to 100 %, from -100 to 100 degC."""
    t = _liquid(temperature)
    logarithm = np.log(_damp(relative_humidity) / 100) + 17.62 * t / (243.12 + t)
    return np.asarray(243.12 * logarithm / (17.62 - logarithm))


@formula("%", temperature="degC", dew_point="degC")
def rh_from_dewpoint(temperature: Values, dew_point: Values) -> Values:
    """Relative humidity over water; above 100 where the dew point is above the temperature."""
    return np.asarray(100 * saturation_pressure(dew_point) / saturation_pressure(temperature))


@formula("g/m3", temperature="degC", relative_humidity="%")
def absolute_humidity(temperature: Values, relative_humidity: Values) -> Values:
    """Mass of water in a volume of air: the vapour pressure by R_vapour = 461.5 J/(kg K) and the temperature in K."""
    return np.asarray(1e5 * vapour_pressure(temperature, relative_humidity) / (R_VAPOUR * (temperature + ZERO_CELSIUS)))


@formula("g/kg", temperature="degC", pressure="hPa", relative_humidity="%")
def humidity_ratio(temperature: Values, pressure: Values, relative_humidity: Values) -> Values:
    """Mass of water by the mass of dry air (mixing ratio), 621.98 e / (pressure - e) with the vapour pressure e."""
    e = vapour_pressure(temperature, relative_humidity)
    return np.asarray(1000 * EPSILON * e / _within(pressure - e, LEAST, math.inf))


# -- pressure ----------------------------------------------------------------------------------------------------------


@formula("hPa", height="m")
def std_pressure(height: Values) -> Values:
    """Pressure of the standard atmosphere, 1013.25 (1 - 0.0065 h / 288.15)^5.25588: ISO 2533. From -1000 to 11000 m (geopotential)."""
    return np.asarray(P_0 * (1 - LAPSE * _within(height, -1000, TROPOPAUSE) / T_0) ** EXPONENT)


@formula("m", pressure="hPa")
def std_height(pressure: Values) -> Values:
    """Barometric height, at which the standard atmosphere has this pressure: ISO 2533. From 226.32 to 1139.29 hPa."""
    height = T_0 / LAPSE * (1 - (_within(pressure, LEAST, math.inf) / P_0) ** (1 / EXPONENT))
    return _within(height, -1000, TROPOPAUSE)


@formula("hPa", pressure="hPa", height="m", temperature="degC", relative_humidity="%")
def sea_level_pressure(pressure: Values, height: Values, temperature: Values, relative_humidity: Values) -> Values:
    """Station pressure reduced to the sea: WMO-No. 8, chapter 3, for stations up to 750 m (from -500 m, 500 to 1100 hPa).

    pressure * 10^(0.0148275 h / (t + 273.15 + 0.0065 h / 2 + 0.12 e)) with the vapour pressure e.
    """
    h = _within(height, -500, 750)
    mean = temperature + ZERO_CELSIUS + LAPSE * h / 2 + 0.12 * vapour_pressure(temperature, relative_humidity)
    return np.asarray(_within(pressure, 500, 1100) * 10 ** (0.0148275 * h / mean))


@formula("kg/m3", temperature="degC", pressure="hPa", relative_humidity="%")
def air_density(temperature: Values, pressure: Values, relative_humidity: Values) -> Values:
    """Density of moist air, (p / R_dry - e (1 / R_dry - 1 / R_vapour)) / T: IEC 61400-12-1, with the vapour pressure e of Magnus.

    R_dry = 287.05, R_vapour = 461.5 J/(kg K). From 100 to 1200 hPa.
    """
    e = vapour_pressure(temperature, relative_humidity)
    pascals = _within(pressure, 100, 1200) / R_DRY - e * (1 / R_DRY - 1 / R_VAPOUR)
    return np.asarray(100 * pascals / (temperature + ZERO_CELSIUS))


# -- wind --------------------------------------------------------------------------------------------------------------


@formula("kW", wind_speed="m/s", rotor_diameter="m", air_density="kg/m3")
def betz_kw(wind_speed: Values, rotor_diameter: Values, air_density: Values) -> Values:
    """The most that a rotor can take from the wind, 16/27 of rho / 2 * pi / 4 * diameter^2 * v^3: Betz 1920."""
    v, diameter, rho = (_within(values, 0, math.inf) for values in (wind_speed, rotor_diameter, air_density))
    return np.asarray(16 / 27 * rho / 2 * math.pi / 4 * diameter**2 * v**3 / 1000)


@formula("1", rotor_speed="rpm", rotor_diameter="m", wind_speed="m/s")
def tip_speed_ratio(rotor_speed: Values, rotor_diameter: Values, wind_speed: Values) -> Values:
    """Speed of the tips of the blades by that of the wind, pi * diameter * rpm / 60 / v. Wind above 0."""
    tips = math.pi * _within(rotor_diameter, 0, math.inf) * _within(rotor_speed, 0, math.inf) / 60
    return np.asarray(tips / _within(wind_speed, LEAST, math.inf))


@formula("m/s", wind_speed="m/s", air_density="kg/m3")
def normalised_wind_speed(wind_speed: Values, air_density: Values) -> Values:
    """Wind speed that has the same energy at the density of 1.225 kg/m3, v (rho / 1.225)^(1/3): IEC 61400-12-1."""
    return np.asarray(_within(wind_speed, 0, math.inf) * np.cbrt(_within(air_density, LEAST, math.inf) / RHO_0))


@formula("deg", first="deg", second="deg")
def angle_between(first: Values, second: Values) -> Values:
    """The smaller angle between two directions, 0 to 180: 20 between 350 and 10."""
    return np.asarray(180 - np.abs(180 - np.mod(first - second, 360)))
