"""From the columns of a batch to arrays: what of each field is a reading, by the flags of a validator, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward.components import ROW
from lakeward.grouping import Array
from lakeward_plugins.transforms.window.functions import Column, Measure, Plan, numbers

FLAG, GOOD = "qc_", 1


@frozen(eq=False)
class Fields:
    """One batch of rows. Numbers are NaN where there is no reading, text is NULL."""

    times: Array
    rows: Array
    """`_row`; places in the batch where there is none."""
    measures: Sequence[Array]
    picks: Sequence[tuple[Column, pa.Array[Any]]]
    quantiles: Sequence[Array]
    modes: Sequence[pa.Array[Any]]
    weighted: Sequence[Array]

    @classmethod
    def of(cls, batch: pa.RecordBatch, times: Array, plan: Plan, exclude: Sequence[int], calm_field: str | None) -> Fields:
        """Everything that the plan needs of these rows."""
        names = dict.fromkeys(column.field for column in plan.columns if column.field not in plan.absent)
        kept = {name: _readings(batch, name, name in plan.text, exclude) for name in names}
        plain = {name: column.to_numpy(zero_copy_only=False) for name, column in kept.items() if name not in plan.text}
        rows = batch.column(ROW).to_numpy() if ROW in batch.schema.names else np.arange(batch.num_rows)
        return cls(
            times,
            rows,
            [_measured(batch, one, kept, plain, calm_field) for one in plan.measures()],
            [(column, kept[column.field]) for column in plan.picks()],
            [plain[name] for name in plan.fields("quantile")],
            [kept[name] for name in plan.fields("mode")],
            [plain[name] for name in plan.fields("time_weighted_mean")],
        )

    def take(self, places: Array) -> Fields:
        """Some of the rows."""
        return Fields(
            self.times[places],
            self.rows[places],
            [column[places] for column in self.measures],
            [(column, values.take(places)) for column, values in self.picks],
            [column[places] for column in self.quantiles],
            [column.take(places) for column in self.modes],
            [column[places] for column in self.weighted],
        )


def _readings(batch: pa.RecordBatch, name: str, text: bool, exclude: Sequence[int]) -> pa.Array[Any]:
    """The values of a field, without those whose flag says that they are none, and without NaN and infinity."""
    column = batch.column(name)
    if text:
        column = column.cast(pa.string())
    else:
        column = numbers(column)
        finite = pc.is_finite(column)
        if finite.false_count:
            column = pc.if_else(finite, column, pa.scalar(None, pa.float64()))
    flags = _flags(batch, name)
    if flags is not None and exclude:
        out = pc.is_in(flags, value_set=pa.array(exclude, pa.int64()))
        column = pc.if_else(out, pa.scalar(None, column.type), column)
    return column


def _flags(batch: pa.RecordBatch, name: str) -> pa.Array[Any] | None:
    if FLAG + name not in batch.schema.names:
        return None
    flags = batch.column(FLAG + name)
    kind = flags.type.value_type if pa.types.is_dictionary(flags.type) else flags.type
    return pc.cast(flags.cast(kind), pa.int64(), safe=False) if pa.types.is_integer(kind) or pa.types.is_floating(kind) else None


def _measured(
    batch: pa.RecordBatch, measure: Measure, kept: dict[str, pa.Array[Any]], plain: dict[str, Array], calm_field: str | None
) -> Array:
    name = measure.field
    if measure.role == "value":
        return plain[name]
    here = kept[name].is_valid().to_numpy(zero_copy_only=False)
    if measure.role in ("present", "good"):
        flags = _flags(batch, name) if measure.role == "good" else None
        if flags is not None:
            here = here & pc.equal(flags, pa.scalar(GOOD, pa.int64())).fill_null(False).to_numpy(zero_copy_only=False)
        return np.where(here, 1.0, np.nan)
    degrees = plain[name]
    if calm_field is not None:  # no wind is reported as direction 0
        calm = numbers(batch.column(calm_field)).to_numpy(zero_copy_only=False) == 0
        degrees = np.where(calm & (degrees == 0), np.nan, degrees)
    radians = np.radians(degrees % 360)
    return np.asarray(np.sin(radians) if measure.role == "sin" else np.cos(radians))
