"""`cursor: timestamp`: each row that is at most so late comes once, and each other one is counted."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakeward import OptionError, Refused
from lakeward.testing import SourceContract
from lakeward_plugins.sources.sqlite import SqliteSource

KEYED = "CREATE TABLE r (id INTEGER PRIMARY KEY, time {}, v REAL)"
KEYLESS = "CREATE TABLE r (time {}, v REAL)"
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
FORMS = {
    "TEXT": lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "TEXT -- with a fraction now and then": lambda time: time.isoformat(" "),
    "DATETIME": lambda time: time.strftime("%Y-%m-%d %H:%M:%S"),
    "INTEGER": lambda time: int(time.timestamp()),
    "BIGINT": lambda time: int(time.timestamp() * 1000),
    "REAL": lambda time: time.timestamp(),
    "": lambda time: time.timestamp() * 1e6,
    "REAL -- a Julian day": lambda time: time.timestamp() / 86400 + 2440587.5,
}


def run(path: Path, *script: str, rows: list[tuple] = ()) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for sql in script:
            connection.execute(sql)
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO r (time, v) VALUES (?, ?)", rows)
        connection.execute("COMMIT")


def source(path: Path, lateness: float = 60, **options) -> SqliteSource:
    return SqliteSource(path, timestamp="time", cursor="timestamp", lateness=timedelta(seconds=lateness), **options)


class Lake:
    def __init__(self, path: Path, lateness: float = 60) -> None:
        self.path, self.lateness = path, lateness
        self.position, self.rows, self.bad, self.events = None, {}, {}, []

    def poll(self, limit: int = 100) -> "Lake":
        for batch in source(self.path, self.lateness).read(self.position, limit):
            assert batch.rows.num_rows <= limit
            self.position = json.loads(json.dumps(batch.position))
            self.events += batch.events
            for kept, part in ((self.rows, batch.rows), (self.bad, batch.rejected)):
                for row in part.to_pylist() if part is not None else []:
                    assert row["_row"] not in self.rows.keys() | self.bad.keys()
                    kept[row["_row"]] = row
        return self

    @property
    def values(self) -> list:
        return [row["v"] for row in self.rows.values()]


def minute(number: float, form: str = "TEXT") -> object:
    return FORMS[form](BEGIN + timedelta(minutes=number))


class TestByTimeWithoutRowIds(SourceContract):
    def make(self, tmp_path: Path) -> SqliteSource:
        path = tmp_path / "s.db"
        if not path.exists():
            rows = [(minute(number * 7 % 30 // 2), number) for number in range(30)]  # two of each time, in disorder
            run(path, KEYLESS.format("TEXT"), rows=[*rows, (minute(60), 30)])
        return source(path)

    def while_suspended(self, tmp_path: Path) -> None:
        run(tmp_path / "s.db", rows=[(minute(61), 31)])


class TestByTimeWithRowIds(TestByTimeWithoutRowIds):
    def make(self, tmp_path: Path) -> SqliteSource:
        path = tmp_path / "s.db"
        if not path.exists():
            run(path, KEYED.format("INTEGER"), rows=[(minute(number * 7 % 30 // 2, "INTEGER"), number) for number in range(31)])
            run(path, rows=[(minute(60, "INTEGER"), 31)])
        return source(path)

    def while_suspended(self, tmp_path: Path) -> None:
        run(tmp_path / "s.db", rows=[(minute(61, "INTEGER"), 31)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ddl", [KEYED, KEYLESS])
def test_rows_come_in_the_order_of_time_once_they_are_settled(tmp_path: Path, ddl: str, form: str) -> None:
    order = [5, 3, 4, 0, 2, 1, 7, 6, 9, 8]
    run(tmp_path / "s.db", ddl.format(f"{form}\n"), rows=[(minute(number, form), number) for number in order])
    lake = Lake(tmp_path / "s.db", 3 * 60).poll(4)
    assert lake.values == [0, 1, 2, 3, 4, 5]  # the newest is 9, and what is less than three minutes older may still get company
    run(lake.path, rows=[(minute(6.5, form), 6.5), (minute(12, form), 12)])
    assert lake.poll(2).values == [0, 1, 2, 3, 4, 5, 6, 6.5, 7, 8]
    assert list(lake.rows) == list(range(1, 11))
    assert lake.events == []


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.lists(st.integers(0, 300), min_size=1, max_size=12)),  # seconds behind the newest
        st.tuples(st.just("poll"), st.integers(1, 20)),
        st.tuples(st.just("vacuum"), st.none()),
        st.tuples(st.just("retention"), st.integers(1, 10)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, keyed=st.booleans(), form=st.sampled_from(["TEXT", "INTEGER", "REAL"]), coarse=st.sampled_from([1, 60, 120]))
def test_no_row_that_is_at_most_so_late_is_lost_and_none_comes_twice(
    tmp_path_factory: pytest.TempPathFactory, events: list, keyed: bool, form: str, coarse: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "s.db"
    run(path, (KEYED if keyed else KEYLESS).format(form))
    lake, newest, written = Lake(path, 300), 0, []
    for kind, what in events:
        if kind == "insert":
            rows = []
            for behind in what:
                newest += 37
                second = max(0, newest - behind) // coarse * coarse if coarse < 120 else newest // 3600 * 3600  # many of one time
                rows.append((FORMS[form](BEGIN + timedelta(seconds=second)), len(written)))
                written.append(second)
            run(path, rows=rows)
        elif kind == "poll":
            lake.poll(what if keyed else max(what, 20))
        elif kind == "vacuum":
            run(path, "VACUUM")
        elif lake.rows:  # only what was read long ago
            run(path, f"DELETE FROM r WHERE v IN ({', '.join(map(str, lake.values[:what]))})")
    run(path, rows=[(FORMS[form](BEGIN + timedelta(seconds=newest + 10_000)), -1)])
    lake.poll(7 if keyed else 20).poll()
    assert sorted(lake.values) == list(range(len(written)))
    assert [written[int(number)] for number in lake.values] == sorted(written)
    assert [event.kind for event in lake.events] == []


def test_what_comes_later_is_counted_and_told_once(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, KEYLESS.format("TEXT"), rows=[(minute(number), number) for number in range(20)])
    lake = Lake(path).poll()
    assert (len(lake.rows), lake.events) == (18, [])
    run(path, rows=[(minute(5), 100), (minute(6), 101), (minute(17.5), 102), (minute(21), 21)])
    lake.poll().poll()
    assert [(event.kind, event.rows) for event in lake.events] == [("late", 2)]
    assert "2 rows are not sent" in lake.events[0].detail
    assert lake.values == [*range(18), 102, 18, 19]
    run(path, "DELETE FROM r WHERE v < 10")  # retention makes no difference
    assert len(lake.poll().events) == 1
    run(path, rows=[(minute(7), 103)])
    lake.poll()
    assert [event.rows for event in lake.events] == [2, 1]


@pytest.mark.parametrize("odd", [None, b"2024", "n/a", "yesterday"])
def test_rows_without_a_usable_time_are_counted(tmp_path: Path, odd: object) -> None:
    path = tmp_path / "s.db"
    run(path, KEYLESS.format("TEXT"), rows=[(minute(1), 1), (odd, 2), (minute(3), 3), (odd, 4), (minute(9), 9)])
    lake = Lake(path).poll()
    assert ([event.rows for event in lake.events], lake.values) == ([2], [1, 3])


def test_a_bad_cell_is_a_dead_letter_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, KEYLESS.format("TEXT"), rows=[(minute(3), "bad"), (minute(2), 2), (minute(1), 1), (minute(9), 9)])
    lake = Lake(path).poll()
    assert ([(key, row["v"]) for key, row in lake.rows.items()], [(key, row["v"]) for key, row in lake.bad.items()]) == (
        [(1, 1.0), (2, 2.0)], [(3, "bad")],
    )  # fmt: skip


def test_more_rows_of_one_time_than_fit_into_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, KEYED.format("TEXT"), rows=[(minute(number // 50), number) for number in range(200)])
    run(path, rows=[(minute(99), 99)])
    for limit in (1, 7, 49, 50, 51, 120, 1000):
        assert Lake(path).poll(limit).values == list(range(200))


@pytest.mark.parametrize(("ddl", "words"), [
    ("CREATE TABLE r (time TEXT PRIMARY KEY, v) WITHOUT ROWID", "WITHOUT ROWID table"),
    ("CREATE VIEW r AS SELECT 1 AS time, 2 AS v", "is a view"),
    ("CREATE TABLE r (rowid TEXT, _rowid_ TEXT, oid TEXT, time TEXT, v)", "all names of the row id"),
])  # fmt: skip
def test_tables_without_row_ids_are_refused(tmp_path: Path, ddl: str, words: str) -> None:
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        connection.execute(ddl)
    with pytest.raises(OptionError, match=words):
        source(tmp_path / "s.db", table="r").schema()


@pytest.mark.parametrize(
    ("columns", "key"),
    [("rowid TEXT, time TEXT, v REAL", "_rowid_"), ("RowId TEXT, oid TEXT, _rowid_, time TEXT, v, i INTEGER PRIMARY KEY", "i")],
)
def test_a_column_that_is_called_like_the_row_id_does_not_hide_it(tmp_path: Path, columns: str, key: str) -> None:
    path = tmp_path / "s.db"
    run(path, f"CREATE TABLE r ({columns})", rows=[(minute(1), 1), (minute(5), 5)])
    assert f"key {key}," in source(path).explain()
    assert len(Lake(path).poll().rows) == 1


def test_what_the_options_must_say(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, KEYED.format("TEXT"), "CREATE TABLE timeless (id INTEGER PRIMARY KEY, v)")
    for options in ({"cursor": "timestamp"}, {"lateness": timedelta(1)}, {"cursor": "timestamp", "lateness": timedelta(-1)}):
        with pytest.raises(OptionError, match="lateness"):
            SqliteSource(path, **options)
    with pytest.raises(OptionError, match="needs a time column"):
        SqliteSource(path, table="timeless", cursor="timestamp", lateness=timedelta(0)).schema()
    with pytest.raises(OptionError, match="not found again by key"):
        source(path).reread(1, 5, 1_000_000)


@pytest.mark.parametrize(
    "position", [{"id": 5}, {"id": 5, "epoch": 0}, {"time": [1], "given": 1, "outside": 1}, {"time": "x", "row": "1 OR 1", "given": 1}]
)
def test_a_position_of_another_cursor_is_refused(tmp_path: Path, position: dict) -> None:
    path = tmp_path / "s.db"
    run(path, KEYED.format("TEXT"))
    with pytest.raises(Refused, match="no position of `cursor: timestamp`"):
        list(source(path).read(position, 10))
    with pytest.raises(Refused, match="not a position in a SQLite table"):
        list(SqliteSource(path).read({"time": minute(1), "given": 5, "outside": 5}, 10))


def test_times_that_do_not_sort_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "s.db", KEYED.format("TEXT"), rows=[("1.2.2024 10:00", 1)])
    with pytest.raises(Refused, match="no time is ISO text, Unix time or a Julian day"):
        Lake(tmp_path / "s.db").poll()


def test_explain_says_what_it_means(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, KEYLESS.format("TEXT"), rows=[(minute(1), 1)])
    words = source(path).explain()
    assert "key rowid, time column time" in words
    assert "the newest rows wait" in words
    assert "without an index on time each poll goes over the whole table" in words
    run(path, "CREATE INDEX by_time ON r (time)")
    assert "without an index" not in source(path).explain()
