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
from itertools import chain
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
ROWS = 65_536  # of a row group at least, and read at once at most


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
    for group in _groups(table, target):
        taken, content = _write(group.paths, table, place, compression)
        if len(taken) > 1:
            adds.append(_put(content, group.partition, taken[0], table.version(), place))
            removes += [RemoveAction(path, False, adds[-1].modification_time, None, group.partition) for path in taken]
    if adds:
        _commit(table, removes, adds)


def _put(content: bytes, partition: dict[str, str | None], sibling: str, version: int, place: Place) -> AddAction:
    folder, slash, _ = sibling.rpartition("/")
    name = f"{folder}{slash}compacted-{version:020d}-{uuid.uuid4().hex}.parquet"
    size = place.put(content, name, hashlib.sha256(content).hexdigest())
    footer = pq.read_metadata(io.BytesIO(content))
    stats = json.dumps(statistics(footer, footer.num_rows))
    return AddAction(name, size, partition, time.time_ns() // 1_000_000, False, stats)


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


def _write(paths: Sequence[str], table: DeltaTable, place: Place, compression: str) -> tuple[list[str], bytes]:
    """The rows of these files as one, in large row groups, and never many in memory. Gives the files whose rows are in, and its bytes."""
    inside = set(table.metadata().partition_columns)
    schema = pa.schema([one for one in columns_of(table) if one.name not in inside])
    texts, left = [one.name for one in schema if pa.types.is_string(one.type)], list(paths)
    while True:  # anew without a file that cannot be read to its end, as rows of it may be in already
        out, held = io.BytesIO(), list[pa.RecordBatch]()
        try:
            with pq.ParquetWriter(out, schema, compression=compression, use_dictionary=texts or False) as writer:  # type: ignore[arg-type]  # a list of names is allowed as well
                for rows in chain.from_iterable(_read(path, place, schema, inside) for path in left):
                    held.append(rows)
                    if sum(map(len, held)) >= ROWS:
                        writer.write_table(pa.Table.from_batches(held))
                        held.clear()
                if held:
                    writer.write_table(pa.Table.from_batches(held))
        except _Unfit as error:
            path, problem = error.args
            log.info("%s: %s stays as it is when files are made larger: %s", place.uri, path, problem)
            left.remove(path)
        else:
            return left, out.getvalue()


class _Unfit(Exception):
    """Of a file, with what is wrong."""


def _read(path: str, place: Place, schema: pa.Schema, partitions: set[str]) -> Iterator[pa.RecordBatch]:
    """In the columns of the table; those that the file does not have are null. When it has others, they may mean something."""
    try:
        with pq.ParquetFile(place.local / path if place.local else io.BytesIO(place.get(path))) as file:
            there = file.schema_arrow.names
            if odd := [name for name in there if there.count(name) > 1 or (name not in partitions and schema.get_field_index(name) < 0)]:
                raise ValueError(f"the table has no column {odd[0]!r}, or the file has two")
            for rows in file.iter_batches(ROWS):
                columns = [rows[one.name].cast(one.type) if one.name in there else pa.nulls(len(rows), one.type) for one in schema]
                yield pa.record_batch(columns, schema=schema)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _Unfit(path, first_line(error)) from error


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
