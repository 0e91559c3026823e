"""state.db as a file: taken by one process, opened, made, and why that cannot be done."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from attrs import field, frozen

from lakeward.components import Position
from lakeward.errors import LakewardError, NoRoom, StateInUse

SCHEMA_VERSION = 2
MAX_DETAIL = 500  # characters of a text for people
NEW_IN_2 = """
CREATE TABLE position (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE parcels (
  sink TEXT NOT NULL, sequence INTEGER NOT NULL, first_row INTEGER NOT NULL, end_row INTEGER, epoch INTEGER NOT NULL, file TEXT NOT NULL,
  rows INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, origin TEXT NOT NULL,
  whole INTEGER NOT NULL, dead INTEGER NOT NULL,  -- rows of the parcel that this is a part of, and how many of them were rejected
  PRIMARY KEY (sink, sequence, first_row)
) WITHOUT ROWID;
CREATE INDEX parcels_by_file ON parcels (file);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, kind TEXT NOT NULL, origin TEXT NOT NULL, detail TEXT NOT NULL,
  rows INTEGER NOT NULL
);
CREATE TABLE troubles (part TEXT PRIMARY KEY, since TEXT NOT NULL, problem TEXT NOT NULL) WITHOUT ROWID;
"""
INDEXES = """
CREATE INDEX dead_letters_by_row ON dead_letters (origin, epoch, row_low);
CREATE INDEX dead_letters_to_replay ON dead_letters (id) WHERE status = 'replay';
"""
SCHEMA = f"""
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE checkpoint (only INTEGER PRIMARY KEY CHECK (only = 1), epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, at TEXT NOT NULL);
CREATE TABLE transform_state (node TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE receipts (
  sink TEXT PRIMARY KEY, sequence INTEGER NOT NULL, location TEXT NOT NULL, details TEXT NOT NULL, at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT, stage TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, origin TEXT NOT NULL,
  epoch INTEGER NOT NULL, row_low INTEGER, row_high INTEGER, payload TEXT NOT NULL, first_seen TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 1, status TEXT NOT NULL DEFAULT 'open', note TEXT NOT NULL DEFAULT ''
);
CREATE TABLE totals (kind TEXT NOT NULL, name TEXT NOT NULL, rows INTEGER NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
{INDEXES}{NEW_IN_2}"""
FROM_1 = f"""
ALTER TABLE checkpoint RENAME TO checkpoint_1;
CREATE TABLE checkpoint (only INTEGER PRIMARY KEY CHECK (only = 1), epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, at TEXT NOT NULL);
INSERT INTO checkpoint SELECT only, epoch, sequence, at FROM checkpoint_1;
ALTER TABLE parcels RENAME TO parcels_1;
DROP INDEX parcels_by_file;
{NEW_IN_2}
INSERT INTO parcels SELECT sink, sequence, 0, NULL, epoch, file, rows, bytes, sha256, '', rows, 0 FROM parcels_1;
DROP TABLE parcels_1;
INSERT INTO position SELECT key, positions.position -> fullkey FROM checkpoint_1 AS positions, json_each(positions.position)
  WHERE key IS NOT NULL;
DROP TABLE checkpoint_1;
ALTER TABLE dead_letters ADD COLUMN note TEXT NOT NULL DEFAULT '';
{INDEXES}"""
NO_ACCESS = "give this user the right to read and write there"
ADVICE = {
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "look at its disk: it may be full, or damaged",
    sqlite3.SQLITE_BUSY: "another program has it open; close that",
    sqlite3.SQLITE_READONLY: NO_ACCESS,
    sqlite3.SQLITE_CANTOPEN: NO_ACCESS,
}
# whether a commit that could not be synced is there after all, only a new process can tell, which reads the file anew
UNSYNCED = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)
# an old copy would use tokens again that sinks know already, and they would take the new rows for delivered
DAMAGED = "start anew with another --state-dir (every row is then sent again); an older copy of it would lose rows"


class UnusableState(LakewardError):
    """state.db cannot be used as it is; it is never recreated in silence, because that would send every row again."""


def take(lock: IO[bytes], directory: Path) -> None:
    """Lock the directory for this process, and say so in it. Raises StateInUse or UnusableState."""
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # `lakeward health` may just be looking
            time.sleep(0.1)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        found = lock.read().decode(errors="replace").strip()
        raise StateInUse(directory, f" (process {found})" if found else "") from None
    except OSError as error:  # some network file systems have no locks
        raise UnusableState(f"{directory}: cannot be locked: {error.strerror}; choose a --state-dir on a local disk") from error
    with suppress(OSError):  # who holds it is good to know, but a full disk need not stop us here
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())


@contextmanager
def explained(file: Path) -> Iterator[None]:
    """Turn what keeps a state from being used into words for a person; what only a bug of ours can cause stays as it is."""
    try:
        yield
    except PermissionError as error:
        raise UnusableState(f"{file}: {error.strerror}; {NO_ACCESS}") from error
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:
        code = error.sqlite_errorcode
        passing = code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) and code not in UNSYNCED
        raise (NoRoom if passing else UnusableState)(f"{file}: {error}; {ADVICE.get(code & 0xFF, DAMAGED)}") from error


def connect(uri: str) -> sqlite3.Connection:
    """A connection for all threads, where we say ourselves when transactions begin."""
    return sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False)


def copy_between_runs(file: Path) -> sqlite3.Connection | None:
    """All that state.db holds while no run does; None when one may.

    Even a read-only connection makes files beside a database that nobody has open. Made by another user, such as an
    operator who asks for the status, they would lock out the next run.
    """
    log = file.with_name(f"{file.name}-wal")
    with ExitStack() as opened:
        copy = opened.enter_context(closing(connect(":memory:")))
        if not log.exists() and file.exists():
            with closing(connect(f"{file.absolute().as_uri()}?immutable=1")) as source:
                source.backup(copy)
        if log.exists():  # a run began meanwhile, and the copy may be torn
            return None
        opened.pop_all()
        return copy


def version(connection: sqlite3.Connection, file: Path) -> int:
    """The schema in a file; 0 when a crash came before there was one."""
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > SCHEMA_VERSION:
        raise UnusableState(f"{file}: made by a newer lakeward (state schema {found}, this one knows {SCHEMA_VERSION}); upgrade lakeward")
    return found


def prepare(connection: sqlite3.Connection, found: int) -> None:
    """Make every commit durable, and the tables if there are none, or as they are now if they are older."""
    # small WAL: a full disk must be recoverable with little room
    connection.executescript("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=50; PRAGMA journal_size_limit=262144;")
    if found == SCHEMA_VERSION:
        return
    made = f"PRAGMA journal_mode=WAL; BEGIN; {SCHEMA} INSERT INTO about VALUES ('life', '{uuid.uuid4().hex[:16]}');"
    connection.executescript(f"{f'BEGIN; {FROM_1}' if found else made} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")


@frozen
class Checkpoint:
    """Where the last recorded batch ended."""

    position: Position | None = None
    """None when something was recorded before the first batch."""
    epoch: int = 0
    sequence: int = 0
    at: str = field(default="", eq=False)
    """When it was recorded."""


def read_checkpoint(connection: sqlite3.Connection) -> Checkpoint | None:
    """The checkpoint; None before the first batch."""
    position = read_position(connection) or None
    found = connection.execute("SELECT epoch, sequence, at FROM checkpoint").fetchone()
    return Checkpoint(position, *found) if found else None


def read_position(connection: sqlite3.Connection) -> dict[str, Any]:
    """The position, put together from its entries; `{}` before the first batch."""
    return {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM position")}


def write_position(connection: sqlite3.Connection, before: Position, now: Position) -> None:
    """Write the entries that changed, so that the position of a thousand files costs no more than that of one."""
    changed = [(key, json.dumps(value)) for key, value in now.items() if key not in before or before[key] != value]
    connection.executemany("INSERT OR REPLACE INTO position VALUES (?, ?)", changed)
    connection.executemany("DELETE FROM position WHERE key = ?", [(key,) for key in before.keys() - now.keys()])


def now() -> str:
    """The time, as the state keeps it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
