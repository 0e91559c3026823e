"""Many small files made into few, in one commit.

delta-rs has this too, but two of its compactions at once both succeed: then every row is there twice. Here a commit is tried only on the
version that was looked at last, and only while all files that it replaces are still part of the table.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from lakeward.wording import first_line
from lakeward_plugins.sinks.delta.fitting import columns_of
from lakeward_plugins.sinks.delta.place import NO_HOOKS, Place
from lakeward_plugins.sinks.delta.shipping import as_text, has_no_rules, statistics

log = logging.getLogger("lakeward.delta")
ELSEWHERE = re.compile(r"/|[a-z][a-z0-9+.-]*:/")  # a file outside of the table, as in one that was cloned
ATTEMPTS = 20  # commits of others that come between, before it is left for another time
ROWS = 100_000  # of a row group


@frozen
class Group:
    """Files of one partition that become one."""

    paths: list[str]
    """Without the escapes that they have in the log."""
    partition: dict[str, str | None]


def compact(table: DeltaTable, place: Place, target: int, compression: str = "snappy") -> None:
    """Make files below `target` bytes into files of about that size. Raises CommitFailedError when others are too busy.

    A file that cannot be written anew without a change, as other writers may have made it, stays as it is.
    """
    if not has_no_rules(table) or "deletionVectors" in (table.protocol().reader_features or ()):
        return
    removes, adds = list[RemoveAction](), list[AddAction]()
    now = time.time_ns() // 1_000_000
    for group in _groups(table, target):
        out = io.BytesIO()
        taken, rows = _write(group, table, place, out, compression)
        if len(taken) < 2:
            continue
        content = out.getvalue()
        folder, slash, _ = taken[0].rpartition("/")
        name = f"{folder}{slash}compacted-{table.version():020d}-{uuid.uuid4().hex}.parquet"
        stats = json.dumps(statistics(pq.read_metadata(io.BytesIO(content)), rows))
        size = place.put(content, name, hashlib.sha256(content).hexdigest())
        adds.append(AddAction(name, size, group.partition, now, False, stats))
        removes += [RemoveAction(path, False, now, None, group.partition) for path in taken]
    if adds:
        _commit(table, removes, adds)


def _groups(table: DeltaTable, target: int) -> Iterator[Group]:
    waiting = dict[tuple[tuple[str, Any], ...], tuple[list[str], int]]()
    for file in sorted(pa.table(table.get_add_actions()).to_pylist(), key=lambda file: (file["modification_time"], file["path"])):
        partition = tuple((file.get("partition") or {}).items())
        if file["size_bytes"] >= target or ELSEWHERE.match(file["path"]):
            continue
        paths, size = waiting.pop(partition, ([], 0))
        paths, size = [*paths, unquote(file["path"])], size + file["size_bytes"]
        if size >= target:
            yield Group(paths, {name: as_text(value) for name, value in partition})
        else:
            waiting[partition] = paths, size
    for partition, (paths, _) in waiting.items():
        if len(paths) > 1:
            yield Group(paths, {name: as_text(value) for name, value in partition})


def _write(group: Group, table: DeltaTable, place: Place, out: io.BytesIO, compression: str) -> tuple[list[str], int]:
    """The rows of the files, in large row groups. Gives the files whose rows are in, and how many rows that is."""
    inside = set(table.metadata().partition_columns)
    schema = pa.schema([one for one in columns_of(table) if one.name not in inside])
    texts = [one.name for one in schema if pa.types.is_string(one.type)]
    taken, rows, held = list[str](), 0, list[pa.Table]()
    with pq.ParquetWriter(out, schema, compression=compression, use_dictionary=texts or False) as writer:  # type: ignore[arg-type]  # a list of names is allowed as well
        for path in group.paths:
            file = place.local / path if place.local else io.BytesIO(place.get(path))
            try:
                held.append(_fitted(pq.read_table(file, partitioning=None), schema, inside))
            except (OSError, ValueError, pa.ArrowException) as error:
                log.info("%s: %s stays as it is when files are made larger: %s", place.uri, path, first_line(error))
                continue
            taken.append(path)
            rows += held[-1].num_rows
            if sum(each.num_rows for each in held) >= ROWS:
                writer.write_table(pa.concat_tables(held))
                held.clear()
        if held:
            writer.write_table(pa.concat_tables(held))
    return taken, rows


def _fitted(rows: pa.Table, schema: pa.Schema, partitions: set[str]) -> pa.Table:
    """In the columns of the table; those that the file does not have are null. ValueError when it has others: they may mean something."""
    there = rows.schema.names
    if odd := [name for name in there if there.count(name) > 1 or (name not in partitions and schema.get_field_index(name) < 0)]:
        raise ValueError(f"the table has no column {odd[0]!r}, or the file has two")
    columns = [rows[one.name].cast(one.type) if one.name in there else pa.nulls(rows.num_rows, one.type) for one in schema]
    return pa.table(columns, schema=schema)


def _commit(table: DeltaTable, removes: Sequence[RemoveAction], adds: Sequence[AddAction]) -> None:
    for _ in range(ATTEMPTS):
        there = {unquote(str(path)) for path in pa.table(table.get_add_actions())["path"].to_pylist()}
        if not {remove.path for remove in removes} <= there:
            raise CommitFailedError("another writer replaced some of the files")
        properties = CommitProperties(max_commit_retries=0)  # delta-rs would not see that the files are gone
        try:
            partitions = table.metadata().partition_columns
            table.create_write_transaction(
                [*removes, *adds], "append", table.schema(), partitions,
                commit_properties=properties, post_commithook_properties=NO_HOOKS,
            )  # fmt: skip
        except CommitFailedError:
            table.update_incremental()
        else:
            return
    raise CommitFailedError(f"others committed {ATTEMPTS} times in between")
