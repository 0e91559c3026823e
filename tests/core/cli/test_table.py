from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeward.cli.table import table


def test_columns_are_aligned_numbers_to_the_right() -> None:
    rows = [("raw", 1_234_567, 1.5, "x"), ("anomalies", 5, None, None)]
    assert table(("sink", "rows", "mean", "note"), rows).splitlines() == [
        "SINK            ROWS  MEAN  NOTE",
        "raw        1,234,567   1.5  x",
        "anomalies          5",
    ]


def test_rows_may_come_from_a_generator() -> None:
    rows = [("a", 1), ("b", 22)]
    assert table(("n", "rows"), (row for row in rows)) == table(("n", "rows"), rows)


def test_true_is_no_number() -> None:
    assert table(("n", "ok"), [("a", True), ("b", False)]).splitlines() == ["N  OK", "a  True", "b  False"]


def test_without_rows_there_are_the_headers() -> None:
    assert table(("name", "kind"), []) == "NAME  KIND"


@given(st.lists(st.tuples(st.text(), st.integers(), st.none() | st.floats()), max_size=5))
def test_each_row_is_one_printable_line_whatever_its_text(rows: list[tuple[object, ...]]) -> None:
    lines = table(("text", "number", "ratio"), rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(line.isprintable() for line in lines)
    last = lines[0].index("NUMBER") + len("NUMBER") - 1
    assert all(line[last].isdigit() for line in lines[1:])


def test_keys_are_written_as_commands_take_them() -> None:
    assert table(("id", "rows"), [(12_345, 12_345)], keys=("id",)).splitlines() == ["   ID    ROWS", "12345  12,345"]


def test_the_last_column_fits_a_terminal_if_it_may_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("raw", "/very/long/path/to/the/lake/raw-0001.parquet"), ("b", "/short")]
    whole = table(("sink", "location"), rows, fit=True).splitlines()
    assert whole[1].endswith(rows[0][1])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    assert table(("sink", "location"), rows).splitlines() == whole
    assert table(("sink", "location"), rows, fit=True).splitlines() == [
        "SINK  LOCATION",
        "raw   /very/long/path/…/raw-0001.parquet",
        "b     /short",
    ]
    monkeypatch.setenv("COLUMNS", "5")
    assert len(table(("sink", "location"), rows, fit=True).splitlines()[1]) == 6 + 20


def test_long_values_are_shortened_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("x" * 30 + "end", 1)]
    assert rows[0][0] in table(("text", "n"), rows, widest=9)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert table(("text", "n"), rows, widest=9).splitlines() == ["TEXT       N", "xxxx…xend  1"]
    assert rows[0][0] in table(("text", "n"), rows)
