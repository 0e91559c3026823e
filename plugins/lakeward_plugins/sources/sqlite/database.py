"""One database file: which table is meant, and its rows in batches, each of one short transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from lakeward import Batch, OptionError, Refused, Retry
from lakeward_plugins.sources.sqlite.batch import Taken, TooLongError, take
from lakeward_plugins.sources.sqlite.connection import Query, transaction
from lakeward_plugins.sources.sqlite.table import Catalog, Kind, Table, find_table, read_catalog


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
        last, asked = _key(after), limit
        again = {key: (after or {})[key] for key in ("until", "epoch") if key in (after or {})}
        until, epoch = again.get("until"), again.get("epoch", 0)
        while until is None or (last or 0) < until:
            try:
                taken = self._take(last, asked, until)
            except TooLongError:
                asked //= 2
                continue
            if taken is None:
                return
            yield Batch(taken.rows, {"id": taken.last, **again}, taken.rejected, self.origin, epoch)
            if taken.count < asked:
                return
            last, asked = taken.last, limit

    def _take(self, last: int | None, limit: int, until: int | None) -> Taken | None:
        known = self.table()
        if not self.path.exists():
            raise Retry(f"{self.path} is gone; waiting for it to come back")
        try:
            with transaction(self.path, self.wanted.busy_timeout) as query:
                self._must_be_unchanged(known, query)
                return take(query, known, last, limit, until)
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
