"""Rows as items: values, names, partitions and ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from azure.cosmos import ContainerProxy
from cosmos_server import CosmosServer, documents
from hypothesis import given
from hypothesis import strategies as st

from lakeward import OptionError, Refused
from lakeward_plugins.sinks.cosmos.items import Shape, namer
from lakeward_plugins.sinks.cosmos.jsonable import jsonable, most_bytes, unsupported

Make = Callable[..., Any]
LIFE = "0123abcd"


@pytest.fixture
def container(cosmos: CosmosServer) -> ContainerProxy:
    return cosmos.container("/city")


# -- values ------------------------------------------------------------------------------------------------------------

NOON = datetime(2024, 2, 29, 12, 0, 0, 123456)
VALUES: list[tuple[pa.Array[Any], list[Any]]] = [
    (pa.array([1, None, 2**53, -(2**53)]), [1, None, 2**53, -(2**53)]),
    (pa.array([2**53 + 1, -(2**63), 7]), [str(2**53 + 1), str(-(2**63)), 7]),
    (pa.array([2**64 - 1, 1], pa.uint64()), [str(2**64 - 1), 1]),
    (pa.array([0.1, None, float("nan"), float("inf"), float("-inf")]), [0.1, None, "NaN", "Infinity", "-Infinity"]),
    (pa.array([1.5, None], pa.float16()), [1.5, None]),
    (pa.array([True, None]), [True, None]),
    (pa.array(["a", None, "Ω"]), ["a", None, "Ω"]),
    (pa.array([Decimal("1E+3"), None, Decimal("-0.10")], pa.decimal128(8, 2)), ["1000.00", None, "-0.10"]),
    (pa.array([NOON.replace(tzinfo=UTC), None], pa.timestamp("us", "UTC")), ["2024-02-29T12:00:00.123456Z", None]),
    (pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("ns", "Asia/Tokyo")), ["2024-02-29T12:00:00.123456000Z"]),
    (pa.array([NOON.replace(microsecond=0)], pa.timestamp("s")), ["2024-02-29T12:00:00"]),
    (pa.array([datetime(1, 1, 1), datetime(9999, 12, 31)], pa.timestamp("ms")), ["0001-01-01T00:00:00.000", "9999-12-31T00:00:00.000"]),
    (pa.array([date(2024, 2, 29), None]), ["2024-02-29", None]),
    (pa.array([time(12, 30, 0, 5)], pa.time64("us")), ["12:30:00.000005"]),
    (pa.array([timedelta(microseconds=1500), None], pa.duration("us")), ["1500us", None]),
    (pa.array([b"\x00\xff", None, b""]), ["AP8=", None, ""]),
    (pa.array([[1, None], None, [], [2**60]]), [[1, None], None, [], [str(2**60)]]),
    (pa.array([[1, None], None, []]).slice(1), [None, []]),
    (pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), [[1, 2], None]),
    (pa.array([{"at": NOON, "bad": float("nan")}, None]), [{"at": "2024-02-29T12:00:00.123456", "bad": "NaN"}, None]),
    (pa.array([[("a", 1.5), ("b", None)], None, []], pa.map_(pa.string(), pa.float64())), [{"a": 1.5, "b": None}, None, {}]),
    (pa.array([[(1, "x")], [(True, "y")][:0]], pa.map_(pa.int32(), pa.string())), [{"1": "x"}, {}]),
    (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    (pa.nulls(2), [None, None]),
    (pa.array([], pa.float64()), []),
]


@pytest.mark.parametrize(("column", "wanted"), VALUES, ids=[str(column.type) for column, _ in VALUES])
def test_every_type_has_its_form_in_json(column: pa.Array[Any], wanted: list[Any]) -> None:
    found = jsonable(column)
    assert (found, [type(value) for value in found]) == (wanted, [type(value) for value in wanted])
    json.dumps(found, allow_nan=False)


@given(st.lists(st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1)), min_size=2))
def test_timestamps_sort_as_text(moments: list[datetime]) -> None:
    texts = jsonable(pa.array(moments, pa.timestamp("us", "UTC")))
    assert [text for _, text in sorted(zip(moments, texts, strict=True))] == sorted(texts)


@given(st.lists(st.floats() | st.none()))
def test_floats_come_back_bit_by_bit(numbers: list[float | None]) -> None:
    back = [value if value is None else float(value) for value in json.loads(json.dumps(jsonable(pa.array(numbers, pa.float64()))))]
    assert list(map(repr, back)) == list(map(repr, numbers))


@pytest.mark.parametrize(
    "kind",
    [pa.month_day_nano_interval(), pa.list_(pa.month_day_nano_interval()), pa.dense_union([pa.field("a", pa.int8())]),
     pa.struct([pa.field("a", pa.int8()), pa.field("a", pa.int8())])],
)  # fmt: skip
def test_what_has_no_place_in_json_is_named(kind: pa.DataType) -> None:
    assert unsupported(pa.schema([("fine", pa.int8()), ("odd", kind)])).startswith("column 'odd' (")


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_row_is_an_item_with_its_own_id_beside_it(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    sink_of(container).deliver(parcel_of())
    first = min(documents(container), key=lambda item: item["row_id"])
    assert first == {"id": first["id"], "city": "Oslo", "row_id": 1, "temperature": 20.5}
    assert first["id"].startswith(f"{LIFE}-")


def test_options_name_what_is_kept(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    sink_of(container, own_id="reading_id", row_key=True).deliver(parcel_of())
    assert {(item["reading_id"], item["_row"]) for item in documents(container)} == {(n, n) for n in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"city": ["a"], "_etag": ["b"]}, {}, "column '_etag': Cosmos DB writes a property of this name itself; rename it with schematize"),
        ({"city": ["a"], "id": [1], "row_id": [2]}, {}, "own_id: the rows have a column 'row_id' too; choose another name for their `id`"),
        ({"town": ["a"]}, {}, "partition_key: the rows have no column 'city'; add it with schematize"),
        ({"town": ["a"]}, {"partition_key": "/_row"}, "partition_key: the rows have no column '_row'"),
        ({"city": ["a"], "development_run": ["b"]}, {"development": True}, "development: marks items with the property 'development_run'"),
        ({"city": ["a"], "r": [1]}, {"upsert_by": ["city", "key"], "revision": "r"},
            r"upsert_by\[1\]: the rows have no column 'key', but city, r"),
        ({"city": ["a"]}, {"upsert_by": ["_row"], "revision": "r"}, r"upsert_by\[0\]: the rows have no column '_row', but city"),
        ({"city": ["a"]}, {"upsert_by": ["city"], "revision": "r"}, "revision: 'r' is no column of whole numbers or times"),
        ({"city": ["a"], "r": [1.5]}, {"upsert_by": ["city"], "revision": "r"}, "revision: 'r' is no column of whole numbers or times"),
        ({"city": ["a"], "x": pa.array([None], pa.month_day_nano_interval())}, {},
            r"column 'x' \(month_day_nano_interval\) has no place in JSON"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_items_are_refused(
    container: ContainerProxy, sink_of: Make, tmp_path: Any, columns: Any, options: Any, message: str
) -> None:
    rows = pa.record_batch({"_row": [1], **columns})
    with pytest.raises(OptionError, match=message):
        sink_of(container, **options).probe(rows.schema)
    assert documents(container) == []


def test_columns_that_change_later_are_refused_too(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    with pytest.raises(Refused, match="the rows have no column 'city'"):
        sink_of(container).deliver(parcel_of(pa.record_batch({"_row": [1], "town": ["a"]})))


def test_text_that_is_none_costs_its_own_rows(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    text = pa.array([b"fine", b"\xff", None]).view(pa.string())
    receipt = sink_of(container).deliver(parcel_of(pa.record_batch({"_row": [1, 2, 3], "city": ["a", "b", "c"], "text": text})))
    assert dict(receipt.rejected) == {1: "column 'text' is not valid UTF-8: invalid start byte at byte 0"}
    assert sorted((item["city"], item["text"]) for item in documents(container) if item["text"]) == [("a", "fine")]
    assert len(documents(container)) == 2


def test_a_map_that_names_a_key_twice_costs_its_own_row(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    """An object of JSON would keep one of the two values, without a word."""
    tags = pa.array([[("a", 1)], [("a", 1), ("a", 2)], None], pa.map_(pa.string(), pa.int64()))
    receipt = sink_of(container).deliver(parcel_of(pa.record_batch({"_row": [1, 2, 3], "city": ["a", "b", "c"], "tags": tags})))
    assert dict(receipt.rejected) == {1: "column 'tags' has no place in JSON: a key is there twice in one map"}
    assert sorted((item["city"], item["tags"]) for item in documents(container)) == [("a", {"a": 1}), ("c", None)]


@given(st.sampled_from([column for column, _ in VALUES]) | st.lists(st.text()).map(lambda texts: pa.array(texts, pa.string())))
def test_no_value_is_longer_than_what_is_said_of_its_column(column: pa.Array[Any]) -> None:
    """A hundred items are sent without a look at each when they cannot be too large."""
    found = [len(json.dumps(value)) for value in jsonable(column)]
    assert max(found, default=0) <= most_bytes(column)
    assert most_bytes(column) < 1000 or max(found) > 100 or pa.types.is_nested(column.type)


# -- partitions --------------------------------------------------------------------------------------------------------


def test_partitions_are_values_of_any_plain_kind(cosmos: CosmosServer, sink_of: Make, parcel_of: Make) -> None:
    for number, values in enumerate([["", None, "ü / °"], [0, None, 2**60], [True, False, None], [0.0, float("nan"), None]]):
        container = cosmos.container("/part")
        rows = pa.record_batch({"_row": [1, 2, 3], "part": pa.array(values)})
        assert sink_of(container, partition_key="/part").deliver(parcel_of(rows, sequence=number + 1)).details["written"] == 3
        again = sink_of(container, partition_key="/part").deliver(parcel_of(rows, sequence=number + 1))
        assert again.details == {"written": 0, "already_there": 3}


def test_a_partition_key_that_is_too_long_costs_its_own_rows_and_no_request(
    cosmos: CosmosServer, container: ContainerProxy, sink_of: Make, parcel_of: Make
) -> None:
    cities = ["°" * 1024, "°" * 1024 + "!", "Oslo"]
    sink = sink_of(container)
    sink.probe(pa.schema([("city", pa.string())]))
    before = cosmos.set()["requests"]
    receipt = sink.deliver(parcel_of(pa.record_batch({"_row": [1, 2, 3], "city": cities})))
    assert cosmos.set()["requests"] == before + 2
    assert dict(receipt.rejected) == {1: "the value at /city has more than 2,048 bytes: no partition key is so long"}
    assert sorted(item["city"] for item in documents(container)) == ["Oslo", cities[0]]


@pytest.mark.parametrize("path", ["/id", "/row_id", "/_row"])
def test_a_partition_key_may_be_what_the_sink_makes_of_a_row(cosmos: CosmosServer, sink_of: Make, parcel_of: Make, path: str) -> None:
    container, parcel = cosmos.container(path), parcel_of()
    sink = sink_of(container, partition_key=path, row_key=True)
    sink.probe(next(parcel.batches()).schema)
    assert sink.deliver(parcel).details["written"] == 4
    assert sorted(item["row_id"] for item in documents(container)) == [1, 2, 3, 4]


def test_a_partition_key_may_lie_deeper(cosmos: CosmosServer, sink_of: Make, parcel_of: Make) -> None:
    container = cosmos.container("/place/city")
    places = [{"city": "Oslo", "tags": [1]}, None, {"city": None, "tags": None}]
    receipt = sink_of(container, partition_key="/place/city").deliver(parcel_of(pa.record_batch({"_row": [1, 2, 3], "place": places})))
    assert dict(receipt.rejected) == {1: "there is no plain value at /place/city, which must say the partition"}
    assert {item["place"]["city"] for item in documents(container)} == {"Oslo", None}


# -- ids ---------------------------------------------------------------------------------------------------------------


def name_of(parcel: Any, rows: pa.RecordBatch, first: int = 0) -> list[str]:
    return namer(parcel)(rows, first)


def test_an_id_says_which_row_of_which_parcel_it_is(parcel_of: Make) -> None:
    rows = pa.record_batch({"_row": [5, -7], "x": [1, 2]})
    names = name_of(parcel_of(rows), rows)
    assert names == name_of(parcel_of(rows), rows)
    assert [name.rsplit("-", 2)[-1] for name in names] == ["5", "7"]
    others = [{"epoch": 1}, {"life": "ffffffff"}, {"pipeline": "other"}, {"sink": "other"}, {"sequence": 9}]
    every = [name for token in others for name in name_of(parcel_of(rows, **token), rows)]
    assert len({*names, *every}) == 2 + 2 * len(others)


def test_a_row_that_was_held_back_is_not_taken_for_another_with_its_key(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    """Row 7 of an input leaves at the end, when there is no input, or after its file was replaced; so does row 7 of another."""
    for sequence in (1, 2, 3):
        rows = pa.record_batch({"_row": [7], "city": ["Oslo"], "temperature": [float(sequence)]})
        assert sink_of(container).deliver(parcel_of(rows, sequence=sequence)).details["written"] == 1
    assert sorted(item["temperature"] for item in documents(container)) == [1.0, 2.0, 3.0]


def test_a_state_that_is_a_copy_of_another_loses_no_row(container: ContainerProxy, sink_of: Make, parcel_of: Make) -> None:
    """A folder that was copied to another node, or set back to a backup, gives the same token to other rows."""
    for temperature in (1.0, 2.0, 1.0, 2.0):
        rows = pa.record_batch({"_row": [7], "city": ["Oslo"], "temperature": [temperature]})
        sink_of(container).deliver(parcel_of(rows))
    assert sorted(item["temperature"] for item in documents(container)) == [1.0, 2.0]


def test_the_input_is_part_of_an_id(parcel_of: Make) -> None:
    from attrs import evolve

    rows = pa.record_batch({"_row": [5]})
    parcel = parcel_of(rows)
    assert name_of(evolve(parcel, origin="Oslo/a1"), rows) != name_of(evolve(parcel, origin="Oslo/a2"), rows)


@pytest.mark.parametrize("keys", [None, [1, 1, 2], [1, None, 2]], ids=["no keys", "the same key twice", "a key missing"])
def test_rows_without_keys_of_their_own_have_the_place_in_the_parcel(
    container: ContainerProxy, sink_of: Make, parcel_of: Make, keys: Any
) -> None:
    columns = {"city": ["a", "a", "b"], "mean": [1.0, 2.0, 3.0]}
    rows = pa.record_batch(columns if keys is None else {"_row": pa.array(keys, pa.int64()), **columns})
    for sequence in (1, 2, 1, 2):
        sink_of(container).deliver(parcel_of(rows, sequence=sequence))
    assert sorted(item["mean"] for item in documents(container)) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


PARTS = st.tuples(st.text(max_size=40) | st.integers(), st.text(max_size=80))


@given(st.lists(PARTS, min_size=1, unique_by=lambda pair: tuple(map(str, pair))))
def test_ids_made_of_values_are_safe_short_and_different(pairs: list[tuple[Any, str]]) -> None:
    shape = Shape(("city",), ("a", "b"), "n", "row_id", False, "")
    first, second = map(list, zip(*pairs, strict=True))
    rows = pa.record_batch({"a": list(map(str, first)), "b": second, "n": range(len(pairs))})
    items, bad = shape.items(rows, [""] * len(pairs))
    names = [item["id"] for item in items if item]
    assert not bad
    assert len(set(names)) == len(pairs)
    assert all(0 < len(name) <= 200 and name.isascii() and name.isprintable() and not set(name) & set("/\\?# ") for name in names)


@pytest.mark.parametrize("missing", ["window_id", "revision"])
def test_an_item_that_is_replaced_needs_its_names_and_its_revision(
    container: ContainerProxy, sink_of: Make, parcel_of: Make, missing: str
) -> None:
    columns = {"window_id": ["a", "b"], "revision": [1, 1], "city": ["x", "x"]}
    columns[missing] = [columns[missing][0], None]
    receipt = sink_of(container, upsert_by=["window_id"], revision="revision").deliver(parcel_of(pa.record_batch(columns)))
    assert dict(receipt.rejected) == {1: f"{missing} is missing, and an item that newer rows replace needs it"}
    assert [item["id"] for item in documents(container)] == ["a"]


def test_in_development_each_run_has_items_of_its_own_and_says_so(
    container: ContainerProxy, sink_of: Make, parcel_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    parcel = parcel_of()
    for _ in range(2):
        sink = sink_of(container, development=True)
        for _ in range(2):
            sink.deliver(parcel)
    found = documents(container)
    assert len(found) == 8  # within a run once, in the next run again
    assert len({item["development_run"] for item in found}) == 2
    assert all(item["id"].startswith(f"dev-{item['development_run']}-{LIFE}-") for item in found)
    assert caplog.text.count("development is on: items of this run are marked") == 2
