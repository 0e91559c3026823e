"""What every transform promises, for each kind of window and each way to emit."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
from window.rows import batch_of, seconds, window

from lakeward.testing import TransformContract
from lakeward_plugins.transforms.window import Shape, Window

EVERYTHING = [
    "count", "record_count", "sum", "mean", "min", "max", "first", "last", "var", "std", "median", "p95", "p99.9", "range", "mode",
    "circ_mean", "circ_r", "circ_std", "yamartino", "time_weighted_mean", "good_fraction",
]  # fmt: skip


class TestWindows(TransformContract):
    """The default: a window is given out again when a late row changes it."""

    tolerance = 1e-12
    upsert_by = ("window_id",)
    options: ClassVar[dict[str, Any]] = {"allowed_lateness_s": seconds(40)}

    def make(self) -> Window:
        return window(**self.options)

    def rows(self) -> pa.RecordBatch:
        late = {22: -22, 23: -37, 28: -60, 35: -120}
        return batch_of([(300 + 3 * index + late.get(index, 0), f"s{index % 3}", float(index % 7)) for index in range(40)])


class TestOnceOnly(TestWindows):
    upsert_by = ()
    options: ClassVar[dict[str, Any]] = {"allowed_lateness_s": seconds(40), "emit": "on_final"}


class TestDropped(TestWindows):
    upsert_by = ()
    options: ClassVar[dict[str, Any]] = {"allowed_lateness_s": seconds(40), "late_policy": "drop"}


class TestPartial(TestWindows):
    options: ClassVar[dict[str, Any]] = {"allowed_lateness_s": seconds(40), "emit": "on_batch", "watermark_scope": "global"}


class TestHopping(TestWindows):
    options: ClassVar[dict[str, Any]] = {
        "allowed_lateness_s": seconds(20),
        "window": Shape(kind="hopping", size=seconds(30), every=seconds(10)),
    }


class TestSessions(TestWindows):
    options: ClassVar[dict[str, Any]] = {"allowed_lateness_s": seconds(40), "window": Shape(kind="session", gap=seconds(10))}


class TestEverything(TestWindows):
    """All functions, with quantiles from bins in windows with more than five rows, and a group key from the time."""

    options: ClassVar[dict[str, Any]] = {
        "aggregations": {"v": EVERYTHING, "sensor_id": ["min", "max", "first", "last", "mode", "count"]},
        "group_by": ["hour"], "window": Shape(size=seconds(60)), "exact_max": 5, "allowed_lateness_s": seconds(40),
    }  # fmt: skip
