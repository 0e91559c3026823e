"""The invariants AGG-6 to AGG-17 of windows; AGG-5, 6 and 12 are in `test_record_by_record`, AGG-1 to 4 in `test_real_data`."""

from __future__ import annotations

import math
import random
import statistics
import time
from datetime import timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window.rows import START, Row, batch_of, by_slot, feed, finals, run, seconds, window

from lakeward import END_OF_INPUT, Refused
from lakeward.grouping import Array
from lakeward_plugins.transforms.window import Shape
from lakeward_plugins.transforms.window.fields import Fields
from lakeward_plugins.transforms.window.functions import Plan, columns_of
from lakeward_plugins.transforms.window.table import Table

SENSORS = st.sampled_from(["a", "b", None])
VALUES = st.none() | st.floats(-1e6, 1e6) | st.just(math.nan)
ARRIVALS = st.lists(st.tuples(st.integers(0, 120).map(float), SENSORS, VALUES), max_size=40)
CUTS = st.lists(st.integers(0, 40), max_size=5)
ALL = ["count", "mean", "sum", "min", "max", "range", "var", "first", "last", "median", "p90", "mode", "circ_mean", "time_weighted_mean"]
EXACT = {"count_v", "min_v", "max_v", "range_v", "first_v", "last_v", "mode_v", "median_v", "p90_v", "method", "record_count", "window_id"}


def same(name: str, one: Any, other: Any) -> bool:
    """Sums depend in their last digits on the order of additions; means of angles are near no direction at all sometimes."""
    if name in EXACT or not isinstance(one, float) or not isinstance(other, float):
        return bool(one == other)
    return math.isclose(one, other, rel_tol=1e-9 if name in ("var_v", "circ_mean_v") else 1e-12, abs_tol=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 119).map(float), SENSORS, st.none() | st.integers(-300, 300).map(float)), max_size=60),
    CUTS, st.sampled_from([3, 1000]), st.randoms(use_true_random=False),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_agg_06_the_order_of_rows_within_the_allowed_lateness_does_not_show(
    rows: list[Row], cuts: list[int], exact_max: int, rng: random.Random
) -> None:
    options = {
        "aggregations": {"v": ALL},
        "exact_max": exact_max,
        "max_out_of_orderness_s": seconds(20),
        "allowed_lateness_s": seconds(120),
    }
    rows = [(second + number * 1e-6, sensor, value) for number, (second, sensor, value) in enumerate(rows)]
    one = finals(run(window(**options), rows)["main"])
    rng.shuffle(rows)
    other = finals(run(window(**options), rows, cuts, restart=True, **options)["main"])
    assert one.keys() == other.keys()
    for slot in one:
        unlike = [name for name in one[slot] if name not in ("revision", "is_final") and not same(name, one[slot][name], other[slot][name])]
        assert unlike == [] or (unlike == ["circ_mean_v"] and weak(rows, one[slot]))


def weak(rows: list[Row], told: dict[str, Any]) -> bool:
    """Whether the angles of a window nearly cancel each other, so that their mean is rounding only."""
    angles = [
        math.radians(value)
        for second, sensor, value in rows
        if value is not None
        and sensor == told["sensor_id"]
        and told["window_start"] <= START + timedelta(seconds=second) < told["window_end"]
    ]
    return abs(sum(complex(math.cos(angle), math.sin(angle)) for angle in angles)) < 1e-5 * len(angles)


def part_of(numbers: list[tuple[int, float]], plan: Plan, first: int) -> Table:
    batch = batch_of([(slot, "a", value) for slot, value in numbers])
    times = np.arange(first, first + len(numbers))
    return Table.of(Fields.of(batch, times, plan, [], None), np.array([slot for slot, _ in numbers], np.int64))


PARTS = st.lists(st.tuples(st.integers(0, 5), st.integers(-100, 100).map(float)), max_size=12)


@given(PARTS, PARTS, PARTS, st.sampled_from([2, 100]))
@settings(max_examples=80, deadline=None)
def test_agg_07_merging_is_associative_and_commutative(one: Any, two: Any, three: Any, exact_max: int) -> None:
    plan = Plan.of(columns_of({"v": ["mean", "var", "min", "first", "last", "median", "mode", "time_weighted_mean"]}), batch_of([]).schema)

    def parts() -> list[Table]:
        return [plus(Table.nothing(plan), part_of(numbers, plan, 100 * place)) for place, numbers in enumerate((one, two, three))]

    def plus(left: Table, right: Table) -> Table:
        return left.only(left.rows > 0).plus(right, exact_max)  # a copy, as plus takes the arrays of the left one

    a, b, c = parts()
    ways = [plus(plus(a, b), c), plus(a, plus(b, c)), plus(plus(c, a), b), plus(c, plus(b, a))]
    for other in ways[1:]:
        assert contents(other)[0] == contents(ways[0])[0]
        for mine, theirs in zip(contents(other)[1], contents(ways[0])[1], strict=True):
            assert np.allclose(mine, theirs, rtol=1e-12, atol=1e-9)


def contents(table: Table) -> tuple[list[Any], list[Array]]:
    """What must be equal, and what may differ in its last digits."""
    exact = [table.slots.tolist(), table.rows.tolist(), table.sums.parts[[0, 4, 5]].tolist()]
    exact += [(pick.times.tolist(), pick.values.tolist()) for pick in table.picks]
    settled = [(tally.sorted().summed, tally.spent) for tally in table.tallies]
    exact += [[column.tolist() for column in (held.slots, held.values, held.counts, spent)] for held, spent in settled]
    exact += [[each.times.tolist(), each.values.tolist()] for each in table.readings]
    return exact, [table.sums.parts[1] + table.sums.parts[2], table.sums.parts[3]]


@given(ARRIVALS, CUTS)
@settings(max_examples=40, deadline=None)
def test_agg_08_every_row_is_in_a_window_or_late_or_rejected(rows: list[Row], cuts: list[int]) -> None:
    rows = [*rows, ("nonsense", "a", 1.0), (None, "b", 1.0), ("1901-12-13T20:45:52Z", "a", 1.0)]
    for policy, port in (("update", "late"), ("side_output", "late"), ("drop", "filtered")):
        out = run(window(max_out_of_orderness_s=seconds(0), allowed_lateness_s=seconds(9), late_policy=policy), rows, cuts)
        sensor_of = {number: sensor for number, (_, sensor, _) in enumerate(rows)}
        for sensor in ("a", "b", None):
            held = sum(row["record_count"] for row in finals(out["main"]).values() if row["sensor_id"] == sensor)
            left = sum(sensor_of[row["_row"]] == sensor for name in (port, "rejected") for row in out[name])
            assert held + left == sum(row[1] == sensor for row in rows)
        assert {row["_rule"] for row in out["filtered"]} <= {"late"}


@given(ARRIVALS, CUTS, st.sampled_from([1, 2, 5]))
@settings(max_examples=30, deadline=None)
def test_agg_09_each_row_is_in_as_many_hopping_windows_as_overlap(rows: list[Row], cuts: list[int], overlap: int) -> None:
    shape = Shape(kind="hopping", size=seconds(10 * overlap), every=seconds(10))
    out = run(window(window=shape, max_out_of_orderness_s=seconds(120)), rows, cuts)
    assert sum(row["record_count"] for row in out["main"]) == overlap * len(rows)
    assert all((row["window_end"] - row["window_start"]).total_seconds() == 10 * overlap for row in out["main"])
    if rows and overlap > 1:  # windows that begin before the first row
        first = min(second for second, _, _ in rows) // 10 * 10
        starts = {(row["window_start"] - START).total_seconds() for row in out["main"]}
        assert {first - 10 * step for step in range(overlap)} <= starts


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30), CUTS)
@settings(max_examples=40, deadline=None)
def test_agg_10_the_mean_is_between_the_extremes_and_a_constant_does_not_vary(values: list[float], cuts: list[int]) -> None:
    (row,) = run(window(aggregations={"v": ["min", "mean", "max", "var", "std"]}), [(1.0, "a", value) for value in values], cuts)["main"]
    assert row["min_v"] <= row["avg_v"] <= row["max_v"]
    assert row["var_v"] is None or row["var_v"] >= 0
    for number in (values[0], 1e8 / 3):  # of the latter the squares cannot be exact
        (row,) = run(window(), [(1.0, "a", number)] * (len(values) + 200), cuts)["main"]
        assert (row["std_v"], row["avg_v"]) == (0, number)


def test_agg_11_null_and_nan_and_infinity_are_no_readings() -> None:
    rows: list[Row] = [(1, "a", None), (2, "a", math.nan), (3, "a", math.inf), (12, "a", 4.0), (13, "a", None)]
    empty, half = run(window(aggregations={"v": [*ALL, "std", "circ_r", "good_fraction"]}), rows)["main"]
    assert (empty["record_count"], empty["count_v"], empty["good_fraction_v"]) == (3, 0, 0)
    assert {name for name, value in empty.items() if value is None} == {
        f"{name}_v" for name in (*ALL, "std", "circ_r") if name not in ("count", "mean")
    } | {"avg_v"}
    assert (half["record_count"], half["count_v"], half["avg_v"], half["std_v"], half["last_v"]) == (2, 1, 4.0, None, 4.0)


def test_agg_12_killed_after_emit_or_after_saving_the_final_table_is_the_same() -> None:
    options = {"allowed_lateness_s": seconds(30), "max_out_of_orderness_s": seconds(0)}
    rows: list[Row] = [(second - (25 if second % 7 == 0 else 0), f"s{second % 2}", float(second)) for second in range(30, 150)]
    want = finals(run(window(**options), rows)["main"])
    kept, state = window(**options), b""
    told: list[dict[str, Any]] = []
    for low in range(0, len(rows), 10):
        told += kept.apply(batch_of(rows[low : low + 10], low))["main"].to_pylist()
        if low % 30 == 10:  # what this batch gave has arrived, its state was lost: it is taken again
            kept = window(**options)
            kept.restore(state)
            again = kept.apply(batch_of(rows[low : low + 10], low))["main"].to_pylist()
            assert again == told[len(told) - len(again) :]
            told = told[: len(told) - len(again)] + again
        state = kept.state()
    told += kept.finish(END_OF_INPUT)["main"].to_pylist()
    assert finals(told) == want


def test_agg_13_revisions_grow_and_dropped_rows_change_nothing() -> None:
    options = {"max_out_of_orderness_s": seconds(0), "allowed_lateness_s": seconds(60)}
    rows: list[Row] = [(1, "a", 1.0), (20, "a", 2.0), (2, "a", 9.0), (3, "a", 9.0), (30, "a", 0.0), (4, "a", 9.0)]
    changed = [row for row in run(window(**options), rows, range(1, 6))["main"] if row["window_start"] == START]
    assert [(row["revision"], row["record_count"], row["is_final"]) for row in changed] == [
        (0, 1, False), (1, 2, False), (2, 3, False), (3, 4, False),
    ]  # fmt: skip
    for policy in ("drop", "side_output"):
        out = run(window(late_policy=policy, **options), rows, range(1, 6))
        assert [(row["revision"], row["record_count"], row["is_final"]) for row in out["main"] if row["window_start"] == START] == [
            (0, 1, True)
        ]
        assert [row["_row"] for row in out["filtered" if policy == "drop" else "late"]] == [2, 3, 5]


@pytest.mark.parametrize("kind", ["tumbling", "session"])
def test_agg_14_the_state_does_not_grow_with_the_data(kind: Any) -> None:
    def held(hours: int) -> int:
        shape = Shape(kind=kind, size=timedelta(minutes=5), gap=seconds(20))
        made = window(
            window=shape, group_by=["sensor_id", "hour"], aggregations={"v": ["mean", "median", "mode", "last"]},
            max_out_of_orderness_s=timedelta(minutes=10), allowed_lateness_s=timedelta(minutes=10),
        )  # fmt: skip
        for hour in range(hours):
            made.apply(batch_of([(hour * 3600 + second, f"s{second % 7}", float(second % 11)) for second in range(0, 3600, 5)]))
        return len(made.state())

    assert held(20) <= 1.2 * held(2)


def test_agg_14_too_many_windows_or_keys_stop_the_run_with_a_word_on_what_to_do() -> None:
    with pytest.raises(Refused, match="4 keys are known, max_open_windows allows 3; raise it"):
        window(max_open_windows=3).apply(batch_of([(1, f"s{index}", 1.0) for index in range(4)]))
    with pytest.raises(Refused, match=r"4 windows are open, max_open_windows allows 3; raise it.* on_state_overflow: spill"):
        window(max_open_windows=3, max_out_of_orderness_s=seconds(99)).apply(batch_of([(10 * index, "a", 1.0) for index in range(4)]))


@pytest.mark.parametrize("shape", [Shape(size=seconds(10)), Shape(kind="session", gap=seconds(10))])
def test_agg_14_spilling_closes_the_oldest_windows_and_loses_no_row(shape: Shape) -> None:
    made = window(
        window=shape, max_open_windows=3, max_out_of_orderness_s=seconds(99), allowed_lateness_s=seconds(99), on_state_overflow="spill"
    )
    rows: list[Row] = [(20 * index, "a", 1.0) for index in range(8)]
    out = run(made, [*rows, (0, "a", 9.0), (141, "a", 1.0)], [1, 6])
    assert [row["_row"] for row in out["late"]] == [8]
    told = finals(out["main"])
    assert sum(row["record_count"] for row in told.values()) == 9


def test_agg_14_ten_thousand_windows_of_four_fields_are_saved_and_restored_in_a_blink() -> None:
    fields = {name: batch_of([(1, "a", float(index)) for index in range(10_000)]).column("v") for name in "bcd"}
    options = {"max_open_windows": 20_000, "aggregations": {name: ["mean", "min", "max", "count", "std"] for name in "vbcd"}}
    made = window(**options)
    made.apply(batch_of([(1, f"s{index}", 1.0) for index in range(10_000)], **fields))
    taken = []
    for _ in range(5):
        started = time.process_time()
        again = window(**options)
        again.restore(made.state())
        taken.append(time.process_time() - started)
    assert again.state() == made.state()
    assert min(taken) < 0.1  # caches are shared with others; the aim is 0.05


def test_agg_15_a_large_offset_leaves_the_deviation_as_it_is() -> None:
    values = np.random.default_rng(3).normal(0, 1, 20_000)
    exact = float(np.var(values, ddof=1))
    batch = batch_of([(1.0, "a", float(value) + 1e9) for value in values])
    for cuts in ([], [1, 2, 3, 10_000], list(range(0, 20_000, 200))):
        (row,) = feed(window(aggregations={"v": ["var", "std"]}), batch, cuts)["main"]
        assert math.isclose(row["var_v"], exact, rel_tol=1e-6)
        assert math.isclose(row["std_v"] ** 2, exact, rel_tol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1013.0, 1e6, 1e9])
def test_agg_06_a_large_offset_does_not_let_the_cut_show_in_the_deviation(offset: float) -> None:
    values = [float(value) + offset for value in np.random.default_rng(3).normal(0, 1, 2000)]
    exact = float(statistics.variance(map(Fraction, values)))
    for cuts in ([], [1, 2, 3, 1000], list(range(0, 2000, 20))):
        (row,) = run(window(aggregations={"v": ["var"]}), [(1.0, "a", value) for value in values], cuts)["main"]
        assert math.isclose(row["var_v"], exact, rel_tol=1e-12)


MIXED = st.floats(-1e9, 1e9, allow_subnormal=False) | st.integers(-3, 3).map(float) | st.floats(1e-9, 1e-6)


@given(st.lists(MIXED, min_size=1, max_size=60), CUTS, st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_agg_16_a_quantile_from_bins_is_within_one_percent_of_the_lower_exact_one(
    values: list[float], cuts: list[int], rng: random.Random
) -> None:
    asked = ["p0", "p5", "median", "p95", "p99.9", "p100"]
    options = {"aggregations": {"v": asked}, "exact_max": 1}
    (row,) = run(window(**options), [(1.0, "a", value) for value in values] + [(1.0, "a", None)], cuts)["main"]
    assert row["method"] == "ddsketch(0.01)"
    for name in asked:
        part = 0.5 if name == "median" else float(name[1:]) / 100
        lower = float(np.quantile(values, part, method="lower"))
        assert abs(row[f"{name}_v"] - lower) <= 0.01 * abs(lower) * (1 + 1e-9)
    shuffled = values.copy()
    rng.shuffle(shuffled)
    (other,) = run(window(**options), [(1.0, "a", value) for value in shuffled] + [(1.0, "a", None)], restart=True, **options)["main"]
    assert other == row


@pytest.mark.parametrize("stamp", ["1901-12-13T20:45:52Z", "2100-01-01T00:00:00Z", "2242-01-01"])
def test_agg_17_an_implausible_time_is_rejected_and_does_not_move_the_watermark(stamp: str) -> None:
    out = run(
        window(max_out_of_orderness_s=seconds(0), allowed_lateness_s=seconds(0)), [(5, "a", 1.0), (stamp, "a", 2.0), (6, "a", 3.0)], [2]
    )
    assert [(row["_row"], row["_reason"]) for row in out["rejected"]] == [(1, "time_range")]
    assert [row["record_count"] for row in out["main"]] == [2]
    assert out["late"] == []


def test_agg_17_a_row_from_the_future_of_its_clock_is_rejected() -> None:
    made = window(max_future_s=seconds(60), max_out_of_orderness_s=seconds(99))
    made.clock(START + seconds(100))
    out = feed(made, batch_of([(160, "a", 1.0), (161, "a", 2.0), (101, "a", 3.0)]))
    assert [(row["_row"], row["_reason"]) for row in out["rejected"]] == [(1, "time_range")]
    assert out["late"] == []


def test_by_slot_tells_windows_that_came_twice() -> None:
    with pytest.raises(AssertionError, match="came out twice"):
        by_slot([{"sensor_id": "a", "window_start": START}] * 2)
