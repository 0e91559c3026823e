from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from lakeward import ROW
from lakeward.testing.hostile import EXTREMES, TYPES
from lakeward.testing.rows import assert_same_rows, compact, nulls, to_bytes, values


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.array([1, None], pa.int8()), pa.array([1, None], pa.int64())),
        (pa.array([float("nan")]), pa.array([float("nan")], pa.float32())),
        (pa.array(["a", "b"]), pa.array(["a", "b"]).dictionary_encode()),
        (pa.array([Decimal("1.10")]), pa.array([Decimal("1.1")], pa.decimal128(20, 4))),
        (pa.array([datetime(2024, 1, 1)], pa.timestamp("ns")), pa.array([datetime(2024, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))),
    ],
)
def test_values_are_the_same_whatever_the_width_of_their_type(left: pa.Array, right: pa.Array) -> None:
    assert_same_rows(values(pa.table({"a": left})), values(pa.table({"a": right})), "them", ordered=True)


@pytest.mark.parametrize("array", [*TYPES.values(), *EXTREMES.values()], ids=[*TYPES, *EXTREMES])
def test_every_hostile_value_differs_from_null_and_survives_compacting(array: pa.Array) -> None:
    rows = pa.record_batch({ROW: [1, 2, 3], "a": array})
    part = rows.slice(1)
    assert to_bytes(compact(part)) == to_bytes(part)
    assert_same_rows(values(compact(part)), values(part), "them", ordered=True)
    if array.null_count < 3:
        with pytest.raises(AssertionError, match="missing"):
            assert_same_rows(values(nulls(rows)), values(rows), "them")


def test_each_row_counts_as_often_as_it_is_there() -> None:
    once, twice = pa.table({"a": [1, 2]}), pa.table({"a": [1, 2, 2]})
    with pytest.raises(AssertionError, match=r"them: 3 rows instead of 2; 1 too many, first \{'a': 2\}"):
        assert_same_rows(values(twice), values(once), "them")


def test_message_shows_what_is_wrong_in_the_row_that_is_most_like_the_missing_one() -> None:
    want = pa.table({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]})
    got = pa.table({"a": [1, 3], "b": ["z", "y"], "c": [0.5, 9.5]})
    with pytest.raises(AssertionError, match=r"a row with \{'b': 'z'\} instead$"):
        assert_same_rows(values(got), values(want), "them")


def test_order_counts_only_when_asked_for() -> None:
    up, down = values(pa.table({"a": [1, 2, 3]})), values(pa.table({"a": [1, 3, 2]}))
    assert_same_rows(down, up, "them")
    with pytest.raises(AssertionError, match=r"another order from row 1 on, \{'a': 3\} instead of \{'a': 2\}"):
        assert_same_rows(down, up, "them", ordered=True)


def test_tolerance_is_for_floats_only() -> None:
    want, near = pa.table({"a": [1, 2], "b": [0.3, None]}), pa.table({"a": [2, 1], "b": [None, 0.1 + 0.2]})
    assert_same_rows(values(near), values(want), "them", tolerance=1e-12)
    with pytest.raises(AssertionError, match="1 missing"):
        assert_same_rows(values(near), values(want), "them")
    with pytest.raises(AssertionError, match="2 missing"):
        assert_same_rows(values(pa.table({"a": [3, 4], "b": [0.3, None]})), values(want), "them", tolerance=0.9)
