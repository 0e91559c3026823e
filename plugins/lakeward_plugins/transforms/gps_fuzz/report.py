"""The rows before and after a transform, measured and attacked. No true position is kept in what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from attrs import asdict, define, field

from lakeward import ROW
from lakeward_plugins.transforms.gps_fuzz.attack import by_averaging, by_cells, outputs_of_each
from lakeward_plugins.transforms.gps_fuzz.carried import rows_that_tell
from lakeward_plugins.transforms.gps_fuzz.cells import WGS84, Floats, Ints, Metric, below_180
from lakeward_plugins.transforms.gps_fuzz.noise import distinct
from lakeward_plugins.transforms.gps_fuzz.positions import GOOD, devices
from lakeward_plugins.transforms.gps_fuzz.theory import displacements, expected
from lakeward_plugins.transforms.gps_fuzz.transform import GpsFuzz

SHARES = {"p50": 0.5, "p95": 0.95}


@define(eq=False)
class Measured:
    """What is known of one transform so far."""

    transform: GpsFuzz
    rows: int = 0
    valid: int = 0
    """Rows that came with a valid position."""
    _tells: Counter[str] = field(factory=Counter)
    _known: dict[bytes, int] = field(factory=dict)
    _parts: list[tuple[Any, ...]] = field(factory=list)

    def add(self, before: pa.RecordBatch, after: Mapping[str, pa.RecordBatch]) -> None:
        """One batch, as it went in, and what came out."""
        found, main = self.transform.positions(before), after["main"]
        self.rows += before.num_rows
        self.valid += int((found.causes == GOOD).sum())
        keys = np.asarray(before.column(ROW))
        places = np.searchsorted(keys, np.asarray(main.column(ROW)))  # some rows may have left; both ascend
        true = found.causes[places] == GOOD
        main, places = main.filter(pa.array(true)), places[true]
        lat, lon, fields = found.lat[places], found.lon[places], self.transform.fields
        for name in main.schema.names:
            if name not in (ROW, fields.lat, fields.lon) and (count := rows_that_tell(main.column(name), lat, lon)):
                self._tells[name] += count
        released = self.transform.positions(main)
        out = released.causes == GOOD
        lat, lon, out_lat, out_lon = lat[out], lon[out], released.lat[out], released.lon[out]
        azimuth, _, metres = WGS84.inv(lon, lat, out_lon, out_lat)
        self._parts.append((self._devices(main)[out], self._cells(lat, below_180(lon)), metres, np.radians(azimuth), out_lat, out_lon))

    def _devices(self, rows: pa.RecordBatch) -> Ints:
        if self.transform.fields.device not in rows.schema.names:  # modes without noise need none
            return np.zeros(rows.num_rows, np.int64)
        names, numbers = devices(rows.column(self.transform.fields.device))
        known = np.array([self._known.setdefault(name, len(self._known)) for name in names.to_pylist()], np.int64)
        return known[numbers] if len(known) else numbers

    def _cells(self, lat: Floats, lon: Floats) -> Ints:
        cells = self.transform.noise.cells if self.transform.noise else self.transform.cells
        return cells.numbers(lat, lon) if isinstance(cells, Metric) else np.zeros(len(lat), np.int64)

    def result(self) -> dict[str, Any]:
        """All figures, for people and programs."""
        metres = np.concatenate([part[2] for part in self._parts] or [np.zeros(0)])
        one = self.transform
        found: dict[str, Any] = {
            "mode": one.mode, "enabled": one.enabled, "key_id": one.key_id, "rows": self.rows, "rows_with_position": self.valid,
            "rows_released_with_position": len(metres), "carried": dict(sorted(self._tells.items())), "devices": 0,
        }  # fmt: skip
        if not len(metres):
            return found
        device, cells, _, azimuth, lat, lon = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        east, north = metres * np.sin(azimuth), metres * np.cos(azimuth)
        output = np.unique(lat + 1j * lon, return_inverse=True)[1]
        each = outputs_of_each(device, output)
        draws = np.bincount(distinct([device, cells])[0])
        return found | {
            "devices": len(each),
            "outputs_per_device": {"least": int(each.min()), "median": float(np.median(each)), "most": int(each.max())},
            "displacement_m": self._displacement(metres, float(draws.sum() ** 2 / (draws.astype(float) ** 2).sum())),
            "averaging": [asdict(one) for one in by_averaging(device, east, north)],
            "cell_mean": asdict(by_cells(device, output, east, north)),
        }

    def _displacement(self, metres: Floats, draws: float) -> dict[str, Any]:
        ordered = displacements(self.transform)
        found: dict[str, Any] = {"draws": round(draws, 1)}
        for name, share in SHARES.items():
            theory = None if ordered is None else expected(ordered, share, draws)
            found[name] = {"measured": float(np.quantile(metres, share)), "theory": theory and asdict(theory)}
        return found
