"""What the report measures: the attack against noise of both kinds, and columns that carry the position."""

import math
import struct
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fuzzed import LAPLACE, WGS84, batch, fuzz, positions
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward_plugins.transforms.gps_fuzz import GpsFuzz
from lakeward_plugins.transforms.gps_fuzz.attack import by_averaging, by_cells, outputs_of_each
from lakeward_plugins.transforms.gps_fuzz.carried import rows_that_tell
from lakeward_plugins.transforms.gps_fuzz.report import Measured


def measured(transform: GpsFuzz, *batches: pa.RecordBatch) -> dict[str, Any]:
    found = Measured(transform)
    for rows in batches:
        found.add(rows, transform.apply(rows))
    return found.result()


def standing(devices: int, reports: int, jitter_m: float = 0.0) -> pa.RecordBatch:
    """Devices that stand still anywhere on the Earth; the receiver wanders."""
    random = np.random.default_rng(3)
    device = np.arange(devices * reports) % devices
    lat, lon = random.uniform(-60, 60, devices)[device], random.uniform(-180, 180, devices)[device]
    east, north = random.normal(0, jitter_m, (2, len(device)))
    names = pa.array([f"mast-{number}" for number in range(devices)]).take(pa.array(device))
    return batch(lat + north / 111_320, lon + east / 111_320 / np.cos(np.radians(lat)), names)


# -- averaging ---------------------------------------------------------------------------------------------------------


def test_noise_of_its_own_for_each_report_averages_out_and_noise_that_sticks_does_not() -> None:
    random = np.random.default_rng(1)
    devices, reports = 200, 1_000
    device = np.repeat(np.arange(devices), reports)
    distance, azimuth = random.gamma(2, 25, len(device)), random.uniform(0, 2 * np.pi, len(device))
    fresh = by_averaging(device, distance * np.sin(azimuth), distance * np.cos(azimuth))
    assert [one.reports for one in fresh] == [1, 10, 100, 1000]
    for one in fresh:  # the RMS is sqrt(6 / n) / epsilon
        assert one.devices == devices
        assert one.rms == pytest.approx(math.sqrt(6 / one.reports) * 25, rel=0.15)
        assert one.fresh == pytest.approx(math.sqrt(6 / one.reports) * 25, rel=0.02)
    found = measured(fuzz(**LAPLACE), standing(devices, reports))
    assert found["outputs_per_device"] == {"least": 1, "median": 1.0, "most": 1}
    assert len({round(one["rms"], 6) for one in found["averaging"]}) == 1
    assert found["averaging"][-1]["rms"] > 15 * found["averaging"][-1]["fresh"]


def test_a_receiver_that_wanders_does_not_give_a_standing_device_away() -> None:
    """200 devices with 2,000 fixes each and 5 m of jitter, in cells of 100 m: the error stays where it was."""
    found = measured(fuzz(**LAPLACE), standing(200, 2_000, jitter_m=5.0))
    assert found["outputs_per_device"]["most"] <= 4
    first, last = found["averaging"][0], found["averaging"][-1]
    assert (first["reports"], last["reports"]) == (1, 1000)
    assert 50 < last["rms"] < 90
    assert last["rms"] == pytest.approx(first["rms"], rel=0.15)
    assert found["cell_mean"]["rms"] > 40


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=60))
@settings(deadline=None)
def test_the_attack_does_what_a_plain_one_does(rows: list[tuple[int, int, float, float]]) -> None:
    device, output, east, north = (np.array(part) for part in zip(*rows, strict=True))
    own = {one: [row for row in rows if row[0] == one] for one in {row[0] for row in rows}}

    def error(vectors: list[tuple[float, float]]) -> float:
        return math.hypot(*(sum(part) / len(vectors) for part in zip(*vectors, strict=True)))

    for found in by_averaging(device, east, north):
        errors = [error([row[2:] for row in reports[: found.reports]]) for reports in own.values() if len(reports) >= found.reports]
        assert (found.devices, found.median) == (len(errors), pytest.approx(float(np.median(errors)), abs=1e-6))
        assert found.rms == pytest.approx(math.sqrt(sum(one**2 for one in errors) / len(errors)), abs=1e-6)
    cells = []
    for reports in own.values():
        groups = [[row[2:] for row in reports if row[1] == one] for one in {row[1] for row in reports}]
        cells.append(error([tuple(sum(part) / len(group) for part in zip(*group, strict=True)) for group in groups]))  # type: ignore[misc]
    assert by_cells(device, output, east, north).median == pytest.approx(float(np.median(cells)), abs=1e-6)
    assert sorted(outputs_of_each(device, output)) == sorted(len({row[1] for row in reports}) for reports in own.values())


# -- what is counted ---------------------------------------------------------------------------------------------------


def test_batches_are_counted_together_and_only_rows_that_keep_a_position() -> None:
    lat, lon = [48.1, None, 95.0, 48.2], [11.5, None, 1.0, 11.6]
    rows = batch(lat, lon, ["a", "b", "c", "a"])
    found = measured(fuzz(on_invalid="reject"), rows.slice(0, 2), rows.slice(2))
    assert (found["rows"], found["rows_with_position"], found["rows_released_with_position"], found["devices"]) == (4, 2, 2, 1)
    assert found["averaging"][0]["devices"] == 1


@pytest.mark.parametrize("options", [{"mode": "redact"}, {"on_missing": "drop"}])
def test_without_any_position_there_is_nothing_to_attack(options: dict[str, Any]) -> None:
    rows = batch([48.1], [11.5]) if options.get("mode") else batch(pa.array([None], pa.float64()), pa.array([None], pa.float64()))
    found = measured(fuzz(**options), rows)
    assert found["devices"] == found["rows_released_with_position"] == 0
    assert "averaging" not in found


def test_switched_off_everything_is_given_away() -> None:
    found = measured(GpsFuzz(enabled=False), batch(["48.1", "x"], ["11.5", "1"]))
    assert found["enabled"] is False
    assert found["displacement_m"]["p95"] == {"measured": 0.0, "theory": None}
    assert found["averaging"][0]["rms"] == 0.0


@pytest.mark.parametrize("options", [{"mode": "grid", "cell_m": 300.0}, {"mode": "uniform_disc", "cell_m": 300.0, "max_radius_m": 20.0}])
def test_theory_knows_cells_and_limits(options: dict[str, Any]) -> None:
    random = np.random.default_rng(5)
    rows = batch(random.uniform(-70, 70, 20_000), random.uniform(-180, 180, 20_000))
    found = measured(fuzz(**options), rows)["displacement_m"]
    for name in ("p50", "p95"):
        assert found[name]["measured"] == pytest.approx(found[name]["theory"]["metres"], rel=0.03)


def test_there_is_no_theory_for_a_base_in_the_place_of_positions() -> None:
    found = measured(fuzz(base_lat=48.0, base_lon=11.0, base_use="anchor"), batch([48.1], [11.5]))
    assert found["displacement_m"]["p50"]["theory"] is None
    assert found["displacement_m"]["p50"]["measured"] == pytest.approx(WGS84.inv(11.5, 48.1, 11.0, 48.0)[2], abs=150)


def test_no_true_position_is_in_the_result() -> None:
    rows = batch([48.12345678], [11.98765432], location=["48.12345678,11.98765432"])
    assert not [digits for digits in ("48.12", "11.98", "4812", "1198") if digits in repr(measured(fuzz(), rows))]


# -- columns that carry it ---------------------------------------------------------------------------------------------

LAT, LON = -33.9248685, 18.4240553
CARRY = {
    "text": ["at -33.9248685 18.4240553"],
    "four decimals": ["lat=-33.9249"],
    "one of them": ["x 18.42406"],
    "in south and east": ["33.92487S"],
    "double": [LON],
    "decimal": [Decimal("-33.92487")],
    "millionths": pa.array([round(LAT * 1e6)], pa.int64()),
    "ten millionths": pa.array([int(LON * 1e7)], pa.int32()),
    "well-known binary": [b"\1\1\0\0\0" + struct.pack("<dd", LON, LAT)],
    "big end first": [struct.pack(">d", LAT)],
    "bytes of text": [b"-33.92486"],
    "dictionary": pa.array(["-33.92486,18.42405"]).dictionary_encode(),
}
CARRY_NOT = {
    "three decimals": ["-33.924,18.424"],
    "another place": ["-33.9148685 18.4140553"],
    "another number": [18.43],
    "whole degrees": pa.array([18, -34], pa.int64()),
    "NULL": pa.array([None], pa.string()),
    "a time": pa.array([1_700_000_000], pa.timestamp("s")),
    "not UTF-8": pa.array([b"\xff\xfe18.5"]).view(pa.string()),
}


@pytest.mark.parametrize("name", CARRY)
def test_a_column_that_carries_the_position_is_found(name: str) -> None:
    column = CARRY[name] if isinstance(CARRY[name], pa.Array) else pa.array(CARRY[name])
    assert rows_that_tell(column, np.array([LAT]), np.array([LON])) == 1
    other = np.array([51.5])
    assert rows_that_tell(column, other, other) == 0


@pytest.mark.parametrize("name", CARRY_NOT)
def test_a_column_that_does_not_is_not(name: str) -> None:
    column = CARRY_NOT[name] if isinstance(CARRY_NOT[name], pa.Array) else pa.array(CARRY_NOT[name])
    count = len(column)
    assert rows_that_tell(column, np.full(count, LAT), np.full(count, LON)) == 0


def test_carried_columns_are_counted_row_by_row() -> None:
    rows = batch([48.12345, 48.23456, 48.34567], [11.98765] * 3, note=["48.12345", "48.12345", "see 11.98765"])
    assert measured(fuzz(scrub_fields=[]), rows)["carried"] == {"note": 2}
    assert positions(fuzz().apply(rows)["main"]).shape == (2, 3)
