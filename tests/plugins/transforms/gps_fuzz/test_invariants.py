"""GPS-1 to GPS-14, by number. GPS-11 also has tests/pipelines/test_gps_privacy.py: all that a run leaves behind."""

import hmac
import logging
import math
import os
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fuzzed import DISC, EXACT, GAUSSIAN, HEX_KEY, LAPLACE, NOISES, WGS84, batch, fuzz, moving, noise, positions, reference
from geographiclib.geodesic import Geodesic
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import lambertw

from lakeward import OptionError
from lakeward.errors import Refused
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.transforms.gps_fuzz import GpsFuzz
from lakeward_plugins.transforms.gps_fuzz.noise import Uniforms, gaussian, planar_laplace, uniform_disc
from lakeward_plugins.transforms.gps_fuzz.report import Measured

# -- what the noise is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [LAPLACE, {"mode": "planar_laplace", "privacy_level": 8.0, "protection_radius_m": 200.0}])
def test_gps_01_planar_laplace_radius_is_gamma_2(options: dict[str, Any]) -> None:
    count = 20_000
    distance, _ = noise(fuzz(**EXACT, **options), 52.5, 13.4, count)
    assert stats.kstest(distance, stats.gamma(2, scale=25).cdf).pvalue > 1e-4
    assert abs(distance.mean() - 50) <= 4.5 * math.sqrt(2) * 25 / math.sqrt(count)


def test_gps_02_uniform_disc_stays_inside_and_is_even() -> None:
    distance, _ = noise(fuzz(**EXACT, radius_meters=80.0), 52.5, 13.4, 20_000)
    assert distance.max() <= 80 * (1 + 1e-9)
    assert stats.kstest(distance, lambda r: (r / 80) ** 2).pvalue > 1e-4


def test_gps_02_gaussian_radius_is_rayleigh() -> None:
    distance, _ = noise(fuzz(**EXACT, **GAUSSIAN), 52.5, 13.4, 20_000)
    assert stats.kstest(distance, stats.rayleigh(scale=25).cdf).pvalue > 1e-4


@pytest.mark.parametrize("options", NOISES)
def test_gps_03_directions_are_even_and_tell_nothing_of_the_distance(options: dict[str, Any]) -> None:
    count = 20_000
    distance, azimuth = noise(fuzz(**EXACT, **options), 52.5, 13.4, count)
    assert stats.kstest(azimuth / 360, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(distance, azimuth)[0, 1]) <= 4.5 / math.sqrt(count)
    for part in (np.sin(np.radians(azimuth)) * distance, np.cos(np.radians(azimuth)) * distance):
        assert abs(part.mean()) <= 4.5 * part.std() / math.sqrt(count)


def test_gps_04_inverse_distribution_is_lambert_w_and_gamma() -> None:
    p = np.concatenate([np.logspace(-6, -1, 500), np.linspace(0.1, 0.9, 500), 1 - np.logspace(-1, -6, 500)])
    np.testing.assert_allclose(planar_laplace(p), stats.gamma.ppf(p, 2), rtol=1e-9)
    apart = p[p > 1e-3]  # nearer to its branch point scipy's own W has fewer digits
    np.testing.assert_allclose(planar_laplace(apart), -1 - lambertw((apart - 1) / math.e, -1).real, rtol=1e-9)
    np.testing.assert_allclose(uniform_disc(p) ** 2, p, rtol=1e-12)
    np.testing.assert_allclose(gaussian(p), stats.rayleigh.ppf(p), rtol=1e-9)


def test_gps_04_the_ends_are_finite() -> None:
    ends = planar_laplace(np.array([0.0, 2.0**-53, 1 - 2.0**-53]))
    np.testing.assert_allclose(ends, [0, math.sqrt(2.0**-52), stats.gamma.isf(2.0**-53, 2)], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("options", NOISES)
@pytest.mark.parametrize("lat", [0, 45, 64, 85, 89.9995])
def test_gps_05_noise_is_as_wide_as_high_at_every_latitude(lat: float, options: dict[str, Any]) -> None:
    distance, azimuth = noise(fuzz(**EXACT, **options), lat, 25.0, 5_000)
    east, north = np.sin(np.radians(azimuth)) * distance, np.cos(np.radians(azimuth)) * distance
    surplus = east**2 - north**2
    assert abs(surplus.mean()) <= 4.5 * surplus.std() / math.sqrt(len(surplus))
    ratio = east.std() / north.std()
    fourth = (east**4).mean() / east.var() ** 2 - 1  # the variance of a variance
    assert abs(ratio - 1) <= 4.5 * math.sqrt(fourth / len(east) / 2)


EDGES = [(90, 0), (-90, 10), (89.99999, -180), (-89.9999, 180), (0, 180), (0, -180), (10, 179.9999), (-10, -179.9999), (0, 0), (45, 90)]


@pytest.mark.parametrize("options", [{**DISC, "radius_meters": 500.0}, LAPLACE, {**GAUSSIAN, "sigma_m": 20_000.0}])
def test_gps_06_output_lies_at_the_distance_and_direction_that_were_meant(options: dict[str, Any]) -> None:
    lat, lon = np.array(EDGES, float).T
    transform = fuzz(**options, **EXACT)
    out = positions(transform.apply(batch(lat, lon))["main"])
    for row, (start, end) in enumerate(zip(EDGES, out.T, strict=True)):
        u1, meant = reference(options["mode"], f"sensor-{row}")
        assert transform.noise is not None
        found = Geodesic.WGS84.Inverse(*start, *end)
        assert abs(found["s12"] - transform.noise.distances(np.array([u1]))[0]) < 1e-6
        if abs(start[0]) < 90:  # at a pole every direction is south or north
            assert abs((found["azi1"] - meant + 180) % 360 - 180) < 1e-5


# -- that it sticks ----------------------------------------------------------------------------------------------------

OTHER_PROCESS = """
import sys, pyarrow as pa
from lakeward.secrets import Secret
from lakeward_plugins.transforms.gps_fuzz import GpsFuzz
transform = GpsFuzz(key=Secret(sys.argv[1], "env:KEY"), mode="planar_laplace", epsilon=0.04, bucket_s=3600.0)
with pa.ipc.open_stream(sys.stdin.buffer) as rows, pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as writer:
    for batch in rows:
        writer.write_batch(transform.apply(batch)["main"])
"""


def in_processes(parts: list[pa.RecordBatch], processes: int) -> list[pa.RecordBatch]:
    """What so many processes at once make of the parts, each with its own transform, which takes every n-th part."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    started = []
    for number in range(processes):
        mine, given = parts[number::processes], pa.BufferOutputStream()
        with pa.ipc.new_stream(given, parts[0].schema) as writer:
            for part in mine:
                writer.write_batch(part)
        command = [sys.executable, "-c", OTHER_PROCESS, HEX_KEY]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert process.stdin is not None
        process.stdin.write(given.getvalue().to_pybytes())
        process.stdin.close()
        started.append(process)
    made: list[pa.RecordBatch] = []
    for process in started:
        assert process.stdout is not None
        made += pa.ipc.open_stream(process.stdout.read())
        process.stdout.close()
        assert process.wait() == 0
    return made


def by_row(parts: list[pa.RecordBatch]) -> np.ndarray:
    return positions(pa.Table.from_batches(parts).sort_by("_row").combine_chunks().to_batches()[0])


STICKY = {**LAPLACE, "bucket_s": 3600.0}


@pytest.mark.parametrize("size", [1, 500, 1777])
def test_gps_07_same_in_one_batch_and_in_many(size: int) -> None:
    rows = moving(5_000 if size > 1 else 300)
    transform = fuzz(**STICKY)
    cut = [transform.apply(rows.slice(start, size))["main"] for start in range(0, rows.num_rows, size)]
    np.testing.assert_array_equal(by_row(cut), positions(transform.apply(rows)["main"]))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_gps_07_same_in_any_order_and_after_a_restart(seed: int) -> None:
    rows = moving(5_000)
    order = np.random.default_rng(seed).permutation(5_000)
    shuffled = fuzz(**STICKY).apply(rows.take(pa.array(order)))["main"]
    np.testing.assert_array_equal(positions(shuffled), positions(fuzz(**STICKY).apply(rows)["main"])[:, order])


@pytest.mark.slow
@pytest.mark.one_python
def test_gps_07_same_in_eight_processes_over_shuffled_partitions() -> None:
    """What Spark's mapInPandas would do with 1, 7 and 64 partitions; Spark itself is not part of the tests."""
    rows = moving(5_000)
    whole = positions(fuzz(**STICKY).apply(rows)["main"])
    order = np.random.default_rng(4).permutation(5_000)
    shuffled = rows.take(pa.array(order))
    for partitions, processes in ((1, 1), (7, 3), (64, 4)):  # eight processes in all
        edges = np.linspace(0, 5_000, partitions + 1).astype(int)
        parts = [shuffled.slice(start, end - start) for start, end in pairwise(edges)]
        np.testing.assert_array_equal(by_row(in_processes(parts, processes)), whole)


def test_gps_08_a_fixed_device_has_one_position() -> None:
    out = positions(fuzz(**LAPLACE).apply(batch(np.full(10_000, 48.1), np.full(10_000, 11.5), "mast"))["main"])
    assert len(np.unique(out, axis=1).T) == 1


def test_gps_08_jitter_of_the_receiver_gives_at_most_four() -> None:
    random = np.random.default_rng(3)
    jitter = random.normal(0, 5 / 111_320, (2, 2_000))
    for number in range(20):
        lat, lon = random.uniform(-60, 60), random.uniform(-170, 170)
        fixes = batch(lat + jitter[0], lon + jitter[1] / math.cos(math.radians(lat)), f"mast-{number}")
        assert len(np.unique(positions(fuzz(**LAPLACE).apply(fixes)["main"]), axis=1).T) <= 4


def test_gps_08_a_bucket_or_independent_noise_would_average_out() -> None:
    """Why the noise sticks: a year of days with new noise gives the position away, one noise does not."""
    times = pa.array(1.7e9 + 86_400.0 * np.arange(365))
    rows = batch(np.full(365, 48.1), np.full(365, 11.5), "mast", timestamp=times)
    errors = []
    for options in ({}, {"bucket_s": 86_400.0}):
        lat, lon = positions(fuzz(**LAPLACE, **options, cell_m=None).apply(rows)["main"])
        errors.append(WGS84.inv(11.5, 48.1, lon.mean(), lat.mean())[2])
    once, again = errors
    u1, _ = reference("planar_laplace", "mast")
    assert once == pytest.approx(stats.gamma.ppf(u1, 2, scale=25), abs=0.1)
    assert again < 4 * math.sqrt(6 / 365) * 25


def test_gps_09_another_key_or_device_has_other_noise() -> None:
    count = 5_000
    lat, lon = np.full(count, 48.1), np.full(count, 11.5)
    mine = positions(fuzz().apply(batch(lat, lon))["main"])
    other_key = positions(fuzz(HEX_KEY[::-1]).apply(batch(lat, lon))["main"])
    other_device = positions(fuzz().apply(batch(lat, lon, [f"other-{row}" for row in range(count)]))["main"])
    for other in (other_key, other_device):
        assert (mine != other).any(axis=0).all()
        for axis in (0, 1):
            assert abs(np.corrcoef(mine[axis], other[axis])[0, 1]) <= 4.5 / math.sqrt(count)


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


# -- rows without a position -------------------------------------------------------------------------------------------

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
        ({"on_missing": "reject"}, [0, 2, 3], "rejected"),
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
    out = fuzz(on_missing="reject", on_invalid="reject").apply(rows)["rejected"]
    assert out.column("_row").to_pylist() == [0, 1, 2, 3]
    assert out.column("_reason").to_pylist() == ["position_invalid", "position_missing"] * 2
    assert out.column("_detail").to_pylist()[:2] == ["latitude or longitude is out of range", "no latitude and no longitude"]


@pytest.mark.parametrize(("option", "counted"), [("on_missing", "no latitude and no longitude: 1"), ("on_invalid", "is out of range: 1")])
def test_gps_12_error_ends_the_run_and_says_how_many_but_not_where(option: str, counted: str) -> None:
    with pytest.raises(Refused, match=counted) as error:
        fuzz(**{option: "error"}).apply(batch([48.12345, None, 95.54321], [11.98765, None, 11.13579]))
    assert not [digits for digits in ("48.1", "11.9", "95.5", "11.1") if digits in str(error.value)]
    good = batch([48.1], [11.5])
    assert fuzz(**{option: "error"}).apply(good)["main"].equals(fuzz().apply(good)["main"])


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", NOISES)
def test_gps_13_without_a_key_there_is_no_noise(options: dict[str, Any]) -> None:
    with pytest.raises(Mistakes) as error:
        build(GpsFuzz, options, Path())
    assert [mistake.path for mistake in error.value.mistakes] == [("key",)]
    assert "required, but missing: ${env:GPS_FUZZ_KEY} is not set" in error.value.mistakes[0].message


@pytest.mark.parametrize("mode", ["grid", "round", "redact"])
def test_gps_13_what_uses_no_noise_needs_no_key(mode: str) -> None:
    out = GpsFuzz(mode=mode, out_decimals=3).apply(batch([48.12345], [11.98765]))["main"]  # type: ignore[arg-type]  # one of the modes
    assert out.num_rows == 1


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


@given(st.binary(min_size=16, max_size=200), st.lists(st.lists(st.binary(max_size=70) | st.sampled_from([b"", b"a", b"b"]), max_size=5)))
@settings(deadline=None)
def test_messages_are_hashed_as_the_standard_library_does(key: bytes, batches: list[list[bytes]]) -> None:
    uniforms = Uniforms(key, b"prefix")
    for messages in batches:
        digests = [hmac.digest(key, b"prefix" + message, "sha256") for message in messages]
        wanted = [[(int.from_bytes(digest[at : at + 8], "big") >> 11) * 2.0**-53 for digest in digests] for at in (0, 8)]
        assert [found.tolist() for found in uniforms.of(pa.array(messages, pa.large_binary()))] == wanted


# -- utility -----------------------------------------------------------------------------------------------------------

QUANTILES = {
    "uniform_disc": lambda p: 50 * math.sqrt(p),
    "planar_laplace": lambda p: stats.gamma.ppf(p, 2, scale=25),
    "gaussian": lambda p: stats.rayleigh.ppf(p, scale=25),
}


@pytest.mark.parametrize("options", NOISES)
def test_gps_14_half_and_nearly_all_displacements_are_as_far_as_theory_says(options: dict[str, Any]) -> None:
    distance, _ = noise(fuzz(cell_m=None, release="offset", **options), -33.9, 18.4, 10_000)
    wanted = [QUANTILES[options["mode"]](share) for share in (0.5, 0.95)]
    np.testing.assert_allclose(np.quantile(distance, [0.5, 0.95]), wanted, rtol=0.03)


@pytest.mark.parametrize("options", NOISES)
@pytest.mark.parametrize("cells", [{"cell_m": None}, {"cell_m": 100.0}, {"cell_m": 400.0, "release": "offset"}])
def test_gps_14_the_report_tells_what_was_measured_and_what_theory_says(options: dict[str, Any], cells: dict[str, Any]) -> None:
    random = np.random.default_rng(5)
    count = 20_000
    rows = batch(random.uniform(-70, 70, count), random.uniform(-180, 180, count))
    transform = fuzz(**options, **cells)
    measured = Measured(transform)
    measured.add(rows, transform.apply(rows))
    found = measured.result()["displacement_m"]
    out = positions(transform.apply(rows)["main"])
    distance = WGS84.inv(rows.column("longitude").to_numpy(), rows.column("latitude").to_numpy(), out[1], out[0])[2]
    assert found["draws"] == count
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        assert found[name]["measured"] == pytest.approx(np.quantile(distance, share))
        assert found[name]["measured"] == pytest.approx(found[name]["theory"]["metres"], rel=0.03)
        if cells.get("release", "cell") == "offset" or cells["cell_m"] is None:
            assert found[name]["theory"]["metres"] == pytest.approx(QUANTILES[options["mode"]](share), rel=0.001)
        assert found[name]["theory"]["low"] < found[name]["theory"]["metres"] < found[name]["theory"]["high"]
