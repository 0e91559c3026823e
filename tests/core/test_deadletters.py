from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward.components import Parcel, Token, rejected
from lakeward.deadletters import letters, refused_letters

ROWS = pa.RecordBatch.from_pydict({"_row": [7, 9], "name": ["ü", None], "raw": [b"\0\xff", None], "value": [math.nan, -math.inf]})


def payload(value: Any, kind: Any = None) -> Any:
    rows = pa.RecordBatch.from_pydict({"_row": [1], "a": pa.array([value], kind)})
    (letter,) = letters("x", rejected(rows, "type"), "", 0)
    return json.loads(letter.payload)["a"]


def test_each_rejected_row_is_a_letter_with_its_key_reason_and_values() -> None:
    first, second = letters("checked", rejected(ROWS, "time_parse", pa.array(["cannot read 'x'", None])), "a.db", 3)
    assert (first.stage, first.reason, first.detail, first.origin, first.epoch, first.row) == (
        "checked",
        "time_parse",
        "cannot read 'x'",
        "a.db",
        3,
        7,
    )
    assert json.loads(first.payload) == {"name": "ü", "raw": {"base64": "AP8="}, "value": "nan"}
    assert (second.detail, second.row, json.loads(second.payload)) == ("", 9, {"name": None, "raw": None, "value": "-inf"})


def test_a_row_without_a_key_is_a_letter_too() -> None:
    (letter,) = letters("windows", rejected(pa.RecordBatch.from_pydict({"mean": [1.5]}), "late"), "", 0)
    assert (letter.row, json.loads(letter.payload)) == (None, {"mean": 1.5})


def test_a_range_of_rows_is_one_letter_and_holds_nothing() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": [7, 20], "_row_high": pa.array([None, 37], pa.int64()), "name": ["x", None]})
    one, many = letters("source", rejected(rows, "source_corrupt"), "a.db", 2)
    assert (one.row, one.row_high, json.loads(one.payload)) == (7, None, {"name": "x"})
    assert (many.row, many.row_high, json.loads(many.payload)) == (20, 37, {})


@given(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text())
@settings(max_examples=100, deadline=None)
def test_plain_values_come_back_from_the_payload(value: Any) -> None:
    found = payload(value)
    assert found == value
    assert type(found) is type(value)


def test_values_that_json_has_no_word_for_are_still_readable() -> None:
    assert payload(b"") == {"base64": ""}
    assert payload({"a": [b"x"], "b": math.inf}) == {"a": [{"base64": "eA=="}], "b": "inf"}
    assert payload(datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC), pa.timestamp("us", "UTC")) == "2026-01-02 03:04:05.000600+00:00"


def not_utf8() -> pa.RecordBatch:
    lengths, content = pa.py_buffer(struct.pack("<3i", 0, 3, 5)), pa.py_buffer(b"a\xffbok")
    return pa.RecordBatch.from_arrays([pa.array([1, 2]), pa.Array.from_buffers(pa.string(), 2, [None, lengths, content])], ["_row", "name"])


def test_text_that_is_not_utf8_is_kept_as_bytes(tmp_path: Path) -> None:
    expected = [(1, {"name": {"base64": "Yf9i"}}), (2, {"name": {"base64": "b2s="}})]
    found = letters("source", rejected(not_utf8(), "utf8"), "", 0)
    assert {letter.reason for letter in found} == {"utf8"}
    assert [(letter.row, json.loads(letter.payload)) for letter in found] == expected
    pq.write_table(pa.Table.from_batches([not_utf8()]), tmp_path / "f")
    refused = refused_letters(Parcel(Token("pipe", "out", "cafe0123", 4, 12), tmp_path / "f", 2, "sha"), "no")
    assert [(letter.row, json.loads(letter.payload)) for letter in refused] == expected


def test_times_that_python_cannot_hold_are_kept_as_numbers() -> None:
    assert payload(1, pa.timestamp("ns")) == 1
    assert payload(2**62, pa.timestamp("us", "UTC")) == 2**62
    assert payload(2**30, pa.date32()) == 2**30
    assert payload(2**62, pa.duration("s")) == 2**62


def test_every_row_of_a_refused_parcel_is_a_letter(tmp_path: Path) -> None:
    for name, table in (("key", pa.table({"_row": [5, 6], "a": [1, 2]})), ("nokey", pa.table({"a": [1, 2]}))):
        pq.write_table(table, tmp_path / name)
        parcel = Parcel(Token("pipe", "out", "cafe0123", 4, 12), tmp_path / name, 2, "sha")
        found = list(refused_letters(parcel, "too large"))
        assert [(letter.stage, letter.reason, letter.detail, letter.epoch) for letter in found] == [
            ("sink out", "sink_rejected", "too large", 4)
        ] * 2
        assert {(letter.origin, letter.epoch) for letter in found} == {("pipe/out-cafe0123-0004-0000000012", 4)}
        assert [letter.row for letter in found] == table.to_pydict().get("_row", [None, None])
        assert [letter.payload for letter in found] == ['{"a": 1}', '{"a": 2}']
