"""What the sinks of a pipeline have: a question goes to a database as it is, and over files and tables of files by a DuckDB in memory.

That DuckDB has no files, no network, no extensions and no settings that a query could change: it sees nothing but the rows that sinks
give it, and has nothing that it could write into.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pyarrow as pa
from attrs import field, frozen

from lakeward.components import ROW, Sink
from lakeward.errors import LakewardError, Refused, Retry
from lakeward.partitions import EMPTY, NULL, encoded

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset
    import pyarrow.fs

    from lakeward.pipeline import Pipeline

    Rows = tuple[pyarrow.fs.FileSystem, list[str]] | pyarrow.dataset.Dataset | pa.Table
CHOSEN = "data"
"""What the sink of a question is called in its SQL, beside its own name."""
CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false", "autoload_known_extensions": "false", "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false", "allow_persistent_secrets": "false", "python_enable_replacements": "false",
    "temp_directory": "",
}  # fmt: skip
LAST = ("SET TimeZone = 'UTC'", "SET enable_progress_bar = false", "SET lock_configuration = true")
ESCAPED = re.compile(rb"_x([0-9A-F]{2})_")
"""A byte in the name of a folder, as `lakeward.partitions.encoded` writes it."""
TIMES = ("timestamp", "time", "window_end", "event_time", "ts")
"""Names of columns that say when a row is from, if none has the type of a time."""


@runtime_checkable
class Querying(Protocol):
    """What a sink has as well when something can be asked that knows SQL."""

    def query(self, sql: str, *, limit: int | None = None) -> pa.Table:
        """The rows of a query in the sink's own SQL, the first `limit` of them. Raises `Refused` unless it only reads, and `Retry`."""

    def phrase(self, *, count: bool, where: Mapping[str, str], newest: str, limit: int) -> str:
        """Such a query: how many rows, or the rows, those with these texts only; with `newest`, a column, the greatest of it first.

        `limit` 0 is for all. The count is a row with one number.
        """


@runtime_checkable
class Stored(Protocol):
    """What a sink has as well when its rows are in files that Arrow can read."""

    def stored(self) -> Rows:
        """The Parquet files that are there now, by their names in a file system of Arrow; or their rows. Raises `Retry` and `Refused`."""


@runtime_checkable
class Knowing(Protocol):
    """What a sink has as well when it knows more of what it has than rows and columns."""

    def facts(self) -> Mapping[str, str | int]:
        """By `place`, `version` and the like. Raises `Retry` and `Refused`."""


@frozen(eq=False)
class Answer:
    """The rows of a query, which come while they are read: they need not fit into memory."""

    names: list[str]
    batches: Iterator[pa.RecordBatch]

    @classmethod
    def of(cls, rows: pa.Table) -> Answer:
        """Rows that are there."""
        return cls(rows.column_names, iter(rows.combine_chunks().to_batches()))

    def first(self, limit: int | None) -> Answer:
        """So many of them; None for all."""
        return self if limit is None else Answer(self.names, _first(self.batches, limit))

    def value(self, name: str | int = 0) -> Any:
        """Of a column, in the first row; LookupError when there is none."""
        place = name if isinstance(name, int) else self.names.index(name) if name in self.names else len(self.names)
        for batch in self.batches:
            if batch.num_rows:
                return values(batch.columns[place].slice(0, 1))[0]
        raise LookupError(name)


def _first(batches: Iterator[pa.RecordBatch], limit: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if limit <= 0:
            return
        yield batch.slice(0, limit)
        limit -= batch.num_rows
        if limit <= 0:
            return


def values(column: Any) -> list[Any]:
    """As Python has them; times that it has not as text, text that is no UTF-8 as bytes."""
    try:
        found: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        found = column.cast(pa.binary() if text else pa.string()).to_pylist()
    return found


@frozen(eq=False)
class Lake:
    """The sinks of a pipeline, to be asked."""

    _pipeline: Pipeline
    _known: dict[str, pyarrow.dataset.Dataset] = field(init=False, factory=dict)

    def query(self, sql: str, name: str | None, limit: int | None = None) -> Answer:
        """The first rows of a query. Without a name it is the only sink, or those sinks with files that the query names."""
        wanted = name
        if wanted is None and len(self._able()) == 1:
            wanted = self._able()[0]
        named = [one for one in self._able() if re.search(rf"(?<!\w){re.escape(one)}(?!\w)", sql, re.IGNORECASE)]
        if wanted is None and not (named and all(isinstance(self._pipeline.sinks[one], Stored) for one in named)):
            raise LakewardError(f"there are several sinks; say which by --sink: {', '.join(self._able())}")
        sink = self._sink(wanted) if wanted else None
        if isinstance(sink, Querying):
            return Answer.of(sink.query(sql, limit=limit))
        tables = {one: self._rows(one) for one in named if isinstance(self._pipeline.sinks[one], Stored)}
        if wanted:
            tables |= {CHOSEN: self._rows(wanted), wanted: self._rows(wanted)}
        return _asked(sql, tables).first(limit)

    def newest(self, name: str | None, where: Sequence[tuple[str, str]], *, count: bool, limit: int) -> Answer:
        """How many rows a sink has, or its newest, of those with these texts."""
        if name is None and len(self._able()) != 1:
            raise LakewardError(f"say which sink by --sink: {', '.join(self._able()) or 'none of them can be asked'}")
        name = name or self._able()[0]
        sink = self._sink(name)
        columns = self._columns(name)
        if lost := [column for column, _ in where if column not in columns]:
            raise LakewardError(f"sink {name!r} has no column {lost[0]!r}; its columns are {', '.join(columns)}")
        phrase = sink.phrase if isinstance(sink, Querying) else _phrase
        sql = phrase(count=count, where=dict(where), newest="" if count else self._time(name), limit=limit)
        rows = self.query(sql, name)
        return Answer.of(pa.table({"rows": [int(rows.value())]})) if count else rows

    def information(self, name: str | None) -> Answer:
        """A row for each sink. What is wrong with one does not keep the others from being told."""
        found = []
        for one in [name] if name else self._able():
            self._sink(one)
            known: dict[str, Any] = {"sink": one, "use": self._pipeline.config.graphs[self._pipeline.graph].sinks[one].use}
            try:
                known |= self._told(one)
            except (Retry, Refused) as error:
                known["problem"] = str(error)
            found.append(known)
        names = ("sink", "use", "place", "rows", "columns", "newest", "version", "files", "problem")
        shown = [key for key in names if any(key in one for one in found)]
        columns: dict[str, list[Any]] = {key: [_as_said(one.get(key)) for one in found] for key in shown}
        return Answer.of(pa.table(columns))

    # -- one sink ------------------------------------------------------------------------------------------------------

    def _able(self) -> list[str]:
        return [name for name, sink in self._pipeline.sinks.items() if isinstance(sink, (Querying, Stored))]

    def _sink(self, name: str) -> Sink:
        if name not in self._pipeline.sinks:
            raise LakewardError(f"no sink {name!r}; sinks are {', '.join(self._pipeline.sinks)}")
        if name not in self._able():
            raise LakewardError(f"sink {name!r} cannot be asked for what it has; {', '.join(self._able()) or 'no sink'} can")
        return self._pipeline.sinks[name]

    def _schema(self, name: str) -> pa.Schema:
        """Of the rows that go there."""
        schema = self._pipeline.schemas[self._pipeline.links[name][0]]
        place, sink = schema.get_field_index(ROW), self._pipeline.sinks[name]
        schema = schema.remove(place) if place >= 0 and not sink.encoding.row_key else schema
        return schema.append(pa.field(stamp, pa.timestamp("us", "UTC"))) if (stamp := sink.encoding.inserted_at) else schema

    def _rows(self, name: str) -> pyarrow.dataset.Dataset:
        if name not in self._known:
            sink: Stored = self._pipeline.sinks[name]  # type: ignore[assignment]  # the caller knows that it is one
            self._known[name] = _dataset(sink.stored(), self._schema(name))
        return self._known[name]

    def _columns(self, name: str) -> list[str]:
        stored = isinstance(self._pipeline.sinks[name], Stored)
        return self._rows(name).schema.names if stored else self._schema(name).names

    def _time(self, name: str) -> str:
        """The column that says when a row is from; empty when none does."""
        schema = self._rows(name).schema if isinstance(self._pipeline.sinks[name], Stored) else self._schema(name)
        stamp = self._pipeline.sinks[name].encoding.inserted_at
        typed = [one.name for one in schema if pa.types.is_timestamp(one.type) and one.name != stamp]
        named = [one for one in TIMES if one in schema.names]
        return next((one for one in (*(one for one in named if one in typed), *typed, *named)), "")

    def _told(self, name: str) -> dict[str, Any]:
        sink = self._sink(name)
        found: dict[str, Any] = dict(sink.facts()) if isinstance(sink, Knowing) else {}
        found["rows"] = self.newest(name, [], count=True, limit=0).value()
        found["columns"] = len(self._columns(name))
        if (column := self._time(name)) and found["rows"]:
            with suppress(LookupError):  # a table of an older pipeline may lack it
                found["newest"] = self.newest(name, [], count=False, limit=1).value(column)
        return found


def _as_said(value: Any) -> Any:
    """Times of different types fit into one column as text only."""
    return value.isoformat() if hasattr(value, "isoformat") else value


# -- over files --------------------------------------------------------------------------------------------------------


def _dataset(stored: Rows, schema: pa.Schema) -> pyarrow.dataset.Dataset:
    """The rows of all files, with the columns of all: what an older file lacks is null."""
    import pyarrow.dataset as ds

    if not isinstance(stored, tuple):
        there = ds.dataset(stored) if isinstance(stored, pa.Table) else stored
        return there if len(there.schema) else ds.dataset([], schema=schema)
    files, names = stored
    if not names:
        return ds.dataset([], schema=schema)
    try:
        form = ds.ParquetFileFormat()
        factory = ds.FileSystemDatasetFactory(files, names, form)  # type: ignore[arg-type]  # takes names as well
        found = factory.inspect(promote_options="permissive")  # type: ignore[call-arg]  # missing in the stubs
        folders = [one for one in schema if one.name not in found.names and any(f"/{encoded(one.name)}=" in name for name in names)]
        if not folders:
            return factory.finish(found)
        parts = [form.make_fragment(name, files, _values(name, folders)) for name in names]
        return ds.FileSystemDataset(parts, pa.schema([*found, *folders]), form, files)
    except (OSError, pa.ArrowException) as error:
        raise Refused(f"a file cannot be read: {' '.join(str(error).split())[:300]}") from error


def _values(name: str, folders: Sequence[pa.Field[Any]]) -> pyarrow.dataset.Expression:
    """What the folders of a file say about its rows, which lack these columns."""
    import pyarrow.dataset as ds

    said = dict(part.split("=", 1) for part in name.split("/") if "=" in part)
    known = ds.scalar(True)
    for one in folders:
        if (text := said.get(encoded(one.name))) is not None:
            known &= ds.field(one.name).is_null() if text == NULL else ds.field(one.name) == _value(text, one.type)
    return known


def _value(text: str, kind: pa.DataType) -> Any:
    """The text in the name of a folder as it was before it was encoded."""
    bytes_ = ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), b"" if text == EMPTY else text.encode())
    return pa.scalar(bytes_.decode()).cast(kind)


def _asked(sql: str, tables: Mapping[str, pyarrow.dataset.Dataset]) -> Answer:
    try:
        import duckdb
    except ImportError as error:
        raise LakewardError("to query files lakeward needs DuckDB: pip install 'lakeward[duckdb]'") from error
    with ExitStack() as stack:
        connection = stack.enter_context(duckdb.connect(":memory:", config=CLOSED))
        stack.enter_context(_sorted_errors(tables))
        for setting in LAST:
            connection.execute(setting)
        for name, rows in tables.items():
            connection.register(name, rows)
        _require_reading(connection, sql)
        reader = pa.RecordBatchReader.from_stream(connection.sql(sql))
        return Answer(reader.schema.names, _read(reader, stack.pop_all()))
    raise AssertionError("unreachable")


def _read(reader: pa.RecordBatchReader, held: ExitStack) -> Iterator[pa.RecordBatch]:
    with held:
        yield from reader


@contextmanager
def _sorted_errors(tables: Mapping[str, object]) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise LakewardError(f"DuckDB: {_sentence(error)}; there are the tables {', '.join(tables)}") from error


def _require_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """DESCRIBE, SHOW and SUMMARIZE are SELECT to DuckDB."""
    import duckdb

    found = connection.extract_statements(sql)
    if len(found) != 1 or found[0].type != duckdb.StatementType.SELECT:
        raise Refused("a query must be one statement that begins with SELECT, WITH, DESCRIBE or SHOW")


def _phrase(*, count: bool, where: Mapping[str, str], newest: str, limit: int) -> str:
    quoted: Callable[[str, str], str] = lambda text, mark: mark + text.replace(mark, 2 * mark) + mark  # noqa: E731
    conditions = " AND ".join(f"{quoted(column, chr(34))}::VARCHAR = {quoted(text, chr(39))}" for column, text in where.items())
    parts = [
        f"SELECT {'count(*)' if count else '*'} FROM {CHOSEN}",
        f"WHERE {conditions}" if conditions else "",
        f"ORDER BY {quoted(newest, chr(34))} DESC NULLS LAST" if newest else "",
        f"LIMIT {limit}" if limit and not count else "",
    ]
    return " ".join(filter(None, parts))


def _sentence(error: BaseException) -> str:
    """What DuckDB says, in one line, without the query, which it draws below."""
    return " ".join(str(error).partition("\nLINE ")[0].split())
