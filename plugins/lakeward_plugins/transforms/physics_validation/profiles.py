"""Sets of rules to start from. Each has its source; ids are `<field>-<what>`, so that your own rules can replace single ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Literal

from lakeward_plugins.transforms.physics_validation.rule import Rule

Profile = Literal["seed", "outdoor_wmo", "indoor", "wind_turbine", "none"]
HOUR = timedelta(hours=1)


def _none() -> list[Rule]:
    return []


def _seed() -> list[Rule]:
    """The limits of the environmental pipeline."""
    return [
        Rule("temperature-range", "range", "temperature", fail=[-20, 60], unit="degC"),
        Rule("humidity-range", "range", "humidity", fail=[5, 95], unit="%"),
        Rule("pressure-range", "range", "pressure", fail=[950, 1050], unit="hPa"),
        Rule("vibration-range", "range", "vibration", fail=[None, 10], unit="mm/s"),
        Rule("voltage-range", "range", "voltage", fail=[20, 25], unit="V"),
        Rule("anomaly-flag", "equals", "anomaly_flag", value=1),
    ]


def _outdoor_wmo() -> list[Rule]:
    """Zahumensky, "Guidelines on Quality Control Procedures for Data from Automatic Weather Stations" (WMO, 2004), for data by the minute.

    Steps are changes per minute. A reading that does not vary by more than the least variation within an hour is
    suspect; there must be one every 20 minutes.
    """
    windy, below_saturation = "wind_speed > 0.1", "relative_humidity < 95"  # a vane rests in calm air, and fog is at 100 %
    return [
        *_quantity("temperature", "degC", (-80, 60), step=(None, 3), least=0.1),
        *_quantity("dew_point", "degC", (-80, 35), step=(2, 4), least=0.1),
        *_quantity("relative_humidity", "%", (0, 100), step=(None, 15), least=1, when=below_saturation),
        *_quantity("pressure", "hPa", (500, 1100), step=(0.5, 2), least=0.1),
        *_quantity("wind_speed", "m/s", (0, 75), step=(10, 20), least=0.5, when=windy),
        *_quantity("wind_direction", "deg", (0, 360), least=10, when=windy),
        *_quantity("irradiance", "W/m2", (0, 1600), step=(800, 1000)),
    ]


def _indoor() -> list[Rule]:
    """ETSI EN 300 019-1-3, class 3.1 (temperature-controlled locations): its normal limits are suspect, its exceptional ones fail."""
    return [
        Rule("temperature-range", "range", "temperature", suspect=[5, 40], fail=[-5, 45], unit="degC"),
        Rule("relative_humidity-range", "range", "relative_humidity", suspect=[5, 85], fail=[0, 100], unit="%"),
        Rule("pressure-range", "range", "pressure", fail=[700, 1060], unit="hPa"),
    ]


def _wind_turbine() -> list[Rule]:
    """What no turbine can do. A nacelle anemometer stands behind the rotor, so more power than Betz allows is suspect only."""
    return [
        Rule("wind_speed-range", "range", "wind_speed", fail=[0, 75], unit="m/s"),
        Rule("wind_direction-range", "range", "wind_direction", fail=[0, 360], unit="deg"),
        _power("betz", "power_output <= 1.1 * betz_kw(wind_speed, rotor_diameter, air_density)", "suspect", "wind_speed >= 3"),
        _power("rated", "power_output <= 1.05 * rated_power", "fail"),
        _power("standby", "power_output >= -0.02 * rated_power", "suspect"),
        _power("curve-low", "power_output >= 0.5 * expected_power", "suspect", "expected_power >= 0.1 * rated_power"),
        _power("curve-high", "power_output <= 1.25 * expected_power", "suspect", "expected_power >= 0.1 * rated_power"),
        Rule(
            "tip-speed", "relation", expr="tip_speed_ratio(rotor_speed, rotor_diameter, wind_speed) <= 15", fields=["rotor_speed"],
            when="wind_speed >= 3 and rotor_speed > 0.5", flag="suspect",
        ),
    ]  # fmt: skip


def _power(id: str, expr: str, flag: Literal["suspect", "fail"], when: str | None = None) -> Rule:
    return Rule(id, "relation", expr=expr, fields=["power_output"], flag=flag, when=when)


def _quantity(
    field: str,
    unit: str,
    span: tuple[float, float],
    step: tuple[float | None, float] | None = None,
    least: float | None = None,
    when: str | None = None,
) -> list[Rule]:
    rules = [Rule(f"{field}-range", "range", field, fail=list(span), unit=unit)]
    if step:
        rules.append(Rule(f"{field}-step", "rate", field, suspect=step[0], fail=step[1], unit=f"{unit}/min"))
    if least:
        rules.append(Rule(f"{field}-persistence", "flatline", field, tolerance=least, suspect=HOUR, max_gap=HOUR / 3, unit=unit, when=when))
    return rules


PROFILES: Mapping[Profile, Callable[[], list[Rule]]] = {
    "none": _none, "seed": _seed, "outdoor_wmo": _outdoor_wmo, "indoor": _indoor, "wind_turbine": _wind_turbine,
}  # fmt: skip
