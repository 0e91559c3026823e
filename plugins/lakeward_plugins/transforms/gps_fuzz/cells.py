"""Places of about one size on the Earth, each of which stands for all positions in it. Longitudes are below 180 everywhere."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from attrs import frozen
from pyproj import Geod

from lakeward import OptionError

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

WGS84 = Geod(ellps="WGS84")
GEOHASH_LENGTHS = 1, 12


class Cells(Protocol):
    """One way to divide the Earth."""

    def centred(self, lat: Floats, lon: Floats) -> tuple[Floats, Floats]:
        """Latitude and longitude of the centre of each position's cell, in degrees."""


@frozen
class Metric:
    """Cells of about the same size in metres all over the Earth.

    With a = 6378137 m, the equatorial radius of WGS84, there are R = ceil(pi * a / cell_m) rows of 180/R degrees, counted from the
    south pole. A row whose centre is at latitude c has C = ceil(2 * R * cos(c)) columns of 360/C degrees, counted from -180. As C is
    whole, no cell crosses the antimeridian, and -180 and 180 are in the same one. The north pole is in the last row.
    """

    rows: int

    @classmethod
    def of_size(cls, cell_m: float) -> Metric:
        """With cells of so many metres, or a little less."""
        return cls(math.ceil(math.pi * WGS84.a / cell_m))

    def numbers(self, lat: Floats, lon: Floats) -> Ints:
        """The cell of each position as one number, in steps of `_stride` from row to row."""
        row = np.minimum(np.floor((lat + 90) * (self.rows / 180)), self.rows - 1)
        columns = self._columns(row)
        column = np.minimum(np.floor((lon + 180) / 360 * columns), columns - 1)
        return np.asarray(row.astype(np.int64) * self._stride + column.astype(np.int64))

    def places(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Row and column of each cell."""
        row, column = np.divmod(numbers, self._stride)
        return row, column

    def centres(self, numbers: Ints) -> tuple[Floats, Floats]:
        """Latitudes and longitudes."""
        row, column = self.places(numbers)
        return self._latitude(row), (column + 0.5) * (360 / self._columns(row)) - 180

    def centred(self, lat: Floats, lon: Floats) -> tuple[Floats, Floats]:
        """As `Cells` says."""
        return self.centres(self.numbers(lat, lon))

    @property
    def _stride(self) -> int:
        return 2 * self.rows + 1

    def _columns(self, row: npt.NDArray[Any]) -> Floats:
        return np.asarray(np.ceil(2 * self.rows * np.cos(np.radians(self._latitude(row)))))

    def _latitude(self, row: npt.NDArray[Any]) -> Floats:
        return (row + 0.5) * (180 / self.rows) - 90


@frozen
class Geohash:
    """Cells of Niemeyer's geohash: each character halves longitude and latitude five times in turn, longitude first."""

    length: int

    def __attrs_post_init__(self) -> None:
        low, high = GEOHASH_LENGTHS
        if not low <= self.length <= high:
            raise OptionError("grid.resolution", f"a geohash has from {low} to {high} characters, got {self.length}")

    def centred(self, lat: Floats, lon: Floats) -> tuple[Floats, Floats]:
        """As `Cells` says."""
        bits = 5 * self.length
        return _halved(lat, 180.0, bits // 2), _halved(lon, 360.0, bits - bits // 2)


def _halved(degrees: Floats, whole: float, bits: int) -> Floats:
    """The middle of the part that a value is in, when -whole/2 to whole/2 is halved so many times.

    The edges of parts are exact as floats, so that a value on an edge is in the upper part, as when one halves step by step.
    """
    size, most = whole / 2**bits, 2.0 ** (bits - 1) - 1
    part = np.floor(degrees / size)
    part -= degrees < part * size  # what lies a bit beside an edge may have been rounded onto it
    part += degrees >= (part + 1) * size
    return np.asarray((np.minimum(part, most) + 0.5) * size)


class H3:
    """Hexagons of Uber's H3, by the library `h3`, which takes one position at a time; so it is asked once for each distinct one."""

    def __init__(self, resolution: int) -> None:
        try:
            import h3.api.basic_int as h3  # type: ignore[import-untyped]  # h3 ships no types
        except ImportError as error:
            raise OptionError("grid.system", "h3 needs a library that is not installed; try: pip install lakeward-h3") from error
        self._h3, self._resolution = h3, resolution

    def centred(self, lat: Floats, lon: Floats) -> tuple[Floats, Floats]:
        """As `Cells` says."""
        # as complex numbers, because numpy finds the distinct rows of a matrix far more slowly
        places, place = np.unique(lat + 1j * lon, return_inverse=True)
        cells = [self._h3.latlng_to_cell(one.real, one.imag, self._resolution) for one in places.tolist()]
        known = {cell: self._h3.cell_to_latlng(cell) for cell in set(cells)}
        centres = np.array([known[cell] for cell in cells], np.float64).reshape(-1, 2)[place]
        return centres[:, 0], centres[:, 1]


def below_180(lon: Floats) -> Floats:
    """Longitudes in [-180, 180)."""
    return np.where(lon >= 180, lon - 360, lon)
