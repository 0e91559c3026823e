"""Rows into a table of a SQLite file: a copy on the node that every program can ask, with windows and alerts in their last revision.

Rows and the number of their parcel are written in one transaction, so a parcel that comes again is known. Everything goes through
ADBC, as in the source `sqlite`: one process must not have two SQLite libraries on one file.

SQLite has integers, floats, text and bytes. Times and dates are kept as text, such as `2026-01-31 12:30:00.000000Z`, so are decimals;
durations are microseconds, booleans 0 and 1. NaN would become NULL, so a row with one is rejected.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, ClassVar
from urllib.parse import quote

import adbc_driver_manager
import adbc_driver_sqlite
import numpy as np
import pyarrow as pa
from attrs import define

from lakeward import Parcel, Receipt, Refused, Rejected, Retry
from lakeward.durable import make_folder
from lakeward.folders import require_writable
from lakeward.notes import note_of
from lakeward.upserts import newest
from lakeward_plugins.sinks.table_file import NOTES, TableFile, quoted

Run = Callable[[str], pa.Table]
PASSING = ("is locked", "disk is full", "disk I/O error", "unable to open database file")
AS_TEXT = (
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_decimal,
    pa.types.is_large_string,
    pa.types.is_string_view,
)
PREPARE = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA busy_timeout = 5000")
INGEST = {"adbc.ingest.target_table": "_new", "adbc.ingest.mode": "adbc.ingest.mode.create", "adbc.ingest.temporary": "true"}


@define
class SqliteSink(TableFile):
    """A table in a SQLite file; both are made when they are not there, and columns that the rows have and the table has not are added.

    The file is in WAL mode, so others can read it at any time. Never give the file of a sensor.
    """

    kind: ClassVar = "sqlite"

    def probe(self, schema: pa.Schema) -> str:
        """Where rows would go. Refused when the file is none of SQLite, or a column of the table needs a value that the rows have not."""
        require_writable(self.path.parent, "path")
        needed = f'SELECT name FROM pragma_table_info({_text(self.table)}) WHERE "notnull" AND dflt_value IS NULL'
        ours = {name.lower() for name in [*schema.names, self.inserted_at]}
        with self._reading() as run:
            there = run(needed)["name"].to_pylist() if run else []
        lost = [name for name in there if str(name).lower() not in ours]
        if lost:
            raise Refused(
                f"{self.path}: column {lost[0]!r} of table {self.table} is NOT NULL, and the rows have none; add it with schematize"
            )
        return f"would insert rows ({len(schema)} columns) into table {self.table} of {self.path}"

    def stored(self) -> pa.Table:
        """The rows of the table, read into memory."""
        with self._reading() as run:
            there = run and run(f"SELECT 1 FROM sqlite_schema WHERE name = {_text(self.table)}").num_rows
            return run(f"SELECT * FROM {quoted(self.table)}") if run and there else pa.table({})

    def holds(self, parcel: Parcel) -> bool:
        """Whether the parcel is noted."""
        with self._reading() as run:
            return bool(run and run(f"SELECT 1 FROM sqlite_schema WHERE name = {_text(NOTES[1:-1])}").num_rows and self._has(run, parcel))

    def _has(self, run: Run, parcel: Parcel) -> bool:
        note = note_of(parcel)
        found = run(f"SELECT number, content FROM main.{NOTES} WHERE id = {_text(note.id)}").to_pylist()
        return any(note.is_in(one["number"], one["content"], self.where) for one in found)

    def write(self, parcel: Parcel) -> Receipt:
        """Insert and note, unless it is noted."""
        rows = parcel.table()
        stored = _storable(rows)  # all of them: a value that is rejected is told by its place in the parcel
        if self.upsert_by:
            rows = newest(rows, self.upsert_by, self.revision)
            if pa.types.is_decimal(kind := rows.schema.field(self.revision).type):
                raise Refused(
                    f"revision: column {self.revision!r} is {kind}, which SQLite has as text: 9 after 10; cast it with schematize"
                )
            stored = _storable(rows)
        with self._transaction(stored) as run:
            run(f"CREATE TABLE IF NOT EXISTS main.{NOTES} (id TEXT PRIMARY KEY, number INTEGER, content INTEGER)")
            there = self._has(run, parcel)
            if not there:
                self._insert(run, stored)
                note = note_of(parcel)
                run(f"INSERT OR REPLACE INTO main.{NOTES} VALUES ({_text(note.id)}, {note.number}, {note.content})")
        return Receipt(self.where, {"rows": rows.num_rows, "already_there": there})

    def _insert(self, run: Run, rows: pa.RecordBatch) -> None:
        table, columns = f"main.{quoted(self.table)}", ", ".join(map(quoted, rows.schema.names))
        run(f"CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM temp._new LIMIT 0")
        theirs = {str(name).lower() for name in run(f"SELECT name FROM pragma_table_info({_text(self.table)})")["name"].to_pylist()}
        for name in rows.schema.names:
            if name.lower() not in theirs:
                run(f"ALTER TABLE {table} ADD COLUMN {quoted(name)}")
        if self.upsert_by:
            same, newer = self.superseded()
            key, of_it = quoted(f"{self.table}_key"), ", ".join(map(quoted, self.upsert_by))
            run(f"CREATE INDEX IF NOT EXISTS main.{key} ON {quoted(self.table)} ({of_it})")
            run(f"DELETE FROM {table} WHERE rowid IN (SELECT t.rowid FROM temp._new AS s JOIN {table} AS t ON {same} AND {newer})")
            fresh = f"WHERE NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {same})"
            run(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM temp._new AS s {fresh}")
        else:
            run(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM temp._new")

    @contextmanager
    def _reading(self) -> Iterator[Run | None]:
        """None when there is no file."""
        uri = f"file:{quote(os.fsencode(self.path.absolute()))}?mode=ro"
        try:
            if self.path.exists():
                with adbc_driver_sqlite.connect(uri) as database, adbc_driver_manager.AdbcConnection(database) as connection:
                    yield lambda sql: _run(connection, sql)
            else:
                yield None
        except (adbc_driver_manager.Error, OSError) as error:
            said = f"{self.path} cannot be read now: {' '.join(str(error).split())[:300]}"
            if "not a database" in said:
                raise Refused(f"{said}; choose another `path`, or move the file away") from error
            raise Retry(said) from error

    @contextmanager
    def _transaction(self, rows: pa.RecordBatch) -> Iterator[Run]:
        """One transaction, with the rows in the temporary table `_new`; synced when it ends well."""
        try:
            make_folder(self.path.absolute().parent)
            uri = f"file:{quote(os.fsencode(self.path.absolute()))}?mode=rwc"
            with adbc_driver_sqlite.connect(uri) as database, adbc_driver_manager.AdbcConnection(database) as connection:
                for sql in PREPARE:
                    _run(connection, sql)
                with closing(adbc_driver_manager.AdbcStatement(connection)) as statement:
                    statement.set_options(**INGEST)
                    statement.bind_stream(pa.RecordBatchReader.from_batches(rows.schema, [rows]))
                    statement.execute_update()
                _run(connection, "BEGIN IMMEDIATE")
                yield lambda sql: _run(connection, sql)
                _run(connection, "COMMIT")
        except OSError as error:
            raise Retry(f"{self.path} cannot be written now: {error}") from error
        except (adbc_driver_manager.Error, pa.ArrowException) as error:
            said = " ".join(str(error).split())[:300]
            if any(words in said for words in PASSING):
                raise Retry(f"{self.path} cannot be written now: {said}") from error
            if "constraint failed" in said:  # of a table that somebody made
                raise Rejected(f"{self.path}: table {self.table} does not take the row: {said}") from error
            raise Refused(f"{self.path}: table {self.table} does not take the rows ({', '.join(rows.schema.names)}): {said}") from error


def _run(connection: adbc_driver_manager.AdbcConnection, sql: str) -> pa.Table:
    with closing(adbc_driver_manager.AdbcStatement(connection)) as statement:
        statement.set_sql_query(sql)
        handle, _ = statement.execute_query()
        with pa.RecordBatchReader.from_stream(handle) as reader:
            return reader.read_all()


def _storable(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows in types that SQLite keeps."""
    columns = [_as_stored(name, column) for name, column in zip(rows.schema.names, rows.columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, rows.schema.names)


def _as_stored(name: str, column: Any) -> Any:
    types, kind = pa.types, column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _as_stored(name, column.storage)
    if types.is_dictionary(kind):
        return _as_stored(name, column.cast(kind.value_type))
    if types.is_nested(kind) or types.is_interval(kind):
        raise Refused(f"column {name!r}: SQLite has no type for {kind}; leave it out or cast it with schematize")
    if types.is_floating(kind):
        floats = column.cast(pa.float64())
        if len(bad := np.flatnonzero(np.isnan(floats.fill_null(0.0).to_numpy(zero_copy_only=False)))):
            raise Rejected(f"column {name!r}: SQLite would keep NaN as NULL", bad.tolist())
        return floats
    if types.is_null(kind) or any(fits(kind) for fits in AS_TEXT):
        return column.cast(pa.string())
    if types.is_duration(kind):
        column = _safe(name, column, pa.duration("us"))
        return column.cast(pa.int64())
    if types.is_boolean(kind) or types.is_integer(kind):
        return _safe(name, column, pa.int64())
    return column.cast(pa.binary()) if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind) else column


def _safe(name: str, column: Any, kind: pa.DataType) -> Any:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:  # more than SQLite's integers, or less than a microsecond
        values = np.asarray(
            column.cast(pa.uint64() if pa.types.is_integer(column.type) else pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        )
        wrong = values > np.iinfo(np.int64).max if values.dtype == np.uint64 else values % 1000 != 0
        raise Rejected(f"column {name!r} does not fit into {kind}: {error}", np.flatnonzero(wrong).tolist()) from None


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
