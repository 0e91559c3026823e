"""Rows into a table of a DuckDB file: a copy on the node that can be asked at once, with windows and alerts kept in their last revision.

Rows and the number of their parcel are written in one transaction, so a parcel that comes again is known. The file is open only while
a parcel is delivered: DuckDB lets nobody else in while somebody writes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

import duckdb
import pyarrow as pa
from attrs import define

from lakeward import ROW, Parcel, Receipt, Refused, Rejected, Retry
from lakeward.durable import make_folder, sync
from lakeward.folders import require_writable
from lakeward.notes import Note, note_of
from lakeward.upserts import newest
from lakeward.wording import one_line
from lakeward_plugins.sinks.table_file import NOTES, TableFile, quoted

ONE_AT_A_TIME = threading.Lock()
"""Sinks of one process that open one file share what DuckDB has of it in memory, which it gives to the second before it is whole."""


@define
class DuckDBSink(TableFile):
    """A table in a DuckDB file; both are made when they are not there, and columns that the rows have and the table has not are added.

    Other programs can open the file between two deliveries; while one of them has it open, rows wait.
    """

    kind: ClassVar = "duckdb"

    def probe(self, schema: pa.Schema) -> str:
        """Where rows would go. Refused when the columns of a table that is there are of other types."""
        require_writable(self.path.parent, "path")
        place, theirs = schema.get_field_index(ROW), self._theirs()
        rows = schema.remove(place) if place >= 0 and not self.row_key else schema
        with duckdb.connect() as memory:
            memory.register("_new", rows.empty_table())
            self._require_types(_types(memory, "_new"), theirs, rows)
        return f"would insert rows ({len(schema)} columns) into table {self.table} of {self.path}"

    def _theirs(self) -> dict[str, str]:
        """Types of the columns of the table; empty when there is none."""
        try:
            if self.path.exists():
                with duckdb.connect(str(self.path), read_only=True) as database, suppress(duckdb.CatalogException):
                    return _types(database, quoted(self.table))
        except duckdb.Error as error:
            raise Retry(f"{self.path} cannot be read now: {one_line(error)}") from error
        return {}

    def _require_types(self, ours: dict[str, str], theirs: dict[str, str], schema: pa.Schema) -> None:
        for name, kind in ours.items():
            if theirs.get(name, kind) != kind and not pa.types.is_null(schema.field(name).type):
                raise Refused(
                    f"{self.path}: column {name!r} is {kind} in rows and {theirs[name]} in table {self.table}; cast it with schematize"
                )

    def stored(self) -> pa.Table:
        """The rows of the table, read into memory: DuckDB lets nobody write while somebody reads."""
        found: pa.Table = pa.table({})
        try:
            if self.path.exists():
                with duckdb.connect(str(self.path), read_only=True) as database, suppress(duckdb.CatalogException):  # no such table yet
                    found = database.sql(f"SELECT * FROM {quoted(self.table)}").to_arrow_table()
        except duckdb.Error as error:
            raise Retry(f"{self.path} cannot be read now: {one_line(error)}") from error
        return found

    def holds(self, parcel: Parcel) -> bool:
        """Whether the parcel is noted."""
        try:
            if self.path.exists():
                with ONE_AT_A_TIME, duckdb.connect(str(self.path), read_only=True) as database, suppress(duckdb.CatalogException):
                    return self._has(database, note_of(parcel))
        except duckdb.Error as error:
            raise Retry(f"{self.path} cannot be read now: {one_line(error)}") from error
        return False

    def _has(self, database: duckdb.DuckDBPyConnection, note: Note) -> bool:
        found = database.execute(f"SELECT number, content FROM {NOTES} WHERE id = ?", [note.id]).fetchall()
        return any(note.is_in(number, content, self.where) for number, content in found)

    def write(self, parcel: Parcel) -> Receipt:
        """Insert and note, unless it is noted."""
        note, rows = note_of(parcel), parcel.table()
        if self.upsert_by:
            rows = newest(rows, self.upsert_by, self.revision)
        with _text_checked(parcel), self._transaction() as database:
            database.execute(f"CREATE TABLE IF NOT EXISTS {NOTES} (id VARCHAR PRIMARY KEY, number BIGINT, content BIGINT)")
            there = self._has(database, note)
            if not there:
                self._insert(database, rows)
                database.execute(f"INSERT OR REPLACE INTO {NOTES} VALUES (?, ?, ?)", [note.id, note.number, note.content])
        return Receipt(self.where, {"rows": rows.num_rows, "already_there": there})

    def _insert(self, database: duckdb.DuckDBPyConnection, rows: pa.RecordBatch) -> None:
        database.register("_new", pa.Table.from_batches([rows]))
        table = quoted(self.table)
        ours = _types(database, "_new")
        if renamed := [name for name in rows.schema.names if name not in ours]:
            raise Refused(f"column {renamed[0]!r}: DuckDB would give it another name; rename it with schematize")
        database.execute(f"CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM _new LIMIT 0")
        theirs = _types(database, table)
        self._require_types(ours, theirs, rows.schema)
        for name, kind in ours.items():
            if name not in theirs:
                database.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}")
        if self.upsert_by:
            same, newer = self.superseded()
            database.execute(f"DELETE FROM {table} AS t USING _new AS s WHERE {same} AND {newer}")
            database.execute(
                f"INSERT INTO {table} BY NAME SELECT * FROM _new AS s WHERE NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {same})"
            )
        else:
            database.execute(f"INSERT INTO {table} BY NAME SELECT * FROM _new")

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        make_folder(self.path.absolute().parent)
        try:
            with ONE_AT_A_TIME, duckdb.connect(str(self.path), config={"threads": 1}) as database:
                database.begin()
                yield database
                database.commit()
            sync(self.path.absolute().parent)  # DuckDB syncs what is in the file, not that there is one
        except (duckdb.OperationalError, OSError) as error:
            raise Retry(f"{self.path} cannot be written now: {one_line(error)}") from error
        except duckdb.ConstraintException as error:  # of a table that somebody made; DuckDB checks keys before rows are replaced
            kind = Refused if self.upsert_by else Rejected
            raise kind(f"{self.path}: table {self.table} does not take the row: {one_line(error)}") from error
        except (duckdb.Error, pa.ArrowException) as error:
            raise Refused(f"{self.path}: table {self.table} does not take the rows: {one_line(error)}") from error


@contextmanager
def _text_checked(parcel: Parcel) -> Iterator[None]:
    """DuckDB takes no text that is not UTF-8, and does not say in which row."""
    try:
        yield
    except Refused:
        from lakeward.grouping import undecodable  # with pyarrow.compute, for which only those who need it pay

        rows = parcel.table()
        if len(bad := undecodable(rows, rows.schema.names)):
            raise Rejected("DuckDB takes no text that is not UTF-8", bad.tolist()) from None
        raise


def _types(database: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {name: kind for name, kind, *_ in database.execute(f"DESCRIBE {relation}").fetchall()}
