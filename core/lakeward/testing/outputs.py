"""What comes out of a transform: its ports, all its rows, and where each row went."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
from attrs import evolve

from lakeward.components import END_OF_INPUT, ROW, Holding, Stateful, Transform
from lakeward.testing.rows import Row, values

Restart = Callable[[Transform], Transform]
"""What happens between two batches: from the transform that had the last one to the transform that gets the next one."""


def ports_of(output: pa.RecordBatch | Mapping[str, pa.RecordBatch]) -> dict[str, pa.RecordBatch]:
    """By port: a plain batch is the port `main`."""
    return {"main": output} if isinstance(output, pa.RecordBatch) else dict(output)


def collect(transform: Transform, batches: Iterable[pa.RecordBatch], restart: Restart = lambda old: old) -> dict[str, list[Row]]:
    """All rows of every port, to the end of the input."""
    outputs = []
    for batch in batches:
        outputs.append(ports_of(transform.apply(batch)))
        transform = restart(transform)
    if isinstance(transform, Stateful):
        outputs.append(ports_of(transform.finish(END_OF_INPUT)))
    rows = defaultdict(list)
    for output in outputs:
        for port, part in output.items():
            rows[port].extend(values(part))
    return rows


def in_the_end(ports: Mapping[str, list[Row]], upsert_by: tuple[str, ...], revision: str) -> dict[str, list[Row]]:
    """What a table has when of all rows that are about the same thing the one with the greatest revision stays."""
    if not upsert_by:
        return dict(ports)
    kept = {}
    for port, rows in ports.items():
        newest: dict[tuple[object, ...], tuple[Any, Row]] = {}
        others = []
        for row in rows:
            named = dict(row)
            if revision not in named:
                others.append(row)
                continue
            key = tuple(named[name] for name in upsert_by)
            assert key not in newest or newest[key][0] < named[revision], f"the port {port} has a {revision} of {key} that does not grow"
            newest[key] = named[revision], row
        kept[port] = others + [row for _, row in newest.values()]
    return kept


def whole(transform: Transform, rows: pa.RecordBatch) -> dict[str, list[pa.RecordBatch]]:
    """What it gives on each port for these rows, with those that it holds back until the end."""
    outputs = [ports_of(transform.apply(rows))]
    if isinstance(transform, Holding) and isinstance(transform, Stateful):
        outputs.append(ports_of(transform.finish(END_OF_INPUT)))
    parts = defaultdict(list)
    for output in outputs:
        for port, part in output.items():
            parts[port].append(part)
    return parts


class TakenTwice:
    """A transform whose every batch cannot be recorded at first, and is taken again by a copy: the kernel does so when a disk is full."""

    def __init__(self, transform: Transform) -> None:
        self._transform: Any = transform

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch | Mapping[str, pa.RecordBatch]:
        """What the copy gives."""
        self._transform.apply(batch.slice(0, 0))  # the kernel learns the schemas before all else
        before = self._transform.state()
        self._transform.apply(batch)
        self._transform = evolve(self._transform)
        self._transform.apply(batch.slice(0, 0))
        self._transform.restore(before)
        output: pa.RecordBatch | Mapping[str, pa.RecordBatch] = self._transform.apply(batch)
        return output

    # written out: from Python 3.12 on, `isinstance(_, Stateful)` does not ask `__getattr__`

    def state(self) -> bytes:
        """That of the newest copy."""
        state: bytes = self._transform.state()
        return state

    def restore(self, state: bytes) -> None:
        """Into the newest copy."""
        self._transform.restore(state)

    def finish(self, watermark: datetime) -> pa.RecordBatch | Mapping[str, pa.RecordBatch]:
        """What the newest copy gives in the end."""
        output: pa.RecordBatch | Mapping[str, pa.RecordBatch] = self._transform.finish(watermark)
        return output


def held_by(transform: Transform) -> list[pa.RecordBatch]:
    """The rows that a transform holds back, in a batch or none."""
    held = transform.held if isinstance(transform, Holding) else None
    return [held] if held is not None else []


def keys_of(batches: Iterable[pa.RecordBatch]) -> list[Any]:
    """Their `_row`, sorted."""
    keys: list[Any] = [key for batch in batches if batch.num_rows for key in batch.column(ROW).to_pylist()]
    return sorted(keys)


def assert_each_row_once(output: Mapping[str, Iterable[pa.RecordBatch]], rows: pa.RecordBatch, what: str) -> None:
    """Each `_row` that came in left once, on whatever port."""
    left = Counter[int | None]()
    for port, parts in output.items():
        for part in parts:
            known = ROW in part.schema.names and part.schema.field(ROW).type == pa.int64()
            assert known or not part.num_rows, f"{what}: the port {port} has lost the column {ROW}: int64"
            left.update(part.column(ROW).to_pylist() if part.num_rows else [])
    came = Counter[int | None](rows.column(ROW).to_pylist())
    assert left == came, f"{what}: lost {ROW} {list((came - left).elements())[:10]}, too many {list((left - came).elements())[:10]}"
