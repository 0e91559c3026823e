"""From windows to rows: names, types and order of the columns that come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward.grouping import Array
from lakeward_plugins.transforms.window import ddsketch
from lakeward_plugins.transforms.window.functions import CIRCULAR, Column, Measure, Plan
from lakeward_plugins.transforms.window.kept import Due
from lakeward_plugins.transforms.window.keys import Keys
from lakeward_plugins.transforms.window.sums import RESULTS, N, circular
from lakeward_plugins.transforms.window.table import Table

NONE = np.zeros(0, np.int64)
TIME = pa.timestamp("us", "UTC")


@frozen(eq=False)
class Report:
    """How windows are told."""

    plan: Plan
    group_by: list[str]
    derived: list[str]
    """Those of the group keys that come from the time."""
    tz: str
    partial: bool
    """Whether windows come out before they are over."""
    exact_max: int

    def rows(self, due: Due, keys: Keys) -> pa.RecordBatch:
        """One row for each, by start and key."""
        table = due.table
        columns = self._keys(due, keys)
        columns += [("window_start", pa.array(due.starts).cast(TIME)), ("window_end", pa.array(due.ends).cast(TIME))]
        columns += [(column.name, self._column(column, table, due.ends)) for column in self.plan.columns]
        if self.plan.fields("quantile"):
            methods = pa.array(["exact", ddsketch.NAME])
            columns.append(("method", methods.take((table.rows > self.exact_max).astype(np.int8))))
        moments = [due.starts] if due.derived is None else [due.starts, due.derived]
        columns += [("record_count", pa.array(table.rows)), ("window_id", keys.identities(due.keys, *moments))]
        columns += [("revision", pa.array(due.revisions)), ("is_final", pa.array(due.final))]
        if self.partial:
            columns.append(("partial", pa.array(due.partial)))
        result = pa.RecordBatch.from_arrays([column for _, column in columns], names=[name for name, _ in columns])
        order: Any = [(name, "ascending") for name in dict.fromkeys(("window_start", *self.group_by))]
        return result.take(pc.sort_indices(result, sort_keys=order)) if result.num_rows else result

    def names(self, keys: pa.Schema) -> list[str]:
        """Of the columns, to see whether two are the same."""
        no_windows = Due(Table.nothing(self.plan), *([NONE] * 7))
        return self.rows(no_windows, Keys("", keys)).schema.names

    def _keys(self, due: Due, keys: Keys) -> list[tuple[str, pa.Array[Any]]]:
        known = dict(zip(keys.schema.names, keys.columns(due.keys), strict=True))
        if due.derived is not None:
            starts = pa.array(due.derived).cast(TIME)
            known["hour"] = starts
            local: Any = pc.local_timestamp(starts.cast(pa.timestamp("us", self.tz)))  # type: ignore[call-overload]  # the stubs know no zone
            known["day"] = local.cast(pa.timestamp("s"), safe=False).cast(pa.date32(), safe=False)
        return [(name, known[name]) for name in self.group_by]

    def _column(self, column: Column, table: Table, ends: Array) -> pa.Array[Any]:
        name, function, plan = column.field, column.function, self.plan
        if name in plan.absent or function == "record_count":
            return pa.array(table.rows)
        if column in plan.picks():
            return table.picks[plan.picks().index(column)].result()
        if column.quantile is not None:
            return table.tallies[plan.fields("quantile").index(name)].quantiles(table.slots, column.quantile)
        if function == "mode":
            return table.tallies[len(plan.fields("quantile")) + plan.fields("mode").index(name)].modes(table.slots)
        if function == "time_weighted_mean":
            return table.readings[plan.fields(function).index(name)].weighted(table.slots, ends)
        if function in CIRCULAR:
            return circular(function, self._sums(table, name, "sin"), self._sums(table, name, "cos"))
        if function == "good_fraction":
            good: Array = self._sums(table, name, "good")[N] / np.maximum(table.rows, 1)
            return pa.array(good, pa.float64(), mask=table.rows < 1)
        result: pa.Array[Any] = RESULTS[function](self._sums(table, name, "present" if name in plan.text else "value"))
        return result

    def _sums(self, table: Table, name: str, role: Any) -> Array:
        return np.asarray(table.sums.parts[:, self.plan.measures().index(Measure(name, role))])
