"""Where windows begin and end, what comes out of them, and what is said about mistakes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from window.rows import START, Row, batch_of, by_slot, feed, finals, run, seconds, window

from lakeward import END_OF_INPUT, OptionError, Refused
from lakeward.yamlfile.build import Mistakes, build, unwrapped
from lakeward_plugins.transforms.window import Shape, Window

EVERY_KEY = {
    "window": {"kind": "hopping", "size": "5m", "every": "1m", "gap": "30m", "tz": "UTC", "offset": "0s"},
    "group_by": ["sensor_id"],
    "aggregations": {"temperature": ["mean", "max", "min"], "humidity": ["mean"], "wind_direction": ["circ_mean", "circ_r", "yamartino"]},
    "time_field": "timestamp", "naive_timezone": "UTC", "max_out_of_orderness_s": 600, "allowed_lateness_s": 3600, "watermark_scope": "key",
    "idle_timeout_s": None, "late_policy": "update", "emit": "on_close", "exclude_flags": [4, 9], "exact_max": 10000,
    "max_open_windows": 100000, "on_state_overflow": "spill", "min_time": "2000-01-01", "max_future_s": 86400,
}  # fmt: skip


def made_of(options: dict[str, Any]) -> Window:
    return build(Window, unwrapped(Window, options), Path())


@pytest.mark.parametrize("kind", ["tumbling", "hopping", "session", "calendar"])
def test_every_key_is_taken_in_the_block_of_old_configurations_or_flat(kind: str) -> None:
    options = EVERY_KEY | {"window": {**EVERY_KEY["window"], "kind": kind}}
    assert made_of({"aggregate_config": options}) == made_of(options) != made_of(options | {"exact_max": 1})
    minutes = {name: value for name, value in options.items() if name != "window"} | {"window_minutes": 5}
    made = made_of({"aggregate_config": minutes})
    assert (made.max_out_of_orderness_s, made.allowed_lateness_s, made.max_future_s) == (seconds(600), seconds(3600), timedelta(days=1))
    batch = pa.RecordBatch.from_pydict(
        {"timestamp": ["2024-01-01"], "sensor_id": ["a"], "temperature": [1.0], "humidity": [2], "wind_direction": [350.0]}
    )
    made.apply(batch)
    (row,) = made.finish(END_OF_INPUT)["main"].to_pylist()
    assert (row["window_start"], row["window_end"]) == (START, START + timedelta(minutes=5))
    assert (row["avg_temperature"], row["max_temperature"], row["avg_humidity"]) == (1, 1, 2)
    assert row["circ_mean_wind_direction"] == pytest.approx(350)


def test_defaults_are_those_of_the_specification() -> None:
    other = ("window", "aggregations", "on_state_overflow")  # of the latter see docs/decisions.md
    named = {name: value for name, value in EVERY_KEY.items() if name not in other}
    assert made_of({"aggregations": {"v": "avg"}}) == made_of({"aggregations": {"v": "avg"}, **named})


def test_windows_are_half_open_and_aligned_to_the_epoch_plus_offset() -> None:
    rows: list[Row] = [(9.999999, "a", 1.0), (10, "a", 2.0), (13, "a", 3.0)]
    assert [(row["window_start"], row["window_end"], row["sum_v"]) for row in run(window(), rows)["main"]] == [
        (START, START + seconds(10), 1.0),
        (START + seconds(10), START + seconds(20), 5.0),
    ]
    shifted = run(window(window=Shape(size=seconds(10), offset=seconds(3))), rows)["main"]
    assert [(row["window_start"] - START).total_seconds() for row in shifted] == [3, 13]


def test_agg_02_touching_sessions_stay_apart_and_a_late_row_joins_two() -> None:
    shape = Shape(kind="session", gap=seconds(10))
    rows: list[Row] = [(0, "a", 1.0), (5, "a", 1.0), (15, "a", 1.0), (25, "a", 1.0), (24.999, "a", 1.0)]
    told = run(window(window=shape, max_out_of_orderness_s=seconds(60)), rows)["main"]
    assert [(row["window_start"] - START, row["window_end"] - START, row["record_count"]) for row in told] == [
        (seconds(0), seconds(15), 2), (seconds(15), seconds(35), 3),
    ]  # fmt: skip


def test_agg_02_a_session_that_came_out_and_was_joined_is_taken_back() -> None:
    options = {"window": Shape(kind="session", gap=seconds(10)), "max_out_of_orderness_s": seconds(0), "allowed_lateness_s": seconds(90)}
    rows: list[Row] = [(0, "a", 1.0), (15, "a", 2.0), (60, "a", 4.0), (8, "a", 8.0)]
    told = run(window(**options), rows, [1, 2, 3])["main"]
    final = {(row["window_start"] - START).total_seconds(): row for row in finals(told).values()}
    assert {start: (row["record_count"], row["sum_v"], row["revision"], row["is_final"]) for start, row in final.items()} == {
        0: (3, 11.0, 1, False), 15: (0, None, 1, True), 60: (1, 4.0, 0, True),
    }  # fmt: skip
    assert final[15]["count_v"] == 0


ZONES = [("America/New_York", date(2024, 3, 10), 23), ("America/New_York", date(2024, 11, 3), 25), ("Asia/Kolkata", date(2024, 3, 10), 24),
         ("America/Santiago", date(2024, 9, 8), 23), ("Australia/Lord_Howe", date(2024, 4, 7), 24.5)]  # fmt: skip


@pytest.mark.parametrize(("zone", "day", "hours"), ZONES)
def test_agg_03_a_calendar_day_begins_at_the_first_moment_of_its_date(zone: str, day: date, hours: float) -> None:
    first = (datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC) - START).total_seconds()
    if zone == "America/Santiago":  # clocks are put forward at midnight, so the day begins at 01:00
        assert datetime.fromtimestamp(START.timestamp() + first, ZoneInfo(zone)).hour == 1
    rows: list[Row] = [
        (first - 0.001, "a", 1.0),
        (first, "a", 1.0),
        (first + hours * 3600 - 0.001, "a", 1.0),
        (first + hours * 3600, "a", 1.0),
    ]
    shape = Shape(kind="calendar", size=timedelta(days=1), tz=zone)
    told = run(window(window=shape), rows)["main"]
    assert [row["record_count"] for row in told] == [1, 2, 1]
    assert (told[1]["window_end"] - told[1]["window_start"]).total_seconds() == hours * 3600
    assert told[1]["window_start"].astimezone(ZoneInfo(zone)).date() == day


@pytest.mark.parametrize(
    ("size", "start", "end"),
    [
        ("1w", "2024-03-04", "2024-03-11"), (timedelta(days=1), "2024-03-10", "2024-03-11"), ("1month", "2024-03-01", "2024-04-01"),
        ("1quarter", "2024-01-01", "2024-04-01"), ("1y", "2024-01-01", "2025-01-01"), ("2 weeks", "2024-03-04", "2024-03-18"),
    ],
)  # fmt: skip
def test_agg_03_calendar_windows_are_weeks_months_and_years_too(size: Any, start: str, end: str) -> None:
    zone = ZoneInfo("America/New_York")
    moment = (datetime(2024, 3, 10, 12, tzinfo=zone) - START).total_seconds()
    (row,) = run(window(window=Shape(kind="calendar", size=size, tz="America/New_York")), [(moment, "a", 1.0)])["main"]
    assert (row["window_start"], row["window_end"]) == tuple(datetime.fromisoformat(day).replace(tzinfo=zone) for day in (start, end))


def test_agg_03_hours_of_a_calendar_are_counted_from_local_midnight_in_real_time() -> None:
    zone = ZoneInfo("America/New_York")
    for day, hours, last in ((10, 23, 5), (3, 25, 1)):
        midnight = datetime(2024, 3 if hours == 23 else 11, day, tzinfo=zone).astimezone(UTC)
        rows: list[Row] = [((midnight - START).total_seconds() + 3600 * hour, "a", 1.0) for hour in range(hours)]
        told = run(window(window=Shape(kind="calendar", size=seconds(3600), tz="America/New_York")), rows)["main"]
        assert [row["record_count"] for row in told] == [1] * hours
        sixths = run(window(window=Shape(kind="calendar", size=seconds(6 * 3600), tz="America/New_York")), rows)["main"]
        assert [row["record_count"] for row in sixths] == [6] * (hours // 6) + [last]
    shifted = Shape(kind="calendar", size=timedelta(days=1), tz="America/New_York", offset=seconds(6 * 3600))
    (row,) = run(window(window=shifted), [((datetime(2024, 3, 10, 5, tzinfo=zone) - START).total_seconds(), "a", 1.0)])["main"]
    assert row["window_start"] == datetime(2024, 3, 9, 6, tzinfo=zone)


def test_hour_and_day_come_from_the_time_when_there_are_no_such_columns() -> None:
    rows: list[Row] = [(0, "a", 1.0), (3599, "a", 2.0), (3600, "a", 4.0), (86400, "a", 8.0)]
    made = made_of({"aggregate_config": {"group_by": ["sensor_id", "hour"], "aggregations": {"v": "sum", "readings": "count"}}})
    told = feed(made, batch_of(rows))["main"]
    assert [(row["hour"], row["sum_v"], row["count_readings"]) for row in told] == [
        (START, 3, 2), (START + timedelta(hours=1), 4, 1), (START + timedelta(days=1), 8, 1),
    ]  # fmt: skip
    assert {row["window_end"] - row["window_start"] for row in told} == {timedelta(hours=1)}
    days = feed(made_of({"group_by": ["day"], "aggregations": {"v": "sum"}}), batch_of(rows))["main"]
    assert [(row["day"], row["sum_v"]) for row in days] == [(date(2024, 1, 1), 7), (date(2024, 1, 2), 8)]
    wide = made_of({"group_by": ["day", "hour"], "aggregations": {"v": "sum"}, "window": {"size": "2d", "tz": "America/New_York"}})
    told = feed(wide, batch_of(rows))["main"]
    assert [(row["day"], row["hour"], row["sum_v"]) for row in told] == [
        (date(2023, 12, 31), START, 3), (date(2023, 12, 31), START + seconds(3600), 4), (date(2024, 1, 1), START + timedelta(days=1), 8),
    ]  # fmt: skip
    assert len({row["window_id"] for row in told}) == 3
    own = batch_of(rows, hour=pa.array(["x", "x", "y", "y"]))
    kept = feed(made_of({"group_by": ["hour"], "aggregations": {"v": "sum"}, "window": {"size": "2d"}}), own)["main"]
    assert [(row["hour"], row["sum_v"]) for row in kept] == [("x", 3), ("y", 4), ("y", 8)]


def test_hours_close_though_no_later_row_has_the_same_hour() -> None:
    made = made_of({"group_by": ["sensor_id", "hour"], "aggregations": {"v": "sum"}, "max_out_of_orderness_s": 0, "allowed_lateness_s": 0})
    told = feed(made, batch_of([(0, "a", 1.0), (3600, "a", 1.0), (7200, "a", 1.0)]), end=False)["main"]
    assert [row["hour"] for row in told] == [START, START + timedelta(hours=1)]


# -- lateness ----------------------------------------------------------------------------------------------------------


def test_a_row_is_late_exactly_when_its_window_ended_before_the_watermark() -> None:
    options = {"max_out_of_orderness_s": seconds(5), "allowed_lateness_s": seconds(7)}
    assert run(window(**options), [(21.999999, "a", 1.0), (9, "a", 1.0)])["late"] == []
    assert [row["_row"] for row in run(window(**options), [(22, "a", 1.0), (9, "a", 1.0)])["late"]] == [1]


def test_windows_of_a_silent_key_close_with_the_others_in_global_scope_or_after_idle_timeout() -> None:
    rows: list[Row] = [(1, "silent", 1.0), (100, "a", 1.0)]
    assert window().apply(batch_of(rows))["main"].num_rows == 0
    assert window(watermark_scope="global").apply(batch_of(rows))["main"].column("sensor_id").to_pylist() == ["silent"]
    assert window(idle_timeout_s=seconds(86)).apply(batch_of(rows))["main"].num_rows == 0
    assert window(idle_timeout_s=seconds(85)).apply(batch_of(rows))["main"].column("sensor_id").to_pylist() == ["silent"]


def test_finish_gives_out_what_is_over_and_later_rows_of_it_are_late() -> None:
    made = window()
    made.apply(batch_of([(1, "a", 1.0), (12, "a", 1.0)]))
    assert made.finish(START + seconds(9))["main"].num_rows == 0
    assert made.finish(START + seconds(10))["main"].num_rows == 1
    assert made.finish(END_OF_INPUT)["main"].num_rows == 1
    after = made.apply(batch_of([(2, "a", 1.0), (13, "a", 1.0), (21, "a", 1.0), (3, "new", 1.0)]))
    assert after["late"].column("_row").to_pylist() == [0, 1, 3]
    assert window().finish(END_OF_INPUT) == {}


def test_partial_windows_come_after_each_batch_and_whole_ones_when_they_are_over() -> None:
    made = window(emit="on_batch", max_out_of_orderness_s=seconds(0), allowed_lateness_s=seconds(60))
    rows: list[Row] = [(1, "a", 1.0), (2, "a", 1.0), (10, "a", 5.0), (3, "a", 1.0)]
    told = [row for row in feed(made, batch_of(rows), [1, 2, 3], end=False)["main"] if row["window_start"] == START]
    assert [(row["revision"], row["record_count"], row["partial"]) for row in told] == [
        (0, 1, True),
        (1, 2, True),
        (2, 2, False),
        (3, 3, False),
    ]


def test_a_time_that_cannot_be_read_is_rejected_with_the_whole_row() -> None:
    out = run(window(), [("soon", "a", 1.0), (None, "a", 2.0), (1, "a", 3.0), ("1901-01-01", "a", 4.0)])
    assert [(row["_row"], row["_reason"], row["v"]) for row in out["rejected"]] == [
        (0, "time_parse", 1.0), (1, "time_parse", 2.0), (3, "time_range", 4.0),
    ]  # fmt: skip


# -- the rows that come out --------------------------------------------------------------------------------------------


def test_names_types_and_order_of_the_output_are_the_same_with_and_without_rows() -> None:
    made = window(aggregations={"v": ["mean", "avg", "max"]})
    empty = made.apply(batch_of([]))
    full = made.apply(batch_of([(30, "b", 1.0), (1, "b", 1.0), (1, None, 1.0), (1, "a", 1.0), (90, "a", 0.0), (90, "b", 0.0)]))
    assert empty["main"].schema == full["main"].schema
    assert empty["late"].schema == full["late"].schema
    assert full["main"].schema.names == [
        "sensor_id", "window_start", "window_end", "avg_v", "max_v", "record_count", "window_id", "revision", "is_final",
    ]  # fmt: skip
    assert full["main"].schema.field("window_start").type == pa.timestamp("us", "UTC")
    assert full["main"].column("sensor_id").to_pylist() == ["a", "b"]
    assert full["main"].column("window_start").to_pylist() == sorted(full["main"].column("window_start").to_pylist())


def test_a_window_has_the_same_id_in_every_run_and_no_other_window_has_it() -> None:
    rows: list[Row] = [(second, sensor, 1.0) for second in range(0, 100, 5) for sensor in ("a", "b", None)]
    one, other = run(window(), rows)["main"], run(window(), rows[:30], [7, 20])["main"]
    identities = {slot: row["window_id"] for slot, row in by_slot(one).items()}
    assert len(set(identities.values())) == len(identities)
    assert all(identities[slot] == row["window_id"] for slot, row in by_slot(other).items())
    assert all(0 <= identity < 2**63 for identity in identities.values())
    assert identities["a", START] == 5299551915054797006, "ids that are in tables already must not change"
    longer = run(window(window=Shape(size=seconds(20))), rows)["main"]
    assert not {row["window_id"] for row in longer} & set(identities.values())


def test_group_keys_may_be_text_numbers_null_or_several_columns_or_none() -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "timestamp": pa.array([1_704_067_200] * 5, pa.int64()),
            "site": pa.array(["x", "x", None, "y", "x"]).dictionary_encode(),
            "unit": pa.array([1, 1, 1, None, 2], pa.int64()),
            "v": pa.array([1, 2, 3, 4, 5], pa.int32()),
        }
    )
    made = window(group_by=["site", "unit"], aggregations={"v": "sum"})
    made.apply(batch)
    assert made.finish(END_OF_INPUT)["main"].select(["site", "unit", "sum_v"]).to_pylist() == [
        {"site": "x", "unit": 1, "sum_v": 3.0},
        {"site": "x", "unit": 2, "sum_v": 5.0},
        {"site": "y", "unit": None, "sum_v": 4.0},
        {"site": None, "unit": 1, "sum_v": 3.0},
    ]
    whole = window(group_by=[], aggregations={"v": "mean"})
    whole.apply(batch)
    again = window(group_by=[], aggregations={"v": "mean"})
    again.restore(whole.state())
    assert again.finish(END_OF_INPUT)["main"].column("avg_v").to_pylist() == [3.0]


def test_aggregates_of_four_fields_cost_seven_times_those_of_arrow_at_most() -> None:
    """Arrow's own have no state and nothing that is late. By the clock it was 0.1 s, of which a slow machine knows nothing."""
    rows, rng = 100_000, np.random.default_rng(1)
    stamps = pa.array(np.arange(rows) * 100_000 + 1_704_067_200_000_000).cast(pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {"timestamp": stamps, "sensor_id": pa.array([f"s{index % 100}" for index in range(rows)])}
    batch = pa.RecordBatch.from_pydict(columns | {name: pa.array(rng.normal(20, 5, rows)) for name in "abcd"})

    def ours() -> None:
        made = Window(aggregations={name: ["mean", "min", "max", "std", "count"] for name in "abcd"})
        made.apply(batch)
        made.state()

    def arrows() -> None:
        minutes = pc.floor_temporal(stamps, unit="minute")
        table = pa.table([*batch.columns, minutes], names=[*batch.schema.names, "window"])
        wanted = [(name, what) for name in "abcd" for what in ("mean", "min", "max", "stddev", "count")]
        table.group_by(["sensor_id", "window"], use_threads=False).aggregate(wanted)

    def least(work: Callable[[], None]) -> float:
        taken = []
        for _ in range(5):
            started = time.process_time()
            work()
            taken.append(time.process_time() - started)
        return min(taken)

    assert least(ours) < 7 * least(arrows)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({"aggregations": {"w": ["mean"]}}, "aggregations.w", "no column 'w'; columns are _row, timestamp, sensor_id, v"),
        ({"group_by": ["sensor_id", "site"]}, r"group_by\[1\]", "no column 'site'"),
        ({"group_by": ["v"]}, r"group_by\[0\]", "column 'v' is double; group by text"),
        ({"time_field": "when"}, "time_field", "no column 'when'"),
        ({"calm_field": "speed"}, "calm_field", "no column 'speed'"),
        ({"calm_field": "sensor_id"}, "calm_field", "column 'sensor_id' is string; expected the wind speed"),
        ({"window": Shape(tz="Europe/Berlin")}, "window.tz", "tumbling windows are aligned to UTC; use `kind: calendar`"),
        ({"aggregations": {"v": "max"}, "group_by": ["sensor_id", "max_v"]}, r"group_by\[1\]", "no column 'max_v'"),
    ],
)
def test_says_on_an_empty_batch_which_column_it_misses(options: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{path}: {message}"):
        window(**options).apply(batch_of([]))


def test_says_that_two_columns_would_have_one_name() -> None:
    with pytest.raises(OptionError, match="group_by: the output would have two columns 'max_v'; rename that of the input"):
        window(aggregations={"v": "max"}, group_by=["max_v"]).apply(batch_of([], max_v=pa.array([], pa.string())))


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"window": {"size": "0s"}}, ("window", "size")),
        ({"window": {"kind": "hopping"}}, ("window", "every")),
        ({"window": {"kind": "hopping", "size": "1m", "every": "2m"}}, ("window", "every")),
        ({"window": {"kind": "hopping", "size": "1d", "every": "1s"}}, ("window", "every")),
        ({"window": {"kind": "session"}}, ("window", "gap")),
        ({"window": {"kind": "calendar", "size": "36h"}}, ("window", "size")),
        ({"window": {"kind": "calendar", "size": "1fortnight"}}, ("window", "size")),
        ({"window": {"size": "1month"}}, ("window", "size")),
        ({"window": {"tz": "Mars"}}, ("window", "tz")),
        ({"window": {}, "window_minutes": 5}, ("window_minutes",)),
        ({"naive_timezone": "Mars"}, ("naive_timezone",)),
        ({"min_time": "x"}, ("min_time",)),
        ({"allowed_lateness_s": -1}, ("allowed_lateness_s",)),
        ({"late_policy": "keep"}, ("late_policy",)),
    ],
)
def test_says_what_is_wrong_with_its_options(options: dict[str, Any], path: tuple[str, ...]) -> None:
    with pytest.raises(Mistakes) as caught:
        build(Window, {"aggregations": {"v": "mean"}, **options}, Path())
    assert caught.value.mistakes[0].path == path


def test_sums_in_the_state_that_would_mean_something_else_now_are_refused() -> None:
    made = window()
    made.apply(batch_of([(1, "a", 1.0)]))
    with pytest.raises(Refused, match="made with another window; put it back"):
        window(window=Shape(size=seconds(20))).restore(made.state())
    window(allowed_lateness_s=seconds(20)).restore(made.state())
    with pytest.raises(Refused, match="the types of the columns have changed"):
        made.apply(
            batch_of([]).set_column(3, "v", pa.array([], pa.string())).cast(batch_of([]).schema.set(2, pa.field("sensor_id", pa.int64())))
        )
