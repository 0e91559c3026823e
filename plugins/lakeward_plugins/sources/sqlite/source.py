"""Rows of a SQLite table, as a sensor writes them.

The position is the last INTEGER PRIMARY KEY that was read: unlike a time it never comes twice, late or backwards. Each batch is one
short read transaction on a connection of its own, closed before the batch goes on, so that the sensor can always write and
checkpoint. A batch is read as if all was well, checked, and read again value by value only when something is off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from attrs import define, field

from lakeward import Batch, OptionError, option
from lakeward_plugins.sources.sqlite.database import Database, Wanted


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
    _database: Database = field(init=False)

    def __attrs_post_init__(self) -> None:
        """One file."""
        wanted = Wanted(self.table, self.timestamp, self.columns, self.types, self.busy_timeout)
        self._database = Database(self.path, self.path.name, wanted)

    # -- the contract --------------------------------------------------------------------------------------------------

    def schema(self) -> pa.Schema:
        """`_row`, then the columns as they are declared."""
        return self._database.table().schema

    def read(self, after: Mapping[str, Any] | None, limit: int) -> Iterator[Batch]:
        """Batches by ascending key; a batch is of one moment."""
        yield from self._database.read(after, limit)

    def reread(self, first: int, last: int | None, epoch: int, origin: str = "") -> Mapping[str, Any]:
        """Just before `first`; up to `last` if there is one."""
        if origin not in ("", self._database.origin):
            raise OptionError("origin", f"there is only {self._database.origin}")
        return {"id": first - 1, "epoch": epoch} | ({"until": last} if last is not None else {})

    def close(self) -> None:
        """Nothing to give back: each transaction has ended before its batch goes on."""

    # -- what people are told ------------------------------------------------------------------------------------------

    @property
    def table_name(self) -> str:
        """The table that is read."""
        return self._database.table().name

    @property
    def timestamp_column(self) -> str | None:
        """The column that says when a reading was taken, if one looks like it."""
        return self._database.table().timestamp

    def explain(self) -> str:
        """What was found, and the SQL of one batch."""
        table = self._database.table()
        found = f"-- table {table.name}, key {table.key}, time column {table.timestamp or 'not known'}"
        return f"{found}\n{table.select(table.after(':last'), ':rows')}"
