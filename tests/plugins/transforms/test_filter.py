from __future__ import annotations

import math
import operator
from collections import Counter
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
from lakeward_plugins.transforms.filter import Filter, Sanitize

NAN = math.nan


def batch(**columns: Any) -> pa.RecordBatch:
    """Rows with `_row` from 1 on."""
    count = len(next(iter(columns.values())))
    return pa.RecordBatch.from_pydict({"_row": pa.array(range(1, count + 1), pa.int64()), **columns})


def kept(transform: Filter, rows: pa.RecordBatch) -> list[Any]:
    return transform.apply(rows)["main"]["_row"].to_pylist()


def removed(transform: Filter, rows: pa.RecordBatch) -> dict[int, str]:
    output = transform.apply(rows)
    return {row["_row"]: row["_rule"] for row in output["filtered"].to_pylist()} if "filtered" in output else {}


class TestFilterContract(TransformContract):
    def make(self) -> Filter:
        return Filter(where={"temperature": {">": -50, "<": 150}, "status": "ok"}, remove_nulls=["temperature", "humidity"])

    def rows(self) -> pa.RecordBatch:
        return batch(
            temperature=[20.0, -50.0, 150.0, None, NAN, math.inf] * 4,
            humidity=[1.0, None, 3.0, 4.0] * 6,
            status=["ok", "ok", "bad", None] * 6,
        )


def test_the_filter_and_the_sanitizing_of_the_uploader_are_two_options() -> None:
    transform = build(Filter, {"where": {"temperature": {">": -50, "<": 150}}, "remove_nulls": ["temperature", "humidity"]}, Path())
    rows = batch(temperature=[20.0, -50.0, 150.0, None, NAN, 149.9, 20.0], humidity=[1.0, 1.0, 1.0, None, 1.0, 1.0, None])
    assert kept(transform, rows) == [1, 6]
    assert removed(transform, rows) == {
        2: "temperature > -50",
        3: "temperature < 150",
        4: "temperature is null",
        5: "temperature is null",
        7: "humidity is null",
    }


@pytest.mark.parametrize(
    "written",
    [
        {"filter_config": {"temperature": {">": -50, "<": 150}}, "sanitize_config": {"remove_nulls": ["temperature", "humidity"]}},
        {"filter_config": '{"temperature": {">": -50, "<": 150}}', "sanitize_config": '{"remove_nulls": ["temperature", "humidity"]}'},
        {"where": {"temperature": {">": -50}}, "filter_config": {"temperature": {"<": 150}}, "remove_nulls": ["temperature", "humidity"]},
    ],
)
def test_configurations_of_older_uploaders_are_taken_as_they_are(written: dict[str, Any]) -> None:
    today = build(Filter, {"where": {"temperature": {">": -50, "<": 150}}, "remove_nulls": ["temperature", "humidity"]}, Path())
    rows = batch(temperature=[20.0, -50.0, 150.0, None, NAN, 149.9, 20.0, 0.0], humidity=[1.0, 1.0, 1.0, None, 1.0, 1.0, None, 0.0])
    assert kept(build(Filter, written, Path()), rows) == kept(today, rows) == [1, 6, 8]
    assert removed(build(Filter, written, Path()), rows) == removed(today, rows)


def test_a_row_is_counted_under_the_first_rule_that_it_does_not_meet() -> None:
    rows = batch(a=[0, 0, 5], b=["x", "y", "x"])
    assert removed(Filter(where={"a": {">": 1}, "b": "x"}), rows) == {1: "a > 1", 2: "a > 1"}
    assert removed(Filter(where={"b": "x", "a": {">": 1}}), rows) == {1: "a > 1", 2: "b == x"}


OPERATIONS: dict[str, Any] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
numbers = st.one_of(st.none(), st.just(NAN), st.integers(-3, 3).map(float), st.just(0.5))


@given(
    values=st.lists(numbers, min_size=1, max_size=20),
    comparisons=st.dictionaries(st.sampled_from(list(OPERATIONS)), st.sampled_from([-1, 0, 0.5, 1]), min_size=1),
    nulls=st.sampled_from(["remove", "keep"]),
)
@settings(max_examples=100, deadline=None)
def test_comparisons_equal_those_of_python(values: list[float | None], comparisons: dict[str, Any], nulls: Any) -> None:
    rows = batch(x=pa.array(values, pa.float64()))
    wanted: dict[int, str] = {}
    for key, value in enumerate(values, 1):
        missing = value is None or math.isnan(value)
        broken = [
            f"x {op} {limit}" for op, limit in comparisons.items() if (nulls == "remove" if missing else not OPERATIONS[op](value, limit))
        ]
        wanted |= {key: broken[0]} if broken else {}
    transform = Filter(where={"x": comparisons}, nulls=nulls)
    assert removed(transform, rows) == wanted
    assert kept(transform, rows) == [key for key in range(1, len(values) + 1) if key not in wanted]


@pytest.mark.parametrize("where", [{"!=": "ok"}, {"not_in": ["ok", "fine"]}, {"==": "bad"}, {"in": ["bad", "worse"]}])
def test_a_comparison_with_null_is_not_met_unless_nulls_are_kept(where: dict[str, Any]) -> None:
    rows = batch(status=["ok", "bad", None])
    assert kept(Filter(where={"status": where}), rows) == [2]
    assert kept(Filter(where={"status": where}, nulls="keep"), rows) == [2, 3]


def test_kept_nulls_are_still_removed_where_that_is_asked() -> None:
    rows = batch(a=[1.0, None, NAN], b=[None, 1.0, 1.0])
    assert removed(Filter(where={"a": {">": 0}, "b": {">": 0}}, remove_nulls=["b"], nulls="keep"), rows) == {1: "b is null"}


@pytest.mark.parametrize(
    ("column", "where", "wanted"),
    [
        (pa.array([1, 2, 3], pa.int32()), {">=": 2}, [2, 3]),
        (pa.array([1, 2, 3], pa.uint64()), {">": -1}, [1, 2, 3]),
        (pa.array([1, 2, 3]), {">": 1.5}, [2, 3]),
        (pa.array([1, 2, 3]), {"in": [1, 2.5]}, [1]),
        (pa.array([1, 2, 3]), {"<": 1e30, ">": -math.inf}, [1, 2, 3]),
        (pa.array([2**53, 2**53 + 1]), {"==": 2**53 + 1}, [2]),
        (pa.array([2**53, 2**53 + 1]), {"==": float(2**53)}, [1]),
        (pa.array([2**53, 2**53 + 1]), {">": 1.5}, [1, 2]),
        (pa.array([1, 2, 3]).cast(pa.decimal128(22, 2)), {"<=": 2}, [1, 2]),
        (pa.array([1.0, 2.0, None]).dictionary_encode(), {"==": 2}, [2]),
        (pa.array(["a", "b", None]).dictionary_encode(), {"==": "b"}, [2]),
        (pa.array(["a", "b"], pa.large_string()), {">": "a"}, [2]),
        (pa.array([True, False]), {"==": True}, [1]),
        (pa.array([datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]), {">=": "2026-01-02T01:00:00+01:00"}, [2, 3]),
        (pa.array([datetime(2026, 1, day) for day in (1, 2, 3)]), {">": "2026-01-02"}, [3]),
        (pa.array([date(2026, 1, day) for day in (1, 2, 3)]), {"<": "2026-01-02"}, [1]),
        (pa.nulls(2), {"==": 1}, []),
        (pa.nulls(2), {"!=": "x"}, []),
    ],
)
def test_every_type_is_compared_exactly(column: Any, where: dict[str, Any], wanted: list[int]) -> None:
    assert kept(Filter(where={"x": where}), batch(x=column)) == wanted


def test_a_batch_without_removed_rows_is_passed_on_as_it_is() -> None:
    rows = batch(x=[1, 2])
    output = Filter(where={"x": {">": 0}}).apply(rows)
    assert output == {"main": rows}
    assert output["main"] is rows


def test_rows_without_key_are_counted_too() -> None:
    rows = pa.RecordBatch.from_pydict({"x": [1, 2, 3]})
    output = Filter(where={"x": {">": 1, "<": 3}}).apply(rows)
    assert Counter(output["filtered"]["_rule"].to_pylist()) == {"x > 1": 1, "x < 3": 1}
    assert output["main"]["x"].to_pylist() == [2]


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({}, "", "no rules"),
        ({"where": {"t": {"=>": 1}}}, "where.t.=>", "unknown operator '=>', did you mean"),
        ({"where": {"t": {"between": 1}}}, "where.t.between", "there are > >= < <= == != in not_in"),
        ({"where": {"t": {}}}, "where.t", "compares nothing"),
        ({"where": {"t": {"in": 1}}}, "where.t.in", "takes a list"),
        ({"where": {"t": {"not_in": []}}}, "where.t.not_in", "takes a list"),
        ({"where": {"t": {">": [1]}}}, "where.t.>", "takes one value"),
        ({"where": {"t": NAN}}, "where.t", "nothing equals NaN"),
        ({"where": {"t": {"<": 2**64}}}, "where.t.<", "beyond the whole numbers"),
        ({"where": {"t": None}}, "where.t", "got nothing"),
        ({"remove_nulls": "t"}, "remove_nulls", "expected a list"),
        ({"filter_config": {"t": {"=>": 1}}}, "filter_config.t.=>", "unknown operator '=>', did you mean"),
        ({"filter_config": '{"t": {">": null}}'}, "filter_config.t.>", "got nothing"),
        ({"filter_config": '{"t": {">": 1}'}, "filter_config", "got text that is no JSON"),
        ({"filter_config": "t > 1"}, "filter_config", "expected a mapping, got text ('t > 1')"),
        ({"sanitize_config": {"remove_null": ["t"]}}, "sanitize_config.remove_null", "did you mean 'remove_nulls'?"),
        ({"remove_nulls": ["t"], "nulls": "drop"}, "nulls", "expected one of remove, keep"),
    ],
)
def test_mistakes_are_refused_at_their_place(options: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(Mistakes) as caught:
        build(Filter, options, Path())
    assert [".".join(map(str, mistake.path)) for mistake in caught.value.mistakes] == [path]
    assert message in caught.value.mistakes[0].message


@pytest.mark.parametrize(
    ("transform", "option", "message"),
    [
        (Filter(where={"y": 1}), "where.y", "no column 'y'; columns are _row, text, number, time, raw"),
        (Filter(remove_nulls=["text", "y"]), "remove_nulls[1]", "no column 'y'"),
        (Filter(sanitize_config=Sanitize(["y"])), "sanitize_config.remove_nulls[0]", "no column 'y'"),
        (Filter(filter_config={"y": 1}), "filter_config.y", "no column 'y'"),
        (Filter(where={"text": {">": 1}}), "where.text.>", "is string and cannot be compared with 1; `schematize` it before"),
        (Filter(where={"text": {"in": ["a", 1]}}), "where.text.in", "cannot be compared with 'a', 1"),
        (Filter(where={"number": "hot"}), "where.number", "is double and cannot be compared with 'hot'"),
        (Filter(where={"time": {">": "yesterday"}}), "where.time.>", "'yesterday' is no time"),
        (Filter(where={"time": 5}), "where.time", "cannot be compared with 5"),
        (Filter(where={"raw": "x"}), "where.raw", "is binary"),
    ],
)
def test_data_that_do_not_suit_are_refused_already_when_empty(transform: Filter, option: str, message: str) -> None:
    rows = batch(text=["a"], number=[1.0], time=[datetime(2026, 1, 1, tzinfo=UTC)], raw=[b"x"])
    with pytest.raises(OptionError) as caught:
        transform.apply(rows.slice(0, 0))
    assert caught.value.option == option
    assert message in caught.value.message
