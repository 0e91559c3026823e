from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward.errors import OptionError
from lakeward.timestamps import to_utc

INSTANTS = st.datetimes(datetime(1678, 1, 1), datetime(2261, 12, 31))
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))

SPECS = ["auto", "seconds", "microseconds", "minutes"]
FORMS = """2020-01-01T00:00:00Z|2020-01-01 00:00|2020-01-01|2020-02-30|2020-01-01T05Z|2020-01-01T00:00:00.1234567Z| 2020-01-01|1900-02-29
0000-01-01T00:00Z|2000-02-29T00:00+05|1577836800|1577836800.5|-1|x||2020-01-01T24:00Z|0500-01-01T00:00Z|9999-01-01|2020-03-29 02:30
2020-01-01T00:00:00,5+0100|2460000.5|2460000|2488069.6""".replace("\n", "|").split("|")


def read(*values: object, kind: Any = None, **options: Any) -> Any:
    return to_utc(pa.array(values, kind), **options)[0].to_pylist()


def good(*values: object, kind: Any = None, **options: Any) -> Any:
    return to_utc(pa.array(values, kind), **options)[1].to_pylist()


@given(st.lists(st.tuples(INSTANTS, st.none() | ZONES, st.sampled_from("T "), st.sampled_from(SPECS)), max_size=20))
@settings(max_examples=150, deadline=None)
def test_reads_iso_text_as_python_does(rows: list[tuple[datetime, timezone | None, str, str]]) -> None:
    texts = [moment.replace(tzinfo=zone).isoformat(separator, spec) for moment, zone, separator, spec in rows]
    expected = [datetime.fromisoformat(text) for text in texts]
    expected = [moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in expected]
    assert read(*texts, kind=pa.string()) == expected
    assert good(*texts, kind=pa.string()) == [True] * len(texts)


@given(st.lists(st.sampled_from([*FORMS, None]), max_size=8))
@settings(max_examples=100, deadline=None)
def test_the_rows_around_a_row_do_not_change_its_answer(texts: list[str | None]) -> None:
    alone = [to_utc(pa.array([text], pa.string()), naive_timezone="Europe/Berlin") for text in texts]
    times, ok = to_utc(pa.array(texts, pa.string()), naive_timezone="Europe/Berlin")
    assert times.to_pylist() == [time[0].as_py() for time, _ in alone]
    assert ok.to_pylist() == [flag[0].as_py() for _, flag in alone]
    encoded = to_utc(pa.array(texts, pa.string()).dictionary_encode(), naive_timezone="Europe/Berlin")
    assert encoded[0].equals(times)
    assert encoded[1].equals(ok)


@given(st.text(max_size=30) | st.from_regex(r"[0-9T:.+\- Z]{0,30}", fullmatch=True))
@settings(max_examples=120, deadline=None)
def test_no_text_makes_it_fail(text: str) -> None:
    times, ok = to_utc(pa.array([text, None, "2020-01-01T00:00:00Z"]))
    assert ok[0].as_py() == times[0].is_valid
    assert ok.to_pylist()[1:] == [True, True]
    assert times.type == pa.timestamp("us", "UTC")


@pytest.mark.parametrize(
    "text",
    ["2020-01-01T00:00:00.123456789Z", "2020-01-01T00:00:00.123456999+00:00", "2020-01-01T01:00:00,1234567+0100", "1577836800123456999"],
)
def test_digits_after_the_microseconds_are_cut_off(text: str) -> None:
    assert read(text) == [datetime(2020, 1, 1, 0, 0, 0, 123456, UTC)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2020",
        "2020-01",
        "20200101T000000Z",
        "2019-02-29",
        "2020-01-01T24:00:00Z",
        "2016-12-31T23:59:60Z",
        "2020-01-01T25:00Z",
        "2020-01-01Z",
        "12",
    ],
)
def test_what_is_not_a_time_is_null_and_not_good(text: str) -> None:
    assert (read(text), good(text)) == ([None], [False])


def test_null_is_good_and_stays_null() -> None:
    assert (read(None, kind=pa.string()), good(None, kind=pa.string())) == ([None], [True])
    assert (read(None, kind=pa.null()), good(None, kind=pa.float64())) == ([None], [True])
    assert len(to_utc(pa.array([], pa.string()))[0]) == 0


def test_naive_text_is_local_time_and_what_the_clocks_showed_twice_or_never_is_not_good() -> None:
    texts = ["2020-07-01 12:00:00", "2020-03-29 02:30:00", "2020-10-25 02:30:00"]
    assert read(*texts, naive_timezone="Europe/Berlin") == [datetime(2020, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")), None, None]
    assert good(*texts, naive_timezone="Europe/Berlin") == [True, False, False]
    assert good("2020-07-01T12:00:00Z", "2020-07-01T12:00:00", naive_timezone="reject") == [True, False]


CHANGES = {  # local times near which the clocks were changed, by an hour, half an hour, a day, at midnight, and never
    "Europe/Berlin": [datetime(2020, 3, 29, 2), datetime(2020, 10, 25, 2)],
    "Australia/Lord_Howe": [datetime(2021, 4, 4, 2), datetime(2021, 10, 3, 2)],
    "Pacific/Apia": [datetime(2011, 12, 30)],
    "America/Havana": [datetime(2022, 3, 13), datetime(2022, 11, 6)],
    "Asia/Kolkata": [datetime(2022, 1, 1)],
}


@given(st.data(), st.sampled_from(["before", "after"]))
@settings(max_examples=200, deadline=None)
def test_fold_reads_times_around_a_change_of_the_clocks_as_python_does(data: st.DataObject, fold: Literal["before", "after"]) -> None:
    zone = data.draw(st.sampled_from(sorted(CHANGES)))
    away = st.timedeltas(timedelta(hours=-26), timedelta(hours=26)) | st.integers(-8, 8).map(
        lambda quarters: timedelta(minutes=15 * quarters)
    )
    naive = data.draw(st.lists(st.builds(datetime.__add__, st.sampled_from(CHANGES[zone]), away), max_size=5))
    expected = [moment.replace(tzinfo=ZoneInfo(zone), fold=fold == "after").astimezone(UTC) for moment in naive]
    texts = [str(moment) for moment in naive]
    assert read(*texts, kind=pa.string(), naive_timezone=zone, fold=fold) == expected
    assert read(*naive, None, kind=pa.timestamp("us"), naive_timezone=zone, fold=fold) == [*expected, None]


@given(st.integers(946_684_800 * 10**6, 4_102_444_800 * 10**6 - 1))
@settings(max_examples=100, deadline=None)
def test_tells_the_unit_of_numbers_by_their_size(micros: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    second = moment.replace(microsecond=0)
    milli = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    numbers = [micros // 10**6, micros // 1000, micros, micros * 1000 + 999]
    assert read(*numbers) == [second, milli, moment, moment]
    assert read(*map(str, numbers)) == [second, milli, moment, moment]
    assert abs(read(micros / 1e6)[0] - moment) <= timedelta(microseconds=1)


def julian(moment: datetime) -> float:
    """The Julian day of a time, as close as a double comes."""
    return (moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)) / timedelta(days=1) + 2_440_587.5


@given(INSTANTS)
@settings(max_examples=200, deadline=None)
def test_julian_days_are_read_to_the_millisecond(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    assert read(julian(moment), unit="julian") == [moment]
    assert read(repr(julian(moment)), unit="julian") == [moment]
    assert read(julian(moment)) == ([moment] if datetime(2000, 1, 1, tzinfo=UTC) <= moment <= datetime(2100, 1, 1, tzinfo=UTC) else [None])


def test_julian_days_are_those_of_sqlite() -> None:
    texts = ["2000-01-01 00:00:00.000", "2024-02-29 23:59:59.999", "2026-07-01 12:00:00.001", "2099-12-31 23:59:59.123"]
    with closing(sqlite3.connect(":memory:")) as database:
        days = [database.execute("SELECT julianday(?)", [text]).fetchone()[0] for text in texts]
    assert read(*days) == read(*texts) == [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in texts]
    assert read(2451545, 2488069) == [datetime(2000, 1, 1, 12, tzinfo=UTC), datetime(2099, 12, 31, 12, tzinfo=UTC)]


def test_julian_days_of_the_plausible_years_are_no_number_of_another_unit() -> None:
    inside, outside = [2451544.5, 2488069.5], [2451544.4, 2488069.6, 2451544, 2488070]
    assert read(*inside) == [datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)]
    assert good(*outside, kind=pa.float64()) == good(2451544, 2488070, kind=pa.int64()) * 2 == [False] * 4
    for unit in ("s", "ms", "us", "ns"):
        assert all(moment < datetime(1971, 1, 1, tzinfo=UTC) for moment in read(*inside, unit=unit))


@given(
    st.lists(
        st.tuples(st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)), st.sampled_from(["s", "ms", "us", "julian"])), max_size=9
    )
)
@settings(max_examples=100, deadline=None)
def test_each_row_of_a_column_of_many_units_is_read_by_its_own(rows: list[tuple[datetime, str]]) -> None:
    rows = [(moment.replace(microsecond=0, tzinfo=UTC), unit) for moment, unit in rows]
    seconds = {"s": 1.0, "ms": 1e3, "us": 1e6}
    numbers = [julian(moment) if unit == "julian" else moment.timestamp() * seconds[unit] for moment, unit in rows]
    wanted = [moment for moment, _ in rows]
    assert read(*numbers, kind=pa.float64()) == wanted
    assert read(*map(repr, numbers), kind=pa.string()) == wanted


def test_numbers_outside_the_plausible_years_are_not_good_unless_the_unit_is_given() -> None:
    assert good(5, -1, 10**10, float("nan"), kind=pa.float64()) == [False, False, False, False]
    assert read(5, -1, unit="s") == [datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]
    assert read(-1, unit="ns") == [datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)]
    assert good(2**63 - 1, unit="s") == [False]
    assert good(2**64 - 1, kind=pa.uint64()) == [False]


def test_reads_arrow_timestamps_of_any_unit_and_zone() -> None:
    moment = datetime(2020, 1, 1, 12, tzinfo=UTC)
    for unit in ("s", "ms", "us", "ns"):
        assert read(moment, kind=pa.timestamp(unit, "Asia/Tokyo")) == [moment]
        assert read(moment.replace(tzinfo=None), kind=pa.timestamp(unit), naive_timezone="+01:00") == [moment - timedelta(hours=1)]
    assert read(moment.date(), kind=pa.date32()) == [moment.replace(hour=0)]
    assert good(2**62, kind=pa.timestamp("s", "UTC")) == [False]


def test_a_time_that_is_not_good_can_never_overflow_a_reader_of_nanoseconds() -> None:
    times, ok = to_utc(pa.array(["1677-01-01T00:00Z", "2262-04-12T00:00Z", "1678-01-01", "2262-01-01T00:00Z"]))
    assert ok.to_pylist() == [False, False, True, True]
    times.cast(pa.timestamp("ns", "UTC"))


def test_says_which_timezone_or_type_it_does_not_know() -> None:
    with pytest.raises(OptionError, match="no timezone 'Mars/Olympus'"):
        to_utc(pa.array([], pa.string()), naive_timezone="Mars/Olympus")
    with pytest.raises(TypeError, match="type bool holds no times"):
        to_utc(pa.array([True]))


@pytest.mark.parametrize("first", [1_577_836_800, 2_460_000.5], ids=["s", "julian"])
def test_a_million_numbers_of_one_unit_cost_even_less(first: float) -> None:
    numbers = pa.array([first + i / 1000 for i in range(100_000)])
    started = time.process_time()
    for _ in range(10):
        to_utc(numbers)
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("ending", ["Z", ""])
def test_a_million_texts_of_one_form_cost_a_fraction_of_a_second(ending: str) -> None:
    texts = pa.array([f"2020-01-{1 + i % 28:02d}T{i % 24:02d}:{i % 60:02d}:00{ending}" for i in range(100_000)])
    started = time.process_time()
    for _ in range(10):
        to_utc(texts)
    assert time.process_time() - started < 0.2
