"""Rows of a SQLite table, as a sensor writes them.

The position is the last INTEGER PRIMARY KEY that was read: unlike a time it never comes twice, late or backwards. Each batch is one
short read transaction on a connection of its own, closed before the batch goes on, so that the sensor can always write and
checkpoint. A batch is read as if all was well, checked, and read again value by value only when something is off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from attrs import define, field

from lakeward import Batch, OptionError, Refused, Retry, option
from lakeward_plugins.sources.sqlite.batch import Taken, TooLongError, take
from lakeward_plugins.sources.sqlite.connection import Query, transaction
from lakeward_plugins.sources.sqlite.table import Catalog, Table, find_table, read_catalog


@define
class SqliteSource:
    """Reads a table by its INTEGER PRIMARY KEY, again and again, while a sensor appends to it.

    Rows are expected to be appended: a row that changes after it was read is not read again. Column types come from the table's
    declaration; a row with a value of another type becomes a dead letter. A sensor in WAL mode never waits; one without WAL waits
    for the batch being read, about 0.1 s for 100,000 rows, if it has a busy timeout, and is told "database is locked" if not.
    A file that is replaced, or whose ids start again, is read on from the last id: its rows up to there are not seen.
    """

    path: Path = option(help="The database file; mount its folder, not the file alone, so that its -wal file is there too.")
    table: str | None = option(None, help="The table; left out, the only one that has an INTEGER PRIMARY KEY and a time column.")
    timestamp: str | None = option(
        None, help="The column that says when a reading was taken; left out, the one whose name or type says so."
    )
    columns: list[str] | None = option(None, help="The columns to read; left out, all.")
    types: dict[str, Literal["int", "float", "text", "binary"]] = option(
        factory=dict, help="Types of columns whose declared type says something else than what is in them."
    )
    busy_timeout: timedelta = option(timedelta(seconds=5), help="How long to wait for a lock that the sensor holds.")
    _table: Table | None = field(init=False, default=None)

    # -- the contract --------------------------------------------------------------------------------------------------

    def schema(self) -> pa.Schema:
        """`_row`, then the columns as they are declared."""
        return self._found().schema

    def read(self, after: Mapping[str, Any] | None, limit: int) -> Iterator[Batch]:
        """Batches by ascending key; a batch is of one moment."""
        last, asked = _key(after), limit
        while True:
            try:
                taken = self._take(last, asked)
            except TooLongError:
                asked //= 2
                continue
            if taken is None:
                return
            yield Batch(taken.rows, {"id": taken.last}, taken.rejected, origin=self.path.name)
            if taken.count < asked:
                return
            last, asked = taken.last, limit

    def close(self) -> None:
        """Nothing to give back: each transaction has ended before its batch goes on."""

    # -- what people are told ------------------------------------------------------------------------------------------

    @property
    def table_name(self) -> str:
        """The table that is read."""
        return self._found().name

    @property
    def timestamp_column(self) -> str | None:
        """The column that says when a reading was taken, if one looks like it."""
        return self._found().timestamp

    def explain(self) -> str:
        """What was found, and the SQL of one batch."""
        table = self._found()
        found = f"-- table {table.name}, key {table.key}, time column {table.timestamp or 'not known'}"
        return f"{found}\n{table.select(table.after(':last'), ':rows')}"

    # -- how -----------------------------------------------------------------------------------------------------------

    def _found(self) -> Table:
        if self._table is None:
            problem = _unreadable(self.path)
            if problem:
                raise OptionError("path", problem)
            with transaction(self.path, self.busy_timeout) as query:
                self._table = self._find(read_catalog(query), self.table)
        return self._table

    def _take(self, last: int | None, limit: int) -> Taken | None:
        known = self._found()
        if not self.path.exists():
            raise Retry(f"{self.path} is gone; waiting for it to come back")
        try:
            with transaction(self.path, self.busy_timeout) as query:
                self._must_be_unchanged(known, query)
                return take(query, known, last, limit)
        except OptionError as error:  # it was right when the run began
            raise Refused(f"{self.path} changed while it was read: {error.message}; look at it and start the run again") from error

    def _must_be_unchanged(self, known: Table, query: Query) -> None:
        catalog = read_catalog(query, known.name)
        if not catalog:
            raise Retry(f"{self.path}: table {known.name!r} is gone; waiting for it to come back")
        if self._find(catalog, known.name) != known:
            raise Refused(f"{self.path}: the columns of table {known.name!r} changed; start the run again to read it as it is now")

    def _find(self, catalog: Catalog, name: str | None) -> Table:
        return find_table(catalog, name, self.timestamp, self.columns, self.types)


def _unreadable(path: Path) -> str:
    """What is wrong with the file before SQLite looks at it, or nothing."""
    if path.is_dir():
        return f"{path} is a folder, not a database file"
    if not path.exists():
        return f"{path} does not exist"
    return "" if os.access(path, os.R_OK) else f"{path} may not be read by this user"


def _key(after: Mapping[str, Any] | None) -> int | None:
    if after is None:
        return None
    key = after.get("id")
    if not isinstance(key, int) or isinstance(key, bool):  # it becomes part of a statement
        raise Refused(f"{dict(after)} is not a position in a SQLite table, which looks like {{'id': 123}}")
    return key
