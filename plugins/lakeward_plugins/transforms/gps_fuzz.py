"""Hides exact positions behind noise that sticks: a device in a place gets the same noise in every batch, process and run.

Fresh noise for each reading would not hide a fixed sensor, because it averages out: of 10,000 readings the mean is under a metre off.
So nothing is drawn; the noise is a function of a secret key:

    digest   HMAC-SHA256(key, "lakeward/gps/v1" NUL mode NUL device NUL cell NUL bucket)
    u1, u2   the first two big-endian 64-bit words of the digest, the upper 53 bits of each over 2**53
    radius   the distance that a share u1 of all distances is below; the direction is 360 degrees * u2, clockwise from north
    output   the point at that distance and direction from the origin, along the geodesic on the WGS84 ellipsoid

`device` is its column as text, `cell` is row:column, `bucket` is floor(seconds since 1970 / bucket_s); what there is not is empty.
The origin is the centre of the cell (release: cell) or the true position (release: offset).

planar_laplace is the mechanism of geo-indistinguishability (Andrés et al., CCS 2013, arXiv:1212.1984), whose guarantee is for each
independent release; uniform_disc has none. With `bucket_s` a device gets new noise in each bucket, which averages out again.
"""

from __future__ import annotations

import hmac
import logging
import math
import re
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field, frozen

from lakeward import ROW, OptionError, filtered, option, rejected
from lakeward.secrets import Secret
from lakeward.timestamps import to_utc
from lakeward_plugins.transforms.gps_geometry import DISTANCES, WGS84, Floats, Grid, Ints, below_180

log = logging.getLogger("lakeward.gps_fuzz")

Bools = npt.NDArray[np.bool_]

Mode = Literal["uniform_disc", "planar_laplace"]
Release = Literal["cell", "offset"]
BaseUse = Literal["fallback", "anchor", "ignore"]
OnMissing = Literal["pass", "null", "drop", "error"] | None  # an unquoted null in YAML is None
OnInvalid = Literal["null", "drop", "reject"] | None


@frozen
class Fields:
    """Which columns the rows have these in."""

    lat: str = option("latitude", help="Column of the latitude, in degrees.")
    lon: str = option("longitude", help="Column of the longitude, in degrees.")
    device: str = option("sensor_id", help="Column that says whose position it is; rows with NULL count as one device.")
    time: str = option("timestamp", help="Column of the time, read only with `bucket_s`.")


@define(kw_only=True)
class GpsFuzz:
    """Replaces latitude and longitude by a position some way off, always the same one for a device in a place.

    Positions may be numbers or text, and become double. One is missing when both its columns are NULL or empty, and invalid when one of
    them is, or is no finite number, or is out of range. (0, 0) is taken as it is; the log counts it as suspect_null_island.
    """

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = True

    mode: Mode = option("uniform_disc", help="Distances spread evenly over a disc, or without limit but with a formal guarantee.")
    key: Secret = option(help="Secret of at least 16 bytes: text, or 32 and more hexadecimal digits, which stand for bytes.")
    radius_meters: float = option(50.0, help="Radius of the disc of uniform_disc.", unit="m", minimum=0.1, maximum=1e6)
    epsilon: float | None = option(None, help="Privacy lost per metre, for planar_laplace.", unit="1/m", minimum=1e-6, maximum=10)
    privacy_level: float | None = option(None, help="In place of epsilon: privacy lost over the radius.", minimum=1e-3, maximum=100)
    protection_radius_m: float | None = option(None, help="In place of epsilon: the radius.", unit="m", minimum=0.1, maximum=1e6)
    cell_m: float | None = option(100.0, help="Size of the cells within which the noise stays the same.", unit="m", minimum=1, maximum=1e6)
    release: Release = option("cell", help="Move the cell's centre, or (offset) the true position, which shows how it moves in the cell.")
    bucket_s: float | None = option(None, help="Change the noise this often; weaker, as it averages out.", unit="s", minimum=1, maximum=1e9)
    fields: Fields = option(factory=Fields, help="The columns to read.")
    scrub_fields: list[str] = option(factory=list, help="Other columns that can tell the position, such as an address; they become NULL.")
    base_lat: float | None = option(None, help="Latitude of the base.", unit="degrees", minimum=-90, maximum=90)
    base_lon: float | None = option(None, help="Longitude of the base.", unit="degrees", minimum=-180, maximum=180)
    base_use: BaseUse = option("ignore", help="Take the base for missing positions (fallback) or in place of all valid ones (anchor).")
    out_decimals: int = option(6, help="Decimals of the output; the sixth is a tenth of a metre.", minimum=0, maximum=15)
    on_missing: OnMissing = option("pass", help="Rows without position: leave it NULL (pass, null), drop, or make dead letters (error).")
    on_invalid: OnInvalid = option("null", help="Rows with an invalid position: make it NULL, drop, or make dead letters (reject).")
    wrap_longitude: bool = option(False, help="Take longitudes beyond 180 and up to 540 degrees as once around too far.")
    _mac: hmac.HMAC = field(init=False, repr=False)
    _scale: float = field(init=False)
    _grid: Grid | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._mac = hmac.new(_key_bytes(self.key), b"lakeward/gps/v1\0%b\0" % self.mode.encode(), "sha256")
        self._scale = self._metres()
        self._grid = Grid(math.ceil(math.pi * WGS84.a / self.cell_m)) if self.cell_m is not None else None
        if self._grid is None and self.release == "cell":
            raise OptionError("release", "there is no cell to release; give `cell_m`, or `release: offset`")
        if self.base_use != "ignore" and (self.base_lat is None or self.base_lon is None):
            raise OptionError("base_use", f"{self.base_use} needs both base_lat and base_lon")
        if ROW in self.scrub_fields:
            raise OptionError("scrub_fields", f"{ROW} is the key of the rows; it cannot be removed")

    def _metres(self) -> float:
        """The radius of the disc, or 1/epsilon."""
        reach = self.privacy_level, self.protection_radius_m
        if self.mode == "uniform_disc":
            if self.epsilon or any(reach):
                raise OptionError("mode", "uniform_disc takes no epsilon and no privacy_level; did you mean planar_laplace?")
            return self.radius_meters
        if self.epsilon and not any(reach):
            return 1 / self.epsilon
        if self.privacy_level and self.protection_radius_m and not self.epsilon:
            return self.protection_radius_m / self.privacy_level
        raise OptionError("epsilon", "planar_laplace needs epsilon, or privacy_level with protection_radius_m, and not both")

    def apply(self, batch: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
        """The rows, moved; those without a position go where `on_missing` and `on_invalid` say."""
        self._check(batch.schema)
        (lat, no_lat), (lon, no_lon) = (self._degrees(batch, which) for which in ("lat", "lon"))
        if self.wrap_longitude:
            lon = np.where((np.abs(lon) > 180) & (np.abs(lon) <= 540), lon - np.copysign(360, lon), lon)
        causes = _causes(lat, no_lat, lon, no_lon)
        null_island = int(((lat == 0) & (lon == 0)).sum())
        if self.base_use != "ignore":
            based = causes == (GOOD if self.base_use == "anchor" else MISSING)
            lat[based], lon[based], causes[based] = self.base_lat, self.base_lon, GOOD
        buckets = self._buckets(batch, causes)
        good = causes == GOOD
        names, devices = _names(batch.column(self.fields.device))
        moved = self._move(lat[good], below_180(lon[good]), names, devices[good], buckets[good])
        lat[good], lon[good] = (np.round(part, self.out_decimals) + 0.0 for part in moved)  # + 0.0 turns -0.0 into 0.0
        lat[~good], lon[~good] = np.nan, np.nan  # what lies under a NULL is written out as well
        _tell(causes, null_island)
        return self._part(self._hide(batch, pa.array(lat, mask=~good), pa.array(below_180(lon), mask=~good)), causes)

    def _check(self, schema: pa.Schema) -> None:
        read = ("lat", "lon", "device") if self.bucket_s is None else ("lat", "lon", "device", "time")
        names = {f"fields.{which}": getattr(self.fields, which) for which in read}
        names |= {f"scrub_fields[{number}]": name for number, name in enumerate(self.scrub_fields)}
        for path, name in names.items():
            if name not in schema.names:
                raise OptionError(path, f"no column {name!r}; columns are {', '.join(schema.names)}")
        device = schema.field(self.fields.device)
        if pa.types.is_nested(device.type):
            raise OptionError("fields.device", f"column {device.name!r} is {device.type}; expected text or numbers")

    def _degrees(self, batch: pa.RecordBatch, which: str) -> tuple[Floats, Bools]:
        """Degrees, NaN where they cannot be read; and where there is nothing to read."""
        name = getattr(self.fields, which)
        column = _plain(batch.column(name))
        kind, empty = column.type, column.is_null()
        if pa.types.is_large_string(kind):
            text = pc.ascii_trim_whitespace(column)
            empty = pc.equal(text, pa.scalar("", kind)).fill_null(True)
            column = pc.if_else(pc.match_substring_regex(text, PLAIN_NUMBER), text, pa.scalar(None, kind))
        elif pa.types.is_boolean(kind):  # true is not one degree
            column = pa.nulls(len(column), pa.float64())
        elif not any(test(kind) for test in NUMERIC):
            raise OptionError(f"fields.{which}", f"column {name!r} is {kind}; expected numbers or text")
        degrees = column.cast(pa.float64(), safe=False).fill_null(np.nan)  # unsafe: integers that lose digits are out of range
        return np.array(degrees), np.array(empty)  # copies, which may be written to

    def _buckets(self, batch: pa.RecordBatch, causes: Ints) -> Ints:
        """The bucket of each row. Good rows without a time get that as their cause."""
        if self.bucket_s is None:
            return np.zeros(batch.num_rows, np.int64)
        try:
            times, _ = to_utc(batch.column(self.fields.time))
        except TypeError as error:
            raise OptionError("fields.time", f"column {self.fields.time!r}: {error}") from error
        causes[(causes == GOOD) & np.asarray(times.is_null())] = NO_TIME
        micros: Ints = np.asarray(times.cast(pa.int64()).fill_null(0))
        return np.floor(micros / 1e6 / self.bucket_s).astype(np.int64)

    def _move(self, lat: Floats, lon: Floats, names: list[bytes], devices: Ints, buckets: Ints) -> tuple[Floats, Floats]:
        """The positions, moved; the work is done once for each distinct device, cell and bucket."""
        cells, cell = np.unique(self._grid.cells(lat, lon) if self._grid else np.zeros_like(devices), return_inverse=True)
        times, time = np.unique(buckets, return_inverse=True)
        triples, inverse = np.unique((devices * len(cells) + cell) * len(times) + time, return_inverse=True)
        pairs, time = np.divmod(triples, len(times))
        device, cell = np.divmod(pairs, len(cells))
        cell_texts = self._grid.texts(cells) if self._grid else [b""]
        time_texts = [b"" if self.bucket_s is None else b"%d" % number for number in times.tolist()]
        indices = zip(device.tolist(), cell.tolist(), time.tolist(), strict=True)
        u1, u2 = self._uniform(b"%b\0%b\0%b" % (names[d], cell_texts[c], time_texts[t]) for d, c, t in indices)
        azimuth, distance = 360 * u2, self._scale * DISTANCES[self.mode](u1)
        if self._grid and self.release == "cell":
            moved = WGS84.fwd(*self._grid.centres(cells[cell]), azimuth, distance, return_back_azimuth=False)
            return moved[1][inverse], moved[0][inverse]
        moved = WGS84.fwd(lon, lat, azimuth[inverse], distance[inverse], return_back_azimuth=False)
        return moved[1], moved[0]

    def _uniform(self, messages: Iterable[bytes]) -> tuple[Floats, Floats]:
        """u1 and u2 of each message."""
        digests = bytearray()
        for message in messages:
            mac = self._mac.copy()
            mac.update(message)
            digests += mac.digest()
        words = np.frombuffer(digests, ">u8") >> 11
        return words[0::4] * 2.0**-53, words[1::4] * 2.0**-53

    def _hide(self, batch: pa.RecordBatch, lat: pa.Array[Any], lon: pa.Array[Any]) -> pa.RecordBatch:
        """All rows without their true position: dead letters are kept and read, too."""
        columns, schema = batch.columns, batch.schema
        scrubbed = {name: pa.nulls(batch.num_rows, schema.field(name).type) for name in self.scrub_fields}
        for name, column in {**scrubbed, self.fields.lat: lat, self.fields.lon: lon}.items():
            index = schema.get_field_index(name)
            columns[index] = column
            schema = schema.set(index, schema.field(index).with_type(column.type).with_nullable(True))
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _part(self, batch: pa.RecordBatch, causes: Ints) -> dict[str, pa.RecordBatch]:
        kept = np.ones(batch.num_rows, np.bool_)
        leaving: dict[str, list[pa.RecordBatch]] = {}
        missing, invalid = (causes == MISSING, "position_missing", self.on_missing), (causes > MISSING, "position_invalid", self.on_invalid)
        for rows, reason, action in (missing, invalid):
            if action in LEAVES_BY and rows.any():
                kept &= ~rows
                port, part, details = LEAVES_BY[action], batch.filter(pa.array(rows)), CAUSES.take(causes[rows])
                leaving.setdefault(port, []).append(filtered(part, reason) if port == "filtered" else rejected(part, reason, details))
        return {"main": batch if kept.all() else batch.filter(pa.array(kept))} | {port: _in_order(parts) for port, parts in leaving.items()}


# -- values ------------------------------------------------------------------------------------------------------------

NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
PLAIN_NUMBER = r"^[+-]?(?:\d{1,15}(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,2})?$"  # a decimal comma could be two things, so it is none
LEAVES_BY = {"drop": "filtered", "error": "rejected", "reject": "rejected"}
GOOD, MISSING, ONE_MISSING, NO_NUMBER, OUT_OF_RANGE, NO_TIME = range(6)
CAUSES = pa.array([
    "valid", "no latitude and no longitude", "latitude or longitude is missing", "latitude or longitude is no finite number",
    "latitude or longitude is out of range", "no time that can be read, to know the bucket",
])  # fmt: skip


def _causes(lat: Floats, no_lat: Bools, lon: Floats, no_lon: Bools) -> Ints:
    """Why each row has no position, or GOOD."""
    finite = np.isfinite(lat) & np.isfinite(lon)
    inside = (np.abs(lat) <= 90) & (np.abs(lon) <= 180)
    return np.select([no_lat & no_lon, no_lat | no_lon, ~finite, ~inside], [MISSING, ONE_MISSING, NO_NUMBER, OUT_OF_RANGE], GOOD)


def _tell(causes: Ints, null_island: int) -> None:
    """How many rows have no position and why; never where any of them is."""
    counts = zip(CAUSES.to_pylist(), np.bincount(causes, minlength=len(CAUSES)).tolist(), strict=True)
    found = [f"{cause}: {count}" for cause, count in [*counts, ("suspect_null_island", null_island)] if count and cause != "valid"]
    if found:
        log.info("of %d rows: %s", len(causes), ", ".join(found))


def _names(column: pa.Array[Any]) -> tuple[list[bytes], Ints]:
    """The distinct devices as text, and the number of each row's in that list."""
    column = _plain(column)
    if pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())  # text from SQLite need not be UTF-8
    distinct = column.dictionary_encode(null_encoding="encode")
    names = [b"" if name is None else name for name in distinct.dictionary.to_pylist()]
    return [name if isinstance(name, bytes) else str(name).encode() for name in names], np.asarray(distinct.indices).astype(np.int64)


def _plain(column: Any) -> Any:
    """Without a dictionary, and with one type for all text."""
    column = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    return column.cast(pa.large_string()) if pa.types.is_string(column.type) else column


def _in_order(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    """As one batch in the order of the rows, which must not depend on how they were cut into batches."""
    return pa.Table.from_batches(parts).sort_by(ROW).combine_chunks().to_batches()[0]


def _key_bytes(key: Secret) -> bytes:
    if not isinstance(key, Secret):
        raise OptionError("key", "is a secret; refer to it as ${env:NAME} or ${file:/path}")
    text = key.reveal()
    found = bytes.fromhex(text) if re.fullmatch(r"(?:[0-9a-fA-F]{2}){16,}", text) else text.encode()
    if len(found) < 16:  # it could be found by trying
        raise OptionError("key", f"has {len(found)} bytes, but needs at least 16; `openssl rand -hex 32` makes one")
    return found
