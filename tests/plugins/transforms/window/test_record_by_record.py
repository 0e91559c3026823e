"""Whatever the batches: what comes out is what the rule gives row by row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window.oracle import Oracle
from window.rows import START, batch_of, feed, finals, seconds, window

from lakeward_plugins.transforms.window import Shape

pytestmark = [pytest.mark.slow, pytest.mark.one_python]

VALUES = st.none() | st.integers(-20, 20).map(float) | st.just(math.nan)
# mostly in order, with some that are old and some that jump ahead
STEPS = st.lists(
    st.tuples(st.sampled_from([1, 1, 2, 3, 4, 9, 12, 40, -2, -5, -11, -14, -25, -60]), st.sampled_from(["a", "a", "a", "b"]), VALUES),
    max_size=40,
)
CUTS = st.lists(st.integers(0, 40), max_size=6)


def tumbling(moment: float) -> list[tuple[float, float]]:
    start = moment // 10 * 10
    return [(start, start + 10)]


def hopping(moment: float) -> list[tuple[float, float]]:
    newest = moment // 5 * 5
    return [(start, start + 12) for start in (newest - 10, newest - 5, newest) if start + 12 > moment]


SHAPES: dict[str, tuple[Shape, Callable[[float], list[tuple[float, float]]] | None]] = {
    "tumbling": (Shape(size=seconds(10)), tumbling),
    "hopping": (Shape(kind="hopping", size=seconds(12), every=seconds(5)), hopping),
    "session": (Shape(kind="session", gap=seconds(10)), None),
}


def arrivals(steps: list[tuple[int, str, Any]]) -> list[tuple[float, str, Any]]:
    moment, rows = 1000.0, []
    for step, sensor, value in steps:
        moment = max(moment + step, 0.0)
        rows.append((moment, sensor, value))
    return rows


@pytest.mark.parametrize("emit", ["on_close", "on_batch", "on_final"])
@pytest.mark.parametrize("kind", sorted(SHAPES))
@given(
    steps=STEPS, cuts=CUTS, wait=st.sampled_from([0, 4, 30]), lateness=st.sampled_from([0, 7, 50]),
    scope=st.sampled_from(["key", "global"]), idle=st.sampled_from([None, 15]), restart=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_agg_05_and_06_and_12_final_windows_and_late_rows_are_those_of_the_rule(
    kind: str, emit: Any, steps: list[Any], cuts: list[int], wait: int, lateness: int, scope: Any, idle: int | None, restart: bool
) -> None:
    shape, spans = SHAPES[kind]
    options = {
        "window": shape, "max_out_of_orderness_s": seconds(wait), "allowed_lateness_s": seconds(lateness), "watermark_scope": scope,
        "idle_timeout_s": None if idle is None else seconds(idle), "emit": emit,
    }  # fmt: skip
    rows = arrivals(steps)
    oracle = Oracle(wait, lateness, scope, idle, emit, spans, 10.0)
    for number, (moment, sensor, value) in enumerate(rows):
        oracle.add(moment, sensor, value, number)
    oracle.finish()
    out = feed(window(**options), batch_of(rows), cuts, (lambda: window(**options)) if restart else None)
    assert [row["_row"] for row in out["late"]] == [number for number, word in enumerate(oracle.status) if word == "late"]
    found = finals(out["main"])
    assert {(row["sensor_id"], (row["window_start"] - START).total_seconds()) for row in found.values()} == set(oracle.table)
    for row in found.values():
        told = oracle.table[row["sensor_id"], (row["window_start"] - START).total_seconds()]
        assert (row["window_end"] - START).total_seconds() == told.end
        assert (row["record_count"], row["revision"], row["is_final"]) == (len(told.rows), told.revision, told.final)
        assert row.get("partial", False) == (told.partial and emit == "on_batch")
        real = [value for _, _, value in told.rows if value is not None and not math.isnan(value)]
        assert (row["count_v"], row["min_v"], row["max_v"]) == (len(real), min(real, default=None), max(real, default=None))
        assert row["sum_v"] == (sum(real) if real else None)
