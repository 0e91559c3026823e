"""Many databases as one source: all rows of all files, each with its place, and broken ones that stop nobody."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lakeward import Batch, OptionError, Refused, Retry
from lakeward.testing import SourceContract
from lakeward_plugins.sources.sqlite import SqliteSource, files

READINGS = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, value INTEGER)"
PLACES = ("athens/s1", "athens/s2", "berlin/s1")


def fill(path: Path, values: Sequence[int], create: str = READINGS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        if new:
            connection.execute(create)
        if values:
            connection.executemany("INSERT INTO readings (timestamp, value) VALUES ('t', ?)", [(value,) for value in values])
    return path


def fleet(folder: Path, rows: int = 5) -> None:
    for number, place in enumerate(PLACES):
        fill(folder / place / "data.db", range(number * 100, number * 100 + rows))


def many(folder: Path, **options) -> SqliteSource:
    return SqliteSource(folder / "*" / "*" / "data.db", **options)


def values(batches: list[Batch]) -> list[int]:
    return [value for batch in batches for value in batch.rows.column("value").to_pylist()]


def until_retry(source: SqliteSource, after: dict | None, limit: int = 100) -> tuple[list[Batch], str]:
    batches: list[Batch] = []
    try:
        batches.extend(source.read(after, limit))
    except Retry as error:
        return batches, str(error)
    return batches, ""


class TestManyDatabases(SourceContract):
    def make(self, tmp_path: Path) -> SqliteSource:
        if not (tmp_path / "data").exists():
            fleet(tmp_path / "data", 11)
        return many(tmp_path / "data", path_columns=["city", "sensor"])

    def while_suspended(self, tmp_path: Path) -> None:
        for place in PLACES:
            with closing(sqlite3.connect(tmp_path / "data" / place / "data.db", timeout=0)) as connection, connection:
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("INSERT INTO readings (value) VALUES (-1)")

    def test_suspended_read_holds_no_lock(self, tmp_path: Path) -> None:
        """The rows that are written meanwhile come between those of other files, so only the locks can be looked at in this way."""
        with closing(self.make(tmp_path)) as source:
            batches = source.read(None, 3)
            first = next(batches)
            self.while_suspended(tmp_path)
            got = values([first, *batches])
        assert sorted(got) == sorted([-1] * 3 + [number * 100 + row for number in range(3) for row in range(11)])


# -- which files -------------------------------------------------------------------------------------------------------


def test_each_row_says_where_its_file_was(tmp_path: Path) -> None:
    fleet(tmp_path, 2)
    batches = list(many(tmp_path, path_columns=["city", "sensor"]).read(None, 10))
    assert [batch.origin for batch in batches] == [f"{place}/data.db" for place in PLACES]
    assert batches[2].rows.to_pylist() == [
        {"_row": key, "id": key, "timestamp": "t", "value": 199 + key, "city": "berlin", "sensor": "s1"} for key in (1, 2)
    ]
    assert set(batches[2].position) == {f"{place}/data.db" for place in PLACES}


@pytest.mark.parametrize(
    ("pattern", "names", "stars"),
    [
        ("*/*/data.db", ["a/b/data.db", "x[1]/b/data.db"], [("a", "b"), ("x[1]", "b")]),
        ("**/data.db", ["a/b/c/data.db", "a/b/data.db", "data.db", "x[1]/b/data.db"], [("a/b/c",), ("a/b",), ("",), ("x[1]/b",)]),
        ("a/*/d*.db", ["a/b/data.db", "a/b/data2.db"], [("b", "ata"), ("b", "ata2")]),
        ("a/b/data?.db", ["a/b/data2.db"], [()]),
        ("x[1]/*/data.db", ["b/data.db"], [("b",)]),
        ("a/*/*", ["b/data.db", "b/data2.db"], [("b", "data.db"), ("b", "data2.db")]),
    ],
)  # fmt: skip
def test_patterns_find_databases_and_not_what_lies_beside_them(tmp_path: Path, pattern: str, names: list[str], stars: list) -> None:
    for place in ("a/b/data.db", "a/b/data2.db", "a/b/c/data.db", "data.db", "x[1]/b/data.db", ".hidden/b/data.db"):
        fill(tmp_path / place, [1])
    for end in ("-wal", "-shm", "-journal"):
        (tmp_path / f"a/b/data.db{end}").touch()
    labels = [f"star{number}" for number in range(len(stars[0]))]
    batches = list(SqliteSource(tmp_path / pattern, path_columns=labels).read(None, 10))
    fixed = Path(pattern).parts[: next(index for index, part in enumerate(Path(pattern).parts) if set("*?") & set(part))]
    assert [batch.origin for batch in batches] == [str(Path(name).relative_to(Path(*fixed))) if name.startswith("a/b/d") and fixed
                                                   else name for name in names]  # fmt: skip
    assert [tuple(row[label] for label in labels) for batch in batches for row in batch.rows.to_pylist()] == stars


def test_a_file_whose_name_has_a_sign_is_one_file(tmp_path: Path) -> None:
    fill(tmp_path / "what?.db", [1])
    fill(tmp_path / "whatx.db", [2])
    assert values(list(SqliteSource(tmp_path / "what?.db").read(None, 10))) == [1]


@pytest.mark.parametrize(
    ("options", "option", "words"),
    [
        ({"path_columns": ["city"]}, "path_columns", "gives 1 names, and "),
        ({"path_columns": ["city", "city"]}, "path_columns[1]", "'city' is there twice"),
        ({"path_columns": ["city", "_row"]}, "path_columns[1]", "'_row' begins with _"),
        ({"path_columns": ["city", "value"]}, "path_columns[1]", "table 'readings' has a column 'value' already"),
        ({"table": "reading"}, "path", "3 of 3 databases in "),
    ],
)
def test_what_is_wrong_with_the_options_is_said(tmp_path: Path, options: dict, option: str, words: str) -> None:
    fleet(tmp_path)
    with pytest.raises(OptionError) as caught:
        many(tmp_path, **options).schema()
    assert caught.value.option == option
    assert words in caught.value.message


def test_names_for_the_path_of_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there are no stars in"):
        SqliteSource(tmp_path / "a.db", path_columns=["city"])


def test_no_file_at_all_is_a_mistake_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no file matches") as caught:
        many(tmp_path).schema()
    assert caught.value.option == "path"


# -- files come and go -------------------------------------------------------------------------------------------------


def test_a_new_file_is_read_from_its_start_and_the_others_go_on(tmp_path: Path) -> None:
    fleet(tmp_path, 2)
    source = many(tmp_path)
    position = json.loads(json.dumps(list(source.read(None, 10))[-1].position))
    fill(tmp_path / "athens/a0/data.db", [7, 8])
    fill(tmp_path / "berlin/s1/data.db", [9])
    assert values(list(source.read(position, 10))) == [7, 8, 9]


def test_a_file_that_is_gone_is_told_once_and_read_on_when_it_is_back(tmp_path: Path) -> None:
    fleet(tmp_path, 2)
    source = many(tmp_path, path_columns=["city", "sensor"])
    position = list(source.read(None, 10))[-1].position
    (tmp_path / "athens/s2/data.db").rename(tmp_path / "away")
    fill(tmp_path / "berlin/s1/data.db", [9])
    told, more = source.read(position, 10)
    assert [(event.kind, event.detail) for event in told.events] == [
        ("vanished", f"{tmp_path}/athens/s2/data.db is gone; if it comes back, it is read on from there")
    ]
    assert told.rows.schema == source.schema()
    assert (told.position != position, told.rows.num_rows, values([more])) == (True, 0, [9])
    assert list(source.read(more.position, 10)) == []
    (tmp_path / "away").rename(tmp_path / "athens/s2/data.db")
    assert list(source.read(more.position, 10)) == []
    fill(tmp_path / "athens/s2/data.db", [11])
    (again,) = source.read(more.position, 10)
    assert (values([again]), set(again.position)) == ([11], {f"{place}/data.db" for place in PLACES})


def test_when_all_are_gone_the_folder_is_and_that_may_pass(tmp_path: Path) -> None:
    fleet(tmp_path / "data", 2)
    source = many(tmp_path / "data")
    source.schema()
    (tmp_path / "data").rename(tmp_path / "unmounted")
    assert "no file matches" in until_retry(source, None)[1]


def test_a_file_that_was_not_written_is_not_opened_again(tmp_path: Path) -> None:
    fleet(tmp_path, 2)
    path, long_ago = tmp_path / "athens/s2/data.db", (1_700_000_000, 1_700_000_000)
    for place in PLACES:
        os.utime(tmp_path / place / "data.db", long_ago)
    source = many(tmp_path)
    position = list(source.read(None, 10))[-1].position
    content = path.stat().st_size
    fill(path, [9])
    os.utime(path, long_ago)  # so that nobody can tell, but who looks into it
    assert path.stat().st_size == content
    assert values(list(source.read(position, 10))) == []
    assert values(list(many(tmp_path).read(position, 10))) == [9]
    os.utime(path)
    assert values(list(source.read(position, 10))) == [9]
    assert sorted(values(list(source.read(None, 10)))) == [0, 1, 9, 100, 101, 200, 201]  # a position from before counts, as ever


def test_a_file_that_was_written_a_moment_ago_is_opened_again(tmp_path: Path) -> None:
    fleet(tmp_path, 2)
    source, path = many(tmp_path), tmp_path / "athens/s2/data.db"
    position = list(source.read(None, 10))[-1].position
    times = path.stat().st_mtime_ns
    fill(path, [9])
    os.utime(path, ns=(times, times))  # as if both writes had come within a tick of the clock
    assert values(list(source.read(position, 10))) == [9]


# -- broken files ------------------------------------------------------------------------------------------------------


def zeroed(path: Path) -> str:
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    return "is not a SQLite database"


def text(path: Path) -> str:
    path.write_text("hello\n" * 100)
    return "is not a SQLite database"


def empty(path: Path) -> str:
    path.write_bytes(b"")
    return "no table 'readings'; there is no table at all"


def truncated(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:4096])
    return "database disk image is malformed"


def other_columns(path: Path) -> str:
    path.unlink()
    fill(path, [1], "CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT, value REAL, extra TEXT)")
    return "has a column extra and column value as double, unlike "


def without_a_column(path: Path) -> str:
    path.unlink()
    fill(path, [], "CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT)")
    return "has no column value, unlike "


def in_another_order(path: Path) -> str:
    path.unlink()
    fill(path, [], "CREATE TABLE readings (id INTEGER PRIMARY KEY, value INTEGER, timestamp TEXT)")
    return "has its columns in another order, unlike "


@pytest.mark.parametrize("broken", ["athens/s1", "athens/s2"])
@pytest.mark.parametrize("breaks", [zeroed, text, empty, truncated, other_columns, without_a_column, in_another_order])
def test_a_broken_file_is_named_after_all_others_are_read(tmp_path: Path, breaks, broken: str) -> None:
    if broken == "athens/s1" and breaks in (other_columns, without_a_column, in_another_order):
        pytest.skip("the first file that can be read says which columns there are")
    fleet(tmp_path, 5)
    words = breaks(tmp_path / broken / "data.db")
    source = many(tmp_path, table="readings")
    healthy = [value for number, place in enumerate(PLACES) if place != broken for value in range(number * 100, number * 100 + 5)]
    batches, said = until_retry(source, None, 2)
    assert sorted(values(batches)) == healthy
    assert said.startswith(f"1 of 3 databases in {tmp_path} cannot be read: {broken}/data.db: ")
    assert words in said
    assert words in source.explain()
    (tmp_path / broken / "data.db").unlink()
    fill(tmp_path / broken / "data.db", [77])
    batches, said = until_retry(source, batches[-1].position)
    assert (values(batches), said) == ([77], "")


def test_a_broken_file_rests_and_the_others_are_read_at_their_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet(tmp_path, 2)
    source = many(tmp_path, table="readings")
    source.schema()
    text(tmp_path / "berlin/s1/data.db")
    position: Any = None
    for attempt in range(2):
        with pytest.raises(Retry, match=r"berlin/s1/data.db: .*is not a SQLite database") as told:
            position = [batch.position for batch in source.read(position, 100)] or position
        assert told.value.after == files.AGAIN, attempt
    (tmp_path / "berlin/s1/data.db").unlink()
    fill(tmp_path / "berlin/s1/data.db", [77])
    fill(tmp_path / "athens/s1/data.db", [5])
    batches, said = until_retry(source, None)
    assert sorted(values(batches)) == [0, 1, 5, 100, 101], "the others are read meanwhile"
    assert said.endswith("is not a SQLite database"), "it is not looked at again before its rest is over"
    later = time.monotonic() + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert [values(batches) for batches, said in [until_retry(source, batches[-1].position)] if not said] == [[77]]


def test_a_file_that_breaks_later_does_not_stop_the_others(tmp_path: Path) -> None:
    fleet(tmp_path, 5)
    source = many(tmp_path)
    batches = source.read(None, 2)
    got = [next(batches), next(batches), next(batches)]
    text(tmp_path / "athens/s1/data.db")
    with pytest.raises(Retry, match=r"1 of 3 databases.*athens/s1/data.db.*not a SQLite database"):
        got.extend(batches)
    assert sorted(values(got)) == [0, 1, *range(100, 105), *range(200, 205)]


def test_many_broken_files_are_counted_and_three_of_them_named(tmp_path: Path) -> None:
    fleet(tmp_path, 1)
    for number in range(5):
        text(fill(tmp_path / "x" / f"s{number}" / "data.db", [1]))
    batches, said = until_retry(many(tmp_path), None)
    assert len(batches) == 3
    assert said.startswith("5 of 8 databases")
    assert said.endswith("; and 2 more")
    assert said.count("is not a SQLite database") == 3


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """By another process: locks of the same one would not be seen."""
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN EXCLUSIVE'); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sensor:
        assert sensor.stdout.readline() == "locked\n"
        yield
        sensor.stdin.close()


def test_when_all_files_are_locked_it_is_a_matter_of_time(tmp_path: Path) -> None:
    path = fill(tmp_path / "athens" / "s1" / "data.db", [1])
    source = many(tmp_path, busy_timeout=timedelta(milliseconds=20))
    with locked(path), pytest.raises(Retry, match=r"1 of 1 databases in .* is locked"):
        source.schema()
    assert values(list(source.read(None, 10))) == [1]


def test_a_locked_file_is_waited_for_alone(tmp_path: Path) -> None:
    fleet(tmp_path, 2)
    source = many(tmp_path, busy_timeout=timedelta(milliseconds=20))
    source.schema()
    with locked(tmp_path / "athens/s2/data.db"):
        batches, said = until_retry(source, None)
    assert values(batches) == [0, 1, 200, 201]
    assert "athens/s2/data.db cannot be read now: database is locked" in said
    assert values(list(source.read(batches[-1].position, 10))) == [100, 101]


def test_a_long_file_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    fleet(tmp_path, 2)
    fill(tmp_path / "athens/s1/data.db", range(1000, 3000))
    origins = [batch.origin for batch in many(tmp_path).read(None, 100)]
    assert origins[:3] == [f"{place}/data.db" for place in PLACES]
    assert origins.count("athens/s1/data.db") == 21
    assert len(origins) == 23


def test_copies_of_several_files_do_not_meet(tmp_path: Path) -> None:
    for place in PLACES:
        fill(tmp_path / "data" / place / "data.db", range(3))
    script = (
        "import os, sqlite3, sys\nfor path in sys.argv[1:]:\n c = sqlite3.connect(path, isolation_level=None)\n"
        " c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN')\n"
        ' c.execute("UPDATE readings SET timestamp = hex(zeroblob(20000))")\nos._exit(9)'
    )
    paths = [tmp_path / "data" / place / "data.db" for place in PLACES[:2]]
    subprocess.run([sys.executable, "-c", script, *paths], check=False)
    assert all(Path(f"{path}-journal").stat().st_size for path in paths)
    source = many(tmp_path / "data")
    (tmp_path / "keep" / "old").mkdir(parents=True)
    source.keep_in(tmp_path / "keep")
    assert values(list(source.read(None, 10))) == [0, 1, 2] * 3
    assert len(list((tmp_path / "keep").glob("*/copy.db"))) == 2


@pytest.mark.parametrize("position", [{"id": 5}, {"athens/s1/data.db": 5}])
def test_the_position_of_a_single_file_is_refused(tmp_path: Path, position: dict) -> None:
    fleet(tmp_path)
    with pytest.raises(Refused, match="is not a position in many databases"):
        next(many(tmp_path).read(position, 10))


# -- again -------------------------------------------------------------------------------------------------------------


def test_a_part_of_one_file_is_read_again_and_nothing_else(tmp_path: Path) -> None:
    fleet(tmp_path, 9)
    source = many(tmp_path)
    position = json.loads(json.dumps(source.reread(3, 6, 1_000_000, "athens/s2/data.db")))
    batches = list(source.read(position, 3))
    assert values(batches) == [102, 103, 104, 105]
    assert {(batch.origin, batch.epoch) for batch in batches} == {("athens/s2/data.db", 1_000_000)}
    assert list(source.read(batches[-1].position, 3)) == []


def test_what_comes_after_a_row_of_one_file_is_read_again_beside_the_others(tmp_path: Path) -> None:
    fleet(tmp_path, 3)
    source = many(tmp_path)
    position = list(source.read(None, 10))[-1].position
    assert values(list(source.read({**position, **source.reread(2, None, 1_000_000, "athens/s2/data.db")}, 10))) == [101, 102]


@pytest.mark.parametrize(
    ("origin", "words"), [("", "name the input: one of 3, such as athens/s1/data.db"), ("x.db", "there is no input 'x.db'")]
)
def test_a_file_to_be_read_again_must_be_named(tmp_path: Path, origin: str, words: str) -> None:
    fleet(tmp_path)
    with pytest.raises(OptionError, match=words) as caught:
        many(tmp_path).reread(1, 2, 1_000_000, origin)
    assert caught.value.option == "origin"
