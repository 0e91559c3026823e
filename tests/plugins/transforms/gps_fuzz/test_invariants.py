import csv
import hashlib
import hmac
import logging
import math
import os
import struct
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from scipy import stats
from scipy.special import lambertw

from lakeward import OptionError
from lakeward.secrets import Secret
from lakeward.testing import TransformContract
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.transforms.gps_fuzz import GpsFuzz
from lakeward_plugins.transforms.gps_geometry import Grid, planar_laplace, uniform_disc

DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
WGS84 = Geod(ellps="WGS84")
HEX_KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
EXACT = {"cell_m": None, "release": "offset", "out_decimals": 15}
LAPLACE = {"mode": "planar_laplace", "epsilon": 0.04}


def fuzz(key: str = HEX_KEY, **options: Any) -> GpsFuzz:
    return GpsFuzz(key=Secret(key, "env:KEY"), **options)


def batch(lat: Any, lon: Any, device: Any = None, **more: Any) -> pa.RecordBatch:
    rows = range(len(lat))
    device = [f"sensor-{row}" for row in rows] if device is None else [device] * len(lat) if isinstance(device, str) else device
    return pa.record_batch({"_row": pa.array(rows, pa.int64()), "sensor_id": device, "latitude": lat, "longitude": lon, **more})


def positions(rows: pa.RecordBatch) -> np.ndarray:
    return np.array([rows.column("latitude").to_numpy(zero_copy_only=False), rows.column("longitude").to_numpy(zero_copy_only=False)])


def noise(transform: GpsFuzz, lat: float, lon: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and azimuths of so many devices that are all at this position."""
    out = positions(transform.apply(batch(np.full(count, lat), np.full(count, lon)))["main"])
    azimuth, _, distance = WGS84.inv(np.full(count, lon), np.full(count, lat), out[1], out[0])
    return distance, azimuth % 360


def reference(mode: str, device: str, cell: str = "", bucket: str = "") -> tuple[float, float]:
    """u1 and azimuth, written down once more as plainly as possible."""
    text = "\0".join(["lakeward/gps/v1", mode, device, cell, bucket])
    digest = hmac.new(bytes.fromhex(HEX_KEY), text.encode(), hashlib.sha256).digest()
    u1, u2 = ((int.from_bytes(digest[start : start + 8], "big") >> 11) / 2**53 for start in (0, 8))
    return u1, 360 * u2


# -- known answers -----------------------------------------------------------------------------------------------------


def vectors() -> list[dict[str, str]]:
    path = DATA / "gps_keyed_vectors.csv"
    if not path.exists():
        pytest.skip(f"no {path}")
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["mode"] in ("uniform_disc", "planar_laplace")]


def test_known_answers() -> None:
    compared = 0
    shape = ("key_hex", "mode", "param", "cell_m", "bucket_s", "release")
    for (key, mode, param, cell_m, bucket_s, release), group in groupby(vectors(), lambda row: tuple(row[name] for name in shape)):
        rows = list(group)
        scale = {"radius_meters" if mode == "uniform_disc" else "epsilon": float(param)}
        options = scale | {"cell_m": float(cell_m) if cell_m else None, "bucket_s": float(bucket_s) if bucket_s else None}
        lat, lon, wanted_lat, wanted_lon, time = (
            np.array([float(row[name]) for row in rows]) for name in ("lat", "lon", "out_lat", "out_lon", "unix_s")
        )
        given = batch(lat, lon, [row["device"] for row in rows], timestamp=time)
        out = positions(fuzz(key, mode=mode, release=release, out_decimals=15, **options).apply(given)["main"])
        assert np.max(WGS84.inv(out[1], out[0], wanted_lon, wanted_lat)[2]) < 1e-6
        rounded = positions(fuzz(key, mode=mode, release=release, **options).apply(given)["main"])
        np.testing.assert_array_equal(rounded, np.round([wanted_lat, wanted_lon], 6))
        compared += len(rows)
    assert compared == 96


def test_known_cells() -> None:
    rows = [row for row in vectors() if row["cell"]]
    grid = Grid(math.ceil(math.pi * 6378137 / 200))
    cells = grid.cells(*(np.array([float(row[name]) for row in rows]) for name in ("lat", "lon")))
    assert [text.decode() for text in grid.texts(cells)] == [row["cell"] for row in rows]


# -- cells -------------------------------------------------------------------------------------------------------------


def test_antimeridian_is_one_place() -> None:
    lat = np.repeat([-89.99, -45.0, 0.0, 30.0, 89.99], 2)
    out = positions(fuzz().apply(batch(lat, np.tile([-180.0, 180.0], 5), "buoy"))["main"])
    np.testing.assert_array_equal(out[:, 0::2], out[:, 1::2])


@given(st.floats(-90, 90), st.floats(-180, 180, exclude_max=True), st.sampled_from([1.0, 100.0, 5000.0, 1e6]))
@settings(max_examples=150, deadline=None)
def test_a_cell_holds_its_centre_which_is_near(lat: float, lon: float, cell_m: float) -> None:
    grid = Grid(math.ceil(math.pi * 6378137 / cell_m))
    cell = grid.cells(np.array([lat]), np.array([lon]))
    centre_lon, centre_lat = grid.centres(cell)
    assert grid.cells(centre_lat, centre_lon) == cell
    assert WGS84.inv(lon, lat, centre_lon[0], centre_lat[0])[2] < cell_m


# -- what the noise is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [LAPLACE, {"mode": "planar_laplace", "privacy_level": 8.0, "protection_radius_m": 200.0}])
def test_gps_1_planar_laplace_radius_is_gamma_2(options: dict[str, Any]) -> None:
    count = 20_000
    distance, _ = noise(fuzz(**EXACT, **options), 52.5, 13.4, count)
    assert stats.kstest(distance, stats.gamma(2, scale=25).cdf).pvalue > 1e-4
    assert abs(distance.mean() - 50) <= 4.5 * math.sqrt(2) * 25 / math.sqrt(count)


def test_gps_2_uniform_disc_stays_inside_and_is_even() -> None:
    distance, _ = noise(fuzz(**EXACT, radius_meters=80.0), 52.5, 13.4, 20_000)
    assert distance.max() <= 80 * (1 + 1e-9)
    assert stats.kstest(distance, lambda r: (r / 80) ** 2).pvalue > 1e-4


@pytest.mark.parametrize("options", [LAPLACE, {}])
def test_gps_3_directions_are_even_and_tell_nothing_of_the_distance(options: dict[str, Any]) -> None:
    count = 20_000
    distance, azimuth = noise(fuzz(**EXACT, **options), 52.5, 13.4, count)
    assert stats.kstest(azimuth / 360, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(distance, azimuth)[0, 1]) <= 4.5 / math.sqrt(count)
    for part in (np.sin(np.radians(azimuth)) * distance, np.cos(np.radians(azimuth)) * distance):
        assert abs(part.mean()) <= 4.5 * part.std() / math.sqrt(count)


def test_gps_4_inverse_distribution_is_lambert_w_and_gamma() -> None:
    p = np.concatenate([np.logspace(-6, -1, 500), np.linspace(0.1, 0.9, 500), 1 - np.logspace(-1, -6, 500)])
    np.testing.assert_allclose(planar_laplace(p), stats.gamma.ppf(p, 2), rtol=1e-9)
    apart = p[p > 1e-3]  # nearer to its branch point scipy's own W has fewer digits
    np.testing.assert_allclose(planar_laplace(apart), -1 - lambertw((apart - 1) / math.e, -1).real, rtol=1e-9)
    np.testing.assert_allclose(uniform_disc(p) ** 2, p, rtol=1e-12)


def test_gps_4_the_ends_are_finite() -> None:
    ends = planar_laplace(np.array([0.0, 2.0**-53, 1 - 2.0**-53]))
    np.testing.assert_allclose(ends, [0, math.sqrt(2.0**-52), stats.gamma.isf(2.0**-53, 2)], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("lat", [0, 45, 64, 85, 89.9995])
def test_gps_5_noise_is_as_wide_as_high_at_every_latitude(lat: float) -> None:
    distance, azimuth = noise(fuzz(**EXACT, **LAPLACE), lat, 25.0, 5_000)
    east, north = np.sin(np.radians(azimuth)) * distance, np.cos(np.radians(azimuth)) * distance
    surplus = east**2 - north**2
    assert abs(surplus.mean()) <= 4.5 * surplus.std() / math.sqrt(len(surplus))


EDGES = [(90, 0), (-90, 10), (89.99999, -180), (-89.9999, 180), (0, 180), (0, -180), (10, 179.9999), (-10, -179.9999), (0, 0), (45, 90)]


@pytest.mark.parametrize("mode", ["uniform_disc", "planar_laplace"])
def test_gps_6_output_lies_at_the_distance_and_direction_that_were_meant(mode: str) -> None:
    options = {"epsilon": 0.04} if mode == "planar_laplace" else {"radius_meters": 500.0}
    lat, lon = np.array(EDGES, float).T
    out = positions(fuzz(mode=mode, **options, **EXACT).apply(batch(lat, lon))["main"])
    azimuth, _, distance = WGS84.inv(lon, lat, out[1], out[0])
    meant = [reference(mode, f"sensor-{row}") for row in range(len(lat))]
    scale = [25 * stats.gamma.ppf(u1, 2) if mode == "planar_laplace" else 500 * math.sqrt(u1) for u1, _ in meant]
    np.testing.assert_allclose(distance, scale, atol=1e-6)
    away_from_poles = np.abs(lat) < 90
    turned = (azimuth - [azimuth for _, azimuth in meant] + 180) % 360 - 180
    np.testing.assert_allclose(turned[away_from_poles], 0, atol=1e-5)


@given(st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1, max_size=20), st.sampled_from([0, 2, 6]))
@settings(max_examples=60, deadline=None)
def test_output_is_always_on_the_globe(places: list[tuple[float, float]], decimals: int) -> None:
    for options in ({"release": "cell"}, {"release": "offset"}):
        lat, lon = positions(fuzz(**options, radius_meters=1e6, out_decimals=decimals).apply(batch(*zip(*places, strict=True)))["main"])
        assert ((lat >= -90) & (lat <= 90)).all()
        assert ((lon >= -180) & (lon < 180)).all()


def test_a_longitude_that_rounds_to_180_is_minus_180() -> None:
    out = positions(fuzz(release="offset", radius_meters=1.0, out_decimals=0).apply(batch([48.1], [179.6]))["main"])
    assert out[1, 0] == -180


# -- that it sticks ----------------------------------------------------------------------------------------------------


def moving(count: int) -> pa.RecordBatch:
    random = np.random.default_rng(7)
    device = pa.array([f"truck-{number % 40}" for number in range(count)])
    lat, lon = random.normal(48, 0.01, count), random.normal(11, 0.01, count)
    return batch(lat, lon, device, timestamp=1.7e9 + random.integers(0, 86_400, count).astype(float))


OTHER_PROCESS = """
import sys, pyarrow as pa
from lakeward.secrets import Secret
from lakeward_plugins.transforms.gps_fuzz import GpsFuzz
rows = pa.ipc.open_stream(sys.stdin.buffer).read_next_batch()
out = GpsFuzz(key=Secret(sys.argv[1], "env:KEY"), mode="planar_laplace", epsilon=0.04, bucket_s=3600.0).apply(rows)["main"]
with pa.ipc.new_stream(sys.stdout.buffer, out.schema) as writer:
    writer.write_batch(out)
"""


def test_gps_7_same_however_the_rows_come() -> None:
    options = {**LAPLACE, "bucket_s": 3600.0}
    rows = moving(5_000)
    transform = fuzz(**options)
    whole = positions(transform.apply(rows)["main"])

    cut = [positions(transform.apply(rows.slice(start, 500))["main"]) for start in range(0, 5_000, 500)]
    np.testing.assert_array_equal(np.concatenate(cut, axis=1), whole)

    order = np.random.default_rng(1).permutation(5_000)
    np.testing.assert_array_equal(positions(fuzz(**options).apply(rows.take(pa.array(order)))["main"]), whole[:, order])

    given = pa.BufferOutputStream()
    with pa.ipc.new_stream(given, rows.schema) as writer:
        writer.write_batch(rows)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, HEX_KEY],
        input=given.getvalue().to_pybytes(),
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    np.testing.assert_array_equal(positions(pa.ipc.open_stream(done.stdout).read_next_batch()), whole)


def test_gps_8_a_fixed_device_has_one_position() -> None:
    out = positions(fuzz(**LAPLACE).apply(batch(np.full(10_000, 48.1), np.full(10_000, 11.5), "mast"))["main"])
    assert len(np.unique(out, axis=1).T) == 1


def test_gps_8_jitter_of_the_receiver_gives_at_most_four() -> None:
    random = np.random.default_rng(3)
    jitter = random.normal(0, 5 / 111_320, (2, 2_000))
    for number in range(20):
        lat, lon = random.uniform(-60, 60), random.uniform(-170, 170)
        fixes = batch(lat + jitter[0], lon + jitter[1] / math.cos(math.radians(lat)), f"mast-{number}")
        assert len(np.unique(positions(fuzz(**LAPLACE).apply(fixes)["main"]), axis=1).T) <= 4


def test_gps_9_another_key_or_device_has_other_noise() -> None:
    count = 5_000
    lat, lon = np.full(count, 48.1), np.full(count, 11.5)
    mine = positions(fuzz().apply(batch(lat, lon))["main"])
    other_key = positions(fuzz(HEX_KEY[::-1]).apply(batch(lat, lon))["main"])
    other_device = positions(fuzz().apply(batch(lat, lon, [f"other-{row}" for row in range(count)]))["main"])
    for other in (other_key, other_device):
        assert (mine != other).any(axis=0).all()
        for axis in (0, 1):
            assert abs(np.corrcoef(mine[axis], other[axis])[0, 1]) <= 4.5 / math.sqrt(count)


def test_bucket_changes_the_noise_and_its_rows_share_it() -> None:
    times = pa.array(["2024-05-01T00:00:00Z", "2024-05-01T00:59:59.999Z", "2024-05-01T01:00:00Z"])
    out = positions(fuzz(bucket_s=3600.0).apply(batch([48.1] * 3, [11.5] * 3, "mast", timestamp=times))["main"])
    assert out[0, 0] == out[0, 1] != out[0, 2]


def test_device_is_its_text_whatever_the_type_of_the_column() -> None:
    ways = [
        pa.array(["7", "8"]),
        pa.array([7, 8]),
        pa.array(["7", "8"]).dictionary_encode(),
        pa.array(["7", "8"], pa.large_string()),
        [b"7", b"8"],
    ]
    outs = [positions(fuzz().apply(batch([48.1] * 2, [11.5] * 2, device))["main"]) for device in ways]
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


# -- what it leaves alone, and what it hides ---------------------------------------------------------------------------


def test_gps_10_rows_order_and_other_fields_are_unchanged() -> None:
    rows = moving(1_000)
    before = rows.to_pylist()
    out = fuzz(bucket_s=600.0).apply(rows)["main"]
    assert out.schema.names == rows.schema.names
    others = ["_row", "sensor_id", "timestamp"]
    assert out.select(others).equals(rows.select(others))
    assert rows.to_pylist() == before


def test_gps_11_no_raw_coordinate_gets_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    lat, lon = [48.12345678, 91.23456789, None, 47.65432198, 0.0], [11.98765432, 12.34567891, 13.57913579, float("inf"), 0.0]
    location = [f"{a},{b}" for a, b in zip(lat, lon, strict=True)]
    rows = batch(lat, lon, location=location, raw=pa.array([place.encode() for place in location]))
    transform = fuzz(radius_meters=5_000.0, on_invalid="reject", scrub_fields=["location", "raw"])
    out = transform.apply(rows)
    assert out["rejected"].column("_row").to_pylist() == [1, 2, 3]
    everything = repr([part.to_pylist() for part in out.values()]) + caplog.text + repr(transform)
    raw = [f"{abs(value):.4f}"[:-1] for value in (*lat, *lon) if value and math.isfinite(value)]
    assert not [value for value in raw if value in everything]
    assert HEX_KEY not in everything
    assert out["main"].schema.field("location").type == pa.string()


@pytest.mark.parametrize("on_invalid", ["null", "reject"])
def test_gps_11_no_raw_coordinate_lies_under_a_null(on_invalid: str) -> None:
    lat, lon = [48.12345678, 91.23456789, None, 47.65432198], [11.98765432, 12.34567891, 13.57913579, None]
    out = fuzz(on_invalid=on_invalid).apply(batch(lat, lon))
    buffers = b"".join(buffer for part in out.values() for column in part.columns for buffer in column.buffers() if buffer)
    assert not [value for value in (*lat, *lon) if value and struct.pack("<d", value) in buffers]


INVALID = [(90.1, 0.5), (-91, 0.5), (45, 180.1), (45, -541), (math.nan, 1), (1, math.inf), (-math.inf, 1), (None, 1), (1, None), (1e300, 1)]
INVALID_TEXT = [
    ("48,1", "11.5"),
    ("north", "1"),
    ("nan", "1"),
    ("inf", "1"),
    ("0x10", "1"),
    ("1", ""),
    (" ", "1"),
    ("1 2", "1"),
    ("91", "1"),
    ("--1", "1"),
]


def test_gps_12_invalid_positions_become_null(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for column in (pa.float64(), pa.string(), pa.large_string()):
        cases = INVALID if column == pa.float64() else INVALID_TEXT
        lat, lon = (pa.array(values, column) for values in zip(*cases, strict=True))
        out = fuzz().apply(batch(lat, lon))["main"]
        assert out.column("latitude").null_count == out.column("longitude").null_count == len(cases)
        assert out.schema.field("latitude").type == out.schema.field("longitude").type == pa.float64()
    assert "of 10 rows: latitude or longitude is missing: 2, latitude or longitude is no finite number: 3," in caplog.text
    assert "latitude or longitude is out of range: 5" in caplog.text


def test_gps_12_true_is_not_one_degree() -> None:
    out = fuzz().apply(batch([True, False], [11.5, 11.5]))["main"]
    assert out.column("latitude").null_count == out.column("longitude").null_count == 2


def test_gps_12_text_and_integers_are_read_as_numbers() -> None:
    as_double = positions(fuzz().apply(batch([48.0, -7.0, 0.5], [11.0, 120.0, 100.0]))["main"])
    as_text = positions(fuzz().apply(batch(["48", " -7.0 ", "+.5"], ["11.", "1.2e2", "1E+2"]))["main"])
    mixed = positions(fuzz().apply(batch(["48", "-7", "0.5"], [11, 120, 100]))["main"])
    np.testing.assert_array_equal(as_text, as_double)
    np.testing.assert_array_equal(mixed, as_double)


def test_gps_12_text_that_is_not_utf8_is_invalid() -> None:
    lat = pa.array([b"48.1", b"\xff48.1"]).view(pa.string())
    out = fuzz().apply(batch(lat, [11.5, 11.5], pa.array([b"a\xff", b"b\xfe"]).view(pa.string())))["main"]
    assert out.column("longitude").is_null().to_pylist() == [False, True]


def test_gps_12_null_island_is_kept_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    out = fuzz().apply(batch([0.0, 1.0], [0.0, 0.0]))["main"]
    assert out.column("latitude").null_count == 0
    assert "of 2 rows: suspect_null_island: 1" in caplog.text


@pytest.mark.parametrize(
    ("options", "main", "port"),
    [
        ({}, [0, 1, 2, 3], ""),
        ({"on_missing": None, "on_invalid": None}, [0, 1, 2, 3], ""),
        ({"on_missing": "drop"}, [0, 2, 3], "filtered"),
        ({"on_missing": "error"}, [0, 2, 3], "rejected"),
        ({"on_invalid": "drop"}, [0, 1, 3], "filtered"),
        ({"on_invalid": "reject"}, [0, 1, 3], "rejected"),
    ],
)
def test_gps_12_rows_without_position_go_where_the_options_say(options: dict[str, Any], main: list[int], port: str) -> None:
    out = fuzz(**options).apply(batch([48.1, None, 95.0, 48.2], [11.5, None, 11.5, 11.6]))
    assert out["main"].column("_row").to_pylist() == main
    assert set(out) == ({"main", port} if port else {"main"})
    missing = [key for key in main if key in (1, 2)]
    assert out["main"].column("longitude").null_count == len(missing)
    if port:
        marks = out[port].to_pylist()[0]
        reason = "position_missing" if "on_missing" in options else "position_invalid"
        assert marks["_rule" if port == "filtered" else "_reason"] == reason


def test_gps_12_both_kinds_leave_in_the_order_of_the_rows() -> None:
    rows = batch([95.0, None, 95.0, None, 48.1], [1.0, None, 1.0, None, 1.0])
    out = fuzz(on_missing="error", on_invalid="reject").apply(rows)["rejected"]
    assert out.column("_row").to_pylist() == [0, 1, 2, 3]
    assert out.column("_reason").to_pylist() == ["position_invalid", "position_missing"] * 2
    assert out.column("_detail").to_pylist()[:2] == ["latitude or longitude is out of range", "no latitude and no longitude"]


def test_rows_without_a_time_for_the_bucket_are_invalid() -> None:
    out = fuzz(bucket_s=60.0, on_invalid="reject").apply(
        batch([48.1] * 3, [11.5] * 3, timestamp=["2024-05-01T00:00:00Z", "yesterday", None])
    )
    assert out["main"].column("_row").to_pylist() == [0]
    assert out["rejected"].column("_detail").to_pylist() == ["no time that can be read, to know the bucket"] * 2
    assert out["rejected"].column("latitude").null_count == 2


def test_longitudes_once_around_too_far_can_be_taken() -> None:
    plain = positions(fuzz().apply(batch([10.0] * 3, [-170.0, 170.0, -180.0], "ship"))["main"])
    wrapped = positions(fuzz(wrap_longitude=True).apply(batch([10.0] * 3, [190.0, -190.0, 540.0], "ship"))["main"])
    np.testing.assert_array_equal(wrapped, plain)
    out = fuzz(wrap_longitude=True).apply(batch([10.0], [540.5]))["main"]
    assert out.column("longitude").null_count == 1


def test_base_fills_in_for_missing_positions_only() -> None:
    rows = batch([None, 95.0, 48.1], [None, 1.0, 11.5])
    out = positions(fuzz(base_use="fallback", base_lat=37.7749, base_lon=-122.4194).apply(rows)["main"])
    plain = positions(fuzz().apply(batch([37.7749, 95.0, 48.1], [-122.4194, 1.0, 11.5]))["main"])
    np.testing.assert_array_equal(out, plain)


def test_base_as_anchor_takes_the_place_of_valid_positions() -> None:
    rows = batch([None, 95.0, 48.1], [None, 1.0, 11.5])
    lat, lon = positions(fuzz(base_use="anchor", base_lat=37.7749, base_lon=-122.4194).apply(rows)["main"])
    assert np.isnan(lat).tolist() == [True, True, False]
    assert WGS84.inv(lon[2], lat[2], -122.4194, 37.7749)[2] < 50 + 100


def test_base_is_ignored_unless_its_use_is_said() -> None:
    rows = batch([None, 48.1], [None, 11.5])
    assert fuzz(base_lat=37.7749, base_lon=-122.4194).apply(rows)["main"].equals(fuzz().apply(rows)["main"])


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_gps_13_without_a_key_there_is_no_transform() -> None:
    with pytest.raises(Mistakes) as error:
        build(GpsFuzz, {"radius_meters": 50}, Path())
    assert [(mistake.path, mistake.message) for mistake in error.value.mistakes] == [(("key",), "required, but missing")]


@pytest.mark.parametrize("key", ["", "short", "fifteen bytes!!", "0123456789abcd"])
def test_gps_13_a_short_key_is_refused(key: str) -> None:
    with pytest.raises(OptionError, match=r"^key: .*at least 16"):
        fuzz(key)


def test_gps_13_a_key_in_plain_sight_is_refused() -> None:
    with pytest.raises(OptionError, match="key: is a secret"):
        GpsFuzz(key="0123456789abcdef0123456789abcdef")  # type: ignore[arg-type]  # the mistake that is meant


def test_key_of_hexadecimal_digits_stands_for_bytes() -> None:
    rows = batch([48.1], [11.5])
    assert fuzz("AB" * 16).apply(rows)["main"].equals(fuzz("ab" * 16).apply(rows)["main"])
    assert not fuzz("sixteen letters!").apply(rows)["main"].equals(fuzz("SIXTEEN LETTERS!").apply(rows)["main"])


@pytest.mark.parametrize(("options", "quantiles"), [(LAPLACE, (1.67835 * 25, 4.74386 * 25)), ({}, (50 * 0.5**0.5, 50 * 0.95**0.5))])
def test_gps_14_half_and_nearly_all_displacements_are_as_far_as_theory_says(
    options: dict[str, Any], quantiles: tuple[float, float]
) -> None:
    distance, _ = noise(fuzz(cell_m=None, release="offset", **options), -33.9, 18.4, 10_000)
    np.testing.assert_allclose(np.quantile(distance, [0.5, 0.95]), quantiles, rtol=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "planar_laplace"}, "epsilon: planar_laplace needs epsilon, or"),
        ({"mode": "planar_laplace", "privacy_level": 0.7}, "epsilon: planar_laplace needs epsilon, or"),
        ({"mode": "planar_laplace", "epsilon": 0.1, "privacy_level": 0.7, "protection_radius_m": 9.0}, "epsilon: .* not both"),
        ({"epsilon": 0.1}, "mode: uniform_disc takes no epsilon"),
        ({"cell_m": None}, "release: there is no cell to release; give `cell_m`, or `release: offset`"),
        ({"base_use": "anchor", "base_lat": 1.0}, "base_use: anchor needs both base_lat and base_lon"),
        ({"scrub_fields": ["_row"]}, "scrub_fields: _row is the key"),
        ({"radius_meters": 0.0}, "radius_meters: expected from 0.1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fuzz(**options)


@pytest.mark.parametrize(
    ("options", "column", "message"),
    [
        ({}, "latitude", r"fields\.lat: no column 'latitude'; columns are _row, sensor_id, longitude"),
        ({}, "sensor_id", r"fields\.device: no column 'sensor_id'"),
        ({"bucket_s": 60.0}, "", r"fields\.time: no column 'timestamp'"),
        ({"scrub_fields": ["street"]}, "", r"scrub_fields\[0\]: no column 'street'"),
    ],
)
def test_a_missing_column_is_told_before_there_are_rows(options: dict[str, Any], column: str, message: str) -> None:
    rows = batch([48.1], [11.5]).slice(0, 0)
    with pytest.raises(OptionError, match=message):
        fuzz(**options).apply(rows.drop_columns([column]) if column else rows)


def test_a_column_of_the_wrong_type_is_told_before_there_are_rows() -> None:
    for name, values, path in (("latitude", [b"1"], "lat"), ("sensor_id", [["a"]], "device"), ("timestamp", [True], "time")):
        rows = batch([48.1], [11.5], timestamp=["2024-05-01T00:00:00Z"])
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values)).slice(0, 0)
        with pytest.raises(OptionError, match=rf"fields\.{path}: column '{name}'"):
            fuzz(bucket_s=60.0).apply(rows)


# -- the contract ------------------------------------------------------------------------------------------------------


class TestGpsFuzzContract(TransformContract):
    def make(self) -> GpsFuzz:
        return fuzz(**LAPLACE, bucket_s=60.0, scrub_fields=["location"])

    def rows(self) -> pa.RecordBatch:
        lat = [48.1, None, 95.0, 0.0, math.nan, -90.0] * 5
        lon = [11.5, None, 11.5, 0.0, 11.5, 180.0] * 5
        times = pa.array([f"2024-05-01T00:{row:02}:00Z" for row in range(29)] + ["later"])
        return batch(lat, lon, ["a", "b", None] * 10, timestamp=times, location=["48.1,11.5"] * 30)


class TestGpsFuzzThatRefusesRowsContract(TransformContract):
    def make(self) -> GpsFuzz:
        return fuzz(on_missing="drop", on_invalid="reject")

    def rows(self) -> pa.RecordBatch:
        return batch(["48.1", None, "48,1", "", "48.2"] * 6, [11.5, None, 11.5, None, 200.0] * 6, list(range(30)))
