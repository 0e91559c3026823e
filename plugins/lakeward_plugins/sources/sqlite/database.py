"""One database file: which table is meant, and its rows in batches, each of one short transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, field, frozen

from lakeward import ROW, Batch, OptionError, Refused, Retry
from lakeward.components import Position
from lakeward_plugins.sources.sqlite.batch import Taken, TooLongError, take
from lakeward_plugins.sources.sqlite.connection import Query, transaction
from lakeward_plugins.sources.sqlite.guard import Bookmark, check, life_of, must_renew, renew
from lakeward_plugins.sources.sqlite.table import Catalog, Kind, Table, find_table, read_catalog

LEAST_KEY = -(2**63)


@frozen
class Wanted:
    """What to read in a database, as the options say."""

    table: str | None
    timestamp: str | None
    columns: Sequence[str] | None
    types: Mapping[str, Kind]
    busy_timeout: timedelta

    def find(self, catalog: Catalog, name: str | None) -> Table:
        """The table that is meant. Raises OptionError."""
        return find_table(catalog, name, self.timestamp, self.columns, self.types)


@define
class Database:
    """One file. `origin` is its name in row keys."""

    path: Path
    origin: str
    wanted: Wanted
    _table: Table | None = field(init=False, default=None)

    def table(self) -> Table:
        """The table as it was when it was first looked at. Raises OptionError, Retry or Refused."""
        if self._table is None:
            problem = _unreadable(self.path)
            if problem:
                raise OptionError("path", problem)
            with transaction(self.path, self.wanted.busy_timeout) as query:
                self._table = self.wanted.find(read_catalog(query), self.wanted.table)
        return self._table

    def read(self, after: Mapping[str, Any] | None, limit: int) -> Iterator[Batch]:
        """Batches by ascending key; a batch is of one moment."""
        mark, asked, going_on = Bookmark.of(after), limit, False
        while mark.until is None or mark.last is None or mark.last < mark.until:
            try:
                mark, batch, count = self._poll(mark, asked, going_on)
            except TooLongError:
                asked //= 2
                continue
            if batch is not None:
                yield batch
            if count < asked:
                return
            asked, going_on = limit, True

    def reread(self, first: int, last: int | None, epoch: int) -> Position:
        """The position from which the rows with these keys come again."""
        return Bookmark(first - 1 if first > LEAST_KEY else None, epoch, until=last).position()

    def _poll(self, mark: Bookmark, limit: int, going_on: bool) -> tuple[Bookmark, Batch | None, int]:
        """One transaction: the guard, then the rows, and the next bookmark."""
        known = self.table()
        try:
            file = self.path.stat().st_ino
        except FileNotFoundError:
            raise Retry(f"{self.path} is gone; waiting for it to come back") from None
        try:
            with transaction(self.path, self.wanted.busy_timeout) as query:
                self._must_be_unchanged(known, query)
                life = life_of(query, known, file)
                checked = check(query, known, mark, life, briefly=going_on)
                taken = take(query, known, checked.mark.last, limit, mark.until)
                if taken is None and not must_renew(known, mark, checked):
                    return mark, None, 0
                renewed, events = renew(query, known, checked, life, _first(taken), taken.last if taken else None)
        except OptionError as error:  # it was right when the run began
            raise Refused(f"{self.path} changed while it was read: {error.message}; look at it and start the run again") from error
        if taken is None:
            taken = Taken(pa.RecordBatch.from_pylist([], known.schema), None, 0, 0)
            if renewed == mark and not events:
                return mark, None, 0
        return renewed, Batch(taken.rows, renewed.position(), taken.rejected, self.origin, renewed.epoch or 0, events), taken.count

    def _must_be_unchanged(self, known: Table, query: Query) -> None:
        catalog = read_catalog(query, known.name)
        if not catalog:
            raise Retry(f"{self.path}: table {known.name!r} is gone; waiting for it to come back")
        if self.wanted.find(catalog, known.name) != known:
            raise Refused(f"{self.path}: the columns of table {known.name!r} changed; start the run again to read it as it is now")


def _unreadable(path: Path) -> str:
    """What is wrong with the file before SQLite looks at it, or nothing."""
    if path.is_dir():
        return f"{path} is a folder, not a database file"
    if not path.exists():
        return f"{path} does not exist"
    return "" if os.access(path, os.R_OK) else f"{path} may not be read by this user"


def _first(taken: Taken | None) -> int | None:
    """The lowest key, good or not."""
    if taken is None:
        return None
    parts = [taken.rows] if taken.rejected is None else [taken.rows, taken.rejected]
    return min(int(pc.min(part.column(ROW)).as_py()) for part in parts if part.num_rows)
