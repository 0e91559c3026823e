"""Rows laid out in folders by the values of columns, as in `city=London/day=2026-01-31/`, for sinks that write files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from math import inf
from typing import Any

import numpy as np
import pyarrow as pa
from attrs import frozen

from lakeward.errors import Refused, Rejected

NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive, and all that read its layout, call a missing value."""
MOST = 1_000
"""Partitions of one parcel; more of them are files so small that nobody wants to read them."""
TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_date32)
UNSAFE = re.compile(rb"[^A-Za-z0-9._-]|^\.|_(?=x[0-9A-F]{2})")
EMPTY = "_x_"


@frozen
class Partition:
    """The rows that share a folder."""

    folder: str
    """Such as `city=London/day=2026-01-31`."""
    values: tuple[Any, ...]
    rows: pa.RecordBatch
    """Without the columns that are in the name of the folder."""


def require_columns(schema: pa.Schema, columns: Sequence[str]) -> None:
    """The columns are there, some others too, and all can be in a name. Raises Refused."""
    if not columns:
        return
    from lakeward.grouping import plain_types  # with pyarrow.compute, for which only those who partition pay

    types = plain_types(schema)
    for name in columns:
        if name not in types:
            raise Refused(f"partition_by: the rows have no column {name!r}, only {', '.join(types)}; correct it, or add it with schematize")
        if not any(fits(types[name]) for fits in TYPES):
            raise Refused(f"partition_by: column {name!r} is {types[name]}; text, whole numbers, booleans and dates can name a folder")
    if not types.keys() - set(columns):
        raise Refused("partition_by: every column is in it, so nothing would be left for the files; leave one out")


def split(rows: pa.RecordBatch, columns: Sequence[str], longest: float = inf, room: float = inf) -> Iterator[Partition]:
    """The rows of each partition, in their order; partitions in the order of their folders.

    Raises Refused, and Rejected for rows with text that is not UTF-8 or a date that Python has not in one of the columns, or with values
    that make the name of a folder longer than `longest` letters or all of them together longer than `room`, before the first one.
    """
    from lakeward.grouping import group_codes, plain_types, strange_dates, undecodable

    require_columns(rows.schema, columns)
    types = plain_types(rows.schema)
    try:
        codes, keys = group_codes(rows, pa.schema([(name, types[name]) for name in columns]))
    except UnicodeDecodeError:
        where = undecodable(rows, columns).tolist()
        raise Rejected("partition_by: text that is not UTF-8 cannot name a folder", where) from None
    except OverflowError:
        dates = [rows.column(name) for name in columns if pa.types.is_date32(types[name])]
        where = np.unique(np.concatenate([*map(strange_dates, dates)])).tolist()
        raise Rejected("partition_by: a date before the year 1 or after 9999 cannot name a folder", where) from None
    if len(keys) > MOST:
        many = f"{len(keys):,} partitions in one parcel of {rows.num_rows:,} rows"
        raise Refused(f"partition_by: {many}, more than {MOST:,}; take a column with fewer values")
    order, rest = np.argsort(codes, kind="stable"), rows.drop_columns(list(columns))
    ends = np.cumsum(np.bincount(codes, minlength=len(keys))).tolist()
    folders = [folder(columns, values) for values in keys]
    if long := [place for place, name in enumerate(folders) if len(name) > room or any(len(step) > longest for step in name.split("/"))]:
        where = np.flatnonzero(np.isin(codes, long)).tolist()
        most = f"which may have {min(longest, room)} letters, or {room} with those in it"
        raise Rejected(f"partition_by: a value is too long for the name of a folder, {most}", where)
    for place in sorted(range(len(keys)), key=folders.__getitem__):
        own = order[ends[place - 1] if place else 0 : ends[place]]
        yield Partition(folders[place], keys[place], rest.take(pa.array(own, pa.int64())))


def folder(columns: Sequence[str], values: Sequence[Any]) -> str:
    """Their names and values, made of letters, digits and `._-` on both sides of `=`."""
    return "/".join(f"{encoded(name)}={NULL if value is None else encoded(value)}" for name, value in zip(columns, values, strict=True))


def encoded(value: str | int | bool | date) -> str:
    """The value as text; each other byte, and a dot at the start, is written as in `New_x20_York`, so no two values share a name.

    `=` and `%` are no escapes here: readers of such folders take the one for a separator, and decode the other. An empty text is `_x_`.
    """
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text in (NULL, EMPTY):  # what means something else
        return f"_x5F_{text[1:]}"
    return UNSAFE.sub(lambda found: b"_x%02X_" % ord(found[0]), text.encode()).decode() or EMPTY
