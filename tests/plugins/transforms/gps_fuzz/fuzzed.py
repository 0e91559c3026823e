"""What the tests of gps_fuzz share: transforms, rows, positions, and the derivation written down once more."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from geographiclib.geodesic import Geodesic
from pyproj import Geod

from lakeward.secrets import Secret
from lakeward_plugins.transforms.gps_fuzz import GpsFuzz

DATA = Path(os.environ.get("LAKEWARD_TEST_DATA", Path(__file__).parents[5] / "shared" / "data"))
WGS84 = Geod(ellps="WGS84")
HEX_KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
EXACT = {"cell_m": None, "release": "offset", "out_decimals": 15}
DISC = {"mode": "uniform_disc", "radius_meters": 50.0}
LAPLACE = {"mode": "planar_laplace", "epsilon": 0.04}
GAUSSIAN = {"mode": "gaussian", "sigma_m": 25.0}
NOISES = [DISC, LAPLACE, GAUSSIAN]


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


def moving(count: int) -> pa.RecordBatch:
    random = np.random.default_rng(7)
    device = pa.array([f"truck-{number % 40}" for number in range(count)])
    lat, lon = random.normal(48, 0.01, count), random.normal(11, 0.01, count)
    return batch(lat, lon, device, timestamp=1.7e9 + random.integers(0, 86_400, count).astype(float))


# -- the derivation of the noise, written down once more as plainly as possible ----------------------------------------


def reference(mode: str, device: str, cell: str = "", bucket: str = "", key: str = HEX_KEY) -> tuple[float, float]:
    """u1 and azimuth."""
    text = "\0".join(["lakeward/gps/v1", mode, device, cell, bucket])
    digest = hmac.new(bytes.fromhex(key), text.encode(), hashlib.sha256).digest()
    u1, u2 = ((int.from_bytes(digest[start : start + 8], "big") >> 11) / 2**53 for start in (0, 8))
    return u1, 360 * u2


def reference_cell(lat: float, lon: float, cell_m: float) -> tuple[str, float, float]:
    """Text and centre."""
    rows = math.ceil(math.pi * 6378137 / cell_m)
    lon = -180.0 if lon == 180 else lon
    row = min(math.floor((lat + 90) * rows / 180), rows - 1)
    middle = -90 + (row + 0.5) * 180 / rows
    columns = math.ceil(2 * rows * math.cos(math.radians(middle)))
    column = min(math.floor((lon + 180) / 360 * columns), columns - 1)
    return f"{row}:{column}", middle, -180 + (column + 0.5) * 360 / columns


def reference_output(
    options: dict[str, Any], distance: Any, device: str, lat: float, lon: float, unix_s: float, key: str = HEX_KEY
) -> tuple[float, float]:
    """Latitude and longitude of one row. `distance` is the inverse distribution of the mode, in metres."""
    cell, start = "", (lat, lon)
    if options.get("cell_m"):
        cell, *centre = reference_cell(lat, lon, options["cell_m"])
        start = tuple(centre) if options.get("release", "cell") == "cell" else start
    bucket = str(math.floor(unix_s / options["bucket_s"])) if options.get("bucket_s") else ""
    u1, azimuth = reference(options["mode"], device, cell, bucket, key)
    out = Geodesic.WGS84.Direct(*start, azimuth, distance(u1))
    return out["lat2"], out["lon2"]
