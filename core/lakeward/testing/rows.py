"""When rows are the same: by value and column name, NaN equal to NaN, whatever the width of the Arrow type."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lakeward.components import ROW

Rows = pa.RecordBatch | pa.Table
Row = tuple[tuple[str, Any], ...]
"""One row as (column, value) pairs, hashable, in the order of the column names."""
SHOWN = 300  # characters of a row in a message; a 1 MB text would hide the rest


def assert_same_rows(got: Iterable[Row], want: Iterable[Row], what: str, *, ordered: bool = False, tolerance: float = 0.0) -> None:
    """The same rows, each as often; in the same order when `ordered`; floats within the relative `tolerance`."""
    got, want = list(got), list(want)
    if tolerance:
        got, want = _matched(got, want, tolerance, ordered)
    missing, extra = Counter(want) - Counter(got), Counter(got) - Counter(want)
    same = not missing and not extra
    assert same, f"{what}: {len(got)} rows instead of {len(want)}{_difference(missing, extra)}"
    if ordered:
        wrong = next((index for index, (left, right) in enumerate(zip(got, want, strict=True)) if left != right), None)
        assert wrong is None, f"{what}: another order from row {wrong} on, {show(got[wrong or 0])} instead of {show(want[wrong or 0])}"


def _difference(missing: Counter[Row], extra: Counter[Row]) -> str:
    """How many rows, the first of them, and what is wrong with the row that is most like it."""
    text = ""
    for word, rows in (("missing", missing), ("too many", extra)):
        if rows:
            text += f"; {rows.total()} {word}, first {show(next(iter(rows)))}"
    if missing and extra:
        lost = next(iter(missing))
        like = max(extra, key=lambda row: len(set(row) & set(lost)))
        changed = dict(set(like) - set(lost))
        text += f"; most like the first missing one is a row with {show(tuple(sorted(changed.items())))} instead"
    return text


def values(rows: Rows, columns: Sequence[str] | None = None) -> list[Row]:
    """Each row, of these columns or of all."""
    names = sorted(rows.schema.names if columns is None else columns)
    if not names:
        return [()] * rows.num_rows
    lists = [[(name, plain(value)) for value in _whole_microseconds(rows.column(name)).to_pylist()] for name in names]
    return list(zip(*lists, strict=True))


def ascends(rows: pa.RecordBatch) -> bool:
    """True when `_row` is strictly ascending."""
    keys = rows.column(ROW).to_numpy(zero_copy_only=False)
    return bool((keys[1:] > keys[:-1]).all())


def show(row: Row) -> str:
    """The row for a message."""
    text = str(dict(row))
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def plain(value: Any) -> Any:
    """The value, hashable and equal to itself. A timestamp without zone counts as UTC."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, dict):
        return tuple((key, plain(value[key])) for key in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    return value


def to_bytes(rows: pa.RecordBatch) -> bytes:
    """Every value of the rows, NULLs and bit patterns of NaN included."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_batch(rows)
    return stream.getvalue().to_pybytes()


def compact(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows in buffers of their own, which start at offset 0."""
    with pa.ipc.open_stream(to_bytes(rows)) as reader:
        return reader.read_next_batch()


def nulls(rows: pa.RecordBatch) -> pa.RecordBatch:
    """As many rows with NULL wherever the schema allows it; only `_row` stays."""
    kept = [field.name == ROW or not field.nullable for field in rows.schema]
    nowhere = pa.nulls(rows.num_rows, pa.int64())
    columns = [column if keep else column.take(nowhere) for column, keep in zip(rows.columns, kept, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _whole_microseconds(column: Any) -> Any:
    """Python has no nanoseconds; pyarrow would need pandas for them."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column


def _matched(got: list[Row], want: list[Row], tolerance: float, ordered: bool) -> tuple[list[Row], list[Row]]:
    """Both sorted unless `ordered`, and rows of `got` that are near enough replaced by what was wanted."""
    if not ordered:
        got, want = sorted(got, key=_floats_last), sorted(want, key=_floats_last)
    pairs = zip(got, want, strict=False)
    near = [right if _near(left, right, tolerance) else left for left, right in pairs]
    return near + got[len(near) :], want


def _floats_last(row: Row) -> tuple[list[str], list[float]]:
    return [repr(pair) for pair in row if not isinstance(pair[1], float)], [value for _, value in row if isinstance(value, float)]


def _near(left: Row, right: Row, tolerance: float) -> bool:
    return len(left) == len(right) and all(
        name == other and (math.isclose(a, b, rel_tol=tolerance) if isinstance(a, float) and isinstance(b, float) else a == b)
        for (name, a), (other, b) in zip(left, right, strict=True)
    )
