"""PHY-1: on real series the flags are those of ioos_qc, the reference implementation of QARTOD, where the two mean the same."""

from __future__ import annotations

import sys
import warnings
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakeward import END_OF_INPUT
from lakeward_plugins.transforms.physics_validation import PhysicsValidation, Rule

with warnings.catch_warnings():  # of its own dependencies
    warnings.simplefilter("ignore")
    qartod = pytest.importorskip("ioos_qc.qartod", reason="ioos_qc is not installed")

pytestmark = pytest.mark.one_python
SERIES = [
    ("ioos_water_level_2018.db", "water_level_m", "1", 0.05, 0.3),
    ("nab_ambient_temperature.db", "temperature_f", "1", 1.0, 3.0),
    ("kelmarsh_t2_2020.db", "wind_speed_ms", "1", 1.5, 4.0),
    ("kelmarsh_t2_2020.db", "power_output_kw", "1", 200.0, 900.0),
    ("nyc_asos_ewr_lga_2013.db", "dew_point_f", "sensor_id = 'LGA'", 3.0, 8.0),
    ("nyc_asos_ewr_lga_2013.db", "wind_speed_mph", "sensor_id = 'EWR'", 5.0, 100.0),
    ("brightwind_mast_2016.db", "humidity_pct", "1", 0.2, 1.0),
]
Arrays = tuple[pa.RecordBatch, Any, Any, float, float]


@pytest.fixture(params=SERIES, ids=lambda series: f"{series[1]}-{series[0][:4]}")
def series(request: pytest.FixtureRequest, real: Any) -> Arrays:
    """Rows with the column x, then times and values for ioos_qc, and two limits that some readings exceed."""
    name, column, where, suspect, fail = request.param
    rows = real(name, "timestamp", "sensor_id", column, where=where)
    rows = rows.rename_columns(["_row", "timestamp", "sensor_id", "x"])
    times = np.array([text.replace("Z", "").replace("+00:00", "") for text in rows["timestamp"].to_pylist()], "datetime64[us]")
    return rows, times, rows["x"].to_numpy(zero_copy_only=False).astype(np.float64), suspect, fail


def flags(rows: pa.RecordBatch, rule: Rule, size: int = 1000) -> np.ndarray[Any, Any]:
    transform, found = PhysicsValidation(rules=[rule]), {}
    outputs = [transform.apply(rows.slice(start, size)) for start in range(0, rows.num_rows, size)]
    for output in [*outputs, transform.finish(END_OF_INPUT)]:
        for part in output.values():
            found |= dict(zip(part["_row"].to_pylist(), part["qc_x"].to_pylist(), strict=True))
    return np.array([found[key] for key in rows["_row"].to_pylist()])


def quietly(test: Any, *arguments: Any, **options: Any) -> np.ndarray[Any, Any]:
    with warnings.catch_warnings():  # of numpy and pandas about its code
        warnings.simplefilter("ignore")
        return np.asarray(np.ma.filled(test(*arguments, **options)))


def assert_same(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], *, where: Any = slice(None), both: bool = True) -> None:
    wrong = np.flatnonzero(got[where] != want[where])
    assert not len(wrong), f"{len(wrong)} differ, first at {wrong[0]}: {got[where][wrong[0]]} instead of {want[where][wrong[0]]}"
    assert not both or {1} < set(want[where].tolist()) & {1, 3, 4}, "nothing was flagged: the limits try nothing"


def test_phy_01_gross_range(series: Arrays) -> None:
    rows, _, values, _, _ = series
    low, suspect_low, suspect_high, high = np.nanpercentile(values, [1, 5, 90, 99]).tolist()
    want = quietly(qartod.gross_range_test, values, fail_span=(low, high), suspect_span=(suspect_low, suspect_high))
    assert_same(flags(rows, Rule("r", "range", "x", fail=[low, high], suspect=[suspect_low, suspect_high])), want)


@pytest.mark.parametrize("method", ["average", "differential"])
def test_phy_01_spike(series: Arrays, method: Any) -> None:
    rows, _, values, suspect, fail = series
    want = quietly(qartod.spike_test, values, suspect_threshold=suspect, fail_threshold=fail, method=method)
    assert_same(flags(rows, Rule("r", "spike", "x", method=method, suspect=suspect, fail=fail)), want)


def test_phy_01_rate_of_change_where_the_row_before_has_a_value(series: Arrays) -> None:
    rows, times, values, suspect, fail = series
    suspect, fail = suspect / 3600, fail / 1800
    want = quietly(qartod.rate_of_change_test, values, times.astype("datetime64[ns]"), threshold=suspect, fail_threshold=fail)
    got = flags(rows, Rule("r", "rate", "x", suspect=suspect, fail=fail))
    known = np.append(False, ~np.isnan(values[:-1]) & (np.diff(times) >= np.timedelta64(1, "s")))
    assert_same(got, want, where=known)
    assert_same(got, np.where(np.isnan(values), 9, 2), where=~known, both=False)


@pytest.mark.parametrize("measure", ["range", "std"])
@pytest.mark.parametrize("least", [None, timedelta(hours=6)])
def test_phy_01_attenuated(series: Arrays, measure: Any, least: timedelta | None) -> None:
    rows, times, values, suspect, fail = series
    limits = {"suspect_threshold": fail / 2, "fail_threshold": suspect}
    period = {"test_period": 12 * 3600, "min_period": None if least is None else 6 * 3600}
    want = quietly(qartod.attenuated_signal_test, values, times.astype("datetime64[ns]"), **limits, **period, check_type=measure)
    rule = Rule("r", "attenuated", "x", measure=measure, period=timedelta(hours=12), min_period=least, suspect=fail / 2, fail=suspect)
    got = flags(rows, rule)
    assert_same(got, want, where=np.ones(len(times), np.bool_) if least is None else regular(times, 12 * 3600))


def test_phy_01_flat_line_where_sampling_is_regular(series: Arrays) -> None:
    rows, times, values, suspect, _ = series
    step = np.median(np.diff(times))
    short, long = (int(count * step / np.timedelta64(1, "s")) for count in (3, 6))
    want = quietly(
        qartod.flat_line_test, values, times.astype("datetime64[ns]"), suspect_threshold=short, fail_threshold=long,
        tolerance=float(np.nextafter(suspect, np.inf)),  # it compares strictly
    )  # fmt: skip
    rule = Rule("r", "flatline", "x", tolerance=suspect, suspect=timedelta(seconds=short), fail=timedelta(seconds=long))
    there = np.convolve(np.isnan(values), np.ones(7), "full")[: len(values)] == 0
    assert_same(flags(rows, rule), want, where=regular(times, long + 1) & there)


def regular(times: Any, seconds: int) -> Any:
    """Rows whose window has rows at the usual pace only, from its beginning on."""
    step = np.median(np.diff(times))
    odd = np.append(True, np.diff(times) != step)
    last_odd = np.maximum.accumulate(np.where(odd, np.arange(len(times)), 0))
    return (times - times[last_odd] >= np.timedelta64(seconds, "s") - step) | (last_odd == 0)


def test_phy_01_aggregate() -> None:
    random = np.random.default_rng(3)
    vectors = [random.choice([1, 2, 3, 4, 9], 500) for _ in range(3)]
    want = quietly(qartod.qartod_compare, vectors)
    from lakeward_plugins.transforms.physics_validation.flags import FLAGS

    ranks = {flag: rank for rank, flag in enumerate(FLAGS.to_pylist())}
    strongest = np.maximum.reduce([np.vectorize(ranks.__getitem__)(vector) for vector in vectors])
    assert np.asarray(FLAGS)[strongest].tolist() == want.tolist()


def test_ioos_qc_is_the_version_that_was_compared() -> None:
    assert sys.modules["ioos_qc"].__version__.startswith("3.")
