"""The H3 cell of each position, as a column to group and join by."""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Literal

import h3.api.basic_int as h3  # type: ignore[import-untyped]  # h3 ships no types
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from attrs import define, frozen

from lakeward import OptionError, option

log = logging.getLogger("lakeward_h3")

NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)


@frozen
class Fields:
    """Which columns the rows have these in."""

    lat: str = option("latitude", help="Column of the latitude, in degrees.")
    lon: str = option("longitude", help="Column of the longitude, in degrees.")


@define
class H3:
    """Adds the H3 cell of each position. A row without a valid position passes with NULL as its cell, and is counted in the log."""

    ports: ClassVar[tuple[str, ...]] = ("main",)
    row_wise: ClassVar[bool] = True

    fields: Fields = option(factory=Fields, help="The columns of the position.")
    resolution: int = option(9, help="Size of the cells: 0 is 1,100 km across, 9 is 350 m, 15 is 1 m.", minimum=0, maximum=15)
    column: str = option("h3_cell", help="Name of the new column.")
    cell_as: Literal["text", "int"] = option("text", help="The cell's id as hexadecimal text, or the same as a 64-bit integer.")
    replace: bool = option(False, help="Replace the position by the centre of its cell; positions that are not valid become NULL.")

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with their cells in the last column."""
        if self.column in batch.schema.names:
            raise OptionError("column", f"there is already a column {self.column!r}; choose another name")
        lat, lon = self._degrees(batch, "lat"), self._degrees(batch, "lon")
        valid = (np.abs(lat) <= 90) & (np.abs(lon) <= 180)  # h3 itself takes 91 degrees as a place; NaN is never valid
        if not valid.all():
            log.info("%d of %d rows have no valid position, so no cell", np.count_nonzero(~valid), len(valid))
        # h3 works on one position at a time, so call it once for each distinct one; sensors stand still more than they move.
        # As complex numbers, because numpy finds the distinct rows of a matrix far more slowly.
        places, place = np.unique(lat[valid] + 1j * lon[valid], return_inverse=True)
        cells = [h3.latlng_to_cell(distinct.real, distinct.imag, self.resolution) for distinct in places.tolist()]
        if self.replace:
            centres = np.array([h3.cell_to_latlng(cell) for cell in cells], float).reshape(-1, 2)[place]
            batch = _with(batch, self.fields.lat, _spread(pa.array(centres[:, 0]), valid))
            batch = _with(batch, self.fields.lon, _spread(pa.array(centres[:, 1]), valid))
        ids = pa.array(cells, pa.int64()) if self.cell_as == "int" else pa.array([format(cell, "x") for cell in cells], pa.string())
        return batch.append_column(self.column, _spread(ids.take(place), valid))

    def _degrees(self, batch: pa.RecordBatch, which: str) -> npt.NDArray[np.float64]:
        """The column as numbers, NaN for NULL."""
        name = getattr(self.fields, which)
        if name not in batch.schema.names:
            raise OptionError(f"fields.{which}", f"no column {name!r}; columns are {', '.join(batch.schema.names)}")
        kind = batch.schema.field(name).type
        if not any(test(kind) for test in NUMERIC):
            raise OptionError(f"fields.{which}", f"column {name!r} is {kind}; `schematize` it to double before")
        return np.asarray(batch.column(name).cast(pa.float64(), safe=False).fill_null(np.nan))


def _spread(values: pa.Array[Any], valid: npt.NDArray[np.bool_]) -> pa.Array[Any]:
    """One value for each valid row, in its place; NULL for the others."""
    rows: pa.Array[Any] = pa.array(np.cumsum(valid) - 1, mask=~valid)
    return values.take(rows)


def _with(batch: pa.RecordBatch, name: str, column: pa.Array[Any]) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), pa.field(name, column.type), column)
