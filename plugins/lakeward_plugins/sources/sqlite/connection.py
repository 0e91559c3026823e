"""One read-only transaction on a SQLite file that somebody else is writing, without being in their way.

Everything goes through ADBC: a second SQLite library on the same file in one process, or just opening and closing the file,
drops the POSIX locks of the first one (https://sqlite.org/howtocorrupt.html section 2.2).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import adbc_driver_manager
import adbc_driver_sqlite
import pyarrow as pa

from lakeward import OptionError, Refused, Retry

Query = Callable[[str, int], pa.Table]
"""Runs one statement that gives at most so many rows."""

HEALING: Mapping[str, str] = {  # what SQLite says of troubles that pass, and what to add
    "is locked": "",
    "attempt to write a readonly database": "; its writer must roll back a journal first, or SQLite may not make its -shm file there",
    "unable to open database file": "",
    "failed to open": "",
    "disk I/O error": "",  # a checkpoint can pull pages away under a reader
    "locking protocol": "",
    "database schema has changed": "",
}
WRAPPING = re.compile(r"^[A-Z_]+: (\[SQLite\] )?(Failed to \w+ query: )?")


@contextmanager
def transaction(path: Path, busy_timeout: timedelta) -> Iterator[Query]:
    """A fresh connection with one read transaction; both are gone at the end. What SQLite says comes out as our errors."""
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
    prepare = (
        f"PRAGMA busy_timeout = {busy_timeout // timedelta(milliseconds=1)}",
        "PRAGMA query_only = ON",
        "PRAGMA trusted_schema = OFF",
        "BEGIN",
    )
    try:
        with adbc_driver_sqlite.connect(uri) as database, adbc_driver_manager.AdbcConnection(database) as connection:

            def query(sql: str, rows: int) -> pa.Table:
                return _run(connection, sql, rows)

            for sql in prepare:
                query(sql, 1)
            yield query
    except adbc_driver_manager.Error as error:
        raise _sorted(path, error) from error


def _run(connection: adbc_driver_manager.AdbcConnection, sql: str, rows: int) -> pa.Table:
    with closing(adbc_driver_manager.AdbcStatement(connection)) as statement:
        # types are inferred from the first batch alone, so all rows must be in it
        statement.set_options(**{adbc_driver_sqlite.StatementOptions.BATCH_ROWS.value: str(rows + 1)})
        statement.set_sql_query(sql)
        handle, _ = statement.execute_query()
        with pa.RecordBatchReader.from_stream(handle) as reader:
            return reader.read_all()


def _sorted(path: Path, error: adbc_driver_manager.Error) -> Exception:
    said = WRAPPING.sub("", re.split(r"\n| 'file:", str(error))[0])  # without the statement, and without a guess at out of memory
    for words, hint in HEALING.items():
        if words in said:
            return Retry(f"{path} cannot be read now: {said}{hint}")
    if "not a database" in said:
        return OptionError("path", f"{path} is not a SQLite database")
    return Refused(f"{path}: SQLite says: {said}")
