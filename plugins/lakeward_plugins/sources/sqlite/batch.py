"""One batch of a SQLite table with exact types: read in one go, checked, and sorted out value by value only when something is off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from lakeward import ROW, Refused, rejected
from lakeward.components import Event
from lakeward_plugins.sources.sqlite.connection import Query, Unsorted
from lakeward_plugins.sources.sqlite.table import ARROW, Column, Table

MOST_KEYS = 10_000  # in one statement, whose text SQLite limits to 1 MB
UNSORTED = "table {!r}: its row ids do not ascend, so the database is corrupt; see PRAGMA integrity_check"
SHOWN = 40  # characters of a bad value in a message


@frozen(eq=False)
class Taken:
    """What one transaction gave: `count` rows up to the key `last`, good and rejected ones together."""

    rows: pa.RecordBatch
    rejected: pa.RecordBatch | None
    count: int
    last: int
    events: tuple[Event, ...] = ()


class TooLongError(Exception):
    """The texts of one column are longer together than an Arrow array can hold (2 GiB): ask for fewer rows."""


def take(query: Query, table: Table, after: int | None, limit: int, within: str = "") -> Taken | None:
    """At most `limit` rows after the key `after`, of those for which the SQL `within` is true; None when there are none."""
    where = " AND ".join(filter(None, [table.after(after), within]))
    rows, odd = _typed(table, query(table.select(where, limit), limit + 1)), []
    if rows is None:
        where += f" AND {table.key_ref} <= {_last_key(query, table, where, limit)}"
        rows = _typed(table, query(table.select(f"{where} AND {table.fits}", limit), limit + 1))
        odd = [_contents(query, table, f"{where} AND NOT ({table.fits})", limit)]
    if rows is None:
        raise Refused(f"table {table.name!r}: SQLite and its driver do not agree on the types of values; please report it")
    count = rows.num_rows + sum(part.num_rows for part in odd)
    if not count:
        return None
    if after is not None and any(part.num_rows and part.column(0)[0].as_py() <= after for part in (rows, *odd)):
        raise Unsorted(UNSORTED.format(table.name))
    if not odd and _hides_rows(query, table, after, within, rows.column(ROW)):
        raise Unsorted(UNSORTED.format(table.name))
    last = max(part.column(0)[-1].as_py() for part in (rows, *odd) if part.num_rows)
    bad = rows.column(ROW).take(pa.array(_not_utf8(rows), pa.int64()))
    if len(bad):
        rows = rows.filter(pc.invert(pc.is_in(rows.column(ROW), bad)))
        odd += [_contents(query, table, f"{table.key_ref} IN ({keys})", MOST_KEYS) for keys in _lists(bad)]
    return Taken(rows, _rejected(table, odd), count, last)


def _typed(table: Table, read: pa.Table) -> pa.RecordBatch | None:
    """The rows with the table's schema, or None when a value has another type than its column."""
    expected = [pa.int64(), *(ARROW[column.kind] for column in table.besides_key)]
    flag = [pa.int64()] if table.hidden else []
    if read.schema.types != expected + flag or (flag and pc.max(read.column(-1)).as_py()):
        return None
    keys, *others = _checked(table, read).columns
    named = {column.name: values for column, values in zip(table.besides_key, others, strict=False)}
    return pa.RecordBatch.from_arrays([keys, *(named.get(column.name, keys) for column in table.columns)], schema=table.schema)


def _checked(table: Table, read: pa.Table) -> pa.RecordBatch:
    """The rows without the made-up one, when their keys ascend and their texts fit."""
    batch = read.to_batches()[0].slice(1)
    keys = batch.column(0)
    if keys.null_count or not pc.all(pc.less(keys.slice(0, max(len(keys) - 1, 0)), keys.slice(1)), min_count=0).as_py():
        raise Unsorted(UNSORTED.format(table.name))
    for column in batch.columns:
        if column.type != pa.int64() and column.type != pa.float64():
            _must_fit(column)
    return batch


def _must_fit(column: pa.Array[Any]) -> None:
    try:
        column.view(pa.binary()).validate(full=True)
    except pa.ArrowInvalid as error:  # the 32-bit offsets of the driver have overflown
        raise TooLongError from error


def _hides_rows(query: Query, table: Table, after: int | None, within: str, keys: pa.Array[Any]) -> bool:
    """Whether SQLite finds a row by its key in the middle of the largest gap between the rows that came one after the other.

    Then a page is not the one that belongs there, which would not show otherwise if the batch ends on it.
    """
    found = keys.to_numpy() if after is None else np.concatenate([[after], keys.to_numpy()])
    gaps = np.diff(found)
    if not len(gaps) or gaps.max() < 2:
        return False
    end = int(gaps.argmax()) + 1
    middle, high = (int(found[end - 1]) + int(found[end])) // 2, int(found[end])
    where = " AND ".join(filter(None, [f"{table.key_ref} > {middle}", f"{table.key_ref} < {high}", within]))
    return bool(query(table.extent(where, 1), 1).column("rows")[0].as_py())


def _last_key(query: Query, table: Table, where: str, limit: int) -> int:
    return int(query(table.extent(where, limit), 1).column(0)[0].as_py())


# -- rows that are rejected --------------------------------------------------------------------------------------------


def _not_utf8(rows: pa.RecordBatch) -> list[int]:
    """The rows with a text that is not UTF-8, which SQLite does not check and readers of Parquet refuse."""
    texts = [column for column in rows.columns if column.type == pa.string()]
    return sorted({index for column in texts for index in _invalid(column, 0)})


def _invalid(column: pa.Array[Any], offset: int) -> Iterator[int]:
    """By halves, because one answer covers a whole array."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        half = len(column) // 2
        if not half:
            yield offset
            return
        yield from _invalid(column.slice(0, half), offset)
        yield from _invalid(column.slice(half), offset + half)


def _lists(keys: pa.Array[Any]) -> Iterator[str]:
    for start in range(0, len(keys), MOST_KEYS):
        yield ", ".join(map(str, keys.slice(start, MOST_KEYS).to_pylist()))


def _contents(query: Query, table: Table, where: str, limit: int) -> pa.RecordBatch:
    return _checked(table, query(table.contents(where), limit + 1))


def _rejected(table: Table, odd: Sequence[pa.RecordBatch]) -> pa.RecordBatch | None:
    """These rows with all their content as text. They are few, so Python goes over them value by value."""
    parts = [part for part in odd if part.num_rows]
    if not parts:
        return None
    read = pa.Table.from_batches(parts).combine_chunks()
    keys = read.column(0).combine_chunks()
    payload = {table.key: keys.cast(pa.string())}
    faults: list[list[str]] = [[] for _ in range(len(keys))]
    mistyped = [False] * len(keys)
    for column, raw, wrong in zip(table.besides_key, read.columns[1::2], read.columns[2::2], strict=True):
        texts: list[str | None] = []
        for row, (value, kind) in enumerate(zip(raw.combine_chunks().view(pa.binary()).to_pylist(), wrong.to_pylist(), strict=True)):
            text, utf8 = _text(value)
            texts.append(text)
            if kind or not utf8:
                faults[row].append(_fault(column, kind or "", text, utf8))
            mistyped[row] |= bool(kind)
        payload[column.name] = pa.array(texts, pa.string())
    rows = pa.RecordBatch.from_pydict({ROW: keys, **{column.name: payload[column.name] for column in table.columns}})
    details = pa.array(["; ".join(words) for words in faults], pa.string())
    masks = {"type": pa.array(mistyped), "utf8": pc.invert(pa.array(mistyped))}
    marked = [rejected(rows.filter(mask), reason, details.filter(mask)) for reason, mask in masks.items()]
    return pa.Table.from_batches(marked).combine_chunks().to_batches()[0]


def _text(value: bytes | None) -> tuple[str | None, bool]:
    """The value and True, or as SQL writes bytes and False where it is not UTF-8."""
    if value is None:
        return None, True
    try:
        return value.decode(), True
    except UnicodeDecodeError:
        return f"x'{value.hex()}'", False


def _fault(column: Column, kind: str, text: str | None, utf8: bool) -> str:
    shown = text or ""
    shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
    if not utf8:
        return f"column {column.name!r} holds text that is not UTF-8, {shown}"
    shown = repr(shown) if kind == "text" else shown
    return f"column {column.name!r} (declared {column.declared or 'without a type'}, read as {column.kind}) holds {kind} {shown}"
