"""PHY-12: a year of a real turbine, by the profile for turbines and by rules that do what OpenOA's filters do, against plain numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakeward import END_OF_INPUT
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Rule

Array = np.ndarray[Any, Any]
FIELDS = {"wind_speed": "wind_speed_ms", "wind_direction": "wind_direction_deg", "power_output": "power_output_kw"}
SENVION = {"rated_power": 2050.0, "rotor_diameter": 92.0, "air_density": 1.225}  # MM92


@pytest.fixture(scope="module")
def year(real: Any) -> pa.RecordBatch:
    rows: pa.RecordBatch = real("kelmarsh_t2_2020.db", "timestamp", "sensor_id", *FIELDS.values())
    return rows


def column(rows: pa.RecordBatch, name: str) -> Array:
    return np.asarray(rows[FIELDS[name]].to_numpy(zero_copy_only=False), np.float64)


def judged(year: pa.RecordBatch, **options: Any) -> pa.Table:
    """All rows, in order."""
    transform = PhysicsValidation(fields=FIELDS, **options)
    outputs: list[Mapping[str, pa.RecordBatch]] = [transform.apply(year.slice(start, 5000)) for start in range(0, year.num_rows, 5000)]
    parts = [part for output in [*outputs, transform.finish(END_OF_INPUT)] for part in output.values()]
    return pa.Table.from_batches(parts).sort_by("_row")


def rows_with(table: pa.Table, rule: str) -> Array:
    """Where the rule was broken."""
    return np.array([any(reason["rule_id"] == rule for reason in reasons) for reasons in table["qc_reasons"].to_pylist()])


def flags(year: pa.RecordBatch, name: str, *rules: Rule) -> Array:
    used = {field: FIELDS[field] for rule in rules for field in rule.reads() if field in FIELDS}
    transform = PhysicsValidation(fields=used, rules=list(rules))
    parts = [part for output in (transform.apply(year), transform.finish(END_OF_INPUT)) for part in output.values()]
    return np.asarray(pa.Table.from_batches(parts).sort_by("_row")[f"qc_{FIELDS[name]}"])


def test_phy_12_the_profile_equals_plain_numpy_over_the_year(year: pa.RecordBatch) -> None:
    table = judged(year, profile="wind_turbine", constants=SENVION)
    wind, power, direction = (column(year, name) for name in ("wind_speed", "power_output", "wind_direction"))
    betz = 16 / 27 * 0.5 * 1.225 * math.pi * 46**2 * wind**3 / 1000
    with np.errstate(invalid="ignore"):
        above_betz = (wind >= 3) & (power > 1.1 * betz)
        above_rated, too_little = power > 1.05 * 2050, power < -0.02 * 2050
    assert rows_with(table, "betz").tolist() == above_betz.tolist()
    assert rows_with(table, "rated").tolist() == above_rated.tolist()
    assert rows_with(table, "standby").tolist() == too_little.tolist()
    known = ~np.isnan(wind) & ~np.isnan(power)
    wanted = np.where(np.isnan(power), 9, np.where(above_rated, 4, np.where((above_betz & known) | too_little, 3, 1)))
    assert np.asarray(table["qc_power_output_kw"]).tolist() == wanted.tolist()
    assert np.asarray(table["qc_wind_direction_deg"]).tolist() == np.where(np.isnan(direction), 9, 1).tolist()
    assert above_betz.sum() > 500  # they are there, and only suspect
    assert (power < 0).any()  # and so is what a turbine takes at rest, which is no fault
    assert not too_little.any()


def test_phy_12_the_range_filter_of_openoa(year: pa.RecordBatch) -> None:
    power = column(year, "power_output")
    wanted = ~((power >= 0) & (power <= 2000))  # it flags missing values too, which have a flag of their own here
    got = flags(year, "power_output", Rule("r", "range", "power_output", fail=[0, 2000]))
    assert np.isin(got, [4, 9]).tolist() == wanted.tolist()
    assert (got == 9).tolist() == np.isnan(power).tolist()


def test_phy_12_the_window_range_filter_of_openoa(year: pa.RecordBatch) -> None:
    wind, power = column(year, "wind_speed"), column(year, "power_output")
    with np.errstate(invalid="ignore"):
        wanted = (wind >= 5) & (wind <= 40) & ((power < 20) | (power > 2100))
    rule = Rule("r", "range", "power_output", fail=[20, 2100], when="wind_speed >= 5 and wind_speed <= 40")
    assert (flags(year, "power_output", rule) == 4).tolist() == wanted.tolist()
    assert 100 < wanted.sum() < len(wanted)


@pytest.mark.parametrize("threshold", [3, 6])
@pytest.mark.parametrize("name", ["wind_speed", "wind_direction", "power_output"])
def test_phy_12_the_unresponsive_filter_of_openoa(year: pa.RecordBatch, name: str, threshold: int) -> None:
    """It flags all rows of a run of equal values; a rule flags a row when the run has lasted, so the rows before it are added here."""
    values = column(year, name)
    same = np.append(False, values[1:] == values[:-1])  # NaN is equal to nothing
    ends = np.array([same[max(0, row - threshold + 2) : row + 1].all() and row >= threshold - 1 for row in range(len(values))])
    wanted = ends.copy()
    for back in range(1, threshold):
        wanted[:-back] |= ends[back:]
    rule = Rule("r", "flatline", name, tolerance=0, fail=timedelta(minutes=10 * (threshold - 1)), max_gap=timedelta(minutes=10))
    found = flags(year, name, rule) == 4
    assert found.tolist() == ends.tolist()
    whole = found.copy()
    for back in range(1, threshold):
        whole[:-back] |= found[back:]
    assert whole.tolist() == wanted.tolist()


def test_phy_12_the_power_curve_as_an_envelope(year: pa.RecordBatch, tmp_path: Path) -> None:
    speeds = [0, 3, 5, 7, 9, 11, 13, 25]
    powers = [0, 0, 180, 560, 1200, 1830, 2050, 2050]
    lines = [f"{speed}, {power}" for speed, power in zip(speeds, powers, strict=True)]
    (tmp_path / "curve.csv").write_text("\n".join(["wind_speed, power_output", *lines]))
    rule = Rule(
        "r", "envelope", x="wind_speed", y="power_output", table=tmp_path / "curve.csv", lower=0.5, upper=1.25, when="wind_speed >= 4"
    )
    wind, power = column(year, "wind_speed"), column(year, "power_output")
    with np.errstate(invalid="ignore"):
        asked = (wind >= 4) & (wind <= 25) & ~np.isnan(power)
        middle = np.interp(wind, speeds, powers)
        wanted = np.where(np.isnan(power), 9, np.where(~asked, 2, np.where((power < 0.5 * middle) | (power > 1.25 * middle), 3, 1)))
    got = flags(year, "power_output", rule)
    assert got.tolist() == wanted.tolist()
    assert {1, 2, 3, 9} <= set(got.tolist())
