"""The noise against known answers, and against the derivation written down once more, in all its variants."""

import csv
import math
import re
import sqlite3
from contextlib import closing
from datetime import datetime
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from fuzzed import DATA, NOISES, WGS84, batch, fuzz, positions, reference, reference_output
from geographiclib.geodesic import Geodesic
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lakeward_plugins.transforms.gps_fuzz.cells import Metric

PARAMETERS = {"uniform_disc": "radius_meters", "planar_laplace": "epsilon", "gaussian": "sigma_m"}


def vectors() -> list[dict[str, str]]:
    path = DATA / "gps_keyed_vectors.csv"
    if not path.exists():
        pytest.skip(f"no {path}; set LAKEWARD_TEST_DATA to a folder that has it")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_known_answers() -> None:
    compared = 0
    shape = ("key_hex", "mode", "param", "cell_m", "bucket_s", "release")
    for (key, mode, param, cell_m, bucket_s, release), group in groupby(vectors(), lambda row: tuple(row[name] for name in shape)):
        rows = list(group)
        options = {"mode": mode, "release": release, PARAMETERS[mode]: float(param), "cell_m": float(cell_m) if cell_m else None}
        options["bucket_s"] = float(bucket_s) if bucket_s else None
        lat, lon, wanted_lat, wanted_lon, time, radius, azimuth = (
            np.array([float(row[name]) for row in rows])
            for name in ("lat", "lon", "out_lat", "out_lon", "unix_s", "radius_m", "azimuth_deg")
        )
        given = batch(lat, lon, [row["device"] for row in rows], timestamp=time)
        transform = fuzz(key, **options, out_decimals=15)
        out = positions(transform.apply(given)["main"])
        assert np.max(WGS84.inv(out[1], out[0], wanted_lon, wanted_lat)[2]) < 1e-6
        rounded = positions(fuzz(key, **options).apply(given)["main"])
        np.testing.assert_array_equal(rounded, np.round([wanted_lat, wanted_lon], 6))
        u1, turn = np.array([reference(mode, row["device"], row["cell"], row["bucket"], key) for row in rows]).T
        assert transform.noise is not None
        np.testing.assert_allclose(transform.noise.distances(u1), radius, rtol=1e-9)
        np.testing.assert_allclose(turn, azimuth, rtol=1e-12)
        compared += len(rows)
    assert compared == 144


def test_known_cells() -> None:
    rows = [row for row in vectors() if row["cell"]]
    grid = Metric.of_size(200)
    numbers = grid.numbers(*(np.array([float(row[name]) for row in rows]) for name in ("lat", "lon")))
    assert [f"{row}:{column}" for row, column in zip(*grid.places(numbers), strict=True)] == [row["cell"] for row in rows]


INVERSE = {
    "uniform_disc": lambda u: 50 * math.sqrt(u),
    "planar_laplace": lambda u: stats.gamma.ppf(u, 2, scale=25),
    "gaussian": lambda u: stats.rayleigh.ppf(u, scale=25),
}
DEVICES = ["mast", "", "Zürich 1", "a\0b", "7", "x" * 200]


@given(
    st.lists(
        st.tuples(st.sampled_from(DEVICES), st.floats(-89.9, 89.9), st.floats(-180, 179.99), st.integers(946_684_800, 1_900_000_000)),
        min_size=1, max_size=30,
    ),
    st.sampled_from(NOISES), st.sampled_from([None, 1.0, 57.3, 100.0, 5e4]), st.sampled_from([None, 1.0, 3600.0, 86_400.0]),
    st.sampled_from(["cell", "offset"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_variant_follows_the_derivation(
    rows: list[tuple[str, float, float, int]], mode: dict[str, Any], cell_m: float | None, bucket_s: float | None, release: str
) -> None:
    options = {**mode, "cell_m": cell_m, "bucket_s": bucket_s, "release": release}
    inverse = INVERSE[mode["mode"]]
    device, lat, lon, time = zip(*rows, strict=True)
    given_rows = batch(list(map(float, lat)), list(map(float, lon)), list(device), timestamp=list(time))
    out = positions(fuzz(**options, out_decimals=15).apply(given_rows)["main"])
    wanted = [reference_output(options, inverse, *row) for row in rows]
    apart = [Geodesic.WGS84.Inverse(*one, *other)["s12"] for one, other in zip(out.T, wanted, strict=True)]
    assert max(apart) < 1e-6


@pytest.mark.parametrize("mode", NOISES)
@pytest.mark.parametrize("variant", [{"cell_m": 200.0, "bucket_s": 3600.0}, {"cell_m": 75.0, "release": "offset"}, {"cell_m": None}])
def test_real_tracks_follow_the_derivation(mode: dict[str, Any], variant: dict[str, Any]) -> None:
    """With stamps of 1901 and seven digits of a second among them."""
    path = DATA / "gpx_tracks.db"
    if not path.exists():
        pytest.skip(f"no {path}; set LAKEWARD_TEST_DATA to a folder that has it")
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as database:
        rows = database.execute("SELECT sensor_id, latitude, longitude, timestamp FROM sensor_readings").fetchall()
    assert len(rows) > 1_000
    device, lat, lon, time = map(list, zip(*rows, strict=True))
    options = {**mode, **variant}
    out = positions(fuzz(**options).apply(batch(lat, lon, device, timestamp=time))["main"])
    seconds = [datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", stamp)).timestamp() for stamp in time]
    wanted = [reference_output(options, INVERSE[mode["mode"]], *row[:3], second) for row, second in zip(rows, seconds, strict=True)]
    np.testing.assert_array_equal(out, np.round(np.array(wanted).T, 6) + 0.0)
