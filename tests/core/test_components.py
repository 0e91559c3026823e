from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

import lakeward
from lakeward.components import END_OF_INPUT, Component, Encoding, Parcel, Stateful, Token, filtered, rejected

ROWS = pa.RecordBatch.from_pydict({"a": ["x", None], "_row": [1, 2]})
NUMBERS = st.integers(0, 10**10 - 1)


def test_rejected_rows_keep_all_they_had_and_say_why() -> None:
    assert rejected(ROWS, "type", "not a number").to_pylist() == [
        {"a": "x", "_row": 1, "_reason": "type", "_detail": "not a number"},
        {"a": None, "_row": 2, "_reason": "type", "_detail": "not a number"},
    ]
    assert rejected(ROWS, "type", pa.array(["one", None])).column("_detail").to_pylist() == ["one", None]
    assert rejected(ROWS, "type").column("_detail").to_pylist() == ["", ""]
    assert rejected(ROWS, pa.array(["type", "late"])).column("_reason").to_pylist() == ["type", "late"]


def test_filtered_rows_keep_their_key_alone_and_name_the_rule() -> None:
    assert filtered(ROWS, "too hot").to_pylist() == [{"_row": 1, "_rule": "too hot"}, {"_row": 2, "_rule": "too hot"}]
    assert filtered(ROWS.select(["a"]), "rule").to_pylist() == [{"_rule": "rule"}] * 2


def test_the_schema_of_marked_rows_does_not_depend_on_the_rows() -> None:
    for mark in (rejected, filtered):
        assert mark(ROWS.slice(0, 0), "x").schema == mark(ROWS, "x").schema
        assert mark(ROWS.slice(0, 0), "x").num_rows == 0


@given(st.lists(st.tuples(NUMBERS, st.integers(0, 9999)), min_size=2, max_size=2, unique=True))
def test_names_of_parcels_sort_as_their_epochs_and_sequences(pairs: list[tuple[int, int]]) -> None:
    one, other = (Token("p", "s", "cafe", epoch, sequence).name for sequence, epoch in pairs)
    assert (one < other) == (pairs[0][::-1] < pairs[1][::-1])


def test_names_of_parcels_differ_in_every_part() -> None:
    token = Token("p", "s", "cafe0123", 1, 2)
    others = [Token("p", "s", "beef0123", 1, 2), Token("p", "s", "cafe0123", 2, 2), Token("p", "s", "cafe0123", 1, 3)]
    assert len({str(each) for each in (token, *others, Token("q", "s", "cafe0123", 1, 2), Token("p", "t", "cafe0123", 1, 2))}) == 6
    assert len({each.name for each in (token, *others, Token("p", "t", "cafe0123", 1, 2))}) == 5


def test_parts_of_a_parcel_have_names_and_growing_numbers_of_their_own() -> None:
    delivered = [
        Token("p", "s", "l", 0, 1),
        *(Token("p", "s", "l", 0, 2, part) for part in ((0, 5), (5, 7), (8, 10))),
        Token("p", "s", "l", 0, 3),
    ]
    assert len({token.name for token in delivered}) == 5
    assert [token.name for token in delivered] == sorted(token.name for token in delivered)
    numbers = [token.number for token in delivered]
    assert numbers == sorted(set(numbers))
    assert Token("p", "s", "l", 0, 2**32 - 1).number < 2**63


def test_a_parcel_gives_its_rows_again_in_pieces(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(10))})
    pq.write_table(table, tmp_path / "f.parquet")
    parcel = Parcel(Token("p", "s", "l", 0, 1), tmp_path / "f.parquet", 10, "sha")
    pieces = list(parcel.batches(4))
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert pa.Table.from_batches(pieces).equals(table)
    assert pa.Table.from_batches(parcel.batches()).equals(table)


def test_values_do_not_change_under_who_holds_them() -> None:
    for value, name in ((Encoding(), "compression"), (Token("p", "s", "l", 0, 1), "epoch"), (Component("sink", "a", "m:C", "S."), "name")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_a_stateful_transform_has_all_of_state_restore_and_finish() -> None:
    class Whole:
        def state(self) -> bytes: ...
        def restore(self, state: bytes) -> None: ...
        def finish(self, watermark: object) -> object: ...

    class Half:
        def state(self) -> bytes: ...

    assert isinstance(Whole(), Stateful)
    assert not isinstance(Half(), Stateful)


def test_the_end_of_input_is_after_every_time() -> None:
    assert END_OF_INPUT.utcoffset() is not None
    assert END_OF_INPUT.year == 9999


def test_what_the_package_offers_is_there_and_little() -> None:
    assert len(lakeward.__all__) <= 15
    assert all(hasattr(lakeward, name) for name in lakeward.__all__)


def test_announcing_a_plugin_pays_for_nothing_heavy() -> None:
    script = "import sys, lakeward; print(*sorted({'pyarrow', 'numpy', 'yaml', 'cattrs', 'click', 'sqlite3'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    shown = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == ""
