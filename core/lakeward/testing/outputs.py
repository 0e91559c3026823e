"""What comes out of a transform: its ports, all its rows, and where each row went."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from lakeward.components import END_OF_INPUT, ROW, Stateful, Transform
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


def assert_each_row_once(output: Mapping[str, pa.RecordBatch], rows: pa.RecordBatch, what: str) -> None:
    """Each `_row` that came in left once, on whatever port."""
    for port, part in output.items():
        known = ROW in part.schema.names and part.schema.field(ROW).type == pa.int64()
        assert known or not part.num_rows, f"{what}: the port {port} has lost the column {ROW}: int64"
    left = Counter(key for part in output.values() if part.num_rows for key in part.column(ROW).to_pylist())
    came = Counter(rows.column(ROW).to_pylist())
    assert left == came, f"{what}: lost {ROW} {list((came - left).elements())[:10]}, too many {list((left - came).elements())[:10]}"
