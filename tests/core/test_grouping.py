from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeward.errors import OptionError
from lakeward.grouping import NEVER, Plausible, event_times

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def batch(*times: object) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"_row": list(range(len(times))), "timestamp": list(times)})


def fates(span: Plausible, rows: pa.RecordBatch, unit: str = "auto") -> list[str]:
    """The reason of each rejected row, nothing for a usable one."""
    usable, ports = span.part(rows, event_times(rows, "timestamp", "UTC", unit), "timestamp")  # type: ignore[arg-type]
    reasons = {row["_row"]: row["_reason"] for row in ports["rejected"].to_pylist()} if ports else {}
    assert [key for key in range(rows.num_rows) if not usable[key]] == sorted(reasons)
    return [reasons.get(key, "") for key in range(rows.num_rows)]


def test_rows_without_a_plausible_time_say_why() -> None:
    rows = batch("1901-12-13T20:45:52Z", "2026-01-01", None, "soon", "2100-01-01", "2000-01-01", "2099-12-31T23:59:59.999999Z")
    span = Plausible.between("2000-01-01", "2100-01-01")
    assert fates(span, rows) == ["time_range", "", "time_parse", "time_parse", "time_range", "", ""]
    details = span.part(rows, event_times(rows, "timestamp", "UTC"), "timestamp")[1]["rejected"]["_detail"].to_pylist()
    assert details[:2] == ["timestamp is not in 2000-01-01 to 2100-01-01", "timestamp is missing, or no time"]


def test_the_clock_rejects_rows_from_the_future() -> None:
    span = Plausible.between("2000-01-01", "2100-01-01", timedelta(hours=1)).at(NOW)
    rows = batch("2026-01-01T01:00:00Z", "2026-01-01T01:00:00.000001Z", "2100-01-01", "2025-12-31", "x")
    assert fates(span, rows) == ["", "time_range", "time_range", "", "time_parse"]
    details = span.part(rows, event_times(rows, "timestamp", "UTC"), "timestamp")[1]["rejected"]["_detail"].to_pylist()
    assert details[0] == "timestamp is more than 3,600 s after the time at which the row was read"


def test_a_clock_that_is_wrong_itself_rejects_nothing() -> None:
    span = Plausible.between("2000-01-01", "2100-01-01", timedelta(hours=1)).at(datetime(1970, 1, 1, tzinfo=UTC))
    assert fates(span, batch("2026-01-01T01:00:00Z", "2100-01-01")) == ["", "time_range"]


@given(st.datetimes(datetime(1990, 1, 1), datetime(2110, 1, 1)), st.datetimes(datetime(2000, 1, 1), datetime(2120, 1, 1)), st.timedeltas())
def test_a_time_is_plausible_as_its_two_limits_say(moment: datetime, now: datetime, reach: timedelta) -> None:
    now, moment = now.replace(tzinfo=UTC), moment.replace(tzinfo=UTC)
    span = Plausible.between("2000-01-01", "2100-01-01", reach).at(NOW).at(now)  # only the last clock counts
    inside = datetime(2000, 1, 1, tzinfo=UTC) <= moment < datetime(2100, 1, 1, tzinfo=UTC)
    assert fates(span, batch(moment)) == ["" if inside and moment - now <= reach else "time_range"]


def test_the_unit_of_numbers_can_be_given() -> None:
    assert event_times(batch(2_440_587.5, 2_440_588.5), "timestamp", "UTC", "julian").tolist() == [0, 86_400_000_000]
    assert event_times(batch(7, None), "timestamp", "UTC", "s").tolist() == [7_000_000, NEVER]
    assert fates(Plausible.between("1970-01-01", "2100-01-01"), batch(7), "s") == [""]


def test_limits_that_are_no_times_or_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(OptionError, match="min_time: expected a time such as 2000-01-01, got 'long ago'"):
        Plausible.between("long ago", "2100-01-01")
    with pytest.raises(OptionError, match="min_time: expected a time before max_time, 2000-01-01"):
        Plausible.between("2100-01-01", "2000-01-01")
