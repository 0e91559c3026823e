"""What a SQLite table is to lakeward: its key, its columns, and the SQL that reads them with exact types.

SQLite types values, not columns. The declared type says what to expect, by the rules of https://sqlite.org/datatype3.html,
and whatever else is in a column is found out per value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
from attrs import field, frozen

from lakeward import ROW

Kind = Literal["int", "float", "text", "binary"]
ARROW: Mapping[Kind, pa.DataType] = {"int": pa.int64(), "float": pa.float64(), "text": pa.string(), "binary": pa.binary()}
SAMPLES: Mapping[Kind, str] = {"int": "0", "float": "0.5", "text": "''", "binary": "x''"}
STORED: Mapping[Kind, str] = {"int": "integer", "float": "real", "text": "text", "binary": "blob"}
EXACT_NUMBERS = "WHEN 'integer' THEN CAST({0} AS TEXT) WHEN 'real' THEN printf('%!.17g', {0})"
MOST_WATCHED = 100  # columns: a statement has a limit, and so many tell rows apart
LEAST_KEY = -(2**63)


@frozen
class Column:
    """One column: how to select its values exactly, and how to tell a value that has another type."""

    name: str
    declared: str
    kind: Kind
    natural: bool
    """Its affinity is that of `kind`: SQLite itself has converted what could be converted without loss."""

    @property
    def ref(self) -> str:
        """With the table's name before it, because a misspelt "name" alone is a string to SQLite."""
        return f"t.{quoted(self.name)}"

    @property
    def value(self) -> str:
        """SQL for the value, turned without loss into `kind` where that is possible."""
        if self.kind == "text" and not self.natural:
            return f"CASE typeof({self.ref}) {EXACT_NUMBERS.format(self.ref)} ELSE {self.ref} END"
        if self.kind == "int" and not self.natural:
            return f"CASE WHEN typeof({self.ref}) = 'real' AND {self.fits} THEN CAST({self.ref} AS INTEGER) ELSE {self.ref} END"
        return self.ref

    @property
    def fits(self) -> str:
        """SQL that is true when the value is NULL or exactly of `kind`; never NULL itself."""
        of = f"typeof({self.ref})"
        if self.kind == "text" and not self.natural:
            return f"{of} <> 'blob'"
        if self.kind == "int" and not self.natural:
            return f"({of} IN ('integer', 'null') OR {of} = 'real' AND {self.ref} = CAST({self.ref} AS INTEGER))"
        if self.kind == "float" and not self.natural:  # an integer beyond 2^53 may have no float
            return f"({of} IN ('real', 'null') OR {of} = 'integer' AND {self.ref} = CAST({self.ref} AS REAL))"
        return f"{of} IN ('{STORED[self.kind]}', 'null')"

    @property
    def shows(self) -> bool:
        """True when a value that does not fit changes the type that the driver infers for the column."""
        return self.kind in ("int", "text") or (self.kind == "float" and self.natural)


@frozen
class Table:
    """A table that can be read: `columns` are those that were asked for, in that order."""

    name: str
    key: str
    timestamp: str | None = field(eq=False)  # only reported, so another one changes nothing
    columns: tuple[Column, ...]
    autoincrement: bool = field(default=False, eq=False)
    """Row ids are never given out again."""
    names: tuple[str, ...] = field(default=(), eq=False)
    """All its columns, also those that are not read."""

    @property
    def schema(self) -> pa.Schema:
        """The row key, then the columns."""
        return pa.schema([pa.field(ROW, pa.int64()), *(pa.field(column.name, ARROW[column.kind]) for column in self.columns)])

    @property
    def besides_key(self) -> list[Column]:
        """The columns that must be selected: the key comes first anyway."""
        return [column for column in self.columns if column.name != self.key]

    @property
    def watched(self) -> list[str]:
        """The columns by which rows are known again: those that are read, and the time. Others may change as they like."""
        read = [*filter(None, [self.timestamp]), *(column.name for column in self.columns)]
        return [name for name in dict.fromkeys(read) if name != self.key][:MOST_WATCHED]

    @property
    def time_ref(self) -> str:
        """The time column in SQL."""
        return f"t.{quoted(self.timestamp or '')}"

    @property
    def key_ref(self) -> str:
        """The key in SQL."""
        return f"t.{quoted(self.key)}"

    @property
    def source(self) -> str:
        """The table in SQL."""
        return f"{quoted(self.name)} AS t"

    @property
    def fits(self) -> str:
        """SQL that is true for a row whose values all have the expected types."""
        return " AND ".join([column.fits for column in self.besides_key] or ["1"])

    def after(self, last: int | str | None) -> str:
        """The condition for rows that follow the key `last`; None is the start."""
        return "1" if last is None else f"{self.key_ref} > {last}"

    def between(self, after: int | None, last: int | None) -> str:
        """The condition for rows from behind one key up to another."""
        return self.after(after) if last is None else f"{self.after(after)} AND {self.key_ref} <= {last}"

    @property
    def hidden(self) -> str:
        """SQL that is 1 for a row with a value that does not fit and would not show; empty when each of them would show."""
        return " OR ".join(f"NOT {column.fits}" for column in self.besides_key if not column.shows)

    def select(self, where: str, limit: int | str) -> str:
        """Rows by ascending key, after one made-up row that has a value of the right type in each column.

        That row is why the inferred types are right even when all values are NULL. Its own NULL key sorts first. The last column
        is `hidden`, if there is any.
        """
        flag, no_flag = ([self.hidden], ["0"]) if self.hidden else ([], [])
        samples = [f"{SAMPLES[column.kind]} AS {quoted(column.name)}" for column in self.besides_key]
        return (
            f"SELECT {', '.join([f'NULL AS {ROW}', *samples, *no_flag])}\n"
            f"UNION ALL\n"
            f"SELECT {', '.join([self.key_ref, *(column.value for column in self.besides_key), *flag])}\n"
            f"FROM {self.source} WHERE {where}\n"
            f"ORDER BY 1 LIMIT {limit} + 1"
        )

    def extent(self, where: str, limit: int) -> str:
        """The last key of the rows that `select` would give, and how many they are."""
        keys = f"SELECT {self.key_ref} AS k FROM {self.source} WHERE {where} ORDER BY 1 LIMIT {limit}"
        return f"SELECT max(k) AS last, count(*) AS rows FROM ({keys})"

    def contents(self, where: str) -> str:
        """All that is in these rows as text, blobs as x'00ff', and beside each column the type of a value that does not fit."""
        samples, values = [f"NULL AS {ROW}"], [self.key_ref]
        for column in self.besides_key:
            samples += ["''", "''"]
            exact = EXACT_NUMBERS.format(column.ref)
            values.append(
                f"CASE typeof({column.ref}) WHEN 'blob' THEN 'x''' || lower(hex({column.ref})) || '''' {exact} ELSE {column.ref} END"
            )
            values.append(f"CASE WHEN {column.fits} THEN '' ELSE typeof({column.ref}) END")
        return f"SELECT {', '.join(samples)} UNION ALL SELECT {', '.join(values)} FROM {self.source} WHERE {where} ORDER BY 1"


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"
