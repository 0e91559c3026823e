"""The transform `sql`: where each row goes."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import OptionError
from lakeward.testing import TransformContract
from lakeward_plugins.transforms.sql import Sql
from lakeward_plugins.transforms.sql.transform import MOST_BAD_ROWS

FAHRENHEIT = "SELECT _row, sensor_id, temperature * 1.8 + 32 AS temperature_f FROM batch WHERE temperature > 0"


def batch(**columns: Any) -> pa.RecordBatch:
    """Rows with `_row` from 1 on."""
    count = len(next(iter(columns.values())))
    return pa.RecordBatch.from_pydict({"_row": pa.array(range(1, count + 1), pa.int64()), **columns})


def fates(query: str, rows: pa.RecordBatch) -> dict[str, list[Any]]:
    """The keys of the rows on each port."""
    return {port: part["_row"].to_pylist() for port, part in Sql(query).apply(rows).items()}


SAMPLE = batch(
    sensor_id=["a", "b", None, "c"] * 6,
    temperature=[20.0, -5.0, None, math.nan, 0.0, math.inf] * 4,
    written=["1", "2.5", None, "3"] * 5 + ["x", "1", "", "2"],
    kind=pa.array(["north", "south"] * 12).dictionary_encode(),
    timestamp=pa.array([datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(24)], pa.timestamp("us", "UTC")),
)


class TestSqlContract(TransformContract):
    keeps_unknown_columns = False

    def make(self) -> Sql:
        return Sql(FAHRENHEIT)

    def rows(self) -> pa.RecordBatch:
        return SAMPLE


class TestSqlThatKeepsAndRejectsContract(TransformContract):
    def make(self) -> Sql:
        return Sql("SELECT *, written::DOUBLE AS number, hour(timestamp) AS hour FROM batch WHERE sensor_id <> 'c' OR sensor_id IS NULL")

    def rows(self) -> pa.RecordBatch:
        return SAMPLE


def test_columns_are_computed_and_rows_removed_in_their_order() -> None:
    output = Sql(FAHRENHEIT).apply(batch(sensor_id=["a", "b", "c"], temperature=[100.0, -1.0, 0.5]))
    assert output["main"].to_pylist() == [
        {"_row": 1, "sensor_id": "a", "temperature_f": 212.0},
        {"_row": 3, "sensor_id": "c", "temperature_f": 32.9},
    ]
    assert output["filtered"].to_pylist() == [{"_row": 2, "_rule": "sql"}]
    assert "rejected" not in output


numbers = st.one_of(st.none(), st.integers(-3, 3).map(float), st.just(0.5))


TWICE = Sql("SELECT text::INT * 2 AS twice, _row, x FROM batch WHERE x > 0")


@given(st.lists(st.tuples(numbers, st.sampled_from(["1", "-2", "3", "4", "x", None])), max_size=30))
@settings(max_examples=25, deadline=None)
def test_each_row_has_the_fate_that_it_has_alone(rows: list[tuple[float | None, str | None]]) -> None:
    given_rows = batch(x=pa.array([x for x, _ in rows], pa.float64()), text=pa.array([text for _, text in rows], pa.string()))
    output = TWICE.apply(given_rows)
    wanted, dead = [], []
    for key, (x, text) in enumerate(rows, 1):
        if x is None or x <= 0:
            continue
        if text == "x":
            dead.append(key)
        else:
            wanted.append({"twice": None if text is None else int(text) * 2, "_row": key, "x": x})
    gone = sorted(set(range(1, len(rows) + 1)) - {row["_row"] for row in wanted} - set(dead))
    assert output["main"].to_pylist() == wanted
    assert (output["rejected"]["_row"].to_pylist() if "rejected" in output else []) == dead
    assert (output["filtered"]["_row"].to_pylist() if "filtered" in output else []) == gone


expressions = st.recursive(
    st.sampled_from(["x", "text", "1", "-0.5", "NULL", "'5'", "flag"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "||", "<", "=", "AND", "IS DISTINCT FROM"]), inner),
        st.builds("CASE WHEN {} THEN {} ELSE {} END".format, inner, inner, inner),
        st.builds("{}({})".format, st.sampled_from(["abs", "upper", "length", "coalesce", "typeof"]), inner),
        st.builds("(NOT {})".format, inner),
        st.builds("{}({} AS {})".format, st.sampled_from(["CAST", "TRY_CAST"]), inner, st.sampled_from(["INT", "DOUBLE", "VARCHAR"])),
    ),
    max_leaves=5,
)
MIXED = batch(x=[1.5, -2.0, None, 7.0], text=["1", "x", None, "-3"], flag=[True, False, None, True])


@given(expressions)
@settings(max_examples=60, deadline=None)
def test_a_row_gives_the_same_alone_as_among_others(expression: str) -> None:
    transform = Sql(f"SELECT _row, {expression} AS y FROM batch")
    try:
        together = transform.apply(MIXED)
    except OptionError:
        return  # types that do not fit
    alone = [transform.apply(MIXED.slice(place, 1)) for place in range(4)]
    for port in ("main", "rejected"):
        rows = [row for output in alone if port in output for row in output[port].to_pylist()]
        assert (together[port].to_pylist() if port in together else []) == rows


def test_rows_that_the_query_fails_on_are_rejected_whole_with_the_reason() -> None:
    rows = batch(text=["1", "two", None, "4.5", "5"], other=[10, 20, 30, 40, 50])
    output = Sql("SELECT _row, text::INT AS number FROM batch").apply(rows)
    assert [row["number"] for row in output["main"].to_pylist()] == [1, None, 5, 5]  # DuckDB rounds
    (letter,) = output["rejected"].to_pylist()
    assert "Could not convert string 'two' to INT32" in letter.pop("_detail")
    assert letter == {"_row": 2, "text": "two", "other": 20, "_reason": "sql"}


@pytest.mark.parametrize("spread", ["together", "apart"])
def test_as_many_bad_rows_as_are_looked_for_are_all_found(spread: str) -> None:
    bad = range(700, 700 + MOST_BAD_ROWS) if spread == "together" else range(7, 1000, 1000 // MOST_BAD_ROWS)
    texts = ["x" if place in bad else "1" for place in range(1000)]
    found = fates("SELECT _row, text::INT AS number FROM batch", batch(text=texts))
    assert found["rejected"] == [place + 1 for place in bad]
    assert len(found["main"]) == 1000 - MOST_BAD_ROWS


def test_a_batch_of_bad_rows_is_refused_soon_and_without_their_values() -> None:
    with pytest.raises(
        OptionError, match=r"query: fails on more than 100 rows of a batch \(ConversionException\); write TRY_CAST"
    ) as caught:
        fates("SELECT _row, text::INT AS number FROM batch", batch(text=["secret place"] * 100_000))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("SELECT _row FROM batch WHERE number > 2", [3]),
        ("SELECT _row, try_cast(text AS INT) AS i FROM batch WHERE i > 0", [1]),
        ("WITH wide AS (SELECT _row, number * 2 AS n FROM batch) SELECT _row, n + 1 AS m FROM wide WHERE n > 2", [2, 3]),
        ("SELECT _row FROM (SELECT * FROM batch WHERE number < 3) AS few WHERE number > 1", [2]),
        ("FROM batch SELECT _row, number WHERE flag", [1, 3]),
        ("SELECT _row, b.number FROM Batch AS b WHERE b.flag;", [1, 3]),
        ("SELECT * EXCLUDE (text) FROM batch WHERE list_contains([1, 3], number)", [1, 3]),
        ("SELECT _row, COLUMNS('n.*') FROM batch WHERE CASE WHEN flag THEN number = 1 ELSE text LIKE 'x%' END -- all", [1, 2]),
        ("SELECT _row, list_sum(list_transform([number], lambda n: n + 1)) AS s FROM batch", [1, 2, 3]),
        (
            "SELECT _row, year(day) AS y, age(day, day) AS a, strftime(day, '%Y') AS t, day AT TIME ZONE 'Asia/Tokyo' AS z FROM batch",
            [1, 2, 3],
        ),
    ],
)
def test_what_a_query_can_say(query: str, wanted: list[int]) -> None:
    day = pa.array([datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)], pa.timestamp("us", "UTC"))
    rows = batch(number=[1, 2, 3], text=["1", "x", None], flag=[True, False, True], day=day)
    assert fates(query, rows)["main"] == wanted


def test_types_go_in_and_come_out_as_they_were() -> None:
    columns = {
        "whole": pa.array([2**62, None], pa.int64()), "small": pa.array([1, None], pa.int16()), "number": pa.array([0.1, math.nan]),
        "text": pa.array(["ä", None]), "flag": pa.array([True, None]), "blob": pa.array([b"\0\xff", None]),
        "at": pa.array([datetime(2026, 1, 1, 12, 0, 0, 1, UTC), None], pa.timestamp("us", "UTC")),
        "local": pa.array([datetime(2026, 1, 1), None], pa.timestamp("us")), "day": pa.array([datetime(2026, 1, 1).date(), None]),
        "list": pa.array([[1, 2], None]), "deep": pa.array([{"a": 1}, None]), "exact": pa.array([1, None]).cast(pa.decimal128(22, 2)),
    }  # fmt: skip
    rows = batch(**columns)
    result = Sql("SELECT * FROM batch").apply(rows)["main"]
    assert result.schema.types == rows.schema.types
    assert str(result.to_pylist()) == str(rows.to_pylist())  # NaN does not equal NaN
    assert Sql("SELECT * FROM batch").apply(batch(kind=pa.array(["a", "b"]).dictionary_encode()))["main"]["kind"].to_pylist() == ["a", "b"]


def test_nan_is_greater_than_every_number_and_null_meets_nothing() -> None:
    rows = batch(x=[1.0, math.nan, None])
    assert fates("SELECT _row FROM batch WHERE x > 0", rows) == {"main": [1, 2], "filtered": [3]}
    assert fates("SELECT _row FROM batch WHERE x > 0 AND NOT isnan(x)", rows) == {"main": [1], "filtered": [2, 3]}


def test_rows_without_a_key_are_counted_too() -> None:
    rows = pa.RecordBatch.from_pydict({"x": [1, 2, 3], "text": ["1", "x", "3"]})
    output = Sql("SELECT _row, x, text::INT AS number FROM batch WHERE x < 3").apply(rows)
    assert output["main"].to_pylist() == [{"x": 1, "number": 1}]
    assert output["rejected"]["x"].to_pylist() == [2]
    assert output["filtered"].to_pylist() == [{"_rule": "sql"}]
    assert Sql("SELECT _row, x FROM batch").apply(rows.slice(0, 0))["main"].schema.names == ["x"]


def test_keys_in_any_order_are_kept_as_they_came() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": [9, 2, 2**62, 5], "x": [1, 2, 3, 4]})
    assert fates("SELECT _row, x FROM batch WHERE x <> 2", rows) == {"main": [9, 2**62, 5], "filtered": [2]}


@pytest.mark.parametrize(
    ("query", "option", "message"),
    [
        ("SELECT x FROM batch", "query", "select _row too"),
        ("SELECT _row, y FROM batch", "query", 'Referenced column "y" not found'),
        ("SELECT _row, x + text FROM batch", "query", "No function matches"),
        ("SELECT _row, x AS a, text AS a FROM batch", "query", "gives two columns named 'a'; give one another name with AS"),
        ("SELECT _row, CAST('hot' AS INT) AS i FROM batch", "query", "fails already on a row of NULLs: Could not convert string 'hot'"),
        ("SELECT _row, range(10000000000) AS r FROM batch", "query", "fails already on a row of NULLs"),
    ],
)
def test_mistakes_are_said_before_the_first_row(query: str, option: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Sql(query).apply(batch(x=[1], text=["a"]).slice(0, 0))
    assert caught.value.option == option
    assert message in caught.value.message
    assert "\n" not in caught.value.message
