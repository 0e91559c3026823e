from __future__ import annotations

import logging
import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import OptionError
from lakeward.testing import TransformContract
from lakeward.yamlfile.build import Mistakes, build
from lakeward_plugins.transforms.schematize import Column, Schematize


def batch(**columns: Any) -> pa.RecordBatch:
    """Rows with `_row` from 1 on."""
    count = len(next(iter(columns.values())))
    return pa.RecordBatch.from_pydict({"_row": pa.array(range(1, count + 1), pa.int64()), **columns})


def cast(column: Any, kind: Any, **options: Any) -> tuple[dict[int, Any], dict[int, str]]:
    """What came of each row by `_row`: the value, or why it was rejected."""
    output = Schematize(columns={"x": kind}, **options).apply(batch(x=column))
    good = {row["_row"]: row["x"] for row in output["main"].to_pylist()}
    bad = {row["_row"]: f"{row['_reason']}: {row['_detail']}" for row in output["rejected"].to_pylist()} if "rejected" in output else {}
    assert sorted([*good, *bad]) == list(range(1, len(column) + 1))
    return good, bad


class TestSchematizeContract(TransformContract):
    keeps_unknown_columns = False

    def make(self) -> Schematize:
        columns = {
            "reading_id": Column("bigint", source="id"),
            "temperature": "double",
            "taken_at": Column("timestamp", source="timestamp", required=True),
            "model": Column("text", value="v2"),
            "site": Column("text", default="unknown"),
        }
        return Schematize(columns=columns)  # type: ignore[arg-type]  # a dict of both kinds of column

    def rows(self) -> pa.RecordBatch:
        return batch(
            id=[1.0, 2.0, 2.5, None] * 6,
            temperature=["20.5", "n/a", None] * 8,
            timestamp=["2026-01-01T00:00:00Z", "2026-01-01 01:00:00", "soon", None] * 6,
            site=["a", None] * 12,
            secret=["x"] * 24,
        )


class TestKeepingContract(TransformContract):
    def make(self) -> Schematize:
        return Schematize(columns={"x": "bigint"}, unknown="keep", on_bad="null")

    def rows(self) -> pa.RecordBatch:
        return batch(x=["1", "2.5", None, "n/a"] * 6, y=[1.0] * 24)


# -- casts -------------------------------------------------------------------------------------------------------------

SOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "column", "good", "bad"),
    [
        ("double", ["1.5", "n/a", None, "1,5", "", " 1", "1e400"], [1.5, None], ["n/a", "1,5", "", " 1", "1e400"]),
        ("double", ["inf", "-2"], [math.inf, -2.0], []),
        ("double", [1, 2**53, 2**53 + 1, None], [1.0, 2.0**53, None], ["9007199254740993"]),
        ("float", [1.5, 0.1, 1e300, math.inf], [1.5, 0.10000000149011612, math.inf], ["1e+300"]),
        ("bigint", [1.0, 1.5, math.nan, 2.0**63, -(2.0**63), None], [1, -(2**63), None], ["1.5", "nan", "9.223372036854776e+18"]),
        ("int64", ["7", "7.0", str(2**63)], [7], ["7.0", str(2**63)]),
        ("int", [1, 2**31, -(2**31)], [1, -(2**31)], [str(2**31)]),
        ("int32", [True, False], [1, 0], []),
        ("text", [1.0, 0.1, None], ["1", "0.1", None], []),
        ("string", [b"ok", b"\xff"], ["ok"], [b"\xff"]),
        ("boolean", [0, 1, 5, None], [False, True, None], ["5"]),
        ("boolean", ["true", "0", "yes"], [False, True], ["yes"]),
        ("boolean", [0.0, 1.0, 0.5, math.nan], [False, True], ["0.5", "nan"]),
        ("date", ["2026-01-31", "2026-02-30", "31.1.2026"], [date(2026, 1, 31)], ["2026-02-30", "31.1.2026"]),
        ("date", [datetime(2026, 1, 31), datetime(2026, 1, 31, 1)], [date(2026, 1, 31)], ["2026-01-31 01:00:00.000000"]),
        ("timestamp", ["2026-01-31T12:00:00Z", "2026-01-31 13:00:00+01:00", None], [SOON, SOON, None], []),
        ("timestamp", ["2026-01-31T12:00:00Z", "soon", ""], [SOON], ["soon", ""]),
        ("timestamp", [datetime(2026, 1, 31, 12), None], [SOON, None], []),
        ("timestamp", [1769860800, None], [SOON, None], []),
        ("timestamp", [1769860800.0, 1769860800000, 2461072.0], [SOON, SOON, SOON], []),  # Julian days too, row by row
        ("timestamp", ["1769860800", "2461072.0", "2461072.0 days"], [SOON, SOON], ["2461072.0 days"]),
        ("binary", ["a", None], [b"a", None], []),
    ],
)
def test_a_value_fits_exactly_or_its_row_is_rejected(kind: Any, column: list[Any], good: list[Any], bad: list[Any]) -> None:
    values, complaints = cast(column, kind)
    assert sorted(values.values(), key=repr) == sorted(good, key=repr)
    assert list(complaints.values()) == [f"type: x: {value!r} is not {kind}" for value in bad]


def test_nan_stays_nan() -> None:
    values, complaints = cast(["nan", "1"], "double")
    assert math.isnan(values[1])
    assert complaints == {}


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_of_other_makes_is_read_alike(kind: pa.DataType) -> None:
    values, complaints = cast(pa.array(["1.5", "n/a", None, "n/a"]).cast(kind), "double")
    assert values == {1: 1.5, 3: None}
    assert set(complaints) == {2, 4}


@given(
    texts=st.lists(st.one_of(st.none(), st.sampled_from(["1", "2.5", "n/a", "", "1e3"]), st.floats().map(repr)), min_size=1, max_size=50)
)
@settings(max_examples=100, deadline=None)
def test_bad_values_never_change_what_becomes_of_the_others(texts: list[str | None]) -> None:
    together, complaints = cast(pa.array(texts, pa.string()), "double")
    for key, text in enumerate(texts, 1):
        alone, complaint = cast(pa.array([text], pa.string()), "double")
        assert repr(alone.get(1)) == repr(together.get(key))
        assert complaint.get(1) == complaints.get(key)
        assert (key in together) == (text not in ("n/a", ""))


def test_a_rejected_row_stays_as_it_came_and_tells_all_that_is_wrong() -> None:
    rows = batch(a=["1", "x" * 60], b=[1.5, 2.5], other=["p", "q"])
    output = Schematize(columns={"a": "double", "b": "bigint"}).apply(rows)
    detail = f"a: '{'x' * 40}' is not double; b: '2.5' is not bigint"
    assert output["rejected"].to_pylist() == [
        {"_row": 1, "a": "1", "b": 1.5, "other": "p", "_reason": "type", "_detail": "b: '1.5' is not bigint"},
        {"_row": 2, "a": "x" * 60, "b": 2.5, "other": "q", "_reason": "type", "_detail": detail},
    ]
    assert output["main"].num_rows == 0


def test_bad_values_can_become_null_and_that_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    transform = Schematize(columns={"x": Column("double", default=-1)}, on_bad="null")
    with caplog.at_level(logging.WARNING, "lakeward.schematize"):
        for _ in range(2):
            assert transform.apply(batch(x=["1", "n/a", None]))["main"]["x"].to_pylist() == [1.0, -1.0, -1.0]
    assert [record.getMessage() for record in caplog.records] == ["some values became NULL, because they do not fit their type, in x"]


def test_a_required_column_rejects_null() -> None:
    values, complaints = cast(["1", None, "n/a"], Column("double", required=True))
    assert values == {1: 1.0}
    assert complaints == {3: "type: x: 'n/a' is not double", 2: "null: x is required, but NULL"}
    assert cast([1.0, None], Column("double", required=True, default=0)) == ({1: 1.0, 2: 0.0}, {})
    values, complaints = cast(["1", "n/a"], Column("double", required=True), on_bad="null")
    assert (values, complaints) == ({1: 1.0}, {2: "null: x is required, but NULL"})


def test_naive_times_are_in_the_given_timezone() -> None:
    assert cast(["2026-01-31T12:00:00"], "timestamp", naive_timezone="Europe/Berlin")[0] == {1: datetime(2026, 1, 31, 11, tzinfo=UTC)}
    assert list(cast(["2026-01-31T12:00:00"], "timestamp", naive_timezone="reject")[1]) == [1]


# -- columns -----------------------------------------------------------------------------------------------------------


def test_columns_come_out_as_declared() -> None:
    text = {
        "columns": {
            "reading_id": {"type": "bigint", "source": "id"},
            "sensor_id": "string",
            "timestamp": "timestamp",
            "temperature": "double",
            "event_date": {"type": "timestamp", "source": "timestamp"},
            "model": {"type": "text", "value": "v2"},
            "status_code": {"type": "int", "default": 200},
            "firmware_version": "string",
        },
        "missing": "null",
    }
    rows = batch(id=[7], temperature=["20.5"], sensor_id=["s1"], timestamp=["2026-01-31T12:00:00Z"], status_code=[None], location=["A"])
    out = build(Schematize, text, Path()).apply(rows)["main"]
    assert {field.name: str(field.type) for field in out.schema} == {
        "_row": "int64",
        "reading_id": "int64",
        "sensor_id": "string",
        "timestamp": "timestamp[us, tz=UTC]",
        "temperature": "double",
        "event_date": "timestamp[us, tz=UTC]",
        "model": "string",
        "status_code": "int32",
        "firmware_version": "string",
    }
    assert [tuple(row.values()) for row in out.to_pylist()] == [(1, 7, "s1", SOON, 20.5, SOON, "v2", 200, None)]


def test_unknown_columns_are_dropped_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    transform = Schematize(columns={"x": "double"})
    with caplog.at_level(logging.WARNING, "lakeward.schematize"):
        for _ in range(2):
            assert transform.apply(batch(x=[1.0], y=[2], z=[3]))["main"].schema.names == ["_row", "x"]
    assert [record.getMessage() for record in caplog.records] == ["columns are dropped, because they are not declared: y, z"]


def test_unknown_columns_can_be_kept_behind_the_declared_ones() -> None:
    rows = batch(y=[2], x=["1"], z=[pa.scalar(3)])
    assert Schematize(columns={"x": "double"}, unknown="keep").apply(rows)["main"].schema.names == ["_row", "x", "y", "z"]


def test_absent_columns_can_be_null_and_that_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    transform = Schematize(columns={"x": "double", "y": "date"}, missing="null")
    with caplog.at_level(logging.WARNING, "lakeward.schematize"):
        for _ in range(2):
            assert transform.apply(batch(x=[1.0]))["main"]["y"].equals(pa.nulls(1, pa.date32()))
    assert [record.getMessage() for record in caplog.records] == ["columns are NULL, because the data lack them: y"]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({"columns": {}}, "columns", "none are declared"),
        ({"columns": {"_row": "bigint"}}, "columns._row", "cannot be declared"),
        ({"columns": {"a": "duble"}}, "columns.a", "expected one of double, float"),
        ({"columns": {"a": {"type": "double", "form": "b"}}}, "columns.a.form", "unknown option"),
        ({"columns": {"a": {"source": "b"}}}, "columns.a.type", "required"),
        ({"columns": {"a": {"type": "double", "value": "x"}}}, "columns.a.value", "'x' is not double"),
        ({"columns": {"a": {"type": "int", "default": 2**31}}}, "columns.a.default", "2147483648 is not int"),
        ({"columns": {"a": {"type": "bigint", "default": 2**80}}}, "columns.a.default", "is not bigint"),
        ({"columns": {"a": {"type": "date", "value": 5}}}, "columns.a.value", "5 is not date"),
        ({"columns": {"a": {"type": "timestamp", "default": "soon"}}}, "columns.a.default", "'soon' is not timestamp"),
        ({"columns": {"a": {"type": "int", "value": 1, "source": "b"}}}, "columns.a.value", "`source` and `default` have no place"),
        ({"columns": {"a": "int"}, "naive_timezone": "Mars"}, "naive_timezone", "no timezone 'Mars'"),
    ],
)
def test_mistakes_are_refused_at_their_place(options: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(Mistakes) as caught:
        build(Schematize, options, Path())
    assert [".".join(map(str, mistake.path)) for mistake in caught.value.mistakes] == [path]
    assert message in caught.value.mistakes[0].message


@pytest.mark.parametrize(
    ("columns", "options", "option", "message"),
    [
        ({"y": "double"}, {}, "columns.y", "no column 'y'; columns are _row, x, list, time; `source` names another"),
        ({"y": Column("double", source="z")}, {}, "columns.y", "no column 'z'"),
        ({"y": "double"}, {"missing": "null"}, "columns.y", "no column 'y'"),
        ({"list": "text"}, {}, "columns.list", "cannot become text"),
        ({"time": "bigint"}, {}, "columns.time", "cannot become bigint"),
        ({"x": "date"}, {}, "columns.x", "a column of type int64 cannot become date"),
        ({"list": "timestamp"}, {}, "columns.list", "cannot become timestamp"),
        ({"x": "double"}, {"unknown": "refuse"}, "unknown", "columns that are not declared: list, time"),
        ({"x": Column("text", source="time")}, {"unknown": "keep"}, "columns.x", "`unknown: keep`"),
    ],
)
def test_data_that_do_not_suit_are_refused_already_when_empty(columns: Any, options: Any, option: str, message: str) -> None:
    rows = batch(x=[1], list=[[[1, 2]]], time=[datetime(2026, 1, 1)])
    with pytest.raises(OptionError) as caught:
        Schematize(columns=columns, **options).apply(rows.slice(0, 0))
    assert caught.value.option == option
    assert message in caught.value.message


def test_a_part_of_a_time_is_derived_and_a_row_without_one_is_rejected() -> None:
    times = ["2026-01-02T23:30:00Z", None, "soon", "2026-01-03T01:30:00+02:00"]
    batch = pa.record_batch({"_row": pa.array([1, 2, 3, 4], pa.int64()), "taken": times})
    columns: dict[str, Any] = {"day": Column("date", source="taken", derive="date"), "hour": Column("int", source="taken", derive="hour")}
    out = Schematize(columns).apply(batch)
    assert out["main"].to_pydict() == {"_row": [1, 2, 4], "day": [date(2026, 1, 2), None, date(2026, 1, 2)], "hour": [23, None, 23]}
    assert out["rejected"].to_pydict()["_row"] == [3]
    assert out["main"].schema.equals(Schematize(columns).apply(batch.slice(0, 0))["main"].schema)


def test_a_part_of_a_number_that_is_no_time_is_a_mistake_of_the_column() -> None:
    batch = pa.record_batch({"_row": pa.array([1], pa.int64()), "flag": [True]})
    with pytest.raises(OptionError, match=r"columns\.hour"):
        Schematize({"hour": Column("int", source="flag", derive="hour")}).apply(batch)
