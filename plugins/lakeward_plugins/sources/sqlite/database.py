"""One database file: which table is meant, and its rows in batches, each of one short transaction."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from attrs import define, field, frozen

from lakeward import Batch, OptionError, Refused, Retry
from lakeward.components import Event, Position
from lakeward_plugins.sources.sqlite import byid, bytime
from lakeward_plugins.sources.sqlite.batch import Taken, TooLongError
from lakeward_plugins.sources.sqlite.bookmark import Bookmark
from lakeward_plugins.sources.sqlite.bytime import Mark
from lakeward_plugins.sources.sqlite.catalog import Catalog, find_table, read_catalog
from lakeward_plugins.sources.sqlite.connection import Corrupt, Query
from lakeward_plugins.sources.sqlite.opening import Opening
from lakeward_plugins.sources.sqlite.table import Kind, Table

MIN_KEY, MAX_KEY = -(2**63), 2**63 - 1


@frozen
class Wanted:
    """What to read in a database, as the options say."""

    table: str | None
    timestamp: str | None
    columns: Sequence[str] | None
    types: Mapping[str, Kind]
    busy_timeout: timedelta
    lateness: timedelta | None = None
    """For `cursor: timestamp`; None is `cursor: id`."""

    def find(self, catalog: Catalog, name: str | None) -> Table:
        """The table that is meant. Raises OptionError."""
        return find_table(catalog, name, self.timestamp, self.columns, self.types, by_time=self.lateness is not None)


@define
class Database:
    """One file. `origin` is its name in row keys."""

    path: Path
    origin: str
    wanted: Wanted
    opening: Opening = field(init=False)
    _table: Table | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """How it is opened is a matter of its own."""
        self.opening = Opening(self.path, self.wanted.busy_timeout)

    def table(self) -> Table:
        """The table as it was when it was first looked at. Raises OptionError or Retry."""
        if self._table is None:
            problem = _unreadable(self.path)
            if problem:
                raise OptionError("path", problem)
            try:
                with self.opening.transaction() as query:
                    self._table = self.wanted.find(read_catalog(query), self.wanted.table)
            except Corrupt as error:
                raise OptionError("path", f"{error}; repair it, as `.recover` of sqlite3 does, or take another file") from error
            except Refused as error:
                raise OptionError("path", str(error)) from error
        return self._table

    def schema(self) -> pa.Schema:
        """The row key, then the columns of the table."""
        return self.table().schema

    def keep_in(self, folder: Path) -> None:
        """A folder for a copy, should one be needed. What is in it from before is of no use any more."""
        shutil.rmtree(folder, ignore_errors=True)
        self.opening.folder = folder

    def read(self, after: Mapping[str, Any] | None, limit: int) -> Iterator[Batch]:
        """Batches in the order of the cursor; a batch is of one moment."""
        mark: Bookmark | Mark = Bookmark.of(after) if self.wanted.lateness is None else Mark.of(after)
        asked, going_on = limit, False
        while not mark.at_end:
            try:
                renewed, taken, events = self._poll(mark, asked, going_on)
            except TooLongError:
                asked //= 2
                continue
            more = taken is not None and (taken.count >= asked or mark.may_give_less)
            if taken or events or renewed != mark:
                rows = taken.rows if taken else pa.RecordBatch.from_pylist([], self.table().schema)
                batch = Batch(rows, renewed.position(), taken.rejected if taken else None, self.origin, renewed.epoch or 0, events)
                del taken, rows
                yield batch
                del batch  # any of these names would keep its memory while the next one is read
            if not more:
                return
            mark, asked, going_on = renewed, limit, True

    def reread(self, first: int, last: int | None, epoch: int, origin: str = "") -> Position:
        """The position from which the rows with these keys come again. Raises OptionError."""
        if origin not in ("", self.origin):
            raise OptionError("origin", f"there is no input {origin!r}; it is {self.origin!r}")
        if self.wanted.lateness is not None:
            raise OptionError("cursor", "with `cursor: timestamp` rows are not found again by key; read all with another --state-dir")
        if last is not None and first > last:
            raise OptionError("first", f"the first key {first} is greater than the last, {last}")
        if not MIN_KEY <= first <= MAX_KEY + 1 or (last is not None and last > MAX_KEY):
            raise OptionError("first", f"no key is below {MIN_KEY} or above {MAX_KEY}")
        table = self.table()
        with self.opening.transaction() as query:
            byid.require_within(query, table, first if last is not None else first - 1)
        return byid.reread(first, last, epoch).position()

    def explain(self) -> str:
        """What was found and how it was opened, and the SQL of one batch."""
        table = self.table()
        found = f"-- table {table.name}, key {table.key}, time column {table.timestamp or 'not known'}; opened {self.opening.way}"
        if self.wanted.lateness is None:
            return f"{found}\n{table.select(table.after(':last'), ':rows')}"
        with self.opening.transaction() as query:
            return f"{found}\n{bytime.explain(query, table, self.wanted.lateness)}"

    def _poll(self, mark: Bookmark | Mark, limit: int, going_on: bool) -> tuple[Bookmark | Mark, Taken | None, tuple[Event, ...]]:
        """One transaction."""
        known = self.table()
        try:
            file = self.path.stat().st_ino
        except FileNotFoundError:
            raise Retry(f"{self.path} is gone; waiting for it to come back") from None
        except OSError as error:
            raise Retry(f"{self.path} cannot be looked at now: {error.strerror}") from error
        try:
            with self.opening.transaction() as query:
                self._must_be_unchanged(known, query)
                if isinstance(mark, Mark):
                    return bytime.advance(query, known, mark, limit, self.wanted.lateness or timedelta())
                return byid.advance(query, known, mark, limit, file, going_on=going_on)
        except OptionError as error:  # it was right when the run began
            raise Refused(f"{self.path} changed while it was read: {error.message}; look at it and start the run again") from error

    def _must_be_unchanged(self, known: Table, query: Query) -> None:
        catalog = read_catalog(query, known.name)
        if not catalog:
            raise Retry(f"{self.path}: table {known.name!r} is gone; waiting for it to come back")
        if self.wanted.find(catalog, known.name) != known:
            raise Refused(f"{self.path}: the columns of table {known.name!r} changed; start the run again to read it as it is now")


def _unreadable(path: Path) -> str:
    """What is wrong with the file before SQLite looks at it, or nothing."""
    if os.path.isdir(path):  # noqa: PTH112  # unlike those of Path, these do not raise for a name that is too long
        return f"{path} is a folder, not a database file"
    if not os.path.exists(path):  # noqa: PTH110
        return f"{path} does not exist"
    return "" if os.access(path, os.R_OK) else f"{path} may not be read by this user"
