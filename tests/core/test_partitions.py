from __future__ import annotations

import re
from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeward.errors import Refused, Rejected
from lakeward.partitions import NULL, encoded, folder, require_columns, split
from lakeward.upserts import newest


def decoded(text: str) -> str:
    """The way back, as a reader would go it."""
    if text == "_x_":
        return ""
    return re.sub(rb"_x([0-9A-F]{2})_", lambda found: bytes.fromhex(found[1].decode()), text.encode()).decode()


@given(st.text() | st.text("_x205F .") | st.sampled_from([NULL, "_x_", "", "..", "_x20_", "_x20", "a_x20 _x"]))
def test_a_value_as_a_folder_is_safe_and_can_be_read_back(value):
    text = encoded(value)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert text
    assert not text.startswith(".")
    assert text != NULL
    assert decoded(text) == value


def test_values_of_each_type_have_their_usual_names():
    assert folder(["a", "b", "c", "d e"], [True, -3, date(2026, 1, 31), None]) == f"a=true/b=-3/c=2026-01-31/d_x20_e={NULL}"


def test_rows_keep_their_order_and_all_are_there_once():
    rows = pa.record_batch({"city": pa.array(["b", "a", None, "b"]).dictionary_encode(), "n": [1, 2, 3, 4], "x": [0.5, 1.5, 2.5, 3.5]})
    parts = list(split(rows, ["city"]))
    assert [(part.folder, part.values, part.rows["n"].to_pylist()) for part in parts] == [
        (f"city={NULL}", (None,), [3]), ("city=a", ("a",), [2]), ("city=b", ("b",), [1, 4]),
    ]  # fmt: skip
    assert {tuple(part.rows.schema.names) for part in parts} == {("n", "x")}


@pytest.mark.parametrize(
    ("columns", "message"),
    [(["z"], "the rows have no column 'z', only a, b"), (["b"], "column 'b' is double; text"), (["a"], "every column is in it")],
)
def test_columns_that_cannot_name_folders_are_refused(columns, message):
    schema = pa.schema({"a": pa.string()} if columns == ["a"] else {"a": pa.string(), "b": pa.float64()})
    with pytest.raises(Refused, match=f"partition_by: {message}"):
        require_columns(schema, columns)


def test_a_date_that_python_has_not_costs_its_own_rows():
    days = pa.array([0, 2_932_897, None, -719_163, 2_932_896, -719_162], pa.date32())
    for dates in (days, days.dictionary_encode()):
        with pytest.raises(Rejected, match="a date before the year 1 or after 9999 cannot name a folder") as caught:
            list(split(pa.record_batch({"city": list("abcdef"), "day": dates, "n": range(6)}), ["city", "day"]))
        assert caught.value.rows == (1, 3)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), min_size=1, max_size=30))
def test_the_newest_row_of_each_key_is_the_one_that_a_slow_search_finds(pairs):
    rows = pa.record_batch({"key": [key for key, _ in pairs], "revision": [revision for _, revision in pairs], "place": range(len(pairs))})
    wanted: dict[str, tuple[int, int]] = {}
    for place, (key, revision) in enumerate(pairs):
        if key not in wanted or revision > wanted[key][0]:
            wanted[key] = revision, place
    found = newest(rows, ["key"], "revision")
    assert found["place"].to_pylist() == sorted(place for _, place in wanted.values())


def test_rows_without_a_key_or_with_one_that_cannot_be_are_told():
    with pytest.raises(Rejected) as caught:
        newest(pa.record_batch({"k": ["a", None, "b"], "r": [1, 2, None]}), ["k"], "r")
    assert caught.value.rows == (1, 2)
    for rows in (text := pa.array([b"a", b"\xff", b"\xff"]).view(pa.string()), text.dictionary_encode(), text.cast(pa.large_string())):
        with pytest.raises(Rejected, match="the key or the revision is text that is not UTF-8") as caught:
            newest(pa.record_batch({"k": rows, "r": rows}), ["k"], "r")
        assert caught.value.rows == (1, 2)
    with pytest.raises(Refused, match="column 'k' is double; keys are text, whole numbers or booleans"):
        newest(pa.record_batch({"k": [1.5], "r": [1]}), ["k"], "r")
