"""Cells, and the modes that have no noise: grid, round, redact."""

import math
import sys
from pathlib import Path
from typing import Any

import h3
import numpy as np
import pytest
from fuzzed import WGS84, batch, fuzz, positions, reference_cell
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lakeward import OptionError
from lakeward.yamlfile.build import build
from lakeward_plugins.transforms.gps_fuzz import GpsFuzz
from lakeward_plugins.transforms.gps_fuzz.cells import H3, Geohash, Metric

LATITUDES = st.floats(-90, 90) | st.sampled_from([-90.0, -45.0, 0.0, -5e-324, 22.5, math.nextafter(22.5, 0), 89.99999999, 90.0])
LONGITUDES = st.floats(-180, 180, exclude_max=True) | st.sampled_from([-180.0, 0.0, -5e-324, 45.0, math.nextafter(-90, -180), 179.99999999])


def test_antimeridian_is_one_place() -> None:
    lat = np.repeat([-89.99, -45.0, 0.0, 30.0, 89.99], 2)
    for transform in (fuzz(), *map(grid, GRIDS)):
        out = positions(transform.apply(batch(lat, np.tile([-180.0, 180.0], 5), "buoy"))["main"])
        np.testing.assert_array_equal(out[:, 0::2], out[:, 1::2])


@given(LATITUDES, LONGITUDES, st.sampled_from([1.0, 100.0, 5000.0, 1e6]))
@settings(max_examples=150, deadline=None)
def test_a_metric_cell_holds_its_centre_which_is_near(lat: float, lon: float, cell_m: float) -> None:
    grid = Metric.of_size(cell_m)
    cell = grid.numbers(np.array([lat]), np.array([lon]))
    centre_lat, centre_lon = grid.centres(cell)
    assert grid.numbers(centre_lat, centre_lon) == cell
    assert WGS84.inv(lon, lat, centre_lon[0], centre_lat[0])[2] < cell_m
    text, *wanted = reference_cell(lat, lon, cell_m)
    assert "{}:{}".format(*(int(part[0]) for part in grid.places(cell))) == text
    assert (centre_lat[0], centre_lon[0]) == pytest.approx(tuple(wanted), abs=1e-9)


def halved(lat: float, lon: float, length: int) -> tuple[float, float]:
    """The centre of a geohash, found by halving step by step as its inventor described it."""
    spans = {"lon": [-180.0, 180.0], "lat": [-90.0, 90.0]}
    for bit in range(5 * length):
        name, value = ("lat", lat) if bit % 2 else ("lon", lon)
        low, high = spans[name]
        middle = (low + high) / 2
        spans[name] = [middle, high] if value >= middle else [low, middle]
    return sum(spans["lat"]) / 2, sum(spans["lon"]) / 2


@given(LATITUDES, LONGITUDES, st.integers(1, 12))
@example(-5e-324, -5e-324, 12)
@settings(max_examples=300, deadline=None)
def test_geohash_is_found_by_halving(lat: float, lon: float, length: int) -> None:
    found = Geohash(length).centred(np.array([lat]), np.array([lon]))
    assert (found[0][0], found[1][0]) == pytest.approx(halved(lat, lon, length), abs=1e-12)


def test_geohash_of_a_known_place() -> None:
    """u4pruydqqvj, the example of Wikipedia's article, is 57.64911, 10.40744."""
    lat, lon = Geohash(11).centred(np.array([57.64911]), np.array([10.40744]))
    assert (lat[0], lon[0]) == pytest.approx((57.64911, 10.40744), abs=1e-6)


GRIDS: list[dict[str, Any]] = [
    {"mode": "grid", "cell_m": 250.0},
    {"mode": "grid", "grid": {"system": "geohash", "resolution": 7}},
    {"mode": "grid", "grid": {"system": "h3", "resolution": 9}},
]


def grid(options: dict[str, Any], **more: Any) -> GpsFuzz:
    """A transform as YAML would make it."""
    return build(GpsFuzz, {**options, **more}, Path())


def test_grid_gives_the_centres_of_its_system() -> None:
    random = np.random.default_rng(2)
    lat, lon = random.uniform(-89, 89, 500), random.uniform(-180, 180, 500)
    wanted = [
        [reference_cell(*at, 250.0)[1:] for at in zip(lat.tolist(), lon.tolist(), strict=True)],
        [halved(*at, 7) for at in zip(lat.tolist(), lon.tolist(), strict=True)],
        [h3.cell_to_latlng(h3.latlng_to_cell(*at, 9)) for at in zip(lat.tolist(), lon.tolist(), strict=True)],
    ]
    for options, centres in zip(GRIDS, wanted, strict=True):
        np.testing.assert_array_equal(positions(grid(options).apply(batch(lat, lon))["main"]), np.round(np.array(centres).T, 6) + 0.0)


@pytest.mark.parametrize("options", GRIDS)
def test_all_of_a_cell_have_one_position_whoever_they_are(options: dict[str, Any]) -> None:
    out = positions(grid(options).apply(batch([48.13712, 48.13713], [11.57551, 11.57552]))["main"])
    assert (out[:, 0] == out[:, 1]).all()


@pytest.mark.parametrize(("decimals", "lat", "lon"), [(0, 48, -180), (2, 48.12, 179.99), (3, 48.123, 179.988), (4, 48.1235, 179.9877)])
def test_round_cuts_decimals(decimals: int, lat: float, lon: float) -> None:
    out = positions(fuzz(mode="round", out_decimals=decimals).apply(batch([48.123456], [179.987654]))["main"])
    assert out[:, 0].tolist() == [lat, lon]


def test_redact_leaves_no_position_and_the_rest() -> None:
    rows = batch([48.1, None, 95.0], [11.5, None, 1.0])
    out = fuzz(mode="redact", on_invalid="reject").apply(rows)
    assert out["main"].column("_row").to_pylist() == [0, 1]
    assert out["main"].column("latitude").null_count == out["main"].column("longitude").null_count == 2
    assert out["rejected"].column("latitude").to_pylist() == [None]


@pytest.mark.parametrize("mode", ["grid", "round", "redact"])
def test_modes_without_noise_read_no_device(mode: str) -> None:
    rows = batch([48.1], [11.5]).drop_columns(["sensor_id"])
    assert fuzz(mode=mode).apply(rows)["main"].num_rows == 1


def test_h3_that_is_not_there_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "h3"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "h3", None)
    with pytest.raises(OptionError, match=r"^grid\.system: .*pip install lakeward-h3$"):
        H3(9)


@pytest.mark.parametrize("length", [0, 13])
def test_a_geohash_has_one_to_twelve_characters(length: int) -> None:
    with pytest.raises(OptionError, match=r"^grid\.resolution: "):
        Geohash(length)
