"""Whatever happens to a database, in any order: each row that is in it and was never updated was delivered, and no key means two rows."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lakeward_plugins.sources.sqlite import SqliteSource

EXAMPLES = int(os.environ.get("LAKEWARD_TEST_EXAMPLES", "25"))
DDL = "CREATE TABLE r (id INTEGER PRIMARY KEY {}, time TEXT, v INTEGER)"


class LifeOfADatabase(RuleBasedStateMachine):
    """`time` is unique to each row that was ever inserted, and `v` counts its updates."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "s.db"
        self.backup = Path(self.folder.name) / "backup.db"
        self.inserted = 0
        self.updated: set[str] = set()
        self.position: dict | None = None
        self.delivered: dict[tuple[int, int], tuple] = {}
        self.source: SqliteSource | None = None

    def teardown(self) -> None:
        self.poll(1000, True)
        delivered = set(self.delivered.values())
        lost = [row for row in self.rows() if row not in delivered and row[1] not in self.updated]
        self.folder.cleanup()
        assert not lost

    def run(self, *script: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for sql in script:
                connection.execute(sql)

    def rows(self) -> list[tuple]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT * FROM r ORDER BY id").fetchall()

    @initialize(autoincrement=st.booleans(), wal=st.booleans())
    def begin(self, autoincrement: bool, wal: bool) -> None:
        self.ddl = DDL.format("AUTOINCREMENT" if autoincrement else "")
        self.run(*["PRAGMA journal_mode = WAL"] * wal, self.ddl)

    # -- the sensor and its owner --------------------------------------------------------------------------------------

    @rule(count=st.one_of(st.integers(1, 5), st.integers(1, 200)))
    def insert(self, count: int) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            rows = [(f"row {number}",) for number in range(self.inserted, self.inserted + count)]
            connection.executemany("INSERT INTO r (time, v) VALUES (?, 0)", rows)
        self.inserted += count

    @rule(count=st.one_of(st.integers(1, 3), st.integers(1, 100)))
    def delete_tail(self, count: int) -> None:
        self.run(f"DELETE FROM r WHERE id IN (SELECT id FROM r ORDER BY id DESC LIMIT {count})")

    @rule(count=st.integers(1, 200))
    def delete_head(self, count: int) -> None:
        self.run(f"DELETE FROM r WHERE id IN (SELECT id FROM r ORDER BY id LIMIT {count})")

    @rule()
    def delete_all(self) -> None:
        self.run("DELETE FROM r")

    @rule(from_the_end=st.integers(0, 80))
    def update(self, from_the_end: int) -> None:
        rows = self.rows()
        if from_the_end < len(rows):
            key, time, _ = rows[-1 - from_the_end]
            self.updated.add(time)
            self.run(f"UPDATE r SET v = v + 1 WHERE id = {key}")

    @rule()
    def drop_and_create(self) -> None:
        self.run("DROP TABLE r", self.ddl)

    @rule(same_inode=st.booleans())
    def replace(self, same_inode: bool) -> None:
        if same_inode:
            self.run("PRAGMA journal_mode = DELETE")
            self.path.write_bytes(b"")
        else:
            self.path.unlink()
        self.run(self.ddl)

    @rule()
    def copy(self) -> None:
        shutil.copy(self.path, self.path.with_suffix(".copy"))
        self.path.with_suffix(".copy").replace(self.path)

    @rule()
    def back_up(self) -> None:
        shutil.copy(self.path, self.backup)

    @precondition(lambda self: self.backup.exists())
    @rule()
    def restore(self) -> None:
        shutil.copy(self.backup, self.path)

    @rule()
    def vacuum(self) -> None:
        self.run("VACUUM")

    # -- lakeward ------------------------------------------------------------------------------------------------------

    @rule(limit=st.sampled_from([3, 50, 1000]), new_run=st.booleans())
    def poll(self, limit: int, new_run: bool) -> None:
        if new_run or self.source is None:
            self.source = SqliteSource(self.path, table="r")
        for batch in self.source.read(self.position, limit):
            self.position = json.loads(json.dumps(batch.position))
            for row in batch.rows.to_pylist():
                key, content = (batch.epoch, row["_row"]), (row["id"], row["time"], row["v"])
                assert self.delivered.setdefault(key, content) == content, f"{key} names two rows"

    @invariant()
    def a_position_stays_small(self) -> None:
        assert len(json.dumps(self.position)) < 4000


LifeOfADatabase.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLifeOfADatabase = LifeOfADatabase.TestCase
