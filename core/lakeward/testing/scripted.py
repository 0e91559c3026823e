"""A source whose rows and failures are data, so that a test of a pipeline reads like the story it tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from attrs import define, field

from lakeward.components import ROW, Batch, Position
from lakeward.options import option


class Crashed(BaseException):
    """The process is gone, as by kill -9: no `except Exception` may catch it and tidy up."""


@define(eq=False)
class Crash:
    """The process dies here, once: the marker remembers, so the next run of the same script in this process goes past it."""

    fired: bool = field(default=False, init=False)


@define(eq=False)
class Fail:
    """`read` raises this exception here, once."""

    exception: Exception
    fired: bool = field(default=False, init=False)


@define(eq=False)
class End:
    """Nothing more is there now: `read` ends here, once; the next one goes on behind it."""

    fired: bool = field(default=False, init=False)


Rows = pa.RecordBatch | Sequence[Mapping[str, Any]]
Item = Rows | Crash | Fail | End


@define
class ScriptedSource:
    """Rows from memory. A source made anew with the same script goes on where its position says: the rows given so far.

    Rows are record batches with `_row`, or lists of dicts, which get the numbers 1, 2, … in `_row` when they have none.
    Each item is at least one batch.
    """

    script: list[Item] = option(help="Rows and the markers Crash(), Fail(exception) and End(), in order.")

    def schema(self) -> pa.Schema:
        """That of the first record batch; from dicts, what fits all of them."""
        for item in self.script:
            if isinstance(item, pa.RecordBatch):
                return item.schema
        rows = [{ROW: 1, **row} for item in self.script if isinstance(item, Sequence) for row in item]
        return pa.Table.from_pylist(rows).schema if rows else pa.schema([(ROW, pa.int64())])

    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        """The rows behind `after`, with what the script says in between."""
        start, schema, given = int(after["index"]) if after else 0, self.schema(), 0
        again = {key: value for key, value in (after or {}).items() if key != "index"}
        until = again.get("until", sum(len(item) for item in self.script if not isinstance(item, Crash | Fail | End)))
        for item in self.script:
            if isinstance(item, Crash | Fail | End):
                if given < start or item.fired:
                    continue
                item.fired = True
                if isinstance(item, End):
                    return
                raise Crashed if isinstance(item, Crash) else item.exception
            rows = _batch(item, given, schema)
            for first in range(max(start - given, 0), min(rows.num_rows, until - given), limit):
                part = rows.slice(first, min(limit, until - given - first))
                yield Batch(part, {"index": given + first + part.num_rows, **again}, epoch=again.get("epoch", 0))
            given += rows.num_rows

    def reread(self, first: int, last: int | None, epoch: int, origin: str = "") -> Position:
        """By place in the script, which is the row key of rows that have no other."""
        return {"index": first - 1, "epoch": epoch} | ({"until": last} if last is not None else {})

    def close(self) -> None:
        """Nothing was taken."""


def _batch(item: Rows, given: int, schema: pa.Schema) -> pa.RecordBatch:
    if isinstance(item, pa.RecordBatch):
        return item
    return pa.RecordBatch.from_pylist([{ROW: given + number, **row} for number, row in enumerate(item, 1)], schema)
