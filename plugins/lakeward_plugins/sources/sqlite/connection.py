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

SHUT: Mapping[str, str] = {  # what SQLite says when it would have to write beside the file and may not
    "attempt to write a readonly database": "; its writer must roll back a journal first",
    "unable to open database file": "",
}
HEALING = (  # what SQLite says of other troubles that pass
    "is locked",
    "failed to open",
    "disk is full",  # that of a copy, or of temporary files
    "disk I/O error",  # a checkpoint can pull pages away under a reader
    "locking protocol",
    "database schema has changed",
)
WRAPPING = re.compile(r"^[A-Z_]+: (\[SQLite\] )?(Failed to \w+ query: )?")


class Shut(Retry):
    """SQLite cannot open the file where it is; there may be another way."""


class Corrupt(Refused):
    """Some pages of the database cannot be read."""


class Unsorted(Corrupt):
    """Row ids that do not ascend: a page is not the one that belongs there, such as an old version of another."""


@contextmanager
def transaction(path: Path, busy_timeout: timedelta, how: str = "mode=ro", shown: Path | None = None) -> Iterator[Query]:
    """A fresh connection with one transaction that has begun; both are gone at the end. What SQLite says comes out as our errors.

    `how` is the query part of SQLite's file name; `shown` is the path in messages when `path` is a copy.
    """
    uri, shown = f"file:{quote(os.fsencode(path.absolute()))}?{how}", shown or path
    prepare = (
        f"PRAGMA busy_timeout = {busy_timeout // timedelta(milliseconds=1)}",
        "PRAGMA query_only = ON",
        "PRAGMA trusted_schema = OFF",
        "BEGIN",
        "PRAGMA schema_version",  # BEGIN alone does not touch the file
    )
    try:
        with adbc_driver_sqlite.connect(uri) as database, adbc_driver_manager.AdbcConnection(database) as connection:

            def query(sql: str, rows: int) -> pa.Table:
                try:
                    return _run(connection, sql, rows)
                except adbc_driver_manager.Error as error:
                    raise _sorted(shown, error) from error

            for sql in prepare:
                query(sql, 1)
            yield query
    except adbc_driver_manager.Error as error:
        raise _sorted(shown, error) from error


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
    for words, hint in SHUT.items():
        if words in said:
            return Shut(f"{path} cannot be read now: {said}{hint}")
    if any(words in said for words in HEALING):
        return Retry(f"{path} cannot be read now: {said}")
    if "not a database" in said:
        return OptionError("path", f"{path} is not a SQLite database")
    return (Corrupt if "malformed" in said else Refused)(f"{path}: SQLite says: {said}")
