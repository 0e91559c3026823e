"""Options: the base, buckets, what is refused, what is warned of; and the contract of all transforms."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fuzzed import LAPLACE, NOISES, WGS84, batch, fuzz, positions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lakeward import OptionError
from lakeward.secrets import Secret
from lakeward.testing import TransformContract
from lakeward.yamlfile.build import build, unwrapped
from lakeward.yamlfile.document import read_document
from lakeward_plugins.transforms.gps_fuzz import GpsFuzz


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


def test_base_as_anchor_takes_the_place_of_missing_and_valid_positions() -> None:
    rows = batch([None, 95.0, 48.1], [None, 1.0, 11.5])
    out = positions(fuzz(base_use="anchor", base_lat=37.7749, base_lon=-122.4194).apply(rows)["main"])
    plain = positions(fuzz().apply(batch([37.7749, 95.0, 37.7749], [-122.4194, 1.0, -122.4194]))["main"])
    np.testing.assert_array_equal(out, plain)
    assert np.isnan(out[0]).tolist() == [False, True, False]
    for row in (0, 2):
        assert WGS84.inv(out[1, row], out[0, row], -122.4194, 37.7749)[2] < 50 + 100


def test_base_is_a_fallback_unless_its_use_is_said() -> None:
    rows = batch([None, 48.1], [None, 11.5])
    base = {"base_lat": 37.7749, "base_lon": -122.4194}
    assert fuzz(**base).apply(rows)["main"].equals(fuzz(**base, base_use="fallback").apply(rows)["main"])
    assert fuzz(**base, base_use="ignore").apply(rows)["main"].equals(fuzz().apply(rows)["main"])


def test_rows_of_a_table_without_coordinates_get_those_of_the_base() -> None:
    rows = batch([37.7749] * 3, [-122.4194] * 3)
    bare = rows.drop_columns(["latitude", "longitude"])
    base = {"base_lat": 37.7749, "base_lon": -122.4194}
    for use in ("fallback", "anchor"):
        out = fuzz(**base, base_use=use).apply(bare)["main"]
        assert out.schema.names == ["_row", "sensor_id", "latitude", "longitude"]
        assert out.equals(fuzz().apply(rows)["main"])
    with pytest.raises(OptionError, match=r"^fields\.lat: no column 'latitude'"):
        fuzz(**base, base_use="ignore").apply(bare)


# -- all options -------------------------------------------------------------------------------------------------------

BLOCK = """
gps_fuzzing:
  enabled: true
  mode: uniform_disc        # uniform_disc (seed default) | planar_laplace | gaussian | grid | round | redact
  radius_meters: 50         # uniform_disc R; seed key
  epsilon: 0.04             # planar_laplace, per metre; or privacy_level + protection_radius_m
  privacy_level: 0.693      # l = ln 2; epsilon = l / protection_radius_m
  protection_radius_m: 200
  sigma_m: 25               # gaussian (per axis)
  cell_m: 100               # snap cell for sticky noise; null = none
  release: cell             # cell | offset (offset keeps the true shape inside a cell: weaker)
  bucket_s: null            # rotate noise every N seconds; null = never
  grid: {system: metric, resolution: 9}
  key: {secret: GPS_FUZZ_KEY}   # >= 16 bytes, from env/secret store, never inline; key_id is published, key is not
  fields: {lat: latitude, lon: longitude, device: sensor_id, time: timestamp}
  scrub_fields: [location, address, geohash, raw]   # any other field that can carry the position
  base_lat: 37.7749         # seed keys: see base_use
  base_lon: -122.4194
  base_use: fallback        # fallback (row has no coordinates) | anchor (output = base + noise) | ignore
  max_radius_m: null        # truncation; breaks pure eps (see 1.5)
  out_decimals: 6
  on_missing: pass          # pass(null stays null) | null | drop | error
  on_invalid: null          # null | drop | reject | error
  wrap_longitude: false     # true: 180 < |lon| <= 540 is wrapped
"""


@pytest.mark.parametrize("mode", ["uniform_disc", "planar_laplace", "gaussian", "grid", "round", "redact"])
def test_the_whole_block_is_taken_as_it_is_written(mode: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(BLOCK.replace("mode: uniform_disc", f"mode: {mode}"))
    options = read_document(tmp_path / "p.yaml", {}).data
    options["gps_fuzzing"]["key"] = Secret("0123456789abcdef", "env:GPS_FUZZ_KEY")  # tests/core/test_planning.py has the other form
    transform = build(GpsFuzz, unwrapped(GpsFuzz, options), tmp_path)
    assert transform.apply(batch([48.1], [11.5]))["main"].num_rows == 1
    if mode == "planar_laplace":
        assert transform.noise is not None
        assert transform.noise.scale == 25


def test_what_the_block_says_is_what_there_is_by_default(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(BLOCK)
    options = unwrapped(GpsFuzz, read_document(tmp_path / "p.yaml", {}).data)
    for name in ("key", "epsilon", "privacy_level", "protection_radius_m", "base_lat", "base_lon"):
        del options[name]
    key = {"key": Secret("0123456789abcdef", "env:GPS_FUZZ_KEY")}
    written, default = build(GpsFuzz, options | key, tmp_path), build(GpsFuzz, key, tmp_path)
    assert written.on_invalid is None  # an unquoted null in YAML, which does what "null" does
    written.on_invalid = "null"
    assert written == default


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"epsilon": 0.02}, 50),
        ({"privacy_level": 0.5, "protection_radius_m": 200.0}, 400),
        ({"protection_radius_m": 200.0}, 200 / math.log(2)),
        ({"epsilon": 0.02, "privacy_level": 0.5, "protection_radius_m": 200.0}, 50),
    ],
)
def test_epsilon_or_what_it_follows_from(options: dict[str, Any], scale: float) -> None:
    transform = fuzz(mode="planar_laplace", **options)
    assert transform.noise is not None
    assert transform.noise.scale == pytest.approx(scale)


@pytest.mark.parametrize("options", NOISES)
def test_no_noise_reaches_beyond_its_limit_and_what_is_nearer_stays(options: dict[str, Any]) -> None:
    lat, lon = np.full(2_000, 48.1), np.full(2_000, 11.5)
    free, held = (fuzz(**options, cell_m=None, max_radius_m=limit).apply(batch(lat, lon))["main"] for limit in (None, 40.0))
    far = [WGS84.inv(lon, lat, *positions(out)[::-1])[2] for out in (free, held)]
    assert far[1].max() <= 40.1
    assert (far[0] > 40.1).any()
    nearer = far[0] < 39.9
    np.testing.assert_array_equal(positions(free)[:, nearer], positions(held)[:, nearer])


# -- what is told at the start -----------------------------------------------------------------------------------------


def test_switched_off_it_passes_rows_on_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    rows = batch([48.1, None, 95.0], [11.5, None, 1.0], location=["a", "b", "c"])
    out = GpsFuzz(enabled=False).apply(rows)["main"]  # no key, either
    assert out is rows
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "switched off (enabled: false): TRUE POSITIONS go on" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.1}, "epsilon does nothing in mode uniform_disc; did you mean `mode: planar_laplace`?"),
        ({"mode": "gaussian", "protection_radius_m": 9.0}, "protection_radius_m does nothing in mode gaussian"),
        ({"mode": "planar_laplace", "epsilon": 0.1, "protection_radius_m": 9.0}, "epsilon 0.1 is used; "),
        ({"mode": "round"}, "mode round with out_decimals 6 moves positions by less than 0.11 m, which hides nobody"),
        ({"cell_m": None}, "without cell_m a device has one shift for ever"),
        ({"mode": "redact", "max_radius_m": 5.0}, "max_radius_m does nothing in mode redact"),
    ],
)
def test_what_may_not_be_meant_is_warned_of(options: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture) -> None:
    fuzz(**options)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert message in caplog.text


def test_what_it_costs_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fuzz(**LAPLACE, bucket_s=60.0, max_radius_m=200.0, key_id="spring")
    assert "key spring" in caplog.text
    assert "n of them cost n times 0.04 per metre" in caplog.text
    assert f"delta = {stats.gamma.sf(200, 2, scale=25):.2g}" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "planar_laplace"}, "epsilon: planar_laplace needs epsilon, or"),
        ({"mode": "planar_laplace", "privacy_level": 0.7}, "epsilon: planar_laplace needs epsilon, or"),
        ({"mode": "grid", "cell_m": None}, "cell_m: a metric grid needs the size of its cells"),
        ({"base_use": "anchor"}, "base_use: a base needs both base_lat and base_lon"),
        ({"base_lat": 1.0}, "base_lat: a base needs both base_lat and base_lon"),
        ({"base_lon": 1.0, "base_use": "ignore"}, "base_lon: a base needs both"),
        ({"scrub_fields": ["a"], "keep_fields": ["a"]}, "keep_fields: a is in scrub_fields, too"),
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
