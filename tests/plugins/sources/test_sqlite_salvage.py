"""Damaged databases: the rows that can be read arrive, the others are named, and nothing is passed over in silence."""

import sqlite3
import struct
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from lakeward import Batch, OptionError, Refused
from lakeward.deadletters.letters import letters
from lakeward_plugins.sources.sqlite import SqliteSource, salvage

PAGE = 4096
READINGS = "CREATE TABLE readings (id INTEGER PRIMARY KEY {}, timestamp TEXT, temperature REAL)"


def make(path: Path, rows: int = 5000, key: str = "AUTOINCREMENT", every: int = 1) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(READINGS.format(key))
        values = ((number * every, f"{number:06}" + "t" * 60, number / 7) for number in range(1, rows + 1))
        connection.executemany("INSERT INTO readings VALUES (?, ?, ?)", values)
    return path


def damage(path: Path, page: int, content: bytes, at: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE + at)
        file.write(content)


def pages(path: Path, kind: int) -> list[int]:
    """Pages of a kind (13 a leaf, 5 an interior page of a table) except the first one, numbered from 0."""
    content = path.read_bytes()
    return [number for number in range(1, len(content) // PAGE) if content[number * PAGE] == kind]


def keys_of(path: Path, leaf: int) -> list[int]:
    """The row ids on a leaf, read by hand by https://sqlite.org/fileformat.html."""
    page = path.read_bytes()[leaf * PAGE : (leaf + 1) * PAGE]
    found = []
    for cell in range(struct.unpack(">H", page[3:5])[0]):
        at = struct.unpack(">H", page[8 + 2 * cell : 10 + 2 * cell])[0]
        for _ in range(2):  # the length of the row, then its id
            number = 0
            while True:
                number, more, at = number << 7 | page[at] & 127, page[at] & 128, at + 1
                if not more:
                    break
        found.append(number)
    return found


def leaves(path: Path) -> list[int]:
    """Of the table `readings`, in the order of its rows; the other table, sqlite_sequence, has one row."""
    keys = {leaf: keys_of(path, leaf) for leaf in pages(path, 13)}
    return sorted((leaf for leaf in keys if keys[leaf] != [1]), key=lambda leaf: keys[leaf][0])


def read(path: Path, limit: int = 100_000) -> list[Batch]:
    with closing(SqliteSource(path, table="readings")) as source:
        return list(source.read(None, limit))


def good(batches: list[Batch]) -> list[int]:
    return [key for batch in batches for key in batch.rows.column("_row").to_pylist()]


def lost(batches: list[Batch]) -> list[tuple[int, int]]:
    marked = [row for batch in batches if batch.rejected is not None for row in batch.rejected.to_pylist()]
    assert {row["_reason"] for row in marked} <= {"source_corrupt"}
    return [(row["_row"], row["_row_high"]) for row in marked]


@pytest.mark.parametrize("limit", [100_000, 700, 64])
@pytest.mark.parametrize(
    "content", [bytes(PAGE), b"\xa5" * PAGE, b"\r\0\0\xff\xff" + b"\xff" * (PAGE - 5)], ids=["zero", "garbage", "cells"]
)
def test_a_bad_leaf_costs_its_own_rows_only(tmp_path: Path, content: bytes, limit: int) -> None:
    path = make(tmp_path / "a.db")
    leaf = leaves(path)[20]
    gone = keys_of(path, leaf)
    damage(path, leaf, content)
    batches = read(path, limit)
    assert good(batches) == [key for key in range(1, 5001) if key not in gone]
    assert lost(batches) == [(gone[0], gone[-1])]
    (event,) = [event for batch in batches for event in batch.events]
    assert (event.kind, event.rows) == ("unreadable", len(gone))
    assert f"rows {gone[0]} to {gone[-1]} cannot be read (" in event.detail
    assert all(batch.rows.num_rows <= limit for batch in batches)
    assert all(before.position["id"] < batch.position["id"] for before, batch in pairwise(batches))


def test_a_bad_cell_pointer_costs_few_rows(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    leaf = leaves(path)[20]
    damage(path, leaf, b"\0\0", at=8 + 2 * 11)  # the pointer of the twelfth row leads into the page's header
    batches = read(path)
    missing = set(range(1, 5001)) - set(good(batches))
    assert keys_of(path, leaf)[0] < min(missing, default=0) or not missing
    assert len(missing) < 60
    assert missing <= {key for first, last in lost(batches) for key in range(first, last + 1)}


def test_two_bad_leaves_with_a_good_one_between_are_two_ranges(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    first, second = leaves(path)[20], leaves(path)[22]
    ranges = [(keys_of(path, leaf)[0], keys_of(path, leaf)[-1]) for leaf in (first, second)]
    damage(path, first, bytes(PAGE))
    damage(path, second, bytes(PAGE))
    batches = read(path)
    assert lost(batches) == ranges
    assert len(good(batches)) == 5000 - sum(high - low + 1 for low, high in ranges)


def test_ids_far_apart_are_found_quickly(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", every=1_000_003)
    leaf = leaves(path)[20]
    gone = keys_of(path, leaf)
    damage(path, leaf, bytes(PAGE))
    batches = read(path)
    assert len(good(batches)) == 5000 - len(gone)
    ((low, high),) = lost(batches)
    assert gone[0] - 1_000_003 < low <= gone[0]
    assert gone[-1] <= high < gone[-1] + 1_000_003


def test_the_first_leaf_may_be_the_bad_one(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    gone = keys_of(path, leaves(path)[0])
    damage(path, leaves(path)[0], bytes(PAGE))
    batches = read(path)
    assert good(batches) == list(range(gone[-1] + 1, 5001))
    assert lost(batches) == [(-(2**63), gone[-1])]  # there is no telling whether a row had a negative id
    assert batches[0].events[0].rows == gone[-1]


def test_a_bad_end_is_lost_up_to_the_last_id_ever_given_and_then_a_person_must_act(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    gone = keys_of(path, leaves(path)[-1])
    damage(path, leaves(path)[-1], bytes(PAGE))
    source = SqliteSource(path)
    batches = source.read(None, 10_000)
    batch = next(batches)
    assert good([batch]) == list(range(1, gone[0]))
    assert lost([batch]) == [(gone[0], 5000)]
    with pytest.raises(Refused, match=r"rows after id 5000 cannot be read. Repair the database"):
        next(source.read(batch.position, 10_000))


def test_a_bad_end_of_unknown_length_is_not_passed_over(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", key="")
    gone = keys_of(path, leaves(path)[-1])
    damage(path, leaves(path)[-1], bytes(PAGE))
    source = SqliteSource(path, table="readings")
    batch = next(source.read(None, 10_000))
    assert (good([batch])[-1], lost([batch]), batch.position["id"]) == (gone[0] - 1, [], gone[0] - 1)
    with pytest.raises(Refused, match=f"rows after id {gone[0] - 1} cannot be read"):
        next(source.read(batch.position, 10_000))


@pytest.mark.parametrize("source_leaf", [5, 60], ids=["lower ids", "higher ids"])
def test_a_page_that_belongs_elsewhere_is_noticed_and_what_should_be_there_is_named(tmp_path: Path, source_leaf: int) -> None:
    path = make(tmp_path / "a.db")
    ordered, content = leaves(path), path.read_bytes()
    other, gone = ordered[source_leaf], keys_of(path, ordered[20])
    damage(path, ordered[20], content[other * PAGE : (other + 1) * PAGE])  # as a broken disk leaves it
    for limit in (100_000, 1500, 1000, gone[0] - 1):
        batches = read(path, limit)
        assert good(batches) == [key for key in range(1, 5001) if key not in gone]
        assert lost(batches) == [(gone[0], gone[-1])]
        assert "do not ascend" in batches[-1 if limit > 5000 else (gone[0] - 1) // limit].events[0].detail


def test_a_bad_interior_page_costs_at_most_what_is_below_it(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", 60_000)
    with closing(sqlite3.connect(path)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'readings'").fetchone()[0]
    below = [page for page in pages(path, 5) if page != root - 1]
    assert len(below) > 1
    damage(path, below[0], bytes(PAGE))
    batches = read(path)
    ((low, high),) = lost(batches)
    assert sorted([*good(batches), *range(max(low, 1), high + 1)]) == list(range(1, 60_001))
    assert 1000 < high - max(low, 1) < 40_000


def test_a_truncated_file_is_said_to_be_one(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    running = SqliteSource(path)
    batches = running.read(None, 1000)
    assert good([next(batches)]) == list(range(1, 1001))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(Refused, match="malformed"):
        next(batches)
    with pytest.raises(OptionError, match="malformed; repair it"):
        SqliteSource(path).schema()


@pytest.mark.parametrize(
    ("at", "content", "words"), [(0, b"\0" * 16, "is not a SQLite database"), (16, b"\0\3", "is not a SQLite database")]
)
def test_a_broken_header_is_said_once_and_clearly(tmp_path: Path, at: int, content: bytes, words: str) -> None:
    path = make(tmp_path / "a.db", 100)
    running = SqliteSource(path)
    running.schema()
    damage(path, 0, content, at)
    with pytest.raises(OptionError, match=words):
        SqliteSource(path).schema()
    with pytest.raises(Refused, match=words):
        next(running.read(None, 10))


def test_a_broken_schema_is_a_mistake_in_the_path(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", 100)
    damage(path, 0, b"\xff" * 300, 100)
    with pytest.raises(OptionError, match="malformed") as caught:
        SqliteSource(path).schema()
    assert caught.value.option == "path"


def test_many_bad_leaves_take_several_batches_of_bounded_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.db")
    gone: list[int] = []
    for leaf in leaves(path)[1::2]:
        gone += keys_of(path, leaf)
        damage(path, leaf, bytes(PAGE))
    (whole,) = read(path)
    monkeypatch.setattr(salvage, "MOST_QUERIES", 300)
    parts = read(path)
    assert len(parts) > 3
    assert good(parts) == good([whole]) == [key for key in range(1, 5001) if key not in set(gone)]
    assert lost(parts) == lost([whole])


def test_a_bad_cell_beside_a_bad_page_is_still_a_letter_of_its_own(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE readings SET temperature = 'n/a' WHERE id = 7")
    gone = keys_of(path, leaves(path)[20])
    damage(path, leaves(path)[20], bytes(PAGE))
    (batch,) = read(path)
    cell, span = letters("source", batch.rejected, "a.db", 0)
    assert (cell.row, cell.row_high, cell.reason) == (7, None, "type")
    assert (span.row, span.row_high, span.reason) == (gone[0], gone[-1], "source_corrupt")
    assert cell.row not in good([batch])


# -- damage and the guard ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["AUTOINCREMENT", ""])
@pytest.mark.parametrize("number", [0, 20, -2], ids=["first leaf", "in the middle", "what was read last"])
def test_damage_to_rows_that_were_read_starts_no_new_life(tmp_path: Path, key: str, number: int) -> None:
    path = make(tmp_path / "a.db", key=key)
    (batch,) = read(path)
    damage(path, leaves(path)[number], bytes(PAGE))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO readings (timestamp) VALUES ('later')")
    position = batch.position
    for rows in ([5001], []):
        batches = list(SqliteSource(path, table="readings").read(position, 1000))
        assert good(batches) == rows
        assert {one.epoch for one in batches} <= {0}
        assert [event for one in batches for event in one.events] == []
        position = batches[-1].position if batches else position


@pytest.mark.parametrize("key", ["AUTOINCREMENT", ""])
def test_a_damaged_table_that_is_replaced_is_noticed_all_the_same(tmp_path: Path, key: str) -> None:
    path = make(tmp_path / "a.db", key=key)
    damage(path, leaves(path)[20], bytes(PAGE))
    batches = read(path, 1000)
    path.unlink()
    with closing(sqlite3.connect(make(path, 10, key))) as connection, connection:
        connection.execute("UPDATE readings SET temperature = temperature + 1")
    again = list(SqliteSource(path, table="readings").read(batches[-1].position, 1000))
    assert good(again) == list(range(1, 11))
    assert [(event.kind, one.epoch) for one in again for event in one.events] == [("source_reset", 1)]
