"""A database that is replaced, rewound, emptied or changed under the reader: nothing is lost, and no row key means two rows."""

import json
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lakeward import OptionError, Refused
from lakeward.components import Event, Rereading
from lakeward.testing import SourceContract
from lakeward_plugins.sources.sqlite import SqliteSource

AUTO = "CREATE TABLE r (id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT, v REAL)"
PLAIN = "CREATE TABLE r (id INTEGER PRIMARY KEY, time TEXT, v REAL)"


@contextmanager
def sensor(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        yield connection
        if connection.in_transaction:
            connection.execute("COMMIT")


def run(path: Path, *script: str) -> None:
    with sensor(path) as connection:
        for sql in script:
            connection.execute(sql)


def insert(path: Path, count: int, tag: str) -> None:
    with sensor(path) as connection:
        connection.executemany("INSERT INTO r (time, v) VALUES (?, ?)", [(f"{tag} {number}", number / 7) for number in range(count)])


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def stored(path: Path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT id, time, v FROM r").fetchall()


class Lake:
    """Takes batches as the kernel does: the position goes through JSON, and a key that comes with two contents is a failure."""

    def __init__(self, path: Path, *, one_process: bool = False, position: dict | None = None, **options) -> None:
        self.path, self.position, self.options = path, position, options
        self.rows: dict[tuple[int, int], tuple] = {}
        self.events: list[Event] = []
        self.source = SqliteSource(path, table="r", **options) if one_process else None

    def poll(self, limit: int = 25) -> "Lake":
        source = self.source or SqliteSource(self.path, table="r", **self.options)
        for batch in source.read(self.position, limit):
            position = json.loads(json.dumps(batch.position))
            assert batch.rows.num_rows or batch.events or position != self.position
            for row in batch.rows.to_pylist():
                key, content = (batch.epoch, row["_row"]), tuple(row.values())[1:]
                assert self.rows.setdefault(key, content) == content, f"{key} names two rows"
            self.events += batch.events
            self.position = position
        return self

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    @property
    def again(self) -> int:
        """Rows that came under more than one epoch although nothing about them had changed."""
        return len(self.rows) - len(set(self.rows.values()))

    def lost(self) -> list[tuple]:
        delivered = set(self.rows.values())
        return [row for row in stored(self.path) if row not in delivered]


def started(path: Path, ddl: str, **options) -> Lake:
    """100 rows were read in several batches; a backup was made at 60."""
    run(path, ddl)
    insert(path, 60, "a")
    shutil.copy(path, path.with_suffix(".bak"))
    lake = Lake(path, **options).poll()
    insert(path, 40, "b")
    lake.poll()
    assert len(lake.rows) == 100
    assert lake.kinds == []
    return lake


# -- what the sensor, its owner, or a power cut may do -----------------------------------------------------------------


def more(count: int, tag: str = "c") -> Callable[[Path], None]:
    return lambda path: insert(path, count, tag)


def sql(*script: str, then: int = 0) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        run(path, *script)
        insert(path, then, "n")

    return do


def recreated(ddl: str, count: int) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        remove(path)
        sql(ddl, then=count)(path)

    return do


def overwritten(ddl: str, count: int) -> Callable[[Path], None]:
    """On the same inode."""

    def do(path: Path) -> None:
        other = path.with_suffix(".other")
        sql(ddl, then=count)(other)
        before = path.stat().st_ino
        shutil.copyfile(other, path)
        assert path.stat().st_ino == before

    return do


def restored(count: int, tag: str = "R") -> Callable[[Path], None]:
    def do(path: Path) -> None:
        remove(path)
        shutil.copy(path.with_suffix(".bak"), path)
        insert(path, count, tag)

    return do


def copied(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    before = path.stat().st_ino
    path.with_suffix(".copy").replace(path)
    assert path.stat().st_ino != before


def vacuumed(path: Path) -> None:
    run(path, "DELETE FROM r WHERE id % 10 = 3 AND id < 30", "COMMIT", "VACUUM", "BEGIN")


def made_anew_and_thinned(path: Path) -> None:
    sql("DROP TABLE r", AUTO, then=150)(path)
    run(path, "DELETE FROM r WHERE id <= 100 AND id NOT IN (5, 25)")


def made_anew_and_pruned(path: Path) -> None:
    recreated(AUTO, 150)(path)
    run(path, "DELETE FROM r WHERE id <= 100")


RESET = ["source_reset"]
SCENARIOS = [  # what happens, the table, what happens, events, rows in the event, rows that are sent again unchanged
    ("more rows", AUTO, more(50), [], 0, 0),
    ("more rows", PLAIN, more(50), [], 0, 0),
    ("retention deletes the oldest", AUTO, sql("DELETE FROM r WHERE id <= 80", then=50), [], 0, 0),
    ("retention deletes the oldest", PLAIN, sql("DELETE FROM r WHERE id <= 80", then=50), [], 0, 0),
    ("retention deletes all but the last", PLAIN, sql("DELETE FROM r WHERE id < 100", then=50), [], 0, 0),
    ("retention deletes every other row", AUTO, sql("DELETE FROM r WHERE id % 2 = 0", then=50), [], 0, 0),
    ("retention deletes every other row", PLAIN, sql("DELETE FROM r WHERE id % 2 = 1", then=50), [], 0, 0),
    ("retention leaves few rows, none of them an anchor", AUTO, sql("DELETE FROM r WHERE id NOT IN (5, 25)", then=50), [], 0, 0),
    ("made anew, where retention leaves few rows, none with the id of an anchor", AUTO, made_anew_and_thinned, RESET, 2, 0),
    ("made anew, where retention leaves none of the ids that were read", AUTO, made_anew_and_pruned, [], 0, 0),
    ("retention deletes all", AUTO, sql("DELETE FROM r"), [], 0, 0),
    ("retention deletes all, and it goes on", AUTO, sql("DELETE FROM r", then=50), [], 0, 0),
    ("the tail is deleted", AUTO, sql("DELETE FROM r WHERE id > 95"), [], 0, 0),
    ("the tail is deleted, and it goes on", AUTO, sql("DELETE FROM r WHERE id > 95", then=40), [], 0, 0),
    ("all is deleted and ids start again", PLAIN, sql("DELETE FROM r"), RESET, 0, 0),
    ("all is deleted and ids start again below the cursor", PLAIN, sql("DELETE FROM r", then=50), RESET, 50, 0),
    ("all is deleted and ids start again past the cursor", PLAIN, sql("DELETE FROM r", then=150), RESET, 100, 0),
    ("ids are set back by hand", AUTO, sql("DELETE FROM r", "DELETE FROM sqlite_sequence", then=20), RESET, 20, 0),
    ("ids are set back by hand while rows remain", AUTO, sql("UPDATE sqlite_sequence SET seq = 0", then=20), [], 0, 0),
    ("the tail is deleted", PLAIN, sql("DELETE FROM r WHERE id > 95"), RESET, 0, 0),
    ("the tail is deleted and ids used again", PLAIN, sql("DELETE FROM r WHERE id > 95", then=3), RESET, 3, 0),
    ("the tail is deleted and ids used again past the cursor", PLAIN, sql("DELETE FROM r WHERE id > 95", then=40), RESET, 5, 0),
    ("dropped and created", AUTO, sql("DROP TABLE r", AUTO), RESET, 0, 0),
    ("dropped and created, below the cursor", AUTO, sql("DROP TABLE r", AUTO, then=40), RESET, 40, 0),
    ("dropped and created, past the cursor", AUTO, sql("DROP TABLE r", AUTO, then=150), RESET, 100, 0),
    ("dropped and created, past the cursor", PLAIN, sql("DROP TABLE r", PLAIN, then=150), RESET, 100, 0),
    ("dropped and created, exactly at the cursor", AUTO, sql("DROP TABLE r", AUTO, then=100), RESET, 100, 0),
    ("unlinked and made anew, empty", AUTO, recreated(AUTO, 0), RESET, 0, 0),
    ("unlinked and made anew, below the cursor", AUTO, recreated(AUTO, 40), RESET, 40, 0),
    ("unlinked and made anew, past the cursor", AUTO, recreated(AUTO, 150), RESET, 100, 0),
    ("unlinked and made anew, past the cursor", PLAIN, recreated(PLAIN, 150), RESET, 100, 0),
    ("overwritten on the same inode, below the cursor", AUTO, overwritten(AUTO, 40), RESET, 40, 0),
    ("overwritten on the same inode, past the cursor", AUTO, overwritten(AUTO, 150), RESET, 100, 0),
    ("a backup is restored", AUTO, restored(0), RESET, 0, 0),
    ("a backup is restored and written, below the cursor", AUTO, restored(20), RESET, 20, 0),
    ("a backup is restored and written, past the cursor", AUTO, restored(70), RESET, 40, 0),
    ("a backup is restored and written, past the cursor", PLAIN, restored(70), RESET, 40, 0),
    ("replaced by an identical copy", AUTO, copied, [], 0, 0),
    ("replaced by an identical copy", PLAIN, copied, [], 0, 0),
    ("VACUUM", PLAIN, vacuumed, [], 0, 0),
    ("VACUUM", AUTO, vacuumed, [], 0, 0),
    ("the newest row is replaced", AUTO, sql("INSERT OR REPLACE INTO r VALUES (100, 'new', 1)"), RESET, 1, 0),
    ("the newest row is updated", AUTO, sql("UPDATE r SET v = 9.5 WHERE id = 100", then=10), RESET, 1, 0),
    ("an older row is replaced", AUTO, sql("INSERT OR REPLACE INTO r VALUES (90, 'new', 1)", then=10), ["mutated"], 1, 0),
    ("an older row is updated", AUTO, sql("UPDATE r SET v = 9.5 WHERE id = 99", then=10), ["mutated"], 1, 0),
    ("older rows are updated", PLAIN, sql("UPDATE r SET v = 9.5 WHERE id IN (1, 98, 99)", then=10), ["mutated"], 3, 0),
    ("an update changes nothing", AUTO, sql("UPDATE r SET v = v, time = time"), [], 0, 0),
]  # fmt: skip


@pytest.mark.parametrize("one_process", [True, False], ids=["one process", "another run"])
@pytest.mark.parametrize(
    ("name", "ddl", "happens", "events", "rows", "again"), SCENARIOS,
    ids=[f"{each[0]} ({'AUTOINCREMENT' if each[1] == AUTO else 'plain'})" for each in SCENARIOS],
)  # fmt: skip
def test_nothing_is_lost_and_no_key_names_two_rows(
    tmp_path: Path, name: str, ddl: str, happens: Callable[[Path], None], events: list[str], rows: int, again: int, one_process: bool
) -> None:
    lake = started(tmp_path / "s.db", ddl, one_process=one_process)
    happens(lake.path)
    lake.poll()
    assert (lake.kinds, sum(event.rows for event in lake.events), lake.again) == (events, rows, again), lake.events
    assert {row[0] for row in lake.lost()} <= ({1, 90, 98, 99} if "mutated" in events else set())
    position, count = lake.position, len(lake.rows)
    assert (lake.poll().position, len(lake.rows), lake.kinds) == (position, count, events)  # told once, and then still
    insert(lake.path, 30, "z")
    lake.poll()
    assert len(lake.rows) == count + 30
    assert lake.kinds == events


# -- power cuts and long histories -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ddl", [AUTO, PLAIN])
def test_a_power_cut_that_takes_rows_back_and_gives_their_ids_out_again(tmp_path: Path, ddl: str) -> None:
    """In WAL mode with synchronous=NORMAL what was committed after the last sync is gone; AUTOINCREMENT does not help."""
    path = tmp_path / "s.db"
    lake = started(path, ddl)
    with sensor(path) as connection:
        connection.execute("COMMIT")
        connection.execute("INSERT INTO r (time, v) VALUES ('synced', 1)")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"synced.db{suffix}")
        connection.executemany("INSERT INTO r (time, v) VALUES (?, 2)", [(f"lost in the power cut {number}",) for number in range(50)])
    assert len(lake.poll().rows) == 151
    remove(path)
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"synced.db{suffix}", f"{path}{suffix}")
    insert(path, 70, "after the power cut")
    lake.poll()
    assert (lake.lost(), lake.kinds, lake.again, lake.events[0].rows) == ([], RESET, 0, 50)
    assert {epoch for epoch, key in lake.rows if key > 101 and lake.rows[epoch, key][1].startswith("after")} == {1}
    assert len([key for key in lake.rows if key[0] == 1]) == 70


@pytest.mark.parametrize("back", [1, 63, 64, 100, 1000, 9000])
def test_what_is_sent_again_is_no_more_than_a_few_times_what_was_rewound(tmp_path: Path, back: int) -> None:
    path = tmp_path / "s.db"
    run(path, PLAIN)
    insert(path, 10_000 - back, "a")
    shutil.copy(path, path.with_suffix(".bak"))
    insert(path, back, "lost")
    lake = Lake(path).poll(3000)
    assert len(lake.position["anchors"]) < 80
    restored(back)(path)
    lake.poll(3000)
    assert (lake.lost(), lake.kinds) == ([], RESET)
    assert lake.again <= (0 if back <= 63 else 3 * back)


def test_each_rewind_is_an_epoch_of_its_own(tmp_path: Path) -> None:
    lake = started(tmp_path / "s.db", AUTO)
    for tag in "RST":
        restored(50, tag)(lake.path)
        lake.poll()
    assert (lake.kinds, {epoch for epoch, _ in lake.rows}, lake.lost()) == (RESET * 3, {0, 1, 2, 3}, [])


def test_a_file_that_is_replaced_between_two_batches_of_a_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, AUTO)
    insert(path, 100, "a")
    batches = SqliteSource(path, table="r").read(None, 30)
    assert next(batches).rows.num_rows == 30
    recreated(AUTO, 200)(path)
    second = next(batches)
    assert ([event.kind for event in second.events], second.epoch, second.rows.column("_row").to_pylist()) == (RESET, 1, list(range(1, 31)))
    assert second.events[0].rows == 30


def test_rows_that_are_all_alike_prove_nothing(tmp_path: Path) -> None:
    """A switch that is on or off, without a time: half of the rows of a new life look like those of the old one."""
    path = tmp_path / "s.db"

    def switched(seed: int, count: int) -> None:
        run(path, "CREATE TABLE r (id INTEGER PRIMARY KEY AUTOINCREMENT, v INTEGER)")
        with sensor(path) as connection:
            connection.executemany("INSERT INTO r (v) VALUES (?)", [(seed >> number % 16 & 1,) for number in range(count)])

    switched(0b1011010011100101, 100)
    lake = Lake(path).poll()
    remove(path)
    switched(0b1001110011010110, 150)
    lake.poll()
    assert (lake.kinds, lake.events[0].rows) == (RESET, 100)
    assert [lake.rows[1, key] for key in range(1, 151)] == stored_values(path)


def stored_values(path: Path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT id, v FROM r").fetchall()


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, 1.0), (1, "1"), ("a", b"a"), (None, ""), (0, None), (0.0, -0.0), (1 / 7, 0.14285714285714288), (2**62, 2.0**62), (b"", None)],
)
def test_values_are_told_apart_by_type_and_bit(tmp_path: Path, before: object, after: object) -> None:
    path = tmp_path / "s.db"
    run(path, "CREATE TABLE r (id INTEGER PRIMARY KEY, time TEXT, v BLOB, w BLOB)")
    with sensor(path) as connection:
        connection.executemany("INSERT INTO r VALUES (?, ?, ?, ?)", [(number, f"{number}", b"", before) for number in range(5)])
    lake = Lake(path).poll()
    with sensor(path) as connection:
        connection.execute("UPDATE r SET w = ? WHERE id = 2", [before])
    assert lake.poll().kinds == []
    with sensor(path) as connection:
        connection.execute("UPDATE r SET w = ? WHERE id = 2", [after])
    assert lake.poll().kinds == ["mutated"]


def test_where_one_text_ends_and_the_next_begins_matters(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, "CREATE TABLE r (id INTEGER PRIMARY KEY, time TEXT, v TEXT)", "INSERT INTO r VALUES (1, 'ab', 'c'), (2, 'x', 'y')")
    lake = Lake(path).poll()
    run(path, "UPDATE r SET time = 'a', v = 'bc' WHERE id = 1")
    assert lake.poll().kinds == ["mutated"]


# -- columns -----------------------------------------------------------------------------------------------------------

ADD, DROP, RENAME = "ALTER TABLE r ADD COLUMN w REAL DEFAULT 1.5", "ALTER TABLE r DROP COLUMN v", "ALTER TABLE r RENAME COLUMN v TO level"


@pytest.mark.parametrize(("script", "words"), [
    (ADD, "now with w"), (DROP, "no longer with v"), (RENAME, "now with level; no longer with v"),
])  # fmt: skip
@pytest.mark.parametrize("then", [0, 30])
def test_columns_that_change_between_runs_are_told_and_nothing_is_sent_again(tmp_path: Path, script: str, words: str, then: int) -> None:
    lake = started(tmp_path / "s.db", AUTO)
    run(lake.path, script, *["INSERT INTO r (time) VALUES ('new')"] * then)
    lake.poll()
    assert [(event.kind, event.detail) for event in lake.events] == [
        ("schema_changed", f"table 'r' is read with other columns than before: {words}")
    ]
    assert len(lake.poll().rows) == 100 + then
    run(lake.path, "UPDATE r SET time = 'changed' WHERE id = 90")  # the anchors are those of the new columns
    assert lake.poll().kinds == ["schema_changed", "mutated"]


@pytest.mark.parametrize("columns", ["time TEXT, w REAL", "time TEXT", "other TEXT"])
def test_a_new_table_with_other_columns_is_not_taken_for_the_old_one(tmp_path: Path, columns: str) -> None:
    lake = started(tmp_path / "s.db", AUTO)
    remove(lake.path)
    run(lake.path, f"CREATE TABLE r (id INTEGER PRIMARY KEY AUTOINCREMENT, {columns})")
    run(lake.path, *[f"INSERT INTO r ({columns.split()[0]}) VALUES ('new {number}')" for number in range(150)])
    lake.poll()
    assert lake.kinds == ["source_reset", "schema_changed"]
    assert len([key for key in lake.rows if key[0] == 1]) == 150


def test_a_column_that_is_left_out_may_change_as_it_likes(tmp_path: Path) -> None:
    lake = started(tmp_path / "s.db", AUTO, columns=["id", "time"])
    run(lake.path, "UPDATE r SET v = 7", "ALTER TABLE r ADD COLUMN synced INTEGER", "UPDATE r SET synced = 1")
    assert lake.poll().kinds == []


def test_other_options_for_columns_start_no_new_epoch(tmp_path: Path) -> None:
    lake = started(tmp_path / "s.db", AUTO)
    lake.options = {"columns": ["v"]}  # and the time is watched all the same
    assert lake.poll().kinds == []
    lake.options = {"columns": ["v", "id"], "types": {"v": "text"}}
    assert lake.poll().kinds == []


def test_tables_with_many_columns_and_long_blobs_are_watched_too(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    columns = ", ".join(f"c{number} REAL" for number in range(1500))
    run(path, f"CREATE TABLE r (id INTEGER PRIMARY KEY, time TEXT, photo BLOB, {columns})")
    insert_photo = "INSERT INTO r (time, photo, c0, c1400) VALUES (datetime({0}, 'unixepoch'), zeroblob(1000000 + {0}), {0}, {0} / 7.0)"
    run(path, *(insert_photo.format(number) for number in range(3)))
    lake = Lake(path, columns=["id", "c0", "photo"]).poll()
    run(path, "UPDATE r SET photo = zeroblob(5000) WHERE id = 2")
    assert lake.poll().kinds == ["mutated"]
    lake = Lake(path).poll()
    run(path, "UPDATE r SET c0 = 9 WHERE id = 2")
    assert lake.poll().kinds == ["mutated"]


# -- gaps, odd ids, old positions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ddl", [AUTO, PLAIN])
def test_rows_that_were_deleted_before_they_were_read_are_counted(tmp_path: Path, ddl: str) -> None:
    lake = started(tmp_path / "s.db", ddl)
    insert(lake.path, 50, "c")
    run(lake.path, "DELETE FROM r WHERE id <= 120")
    lake.poll().poll()
    assert [(event.kind, event.rows) for event in lake.events] == [("gap", 20)]
    assert "id 101 to 120 were deleted before they were read" in lake.events[0].detail
    assert len(lake.rows) == 130


def test_ids_that_never_follow_one_another_are_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, PLAIN, *(f"INSERT INTO r VALUES ({number * 1000}, 'a {number}', 1)" for number in range(1, 100)))
    lake = Lake(path).poll()
    run(path, "DELETE FROM r WHERE id < 99000", "INSERT INTO r VALUES (105000, 'b', 2)", "DELETE FROM r WHERE id = 99000")
    lake.poll()
    assert (lake.kinds, len(lake.rows)) == ([], 100)


def test_ids_near_the_end_are_told_once(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, PLAIN, f"INSERT INTO r VALUES (-{2**63}, 'a', 1), (-1, 'b', 1), (5, 'c', 1)")
    lake = Lake(path).poll(2)
    assert (lake.kinds, len(lake.rows)) == ([], 3)
    run(path, f"INSERT INTO r VALUES ({2**62 + 1}, 'd', 1)")
    assert lake.poll().kinds == ["ids_near_end"]
    run(path, f"INSERT INTO r VALUES ({2**63 - 1}, 'e', 1)")
    assert (lake.poll().kinds, len(lake.rows)) == (["ids_near_end"], 5)
    assert lake.lost() == []


def test_negative_ids_survive_a_reset(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run(path, PLAIN, *(f"INSERT INTO r VALUES ({number}, 'a {number}', 1)" for number in range(-200, -50)))
    lake = Lake(path).poll()
    run(path, "DELETE FROM r WHERE id > -90", *(f"INSERT INTO r VALUES ({number}, 'b {number}', 1)" for number in range(-89, -20)))
    lake.poll()
    assert (lake.kinds, lake.lost(), lake.again) == (RESET, [], 0)


@pytest.mark.parametrize(("ddl", "happens", "events", "rows"), [
    (AUTO, more(0), [], 100), (AUTO, more(20), [], 120), (AUTO, recreated(AUTO, 40), RESET, 140), (PLAIN, recreated(PLAIN, 40), RESET, 140),
    (AUTO, sql("DELETE FROM r"), [], 100), (PLAIN, sql("DELETE FROM r WHERE id < 90"), [], 100),
])  # fmt: skip
def test_a_position_of_an_older_lakeward_goes_on(tmp_path: Path, ddl: str, happens, events: list, rows: int) -> None:
    lake = started(tmp_path / "s.db", ddl)
    lake.position = {"id": 100}
    happens(lake.path)
    lake.poll()
    assert (lake.kinds, len(lake.rows), lake.position["epoch"]) == (events, rows, len(events))
    restored(50)(lake.path)
    lake.poll()
    assert lake.lost() == []


@pytest.mark.parametrize("position", [
    {"id": 5, "epoch": "1"}, {"id": 1.5, "epoch": 0}, {"id": "1; DROP TABLE r", "epoch": 0}, {"id": 1, "epoch": 0, "until": "x"},
    {"id": 1, "epoch": 0, "file": "a"},
])  # fmt: skip
def test_a_position_of_something_else_is_refused(tmp_path: Path, position: dict) -> None:
    run(tmp_path / "s.db", AUTO)
    with pytest.raises(Refused, match="not a position in a SQLite table"):
        Lake(tmp_path / "s.db", position=position).poll()


def test_the_words_of_a_reset_say_what_happened_and_what_it_costs(tmp_path: Path) -> None:
    lake = started(tmp_path / "s.db", PLAIN)
    run(lake.path, "DELETE FROM r WHERE id > 95")
    insert(lake.path, 3, "n")
    assert lake.poll().events[0].detail == (
        "table 'r': rows that were read are not what they were. It is read again from behind id 95, as epoch 1; "
        "up to 3 rows may be sent again"
    )


# -- reading a part again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [7, 11, 1000])
@pytest.mark.parametrize(("first", "last"), [(21, 40), (1, 100), (-5, 3), (100, 100), (90, 500), (-(2**63), 2)])
def test_a_part_is_read_again_under_its_own_epoch_and_then_ends(tmp_path: Path, first: int, last: int, limit: int) -> None:
    lake = started(tmp_path / "s.db", AUTO)
    before = dict(lake.rows)
    lake.position = SqliteSource(lake.path, table="r").reread(first, last, 1_000_000)
    assert lake.position == {"id": first - 1, "epoch": 1_000_000, "until": last, "anchors": [], "columns": {}} or first == -(2**63)
    lake.poll(limit)
    insert(lake.path, 20, "new") if last < 100 else None
    lake.poll(limit)
    again = {key: content for (epoch, key), content in lake.rows.items() if epoch == 1_000_000}
    assert again == {key: content for (epoch, key), content in before.items() if first <= key <= last}
    assert lake.kinds == []


def test_a_position_that_is_set_goes_on_beyond_the_end_and_is_guarded(tmp_path: Path) -> None:
    lake = started(tmp_path / "s.db", AUTO)
    lake.position = SqliteSource(lake.path, table="r").reread(51, None, 1_000_000, "s.db")
    lake.poll()
    restored(30)(lake.path)
    lake.poll()
    assert (lake.kinds, lake.position["epoch"], lake.lost()) == (RESET, 1_000_001, [])
    assert {key for epoch, key in lake.rows if epoch == 1_000_000} == set(range(51, 101))


def test_a_part_that_changes_while_it_is_read_again_is_refused(tmp_path: Path) -> None:
    lake = started(tmp_path / "s.db", AUTO)
    batches = SqliteSource(lake.path, table="r").read(SqliteSource(lake.path).reread(1, 90, 1_000_000), 30)
    next(batches)
    recreated(AUTO, 150)(lake.path)
    with pytest.raises(Refused, match="changed while a part of it was read again"):
        next(batches)


def test_a_part_of_another_input_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "s.db", AUTO)
    source = SqliteSource(tmp_path / "s.db")
    assert isinstance(source, Rereading)
    with pytest.raises(OptionError, match=r"no input 'other.db'; it is 's.db'"):
        source.reread(1, 2, 1_000_000, "other.db")
    with pytest.raises(OptionError, match="key 3 is greater than the last, 2"):
        source.reread(3, 2, 1_000_000)


@pytest.mark.parametrize(("make", "end"), [(AUTO, 100), (PLAIN, 90)])
def test_a_part_beyond_the_end_is_refused(tmp_path: Path, make: str, end: int) -> None:
    lake = started(tmp_path / "s.db", make)
    run(lake.path, "DELETE FROM r WHERE id > 90")  # with AUTOINCREMENT the ids up to 100 stay given
    source = SqliteSource(lake.path, table="r")
    assert (source.reread(end, end + 9, 7)["id"], source.reread(end + 1, None, 7)["id"]) == (end - 1, end)
    for first, last in ((end + 1, end + 9), (end + 2, None)):
        with pytest.raises(OptionError, match=rf"table 'r' ends at {end}, before {end + 1}"):
            source.reread(first, last, 7)


class TestNegativeAndSparseIds(SourceContract):
    def make(self, tmp_path: Path) -> SqliteSource:
        path = tmp_path / "s.db"
        if not path.exists():
            run(path, PLAIN, *(f"INSERT INTO r VALUES ({number}, {number} || 'T', {number} / 7.0)" for number in range(-40, 40, 3)))
        return SqliteSource(path, table="r")

    def while_suspended(self, tmp_path: Path) -> None:
        run(tmp_path / "s.db", "INSERT INTO r VALUES (1000, 'new', 1)")


def test_a_poll_without_new_rows_starts_no_heavy_library(tmp_path: Path) -> None:
    lake = started(tmp_path / "s.db", AUTO)
    script = """
        import json, sys
        from pathlib import Path
        from lakeward_plugins.sources.sqlite import SqliteSource
        assert list(SqliteSource(Path(sys.argv[1]), table="r").read(json.loads(sys.argv[2]), 10)) == []
        print("pandas" in sys.modules)"""
    command = [sys.executable, "-c", textwrap.dedent(script), str(lake.path), json.dumps(lake.position)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
