"""Rows into a Delta Lake table: each parcel is one commit, which also notes in the table that the parcel is in.

The note is an application transaction (the Delta protocol's `txn` action): an application id for the sink and epoch, and the
sequence number of the parcel. Before a parcel is appended, the table is asked whether it has that number already.

What Delta has no type for goes into the nearest type that keeps every value:

    Arrow                              Delta
    uint8, uint16, uint32              short, integer, long
    uint64                             decimal(20,0)
    float16                            float
    decimals of other widths           decimal of the same scale
    timestamp without zone, any unit   timestamp_ntz (microseconds)
    timestamp with zone, any unit      timestamp (UTC, microseconds)
    date64                             date
    time32, time64                     string, such as 12:30:00.000005
    duration                           long, in microseconds
    large, view, fixed-size types      the plain type
    dictionary, extension              the type of the values
    null                               string; fits into any column of a table that is there

A value that would change on the way, such as a timestamp with nanoseconds, is rejected and never rounded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa
from attrs import define
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, DeltaProtocolError, SchemaMismatchError, TableNotFoundError

from lakeward import ROW, Encoding, OptionError, Parcel, Receipt, Refused, Rejected, Retry, option
from lakeward.durable import LASTING, make_folder, require_writable, sync

ATTEMPTS = 5  # commits lost to other writers in a row before the kernel's backoff takes over
FORBIDDEN = re.compile(r"[ ,;{}()\n\t=]")  # in column names, by the Delta protocol when there is no column mapping
LOG = "_delta_log"
NEW = {"delta.checkpointInterval": "10"}  # as Spark does; with the 100 of delta-rs a commit takes twice as long
ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
OS_ERROR = re.compile(r"os error (\d+)")
COMPRESSIONS: dict[str, Any] = {"snappy": "SNAPPY", "zstd": "ZSTD", "gzip": "GZIP", "none": "UNCOMPRESSED"}
WIDER = {"byte": ("short", "integer", "long"), "short": ("integer", "long"), "integer": ("long",), "float": ("double",)}
NEAREST: dict[pa.DataType, pa.DataType] = {
    pa.null(): pa.string(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}


@define
class DeltaSink:
    """A Delta Lake table in a local folder; made with the first parcel when it is not there.

    Rows must have the columns of the table, in any order. delta-rs, which does the writing, syncs nothing to disk; this sink
    syncs the files of a commit right after it, before it gives its receipt. A power cut within those milliseconds may leave a
    commit whose file is cut short; the sink then refuses and names the file.
    """

    path: Path = option(help="Folder of the table; made when it is not there.")
    compression: Literal["snappy", "zstd", "gzip", "none"] = option("snappy", help="How pages of the data files are compressed.")
    row_key: bool = option(False, help="Keep the row key, the column `_row`.")
    inserted_at: str = option("", help="Add a column of this name, such as databricks_inserted_at, with the time of spooling.")

    def __attrs_post_init__(self) -> None:
        """Some parts of delta-rs decode such a path and others do not, so it would write to one folder and read another."""
        if escape := ESCAPE.search(str(self.path.absolute())):
            raise OptionError("path", f"delta-rs takes {escape[0]!r} in {self.path} for an escape; choose a path without it")

    @property
    def encoding(self) -> Encoding:
        """Files as the options say."""
        return Encoding(self.compression, self.row_key, self.inserted_at)

    def probe(self, schema: pa.Schema) -> str:
        """Whether the rows would fit into the table; `OptionError` or `Refused` when not."""
        require_writable(self.path, "path")
        with _sorted_errors(self.path):
            table = self._load()
        key = schema.get_field_index(ROW)
        _fitting(schema if self.row_key or key < 0 else schema.remove(key), table, self.path)
        what = f"append to version {table.version()} of" if table else "make"
        return f"would {what} the Delta table {self.path}"

    def deliver(self, parcel: Parcel) -> Receipt:
        """Append the rows and the note in one commit, unless the note is there."""
        token = parcel.token
        note = Transaction(f"lakeward/{token.life}/{token.pipeline}/{token.sink}/{token.epoch}", token.number)
        problem = ""
        with _sorted_errors(self.path):
            for _ in range(ATTEMPTS):
                table = self._load()
                last = table.transaction_version(note.app_id) if table else None
                if table and last is not None and last >= note.version:
                    _require_whole(table, self.path)
                    return Receipt(str(self.path), {"version": table.version(), "already_there": True})
                try:
                    return Receipt(str(self.path), {"version": self._append(parcel, table, note), "already_there": False})
                except CommitFailedError as error:  # another writer was first; it may have been an earlier attempt of ours: look again
                    problem = _short(error)
        raise Retry(f"{self.path}: could not commit, other writers were first {ATTEMPTS} times in a row: {problem}")

    def close(self) -> None:
        """Nothing is held open."""

    def _load(self) -> DeltaTable | None:
        """The newest version of the table, nothing when there is none yet."""
        if self.path.exists() and not (self.path / LOG).is_dir() and any(self.path.iterdir()):
            raise Refused(f"{self.path} holds other files and is no Delta table; give this sink an empty or a new folder")
        try:
            return DeltaTable(self.path)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            if OS_ERROR.search(str(error)):
                raise
            hint = f"if the power was cut, look whether the newest file in {self.path / LOG} is cut short"
            raise Refused(f"{self.path} cannot be read as a Delta table: {_short(error)}; {hint}") from error

    def _append(self, parcel: Parcel, table: DeltaTable | None, note: Transaction) -> int:
        """The version after the commit, which is checked against the very `table` that was asked for the note."""
        known = table.version() if table else -1
        batches = parcel.batches()
        first = next(batches)
        schema = _fitting(first.schema, table, self.path)
        misfits: list[Rejected | Refused] = []
        make_folder(self.path.absolute() / LOG)  # what a killed first delivery leaves is then known to be ours
        try:
            write_deltalake(
                table or self.path,
                pa.RecordBatchReader.from_batches(schema, _fitted(chain([first], batches), schema, misfits)),
                mode="append" if table else "error",
                configuration=None if table else NEW,
                # a new table's commit has nothing to be checked against: if it were tried again as version 1, the rows would be there twice
                commit_properties=CommitProperties(app_transactions=[note], max_commit_retries=None if table else 0),
                writer_properties=WriterProperties(compression=COMPRESSIONS[self.compression]),
            )
        except (DeltaError, OSError) as error:
            if misfits:
                raise misfits[0] from None
            if table is None and self._load():
                raise CommitFailedError("another writer made the table first") from error
            raise
        version = (table or DeltaTable(self.path)).version()
        _sync_commits(self.path, range(known + 1, version + 1))
        return version


# -- from the schema of the rows to the schema of the table ------------------------------------------------------------


def _fitting(schema: pa.Schema, table: DeltaTable | None, path: Path) -> pa.Schema:
    """The types to cast the rows to; `Refused` when Delta or this table cannot hold them."""
    stored = pa.schema([pa.field(field.name, _nearest(field.type, field.name)) for field in schema])
    for name in stored.names:
        alike = [other for other in stored.names if other.lower() == name.lower()]
        if not name or FORBIDDEN.search(name):
            raise Refused(
                f"column {name!r}: Delta allows no empty name, nor blank, tab, newline or ,;{{}}()= in it; rename it with schematize"
            )
        if len(alike) > 1:
            raise Refused(f"columns {alike} are one for Delta, which does not tell upper and lower case apart; rename one with schematize")
    if table:
        _require_fit(schema, stored, table, path)
    return stored


def _require_fit(schema: pa.Schema, stored: pa.Schema, table: DeltaTable, path: Path) -> None:
    """delta-rs would cast 1.5 to 1 to make rows fit; so only the same type, a wider one of its kind, or no value at all is let through."""
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise Refused(f"{path}: the table has column mapping, under which delta-rs loses values; give this sink another path")
    theirs = {field.name: field.type for field in table.schema().fields}
    ours = {field.name: field.type for field in Schema.from_arrow(stored).fields}
    for name in [*theirs, *ours]:
        if name not in ours:
            problem = f"the table has a column {name!r} that the rows do not have; add it with schematize"
        elif name not in theirs:
            problem = f"the table has no column {name!r}; add it to the table, leave it out with schematize"
        elif ours[name] != theirs[name] and not _widens(ours[name], theirs[name]) and not pa.types.is_null(schema.field(name).type):
            problem = f"column {name!r} is {_words(ours[name])} in rows and {_words(theirs[name])} in the table; cast it with schematize"
        else:
            continue
        raise Refused(f"{path}: {problem}, or choose another path")


def _widens(ours: Any, theirs: Any) -> bool:
    return _words(theirs) in WIDER.get(_words(ours), ())


def _words(kind: Any) -> str:
    return str(getattr(kind, "type", kind))


def _nearest(kind: Any, name: str) -> Any:
    """The type in the table of the docstring above."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _nearest(kind.storage_type, name)
    if types.is_dictionary(kind):
        return _nearest(kind.value_type, name)
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_decimal(kind):
        return pa.decimal128(min(38, kind.precision + max(0, -kind.scale)), max(0, kind.scale))
    if types.is_time(kind):
        return pa.string()
    if types.is_duration(kind):
        return pa.int64()
    if types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_nested(kind):
        return _nearest_nested(kind, name)
    if types.is_interval(kind):
        raise Refused(f"column {name!r}: Delta has no type for {kind}; cast it with schematize")
    return NEAREST.get(kind, kind)


def _nearest_nested(kind: Any, name: str) -> pa.DataType:
    children = [kind.field(place) for place in range(kind.num_fields)]
    if any(pa.types.is_duration(child.type) for child in children):
        raise Refused(f"column {name!r}: durations inside of {kind} cannot be stored; cast them with schematize")
    if pa.types.is_map(kind):
        return pa.map_(_nearest(kind.key_type, name), _nearest(kind.item_type, name))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(child.name, _nearest(child.type, name)) for child in children])
    return pa.list_(_nearest(kind.value_type, name))


# -- from the rows as they are spooled to the rows as they are stored --------------------------------------------------


def _fitted(batches: Iterable[pa.RecordBatch], schema: pa.Schema, misfits: list[Rejected | Refused]) -> Iterator[pa.RecordBatch]:
    """The rows in the types of the table. What goes wrong is told in `misfits`, as delta-rs makes text of any exception."""
    done = 0
    for batch in batches:
        columns = []
        for column, field in zip(batch.columns, schema, strict=True):
            try:
                columns.append(_cast(column, field.type))
            except pa.ArrowInvalid as error:
                rows = [done + row for row in _misfits(column, field.type)]
                misfits.append(Rejected(f"column {field.name!r} does not fit into {field.type}: {_short(error)}", rows))
                raise
            except pa.ArrowNotImplementedError:
                misfits.append(Refused(f"column {field.name!r}: {column.type} cannot be stored as {field.type}; cast it with schematize"))
                raise
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        done += batch.num_rows


def _cast(column: pa.Array[Any], kind: pa.DataType) -> pa.Array[Any]:
    if pa.types.is_duration(column.type):
        column = column.cast(pa.duration("us"))
    return column.cast(kind)  # a safe cast: raises when a value would change


def _misfits(column: pa.Array[Any], kind: pa.DataType, first: int = 0) -> Iterator[int]:
    """Where the values are that cannot be cast; halves what is left, as there are few."""
    with suppress(pa.ArrowInvalid):
        _cast(column, kind)
        return
    half = len(column) // 2
    if not half:
        yield first
        return
    yield from _misfits(column.slice(0, half), kind, first)
    yield from _misfits(column.slice(half), kind, first + half)


# -- what is on disk ---------------------------------------------------------------------------------------------------


def _sync_commits(path: Path, versions: range) -> None:
    """Make these commits durable: data files and their folders before the log."""
    log, data = path / LOG, set[Path]()
    entries = [entry for version in versions for entry in log.glob(f"{version:020d}.*")]
    for entry in entries:
        if entry.suffix == ".json":
            actions = map(json.loads, entry.read_text().splitlines())
            data |= {path / unquote(action["add"]["path"]) for action in actions if "add" in action}
    folders = {parent for file in data for parent in file.parents if parent.is_relative_to(path)}
    for target in (*data, *folders, *entries, *log.glob("_last_checkpoint"), log):
        with suppress(FileNotFoundError):  # another writer compacted the table in the meantime
            sync(target)


def _require_whole(table: DeltaTable, path: Path) -> None:
    """The commit is there, but was it synced? Sync all that is not, then look for files that a power cut took."""
    os.sync()
    files = pa.table(table.get_add_actions(flatten=True))
    for name, size in zip(files["path"].to_pylist(), files["size_bytes"].to_pylist(), strict=True):
        file = path / unquote(str(name))
        if not file.exists() or file.stat().st_size != size:
            raise Refused(f"{file} should have {size} bytes and was cut short, probably by a power cut; restore the table or that file")


@contextmanager
def _sorted_errors(path: Path) -> Iterator[None]:
    """Errors of the disk and of delta-rs, whose errors are texts, as what the kernel knows."""
    try:
        yield
    except (SchemaMismatchError, DeltaProtocolError) as error:
        raise Refused(f"{path}: the table does not take the rows: {_short(error)}") from error
    except (OSError, DeltaError) as error:
        told = OS_ERROR.search(str(error))
        number = int(told[1]) if told else getattr(error, "errno", None)  # delta-rs raises some as OSError without a number
        what = f"{getattr(error, 'filename', None) or path}: {os.strerror(number) if number else _short(error)}"
        if number in LASTING:
            raise Refused(f"cannot write the Delta table: {what}; correct that, or the option `path`, and run again") from error
        if "failed validation check" in str(error):  # a CHECK constraint, or NULL in a column that may not have it
            raise Rejected(f"{path}: the table does not take the rows: {_short(error)}") from error
        raise Retry(f"cannot write the Delta table now: {what}") from error


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
