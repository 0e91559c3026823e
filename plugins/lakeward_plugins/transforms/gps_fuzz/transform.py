"""The transform `gps_fuzz`: its options, and what the kernel calls."""

from __future__ import annotations

import logging
import math
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from attrs import define, evolve, field, frozen

from lakeward import OptionError, filtered, option, rejected
from lakeward.errors import Refused
from lakeward.secrets import Secret, SecretReference
from lakeward.timestamps import to_utc
from lakeward_plugins.transforms.gps_fuzz import starting
from lakeward_plugins.transforms.gps_fuzz.cells import H3, Cells, Floats, Geohash, Ints, Metric, below_180
from lakeward_plugins.transforms.gps_fuzz.columns import SCRUBBED, looks_like_a_position, telling, with_column, without
from lakeward_plugins.transforms.gps_fuzz.noise import LAWS, Noise, uniforms
from lakeward_plugins.transforms.gps_fuzz.positions import CAUSES, GOOD, MISSING, NO_TIME, Positions, devices, in_order, positions

log = logging.getLogger("lakeward.gps_fuzz")

Mode = Literal["uniform_disc", "planar_laplace", "gaussian", "grid", "round", "redact"]
Release = Literal["cell", "offset"]
BaseUse = Literal["fallback", "anchor", "ignore"]
OnMissing = Literal["pass", "null", "drop", "reject", "error"] | None  # an unquoted null in YAML is None
OnInvalid = Literal["null", "drop", "reject", "error"] | None


@frozen
class Fields:
    """Which columns the rows have these in."""

    lat: str = option("latitude", help="Column of the latitude, in degrees.")
    lon: str = option("longitude", help="Column of the longitude, in degrees.")
    device: str = option("sensor_id", help="Column that says whose position it is; rows with NULL count as one device.")
    time: str = option("timestamp", help="Column of the time, read only with `bucket_s`.")


@frozen
class GridOptions:
    """Whose cells `mode: grid` gives the centres of."""

    system: Literal["metric", "h3", "geohash"] = option("metric", help="Cells of `cell_m`; of H3 (pip install lakeward-h3); of geohash.")
    resolution: int = option(9, help="h3: 0 (1,100 km) to 15 (1 m); geohash: its length, 1 (5,000 km) to 12.", minimum=0, maximum=15)


@define(kw_only=True)
class GpsFuzz:
    """Replaces latitude and longitude by a position some way off, always the same one for a device in a place.

    Positions may be numbers or text, and become double. One is missing when both its columns are NULL or empty, and invalid when one of
    them is, or is no finite number, or is out of range. (0, 0) is taken as it is; the log counts it as suspect_null_island.
    """

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = True
    block: ClassVar[str] = "gps_fuzzing"

    enabled: bool = option(True, help="With false, true positions go on; the log warns at each start.")
    mode: Mode = option("uniform_disc", help="Three kinds of noise; the centre of a cell; fewer decimals; NULL.")
    radius_meters: float = option(50.0, help="uniform_disc: its radius.", unit="m", minimum=0.1, maximum=1e6)
    epsilon: float | None = option(None, help="planar_laplace: privacy lost per metre.", unit="1/m", minimum=1e-6, maximum=10)
    privacy_level: float | None = option(None, help="In place of epsilon: privacy lost over the radius; ln 2.", minimum=1e-3, maximum=100)
    protection_radius_m: float | None = option(None, help="In place of epsilon: the radius.", unit="m", minimum=0.1, maximum=1e6)
    sigma_m: float = option(25.0, help="gaussian: standard deviation of each axis.", unit="m", minimum=0.1, maximum=1e6)
    cell_m: float | None = option(100.0, help="Size of cells within which the noise stays the same.", unit="m", minimum=1, maximum=1e6)
    release: Release = option("cell", help="Move the cell's centre, or (offset) the true position, which shows how it moves in the cell.")
    bucket_s: float | None = option(None, help="Change the noise this often; weaker, as it averages out.", unit="s", minimum=1, maximum=1e9)
    grid: GridOptions = option(factory=GridOptions, help="grid: its cells.")
    key: Secret = option(SecretReference("env", "GPS_FUZZ_KEY"), help="16 bytes or more, as text or hexadecimal; all noise needs one.")
    key_id: str | None = option(None, help="A name for the key, which the log and the report may show.")
    fields: Fields = option(factory=Fields, help="The columns to read.")
    scrub_fields: list[str] = option(factory=lambda: list(SCRUBBED), help="Other columns that can tell the position; they become NULL.")
    keep_fields: list[str] = option(factory=list, help="Columns that only look as if they could; no warning for them.")
    base_lat: float | None = option(None, help="Latitude of the base.", unit="degrees", minimum=-90, maximum=90)
    base_lon: float | None = option(None, help="Longitude of the base.", unit="degrees", minimum=-180, maximum=180)
    base_use: BaseUse = option("fallback", help="Take a base for missing positions (fallback), or for these and all valid ones (anchor).")
    max_radius_m: float | None = option(None, help="No noise reaches further; weakens epsilon.", unit="m", minimum=0.1, maximum=1e7)
    out_decimals: int = option(6, help="Decimals of the output; the sixth is a tenth of a metre.", minimum=0, maximum=15)
    on_missing: OnMissing = option("pass", help="Rows without: leave NULL, drop, make dead letters (reject), end the run (error).")
    on_invalid: OnInvalid = option("null", help="Rows with an invalid one: NULL, drop, make dead letters (reject), end the run (error).")
    wrap_longitude: bool = option(False, help="Take longitudes beyond 180 and up to 540 degrees as once around too far.")
    noise: Noise | None = field(init=False, repr=False, eq=False)
    cells: Cells | None = field(init=False, repr=False, eq=False)
    _warned: set[str] = field(init=False, repr=False, eq=False, factory=set)

    def __attrs_post_init__(self) -> None:
        starting.refuse_contradictions(self)
        self.noise = self._noise() if self.enabled and self.mode in LAWS else None
        self.cells = self._cells() if self.enabled and self.mode == "grid" else None
        starting.warn(self)

    def _noise(self) -> Noise:
        cells = Metric.of_size(self.cell_m) if self.cell_m is not None else None
        limit = math.inf if self.max_radius_m is None else self.max_radius_m
        keyed = uniforms(self.key, self.mode)
        return Noise(keyed, LAWS[self.mode], starting.scale(self), limit, cells, centred=self.release == "cell")

    def _cells(self) -> Cells:
        if self.grid.system == "h3":
            return H3(self.grid.resolution)
        return Geohash(self.grid.resolution) if self.grid.system == "geohash" else Metric.of_size(self.cell_m or math.inf)

    def apply(self, batch: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
        """The rows, moved; those without a position go where `on_missing` and `on_invalid` say."""
        if not self.enabled:
            return {"main": batch}
        batch = self._with_columns(batch)
        self._check(batch.schema)
        found = self.positions(batch)
        self._warn_of_columns(batch, found)
        found, buckets = self._bucketed(batch, self._based(found))
        if counts := found.counts():
            log.info("gps_fuzz: %s", counts)
        self._require(found)
        good = found.causes == GOOD
        lat, lon = self._released(batch, found, good, buckets)
        hidden = without(batch, [name for name in self._scrubbed() if name in batch.schema.names])
        for name, values in ((self.fields.lat, lat), (self.fields.lon, lon)):
            hidden = with_column(hidden, name, values)
        return self._part(hidden, found.causes)

    def positions(self, batch: pa.RecordBatch) -> Positions:
        """Those that the rows have, as they came."""
        return positions(self._with_columns(batch), self.fields.lat, self.fields.lon, wrap=self.wrap_longitude)

    # -- columns -------------------------------------------------------------------------------------------------------

    def _with_columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of a table without any coordinates get the columns, for a base to stand in."""
        names = self.fields.lat, self.fields.lon
        if self.base_lat is None or self.base_use == "ignore" or {*names} & {*batch.schema.names}:
            return batch
        for name in names:
            batch = with_column(batch, name, pa.nulls(batch.num_rows, pa.float64()))
        return batch

    def _check(self, schema: pa.Schema) -> None:
        read = ["lat", "lon"]
        if self.noise:
            read += ["device"] if self.bucket_s is None else ["device", "time"]
        for which in read:
            name = getattr(self.fields, which)
            if name not in schema.names:
                raise OptionError(f"fields.{which}", f"no column {name!r}; columns are {', '.join(schema.names)}")
        if self.noise and pa.types.is_nested(kind := schema.field(self.fields.device).type):
            raise OptionError("fields.device", f"column {self.fields.device!r} is {kind}; expected text or numbers")

    def _scrubbed(self) -> list[str]:
        return [name for name in self.scrub_fields if name not in self.keep_fields]

    def _warn_of_columns(self, batch: pa.RecordBatch, found: Positions) -> None:
        """Once for each column: what is scrubbed, what cannot be found, and what else may tell the position."""
        names = batch.schema.names
        fields = self.fields
        mine = {fields.lat, fields.lon, fields.device, fields.time, *self.scrub_fields, *self.keep_fields}
        others = [name for name in names if name not in mine and not name.startswith("_")]
        absent = [name for name in self.scrub_fields if name not in names and name not in SCRUBBED]
        scrubbed = [name for name in self._scrubbed() if name in names]
        self._warn(scrubbed, "NULL from here on, as it can tell the position; keep_fields would keep it")
        self._warn(absent, "named in scrub_fields, but there is no such column")
        self._warn([name for name in others if looks_like_a_position(name)], f"goes on, but its name looks like a position; {HINT}")
        told = telling(batch, found, [name for name in others if f"{name}!" not in self._warned])
        self._warned.update(f"{name}!" for name in told)
        for name in told:
            log.warning("gps_fuzz: column %s: CARRIES THE TRUE POSITION as text; %s", name, HINT)

    def _warn(self, columns: list[str], what: str) -> None:
        new = [name for name in columns if name not in self._warned]
        self._warned.update(new)
        if new:
            log.warning("gps_fuzz: column %s: %s", ", ".join(new), what)

    # -- positions -----------------------------------------------------------------------------------------------------

    def _based(self, found: Positions) -> Positions:
        """With the base in the place of those that it stands for."""
        if self.base_lat is None or self.base_use == "ignore":
            return found
        based = found.causes == MISSING
        if self.base_use == "anchor":
            based |= found.causes == GOOD
        lat, lon = np.where(based, self.base_lat, found.lat), np.where(based, self.base_lon, found.lon)  # type: ignore[arg-type]  # both are there
        return evolve(found, lat=lat, lon=lon, causes=np.where(based, GOOD, found.causes))

    def _bucketed(self, batch: pa.RecordBatch, found: Positions) -> tuple[Positions, Ints | None]:
        """The bucket of each row. Good rows without a time get that as their cause."""
        if self.bucket_s is None or not self.noise:
            return found, None
        try:
            times, _ = to_utc(batch.column(self.fields.time))
        except TypeError as error:
            raise OptionError("fields.time", f"column {self.fields.time!r}: {error}") from error
        timeless = (found.causes == GOOD) & np.asarray(times.is_null())
        micros: Ints = np.asarray(times.cast(pa.int64()).fill_null(0))
        return evolve(found, causes=np.where(timeless, NO_TIME, found.causes)), np.floor(micros / 1e6 / self.bucket_s).astype(np.int64)

    def _released(self, batch: pa.RecordBatch, found: Positions, good: Any, buckets: Ints | None) -> tuple[pa.Array[Any], pa.Array[Any]]:
        """The columns of the positions that may be known."""
        if self.mode == "redact":
            return pa.nulls(len(good), pa.float64()), pa.nulls(len(good), pa.float64())
        if good.all():
            lat, lon = self._rounded(*self._moved(batch, found.lat, below_180(found.lon), slice(None), buckets))
            return pa.array(lat), pa.array(lon)
        lat, lon = np.full((2, len(good)), np.nan)  # what lies under a NULL is written out as well
        lat[good], lon[good] = self._rounded(*self._moved(batch, found.lat[good], below_180(found.lon[good]), good, buckets))
        return pa.array(lat, mask=~good), pa.array(lon, mask=~good)

    def _moved(self, batch: pa.RecordBatch, lat: Floats, lon: Floats, rows: Any, buckets: Ints | None) -> tuple[Floats, Floats]:
        if self.noise:
            names, device = devices(batch.column(self.fields.device))
            return self.noise.moved(lat, lon, names, device[rows], None if buckets is None else buckets[rows])
        return self.cells.centred(lat, lon) if self.cells else (lat, lon)

    def _rounded(self, lat: Floats, lon: Floats) -> tuple[Floats, Floats]:
        lat, lon = np.round(lat, self.out_decimals) + 0.0, np.round(lon, self.out_decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
        return lat, below_180(lon)

    # -- rows without one ----------------------------------------------------------------------------------------------

    def _fates(self, causes: Ints) -> list[tuple[Any, str, str, str | None]]:
        """Which rows, the code of the reason, the option that decides and what it says."""
        return [
            (causes == MISSING, "position_missing", "on_missing", self.on_missing),
            (causes > MISSING, "position_invalid", "on_invalid", self.on_invalid),
        ]

    def _require(self, found: Positions) -> None:
        for rows, reason, name, action in self._fates(found.causes):
            if action == "error" and rows.any():
                raise Refused(f"{reason}, and {name} is error; {found.counts()}. Mend the rows, or choose what else {name} shall do")

    def _part(self, batch: pa.RecordBatch, causes: Ints) -> dict[str, pa.RecordBatch]:
        kept = np.ones(batch.num_rows, np.bool_)
        leaving: dict[str, list[pa.RecordBatch]] = {}
        for rows, reason, _, action in self._fates(causes):
            if action in LEAVES_BY and rows.any():
                kept &= ~rows
                port, part, details = LEAVES_BY[action], batch.filter(pa.array(rows)), CAUSES.take(causes[rows])
                leaving.setdefault(port, []).append(filtered(part, reason) if port == "filtered" else rejected(part, reason, details))
        return {"main": batch if kept.all() else batch.filter(pa.array(kept))} | {port: in_order(parts) for port, parts in leaving.items()}


HINT = "name it in scrub_fields, or in keep_fields to hear no more of it"
LEAVES_BY = {"drop": "filtered", "reject": "rejected"}
