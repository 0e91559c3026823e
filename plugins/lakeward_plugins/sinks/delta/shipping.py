"""Data files of the table that are made here: the spooled file itself where it fits, else its rows cast, and split into partitions.

Their names are those of the parcel, so a retry writes the same files and leaves none behind.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction

from lakeward import Parcel, Rejected
from lakeward.delta_types import cast
from lakeward.folders import NO_LINKS
from lakeward.notes import Note
from lakeward.partitions import NULL, TYPES, Partition, split
from lakeward_plugins.sinks.delta import tail
from lakeward_plugins.sinks.delta.fitting import columns_of, fitted
from lakeward_plugins.sinks.delta.notes import as_transactions, bring_up_to_date
from lakeward_plugins.sinks.delta.place import LOG, NO_HOOKS, Place

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # is no escape in a URL, and no name that readers pass over
KNOWN = {  # features of tables that ask nothing of who adds files
    "timestampNtz", "appendOnly", "invariants", "changeDataFeed", "checkConstraints", "deletionVectors", "v2Checkpoint",
    "vacuumProtocolCheck",
}  # fmt: skip
LONGEST = 64  # characters of a text that are told to readers
LONGEST_NAME = 255  # letters of a folder in most file systems
MILLISECOND = timedelta(milliseconds=1)


@frozen
class DataFile:
    """A file, and what the log says of it."""

    name: str
    """With a part of its SHA-256 in it: nothing else is ever written under it, whoever has a copy of our state."""
    content: Path | bytes
    sha256: str
    partition: dict[str, str | None]
    rows: int


def can_ship(parcel: Parcel, table: DeltaTable) -> bool:
    """Whether files can be added without delta-rs looking at each row, under the parcel's name."""
    return has_no_rules(table) and bool(PLAIN_NAME.fullmatch(parcel.token.name))


def has_no_rules(table: DeltaTable) -> bool:
    """No rules that rows must meet, no features that a writer must see to, and partitions that we can name."""
    columns, metadata = {one.name: one for one in table.schema().fields}, table.metadata()
    rules = any(not one.nullable or any(key.startswith("delta.") for key in one.metadata) for one in columns.values())
    rules = rules or any(key.startswith("delta.constraints.") for key in metadata.configuration)
    features = set(table.protocol().writer_features or ())
    types = columns_of(table)
    folders = all(any(fits(types.field(name).type) for fits in TYPES) for name in metadata.partition_columns)
    return not rules and features <= KNOWN and folders


def upload(parcel: Parcel, schema: pa.Schema, table: DeltaTable, place: Place) -> list[AddAction]:
    """Put files where the table is; no reader sees them before a commit names them. Raises Rejected for rows that do not fit."""
    adds = []
    for file in _files(parcel, schema, table):
        size = place.put(file.content, file.name, file.sha256)
        footer = pq.read_metadata(file.content if isinstance(file.content, Path) else io.BytesIO(file.content))
        stats = json.dumps(statistics(footer, file.rows))
        adds.append(AddAction(file.name, size, file.partition, time.time_ns() // 1_000_000, True, stats))
    return adds


def commit(adds: list[AddAction], table: DeltaTable, version: int, place: Place, note: Note, name: str) -> int:
    """Commit files after `version`; gives the new version, or one after it. Raises CommitFailedError when the note is there by now."""
    if place.local:
        try:
            return tail.append(place.local / LOG, version, note, adds, name)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        bring_up_to_date(table, note)
    properties = CommitProperties(app_transactions=as_transactions(note), max_commit_retries=tail.CROWD)
    partitions = table.metadata().partition_columns
    table.create_write_transaction(
        [*adds], "append", table.schema(), partitions, commit_properties=properties, post_commithook_properties=NO_HOOKS
    )
    table.update_incremental()  # which the line above leaves to us
    return table.version()


def _files(parcel: Parcel, schema: pa.Schema, table: DeltaTable) -> Iterator[DataFile]:
    wanted, columns = columns_of(table), table.metadata().partition_columns
    target = pa.schema([wanted.field(name) for name in schema.names])
    flat = not any(pa.types.is_nested(one.type) for one in schema)
    if not columns and flat and schema.types == target.types:
        yield DataFile(_name(parcel, parcel.sha256), parcel.path, parcel.sha256, {}, parcel.rows)
        return
    rows = pa.Table.from_batches(fitted(parcel.batches(), target, []), target).combine_chunks()
    batch = rows.to_batches()[0]
    codec = pq.read_metadata(parcel.path).row_group(0).column(0).compression
    for part in split(batch, columns) if columns else [Partition("", (), batch)]:
        out = io.BytesIO()
        texts = [one.name for one in part.rows.schema if pa.types.is_string(one.type)]
        pq.write_table(pa.Table.from_batches([part.rows]), out, compression=codec.lower(), use_dictionary=texts or False)  # type: ignore[arg-type]  # a list of names is allowed as well
        values = {name: as_text(value) for name, value in zip(columns, part.values, strict=True)}
        sha256 = hashlib.sha256(out.getvalue()).hexdigest()
        yield DataFile(f"{_folder(values)}{_name(parcel, sha256)}", out.getvalue(), sha256, values, part.rows.num_rows)


def _name(parcel: Parcel, sha256: str) -> str:
    return f"{parcel.token.name}-{sha256[:16]}.parquet"


def _folder(values: Mapping[str, str | None]) -> str:
    """As delta-rs names it; some readers look there for the values, though they should not."""
    return "".join(f"{quote(name, safe='')}={NULL if value is None else quote(value, safe='')}/" for name, value in values.items())


def require_values(parcel: Parcel, stored: pa.Schema, columns: Sequence[str]) -> None:
    """Raises Rejected for rows with text in these columns that cannot name a partition, or a date that no reader has, whoever writes it."""
    texts = [one.name for one in stored if one.name in columns and pa.types.is_string(one.type)]
    dates = [one.name for one in stored if pa.types.is_date32(one.type)]
    rows = pq.ParquetFile(parcel.path).read([*texts, *dates]) if texts or dates else pa.table({})
    if dates:
        from lakeward.grouping import strange_dates  # with pyarrow.compute, for which only those with dates pay
    for name in dates:
        bad = strange_dates(cast(rows.column(name).combine_chunks(), name, pa.date32()))
        if len(bad):
            raise Rejected(f"column {name!r}: readers of the table have no date before the year 1 or after 9999", bad.tolist())
    for name in texts:
        column = cast(rows.column(name).combine_chunks(), name, pa.string()).cast(pa.binary()).dictionary_encode(null_encoding="encode")
        faults = ["" if value is None else _no_folder(name, value) for value in column.dictionary.to_pylist()]
        if why := next(filter(None, faults), ""):
            places = [place for place, fault in enumerate(faults) if fault == why]
            bad = np.flatnonzero(np.isin(column.indices.to_numpy(zero_copy_only=False), places))
            raise Rejected(f"column {name!r}: {why}", bad.tolist())


def _no_folder(name: str, value: bytes) -> str:
    """Why this value can name no folder; empty when it can."""
    if not value:
        return "an empty text cannot name a partition, as Delta takes it for no value"
    if value.decode(errors="replace").encode() != value:
        return "text that is not UTF-8 cannot name a folder"
    return "the text is too long for the name of a folder" if len(f"{quote(name)}={quote(value, safe='')}") > LONGEST_NAME else ""


def as_text(value: Any) -> str | None:
    """A partition's value as the log has it."""
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# -- what lets readers pass over a file --------------------------------------------------------------------------------


def statistics(footer: pq.FileMetaData, rows: int) -> dict[str, Any]:
    """From the file's own footer.

    No limits of numbers with a fraction: Parquet leaves NaN out of them, which Delta's readers take for the greatest.
    """
    nulls, low, high = dict[str, int](), dict[str, Any](), dict[str, Any]()
    schema = footer.schema.to_arrow_schema()
    for number, column in enumerate(schema if footer.num_columns == len(schema) else ()):  # nested columns have several
        chunks: list[Any] = [footer.row_group(group).column(number).statistics for group in range(footer.num_row_groups)]
        if not all(chunk and chunk.has_null_count for chunk in chunks):
            continue
        nulls[column.name] = sum(chunk.null_count for chunk in chunks)
        if limits := _limits(column.type, [chunk for chunk in chunks if chunk.num_values]):
            low[column.name], high[column.name] = limits
    return {"numRecords": rows, "minValues": low, "maxValues": high, "nullCount": nulls}


def _limits(kind: pa.DataType, chunks: list[Any]) -> tuple[Any, Any] | None:
    types = pa.types
    if not (types.is_signed_integer(kind) or types.is_string(kind) or types.is_date32(kind) or types.is_timestamp(kind)):
        return None
    if not chunks or not all(chunk.has_min_max for chunk in chunks):
        return None
    try:
        low, high = min(chunk.min for chunk in chunks), max(chunk.max for chunk in chunks)
    except (ValueError, OverflowError):  # before the year 1 or after 9999
        return None
    if isinstance(low, str) and max(len(low), len(high)) > LONGEST:
        return None
    return _as_json(low), _as_json(high, up=True)


def _as_json(value: Any, up: bool = False) -> Any:
    if not isinstance(value, datetime):
        return value.isoformat() if isinstance(value, date) else value
    if up and value.microsecond % 1000 and value < datetime.max.replace(tzinfo=value.tzinfo) - MILLISECOND:
        value += MILLISECOND  # limits have milliseconds, and must hold for all rows
    zone = "" if value.tzinfo is None else "Z"
    return f"{(value.astimezone(UTC) if zone else value).replace(tzinfo=None).isoformat(timespec='milliseconds')}{zone}"
