"""All that is remembered, as bytes: a note and columns, one Arrow stream after the other."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from lakeward_plugins.transforms.window.book import Book
from lakeward_plugins.transforms.window.clocks import Clocks
from lakeward_plugins.transforms.window.functions import Plan
from lakeward_plugins.transforms.window.keys import Keys
from lakeward_plugins.transforms.window.picks import Picks
from lakeward_plugins.transforms.window.readings import Readings
from lakeward_plugins.transforms.window.sums import Sums
from lakeward_plugins.transforms.window.table import Table
from lakeward_plugins.transforms.window.tally import Tally

NOTE = b"lakeward"


def write(note: dict[str, Any], keys: Keys, clocks: Clocks, table: Table, book: Book | None) -> bytes:
    """The state."""
    note = note | {"keys": len(keys), "base": clocks.base, "newest": clocks.newest}
    out = pa.BufferOutputStream()
    batches = [keys.all().replace_schema_metadata({NOTE: json.dumps(note).encode()}), pa.record_batch([pa.array(clocks.marks)], ["mark"])]
    for batch in batches + _batches(table) + ([] if book is None else [book.saved()]):
        with pa.ipc.new_stream(out, batch.schema) as stream:
            stream.write_batch(batch)
    return out.getvalue().to_pybytes()


def _batches(table: Table) -> list[pa.RecordBatch]:
    head = pa.record_batch([pa.array(column) for column in (table.slots, table.rows, table.updates)], ["slot", "rows", "updates"])
    ledgers: Sequence[Sums | Picks | Tally | Readings] = [table.sums, *table.picks, *table.tallies, *table.readings]
    return [head, *(batch for ledger in ledgers for batch in ledger.saved())]


def read(state: bytes) -> tuple[dict[str, Any], Iterator[pa.RecordBatch]]:
    """The note, and the columns that follow: keys first."""
    batches = _streams(pa.BufferReader(state))
    keys = next(batches)
    note: dict[str, Any] = json.loads((keys.schema.metadata or {})[NOTE])
    return note, itertools.chain([keys.replace_schema_metadata(None)], batches)


def _streams(reader: Any) -> Iterator[pa.RecordBatch]:
    while reader.tell() < reader.size():
        yield from pa.ipc.open_stream(reader)


def restore_keys(note: dict[str, Any], rows: pa.RecordBatch, marks: pa.RecordBatch, keys: Keys, clocks: Clocks) -> None:
    """Into empty keys and clocks."""
    keys.add(list(zip(*(column.to_pylist() for column in rows.columns), strict=True)) if rows.num_columns else [()] * note["keys"])
    clocks.base, clocks.newest = note["base"], note["newest"]
    clocks.marks = marks.column(0).to_numpy().copy()


def restored_table(batches: Iterator[pa.RecordBatch], plan: Plan) -> Table:
    """The windows."""
    slots, rows, updates = (column.to_numpy().copy() for column in next(batches).columns)
    sums = Sums.restored(next(batches), len(plan.measures()), len(slots))
    picks = [Picks.restored(column.function, next(batches)) for column in plan.picks()]
    tallies = [Tally.restored("quantile", *(next(batches) for _ in range(3))) for _ in plan.fields("quantile")]
    tallies += [Tally.restored("mode", *(next(batches) for _ in range(3))) for _ in plan.fields("mode")]
    readings = [Readings.restored(next(batches), next(batches)) for _ in plan.fields("time_weighted_mean")]
    return Table(slots, rows, updates, sums, picks, tallies, readings)
