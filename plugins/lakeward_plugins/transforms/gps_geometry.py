"""The two halves of `gps_fuzz` that are geometry: cells on the Earth, and how far noise reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen
from pyproj import Geod

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

WGS84 = Geod(ellps="WGS84")


@frozen
class Grid:
    """Cells of about the same size all over the Earth.

    With a = 6378137 m, the equatorial radius of WGS84, there are R = ceil(pi * a / cell_m) rows of 180/R degrees, counted from the
    south pole. A row whose centre is at latitude c has C = ceil(2 * R * cos(c)) columns of 360/C degrees, counted from -180. As C is
    whole, no cell crosses the antimeridian, and -180 and 180 are in the same one. The north pole is in the last row.
    """

    rows: int

    def cells(self, lat: Floats, lon: Floats) -> Ints:
        """The cell of each position as one number, row * 2**32 + column. Longitudes are below 180."""
        row = np.minimum(np.floor((lat + 90) * (self.rows / 180)), self.rows - 1)
        columns = self._columns(row)
        column = np.minimum(np.floor((lon + 180) / 360 * columns), columns - 1)
        return np.asarray(row.astype(np.int64) << 32 | column.astype(np.int64))

    def centres(self, cells: Ints) -> tuple[Floats, Floats]:
        """Longitudes and latitudes, in the order that pyproj wants."""
        row, column = cells >> 32, cells & 0xFFFFFFFF
        return (column + 0.5) * (360 / self._columns(row)) - 180, self._latitude(row)

    def texts(self, cells: Ints) -> list[bytes]:
        """As row:column."""
        return [b"%d:%d" % (cell >> 32, cell & 0xFFFFFFFF) for cell in cells.tolist()]

    def _columns(self, row: npt.NDArray[Any]) -> Floats:
        return np.asarray(np.ceil(2 * self.rows * np.cos(np.radians(self._latitude(row)))))

    def _latitude(self, row: npt.NDArray[Any]) -> Floats:
        return (row + 0.5) * (180 / self.rows) - 90


def below_180(lon: Floats) -> Floats:
    """Longitudes in [-180, 180)."""
    return np.where(lon >= 180, lon - 360, lon)


# -- distances, in units of the mode's scale ---------------------------------------------------------------------------


def uniform_disc(u: Floats) -> Floats:
    """The inverse of F(r) = r², the distances of points spread evenly over a disc of radius 1."""
    return np.sqrt(u)


def planar_laplace(u: Floats) -> Floats:
    """The inverse of F(r) = 1 - (1 + r) e^-r, which is -1 - W(-1, (u - 1)/e) with Lambert's W, by Halley's method.

    Solves r - ln(1 + r) = -ln(1 - u), which keeps its digits where u is small. The start is Chatzigeorgiou's bound (IEEE Communications
    Letters 17(8), 2013). The steps are fixed, not until it converges, so that no row's result depends on the others in its batch.
    """
    goal = np.maximum(-np.log1p(-u), 2.0**-60)  # at 0 the steps would divide by zero; this is far less than a micrometre
    r: Floats = np.sqrt(2 * goal) + goal * (2 / 3)
    for _ in range(4):
        over = r - np.log1p(r) - goal
        slope = r / (1 + r)
        r -= 2 * over * slope / (2 * slope**2 - over / (1 + r) ** 2)
    return r


DISTANCES: dict[str, Callable[[Floats], Floats]] = {"uniform_disc": uniform_disc, "planar_laplace": planar_laplace}
