"""Each function of `aggregations` against another implementation, or what its definition gives by hand."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from window.rows import batch_of, feed, seconds, window

from lakeward import OptionError
from lakeward_plugins.transforms.window import Shape

HOURS = Shape(size=seconds(3600))
CUTS = st.lists(st.integers(0, 40), max_size=5)


def one(functions: list[str], values: list[Any], cuts: Any = (), **options: Any) -> dict[str, Any]:
    """The only window of these values, a second apart."""
    batch = batch_of([(second, "a", value) for second, value in enumerate(values)])
    (row,) = feed(window(aggregations={"v": functions}, window=HOURS, **options), batch, cuts)["main"]
    return row


def test_from_one_end_of_the_numbers_to_the_other_is_infinitely_far() -> None:
    row = one(["range", "min", "max"], [1.5e308, -1.5e308])
    assert (row["range_v"], row["min_v"], row["max_v"]) == (math.inf, -1.5e308, 1.5e308)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), CUTS)
@settings(max_examples=60, deadline=None)
def test_numbers_equal_those_of_numpy(values: list[float], cuts: list[int]) -> None:
    row = one(["count", "sum", "mean", "min", "max", "range", "var", "std", "median", "p5", "p99.9", "first", "last", "mode"], values, cuts)
    spread = 1e-9 * max(1.0, *map(abs, values)) ** 2
    assert row["count_v"] == row["record_count"] == len(values)
    assert (row["min_v"], row["max_v"], row["range_v"]) == (min(values), max(values), max(values) - min(values))
    assert (row["first_v"], row["last_v"], row["method"]) == (values[0], values[-1], "exact")
    assert math.isclose(row["sum_v"], math.fsum(values), rel_tol=1e-12, abs_tol=1e-9)
    assert math.isclose(row["avg_v"], float(np.mean(values)), rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(row["var_v"], float(np.var(values, ddof=1)), rel_tol=1e-9, abs_tol=spread)
    for name, part in (("median", 0.5), ("p5", 0.05), ("p99.9", 0.999)):
        assert math.isclose(row[f"{name}_v"], float(np.quantile(values, part)), rel_tol=1e-9, abs_tol=1e-9)
    most = max(values.count(value) for value in values)
    assert row["mode_v"] == min(value for value in values if values.count(value) == most)


@given(st.lists(st.floats(-720, 720), min_size=1, max_size=40), CUTS)
@settings(max_examples=60, deadline=None)
def test_agg_04_directions_equal_those_of_scipy(degrees: list[float], cuts: list[int]) -> None:
    row = one(["circ_mean", "circ_r", "circ_std", "yamartino"], degrees, cuts)
    radians = np.radians(degrees)
    length = float(np.hypot(np.mean(np.sin(radians)), np.mean(np.cos(radians))))
    assert math.isclose(row["circ_r_v"], length, abs_tol=1e-12)
    epsilon = math.sqrt(max(0, 1 - length**2))
    assert math.isclose(row["yamartino_v"], math.degrees(math.asin(min(epsilon, 1)) * (1 + 0.1547005 * epsilon**3)), abs_tol=1e-4)
    if length < 1e-6:
        assert (row["circ_mean_v"], row["circ_std_v"]) == (None, None)
    elif length > 1e-3:
        assert 0 <= row["circ_mean_v"] < 360
        apart = row["circ_mean_v"] - math.degrees(scipy.stats.circmean(radians))
        assert abs((apart + 180) % 360 - 180) < 1e-6
        assert math.isclose(row["circ_std_v"], math.degrees(scipy.stats.circstd(radians)), rel_tol=1e-6, abs_tol=1e-5)


def test_agg_04_directions_near_north_and_opposite_ones() -> None:
    assert one(["circ_mean"], [350.0, 20.0])["circ_mean_v"] == pytest.approx(5)
    assert one(["circ_mean"], [359.9999999999999, 0.0])["circ_mean_v"] in (pytest.approx(0), pytest.approx(360))
    assert one(["circ_mean"], [0.0, 180.0])["circ_mean_v"] is None


@pytest.mark.parametrize("degrees", [37.3, 120.0, 359.9999])
def test_agg_04_directions_near_each_other_have_the_spread_that_they_have(degrees: float) -> None:
    steady = one(["circ_std", "yamartino"], [degrees] * 100, [7, 40])
    assert (steady["circ_std_v"], steady["yamartino_v"]) == (0, 0)
    near = [degrees + 1e-5 * step for step in (-1, 0, 1, 0, 2, -2)]
    row = one(["circ_std", "yamartino"], near, [2])
    for name in ("circ_std_v", "yamartino_v"):
        assert math.isclose(row[name], statistics.pstdev(near), rel_tol=1e-6)


def test_agg_04_a_direction_of_zero_in_calm_wind_is_none() -> None:
    wind = pa.array([0.0, 0.0, 3.0, 4.0, None])
    batch = batch_of([(1, "a", value) for value in (0.0, 90.0, 90.0, 0.0, 90.0)], speed=wind)
    functions = {"v": ["circ_mean", "mean"]}
    (calm,) = feed(window(aggregations=functions, calm_field="speed"), batch)["main"]
    (all_of_them,) = feed(window(aggregations=functions), batch)["main"]
    assert calm["circ_mean_v"] == pytest.approx(math.degrees(math.atan2(3, 1)))
    assert all_of_them["circ_mean_v"] == pytest.approx(math.degrees(math.atan2(3, 2)))
    assert calm["avg_v"] == all_of_them["avg_v"] == 54


def test_a_weighted_mean_weighs_each_value_by_how_long_it_held() -> None:
    rows = [(0, "a", 10.0), (2, "a", 20.0), (8, "a", 0.0), (2, "a", 30.0), (5, "a", None)]
    (row,) = feed(window(aggregations={"v": "time_weighted_mean"}), batch_of(rows), [1, 3])["main"]
    assert row["time_weighted_mean_v"] == (2 * 10 + 0 * 20 + 6 * 30 + 2 * 0) / 10  # at 2 s the later row counts
    crowded = feed(window(aggregations={"v": "time_weighted_mean"}, exact_max=4), batch_of(rows), [1, 3])["main"]
    assert crowded[0]["time_weighted_mean_v"] is None


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-1e6, 1e6)), min_size=1, max_size=30), CUTS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_first_last_and_weighted_mean_go_by_time_then_by_row(pairs: list[tuple[int, float]], cuts: list[int], rng: Any) -> None:
    batch = batch_of([(second, "a", value) for second, value in pairs])
    (row,) = feed(window(aggregations={"v": ["first", "last", "time_weighted_mean"]}, max_out_of_orderness_s=seconds(9)), batch, cuts)[
        "main"
    ]
    ordered = sorted(pairs, key=lambda pair: pair[0])  # stable: rows of one time stay in their order
    assert (row["first_v"], row["last_v"]) == (ordered[0][1], ordered[-1][1])
    until = [second for second, _ in ordered[1:]] + [10]
    held = math.fsum(value * (end - second) for (second, value), end in zip(ordered, until, strict=True)) / (10 - ordered[0][0])
    assert math.isclose(row["time_weighted_mean_v"], held, rel_tol=1e-9, abs_tol=1e-6)


def test_text_has_extremes_ends_modes_and_counts() -> None:
    states = ["on", "off", None, "on", "é", "off", "on", "zzz"]
    batch = batch_of([(second, "a", 1.0) for second in range(8)], state=pa.array(states))
    made = window(aggregations={"state": ["min", "max", "first", "last", "mode", "count", "record_count", "good_fraction"]})
    (row,) = feed(made, batch, [1, 4])["main"]
    told = {name: row[f"{name}_state"] for name in ("min", "max", "first", "last", "mode", "count", "record_count", "good_fraction")}
    assert told == {
        "min": "off", "max": "é", "first": "on", "last": "zzz", "mode": "on", "count": 7, "record_count": 8, "good_fraction": 7 / 8,
    }  # fmt: skip
    encoded = batch.set_column(4, "state", batch.column("state").dictionary_encode())
    assert feed(made.__class__(aggregations=made.aggregations, window=made.window), encoded, [1])["main"][0]["mode_state"] == "on"


def test_too_many_different_values_have_no_mode() -> None:
    assert one(["mode"], [1.0, 1.0, 2.0, 3.0], [1, 2], exact_max=3)["mode_v"] == 1
    assert one(["mode"], [1.0, 1.0, 2.0, 3.0, 4.0, 1.0], [1, 2, 5], exact_max=3)["mode_v"] is None


def test_values_that_a_validator_failed_are_not_aggregated() -> None:
    flags = pa.array([1, 3, 4, 9, 2, None, 1], pa.int8())
    rows = [(second, "a", float(second)) for second in range(6)] + [(6, "a", None)]
    batch = batch_of(rows, qc_v=flags)
    functions = {"v": ["count", "max", "sum", "good_fraction", "record_count", "median"]}
    (row,) = feed(window(aggregations=functions), batch)["main"]
    assert (row["count_v"], row["max_v"], row["sum_v"], row["median_v"]) == (4, 5, 0 + 1 + 4 + 5, 2.5)
    assert (row["record_count_v"], row["good_fraction_v"]) == (7, 1 / 7)
    (strict,) = feed(window(aggregations=functions, exclude_flags=[2, 3, 4, 9]), batch)["main"]
    (lax,) = feed(window(aggregations=functions, exclude_flags=[]), batch)["main"]
    assert (strict["count_v"], lax["count_v"]) == (2, 6)


def test_booleans_decimals_and_whole_numbers_are_numbers() -> None:
    more = {
        "flag": pa.array([True, False, None]),
        "money": pa.array([1, 2, 3]).cast(pa.decimal128(21, 2)),
        "n": pa.array([1, 2, 9], pa.uint8()),
    }
    made = window(aggregations={"flag": "mean", "money": "sum", "n": ["max", "last"]})
    (row,) = feed(made, batch_of([(second, "a", 0.0) for second in range(3)], **more))["main"]
    assert (row["avg_flag"], row["sum_money"], row["max_n"], row["last_n"]) == (0.5, 6.0, 9.0, 9.0)


def test_readings_counts_rows_when_there_is_no_such_column() -> None:
    batch = batch_of([(1, "a", None), (2, "a", 1.0)])
    (row,) = feed(window(aggregations={"readings": "count", "anything": "record_count"}), batch)["main"]
    assert (row["count_readings"], row["record_count_anything"], row["record_count"]) == (2, 2, 2)
    (real,) = feed(window(aggregations={"readings": "count"}), batch_of([(1, "a", 0.0)], readings=pa.array([None], pa.int64())))["main"]
    assert real["count_readings"] == 0


def test_quantiles_are_exact_up_to_exact_max_rows_and_from_bins_above() -> None:
    values = list(np.random.default_rng(5).lognormal(3, 2, 500))
    exact, rough = one(["median", "p95"], values, exact_max=500), one(["median", "p95"], values, [7, 300], exact_max=499)
    assert (exact["method"], rough["method"]) == ("exact", "ddsketch(0.01)")
    assert exact["median_v"] == pytest.approx(statistics.median(values), rel=1e-12)
    assert rough["p95_v"] == pytest.approx(float(np.quantile(values, 0.95, method="lower")), rel=0.01)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (["maen"], "got text \\('maen'\\), did you mean 'mean'\\?"),
        (["p101"], "or a percentile such as p95; got text \\('p101'\\)"),
        (["P95"], "or a percentile such as p95"),
        ("", "expected one of count"),
    ],
)
def test_says_which_functions_there_are(functions: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        window(aggregations={"v": functions})
    assert caught.value.option == ("aggregations.v" if isinstance(functions, str) else "aggregations.v[0]")


def test_text_has_no_mean() -> None:
    with pytest.raises(OptionError, match=r"aggregations.sensor_id: column 'sensor_id' is text; of text there are count"):
        window(aggregations={"sensor_id": "mean"}).apply(batch_of([]))
