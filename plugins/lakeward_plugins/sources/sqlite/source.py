"""Rows of a SQLite table, as a sensor writes them.

By key, the position is the last INTEGER PRIMARY KEY that was read, with digests of rows up to there, by which `guard` notices a file
that was replaced or rewound; by time, it is a time. Each batch is one short read transaction on a connection of its own, closed before
the batch goes on, so that the sensor can always write and checkpoint. A batch is read as if all was well, checked, and read again value
by value only when something is off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from attrs import define, field

from lakeward import Batch, OptionError, option
from lakeward.components import Position
from lakeward_plugins.sources.sqlite.database import Database, Wanted
from lakeward_plugins.sources.sqlite.files import Files
from lakeward_plugins.sources.sqlite.pattern import Pattern, is_pattern


@define
class SqliteSource:
    """Reads a table by its INTEGER PRIMARY KEY, again and again, while a sensor appends to it.

    Rows are expected to be appended: a row that changes after it was read is not read again. Column types come from the table's
    declaration; a row with a value of another type becomes a dead letter. A sensor in WAL mode never waits; one without WAL waits
    for the batch being read, about 0.1 s for 100,000 rows, if it has a busy timeout, and is told "database is locked" if not.
    A file that is replaced, restored or emptied, or whose ids start again, is noticed: its rows are read again from behind the last
    one that is still the same, as a new epoch, and `status` tells how many may have been sent before.
    """

    path: Path = option(
        help="The database file, or many: `data/*/*/sensor.db` (`**` for any folders), all with the same columns. "
        "Mount the folder, not a file alone, so that its -wal file is there too."
    )
    table: str | None = option(None, help="The table; left out, the only one that has an INTEGER PRIMARY KEY and a time column.")
    timestamp: str | None = option(
        None, help="The column that says when a reading was taken; left out, the one whose name or type says so."
    )
    columns: list[str] | None = option(None, help="The columns to read; left out, all.")
    types: dict[str, Literal["int", "float", "text", "binary"]] = option(
        factory=dict, help="Types of columns whose declared type says something else than what is in them."
    )
    path_columns: list[str] = option(
        factory=list, help="Text columns for what the stars in `path` stand for, such as `[city, sensor]`: as many as there are stars."
    )
    cursor: Literal["id", "timestamp"] = option(
        "id", help="What rows are read by; `timestamp` is for tables whose row ids do not ascend with time or are not kept."
    )
    lateness: timedelta | None = option(
        None,
        minimum=0,
        help="With `cursor: timestamp`, how long after newer rows a row may come; rows wait so long, later ones are only counted.",
    )
    busy_timeout: timedelta = option(timedelta(seconds=5), help="How long to wait for a lock that the sensor holds.")
    _input: Database | Files = field(init=False)

    def __attrs_post_init__(self) -> None:
        """One file, or all that match a pattern."""
        if (self.cursor == "timestamp") != (self.lateness is not None):
            raise OptionError("lateness", "`cursor: timestamp` needs it, and nothing else does: say how late rows may come, such as 10m")
        wanted = Wanted(self.table, self.timestamp, self.columns, self.types, self.busy_timeout, self.lateness)
        if is_pattern(self.path):
            self._input = Files(Pattern(self.path), wanted, self.path_columns)
        elif self.path_columns:
            raise OptionError("path_columns", f"there are no stars in {self.path} to give names to")
        else:
            self._input = Database(self.path, self.path.name, wanted)

    # -- the contract --------------------------------------------------------------------------------------------------

    def schema(self) -> pa.Schema:
        """`_row`, then the columns as they are declared, then those of the path."""
        return self._input.schema()

    def read(self, after: Mapping[str, Any] | None, limit: int) -> Iterator[Batch]:
        """Batches by ascending key; a batch is of one moment and of one file."""
        yield from self._input.read(after, limit)

    def keep_in(self, folder: Path) -> None:
        """A folder for copies of databases that cannot be opened in their place."""
        self._input.keep_in(folder)

    def reread(self, first: int, last: int | None, epoch: int, origin: str = "") -> Position:
        """A position from which the rows with these keys are read again."""
        return self._input.reread(first, last, epoch, origin)

    def close(self) -> None:
        """Nothing to give back: each transaction has ended before its batch goes on."""

    # -- what people are told ------------------------------------------------------------------------------------------

    @property
    def table_name(self) -> str:
        """The table that is read."""
        return self._input.table().name

    @property
    def timestamp_column(self) -> str | None:
        """The column that says when a reading was taken, if one looks like it."""
        return self._input.table().timestamp

    def explain(self) -> str:
        """What was found, and the SQL of one batch."""
        return self._input.explain()
