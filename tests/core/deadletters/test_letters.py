from __future__ import annotations

import json
import math
import struct
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward.components import Parcel, Token, rejected
from lakeward.config import Limits
from lakeward.deadletters.box import DeadLetter
from lakeward.deadletters.letters import letters, refused_letters, require_few, rows_again
from lakeward.errors import Refused
from lakeward.testing.hostile import EXTREMES, TYPES

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
    parcel = Parcel(Token("pipe", "out", "cafe0123", 4, 12), tmp_path / "f", 2, "sha", "a.db")
    refused = refused_letters(parcel, {0: "no", 1: "no"})
    assert [(letter.row, json.loads(letter.payload)) for letter in refused] == expected


def test_times_that_python_cannot_hold_are_kept_as_numbers() -> None:
    assert payload(1, pa.timestamp("ns")) == 1
    assert payload(2**62, pa.timestamp("us", "UTC")) == 2**62
    assert payload(2**30, pa.date32()) == 2**30
    assert payload(2**62, pa.duration("s")) == 2**62


def test_a_row_that_a_sink_refused_is_known_by_its_key_or_else_by_its_place(tmp_path: Path) -> None:
    token = Token("pipe", "out", "cafe0123", 4, 12, (20, 30))
    rows = pa.table({"_row": range(100, 110), "a": range(10)})
    pq.write_table(rows, tmp_path / "keyed")
    keyed = refused_letters(Parcel(token, tmp_path / "keyed", 10, "sha", "a.db"), {3: "too large", 7: "too odd"})
    assert [(one.stage, one.reason, one.detail, one.origin, one.epoch, one.row, one.payload) for one in keyed] == [
        ("sink out", "sink_rejected", "too large", "a.db", 4, 103, '{"a": 3}'),
        ("sink out", "sink_rejected", "too odd", "a.db", 4, 107, '{"a": 7}'),
    ]
    pq.write_table(rows.drop_columns(["_row"]), tmp_path / "plain")
    plain = refused_letters(Parcel(token, tmp_path / "plain", 10, "sha", "a.db"), {3: "too large", 7: "too odd"})
    places = [f"pipe/out-cafe0123-0004-0000000012.0000020-0000030#{place}" for place in (3, 7)]
    assert [(one.origin, one.row) for one in plain] == [(place, None) for place in places]


def test_a_range_that_cannot_be_read_is_one_letter() -> None:
    rows = pa.RecordBatch.from_pydict({"_row": [5, 40], "_row_high": [38, None]})
    first, second = letters("source", rejected(rows, "source_corrupt", "malformed"), "a.db", 1)
    assert (first.row, first.row_high, first.payload, second.row, second.row_high) == (5, 38, "{}", 40, None)


# -- and back ----------------------------------------------------------------------------------------------------------


def letter_of(rows: pa.RecordBatch, stage: str = "checked") -> dict[str, Any]:
    (one,) = letters(stage, rejected(rows, "odd"), "", 0)
    return {"id": 7, "stage": stage, "payload": one.payload, "row_low": one.row, "detail": one.detail}


@pytest.mark.parametrize("name", sorted({**TYPES, **EXTREMES}))
def test_a_row_comes_back_out_of_its_letter_as_it_was(name: str) -> None:
    column = {**TYPES, **EXTREMES}[name]
    for index in range(len(column)):
        rows = pa.RecordBatch.from_pydict({"_row": pa.array([index]), "a": column.slice(index, 1)})
        again, fitting, unfit = rows_again([letter_of(rows)], rows.schema)
        if name == "time64" and unfit:  # open and told, never changed
            assert fitting == []
            continue
        assert unfit == {}
        assert again.schema == rows.schema
        assert repr(again.to_pylist()) == repr(rows.to_pylist())


def test_what_does_not_fit_any_more_says_why() -> None:
    letter = letter_of(pa.RecordBatch.from_pydict({"_row": [1], "a": ["n/a"], "b": [2.5]}))
    schemas = {
        "column 'a' (double): Failed to parse string: 'n/a' as a scalar of type double": [("_row", pa.int64()), ("a", pa.float64())],
        "column 'b' (int64): Float value 2.500000 was truncated converting to int64": [("b", pa.int64())],
        "has no column c, d; replay it by a pipeline file that leaves out what came later": [
            ("a", pa.string()),
            ("c", pa.string()),
            ("d", pa.string()),
        ],
        "column 'a' (binary): holds text, not bytes": [("a", pa.binary())],
    }
    for message, fields in schemas.items():
        rows, fitting, unfit = rows_again([letter], pa.schema(fields))
        assert (rows.num_rows, fitting, unfit) == (0, [], {7: message})
    good, bad = {**letter, "payload": '{"a": "1.5"}', "id": 8}, letter
    rows, fitting, unfit = rows_again([bad, good], pa.schema([("_row", pa.int64()), ("a", pa.float64())]))
    assert (rows.to_pylist(), fitting, list(unfit)) == ([{"_row": 1, "a": 1.5}], [good], [7])


def test_text_of_a_source_that_stands_for_bytes_is_never_taken_for_text() -> None:
    texts = pa.RecordBatch.from_pydict({"_row": [1], "name": ["x'61ff'"], "raw": ["x'00ff'"], "count": ["9007199254740993"]})
    schema = pa.schema([("_row", pa.int64()), ("name", pa.string()), ("raw", pa.binary()), ("count", pa.int64())])
    _, _, unfit = rows_again([letter_of(texts, "source")], schema)
    assert "column 'name' (string): 'utf-8' codec can't decode byte 0xff" in unfit[7]
    schema = schema.set(1, pa.field("name", pa.binary()))
    rows, _, _ = rows_again([letter_of(texts, "source")], schema)
    assert rows.to_pylist() == [{"_row": 1, "name": b"a\xff", "raw": b"\0\xff", "count": 9007199254740993}]


# -- how many are too many ---------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 300), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_more_than_the_spare_ones_and_more_than_their_part_are_too_many(bad: int, good: int, spare: int, ratio: float) -> None:
    dead = [DeadLetter("checked", "odd", f"detail {number}", "", 0, number, "{}") for number in range(min(bad, 3))]
    too_many = bad > spare and bad > ratio * (bad + good)
    with pytest.raises(Refused, match=rf"^{bad:,} of {bad + good:,} rows .* checked \(odd: detail 0\)") if too_many else nullcontext():
        require_few(Limits(ratio, spare), dead, bad, bad + good)
