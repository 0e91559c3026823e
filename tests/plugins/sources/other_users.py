"""Sensors and readers as other users and behind other mounts, for test_sqlite_opening. Needs root.

Takes one JSON command a line and answers with one. Each command runs in a child of its own, which may change its user and its mounts
and is not a new Python, so that many of them cost little, and which needs no permission to read the Python installation.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import adbc_driver_manager
import adbc_driver_sqlite

from lakeward import OptionError, Refused, Retry
from lakeward_plugins.sources.sqlite import SqliteSource

NEW_MOUNTS, BIND, PRIVATE, READ_ONLY_BIND = 0x20000, 4096, 1 << 18 | 1 << 14, 4096 | 32 | 1
libc = ctypes.CDLL(None, use_errno=True)


def must(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(what: str, where: str, read_only: bool) -> None:
    must(libc.unshare(NEW_MOUNTS))
    must(libc.mount(b"none", b"/", None, PRIVATE, None))
    must(libc.mount(what.encode(), where.encode(), None, BIND, None))
    if read_only:
        must(libc.mount(None, where.encode(), None, READ_ONLY_BIND, None))


def read(path: str, keep: str | None = None) -> dict:
    source = SqliteSource(Path(path))
    if keep:
        source.keep_in(Path(keep))
    try:
        rows = [text for batch in source.read(None, 1000) for text in batch.rows.column("timestamp").to_pylist()]
    except (Retry, Refused, OptionError) as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"rows": len(rows), "texts": sorted(set(rows)), "way": source.explain().splitlines()[0]}


def stranger(path: str) -> dict:
    """Read as anybody would who does not know, and be killed: SQLite's own read-only mode."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    return {"rows": len(connection.execute("SELECT * FROM readings").fetchall())}


def read_and_write(path: str, other: str) -> dict:
    """Read a frozen file behind a read-only mount while a sensor starts on the other side of it."""
    source = SqliteSource(Path(path))
    source.schema()
    opening = source._input.opening
    try:
        with opening.transaction() as query:
            assert "immutable" in opening.way
            query("SELECT 1", 1)
            subprocess.run([sys.executable, __file__, other], check=True)
    except Retry as error:
        return {"error": "Retry", "message": str(error)}
    return {}


def write(path: str) -> dict:
    """Append one row, as a sensor that starts again does."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("INSERT INTO readings (timestamp) VALUES ('later')")
        return {"integrity": connection.execute("PRAGMA integrity_check").fetchone()[0]}


def sensor(path: str, mode: str, end: str) -> dict:
    """Write 100 rows, and 50 more that stay in a -wal file if there is one. Then close, or die within a transaction, or stay."""
    connection = sqlite3.connect(path, isolation_level=None)
    for sql in (f"PRAGMA journal_mode = {mode}", "PRAGMA cache_size = 2", "PRAGMA synchronous = OFF"):
        connection.execute(sql)
    connection.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT)")
    for rows in (100, 50):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO readings (timestamp) VALUES (?)", [("x" * 500,)] * rows)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)" if rows == 100 else "PRAGMA wal_autocheckpoint = 0")
    if end == "closed":
        connection.close()
    elif end == "killed":
        connection.execute("BEGIN")
        connection.execute("UPDATE readings SET timestamp = 'half'")
        answer({})
        os._exit(9)
    else:
        answer({})
        stay(connection)
    return {}


def stay(connection: sqlite3.Connection) -> None:
    """Write one more row, by the connection that was open all the time, when the named pipe says so."""
    signal.alarm(120)  # a test that failed says nothing any more
    database = connection.execute("PRAGMA database_list").fetchone()[2]
    Path(f"{database}.go").read_text()
    try:
        connection.execute("INSERT INTO readings (timestamp) VALUES ('later')")
        said = "ok"
    except sqlite3.Error as error:
        said = str(error)
    connection.close()
    Path(f"{database}.said").write_text(said)
    os._exit(0)


def answer(value: dict) -> None:
    print(json.dumps(value), flush=True)


def obey(command: dict) -> dict:
    if "mount" in command:
        mount(*command["mount"])
    if "uid" in command:
        os.umask(0o022)
        os.setgroups([])
        os.setgid(command["uid"])
        os.setuid(command["uid"])
    action = {"read": read, "write": write, "sensor": sensor, "nothing": dict, "stranger": stranger, "read and write": read_and_write}[
        command["do"]
    ]
    return action(**command.get("with", {}))


if __name__ == "__main__" and sys.argv[1:]:
    write(sys.argv[1])
elif __name__ == "__main__":
    with adbc_driver_sqlite.connect(":memory:") as database, adbc_driver_manager.AdbcConnection(database):
        pass  # loads the driver, which another user may not be able to; and what pyarrow loads when it first needs it
    with contextlib.suppress(ImportError):
        importlib.import_module("pandas")
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                answer(obey(command))
            except BaseException as error:  # noqa: BLE001 - who asked waits for an answer
                answer({"error": type(error).__name__, "message": str(error)})
            finally:
                os._exit(0)
        if command.get("with", {}).get("end") != "alive":
            os.waitpid(child, 0)
