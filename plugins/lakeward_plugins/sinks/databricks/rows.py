"""The rows of a parcel: as a file that the warehouse can read, or as parameters of a statement."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lakeward import Parcel, Refused, Rejected
from lakeward.delta_types import Type, cast
from lakeward_plugins.sinks.databricks.names import literal
from lakeward_plugins.sinks.databricks.table import Column
from lakeward_plugins.sinks.databricks.types import readable, sql_type

MOST_MARKERS = 255
MOST_BYTES = 1_000_000
"""Of the values of all parameters of a statement: limits of the client's documentation."""


def as_file(parcel: Parcel, columns: Sequence[Column], places: Any = None) -> BinaryIO:
    """The spooled file itself when the warehouse can read it and all its rows are to be taken; else the rows in its types.

    Raises Rejected for rows that do not fit.
    """
    schema = pq.read_schema(parcel.path)
    if places is None and all(readable(schema.field(one.name).type) for one in columns if not one.empty):
        _require_fit(parcel, [one for one in columns if one.narrow])
        return parcel.path.open("rb")
    out = io.BytesIO()
    rows = _converted(parcel, columns, places)
    pq.write_table(pa.Table.from_batches([rows]), out, compression="snappy")
    out.seek(0)
    return out


def as_parameters(parcel: Parcel, columns: Sequence[Column], places: Any = None) -> list[list[str | None]]:
    """Each row, or those in these places, as texts for `marker`. Raises Rejected for rows that do not fit, or all when they are too many.

    The kernel then halves the parcel, and each half is a statement of its own under a name of its own.
    """
    most = MOST_MARKERS // max(1, len(columns))
    if not most:
        raise Refused(f"rows of {len(columns)} columns do not fit into the {MOST_MARKERS} parameters of a statement; use mode copy")
    if odd := [one for one in columns if pa.types.is_nested(one.kind) and not _is_json(one.kind)]:
        told = f"column {odd[0].name!r}: {odd[0].target} cannot be a parameter of a statement"
        raise Refused(f"{told}; use mode copy, or for mode merge give a volume")
    if parcel.rows > most:
        raise Rejected(f"{parcel.rows} rows of {len(columns)} columns do not fit into the {MOST_MARKERS} parameters of a statement")
    rows = _converted(parcel, columns, places)
    texts = [_texts(column, one.name) for one, column in zip(columns, rows.columns, strict=True)]
    sizes = {one.name: sum(len(text.encode()) for text in column if text) for one, column in zip(columns, texts, strict=True)}
    if (size := sum(sizes.values())) > MOST_BYTES:
        most_in = max(sizes, key=sizes.__getitem__)
        limit = f"the {MOST_BYTES:,} bytes of parameters of a statement"
        raise Rejected(f"{parcel.rows} rows of {size:,} bytes, most of them in column {most_in!r}, do not fit into {limit}")
    return [list(row) for row in zip(*texts, strict=True)]


def marker(kind: Type) -> str:
    """What turns the text of a parameter into its value, before it is cast to the type of the column."""
    if pa.types.is_nested(kind):
        return f"from_json({{}}, {literal(sql_type(kind))}, map('mode', 'FAILFAST'))"
    return "unhex({})" if pa.types.is_binary(kind) else "{}"


def _is_json(kind: Type) -> bool:
    """Whether JSON can hold every value, and Databricks reads it back as the same."""
    types = pa.types
    if types.is_list(kind) or types.is_struct(kind):
        return all(_is_json(kind.field(place).type) for place in range(kind.num_fields))
    return bool(types.is_string(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind))


def first_of_equal(parcel: Parcel, names: Sequence[str]) -> Any:
    """Places of the first of rows that are equal in these columns, so that it is not left to chance which is taken; None when no two are.

    Raises Rejected with the rows that have NULL in one of them, Refused for columns that cannot be compared.
    """
    names = list(dict.fromkeys(names))
    found = pq.read_table(parcel.path, columns=names)
    plain = {}
    for number, name in enumerate(names):
        column = found.column(name)
        if rows := [place for place, null in enumerate(column.is_null(nan_is_null=True).to_pylist()) if null]:
            raise Rejected(f"column {name!r} is NULL, but says which row of the table is meant, or which is newer", rows)
        if pa.types.is_nested(column.type):
            raise Refused(f"column {name!r} is {column.type}; rows are told apart by text, numbers, times or booleans")
        plain[str(number)] = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    keyed = pa.table({**plain, "place": pa.array(range(found.num_rows), pa.int64())})
    first = keyed.group_by(list(plain), use_threads=False).aggregate([("place", "min")]).column("place_min")
    return None if len(first) == found.num_rows else first.combine_chunks().sort()


# -- values ------------------------------------------------------------------------------------------------------------


def _require_fit(parcel: Parcel, columns: Sequence[Column]) -> None:
    """Whole numbers of a wider type than that of the table."""
    if columns:
        rows = pq.read_table(parcel.path, columns=[one.name for one in columns]).combine_chunks()
        for one in columns:
            cast(rows.column(one.name).combine_chunks(), one.name, one.narrow)


def _converted(parcel: Parcel, columns: Sequence[Column], places: Any) -> pa.RecordBatch:
    rows = parcel.table()
    found = [cast(rows.column(one.name), one.name, one.narrow or one.kind) for one in columns]  # all: places of misfits are of the parcel
    taken = pa.RecordBatch.from_arrays(found, names=[one.name for one in columns])
    return taken if places is None else taken.take(places)


def _texts(column: Any, name: str) -> list[str | None]:
    try:
        return [_text(value) for value in column.to_pylist()]
    except (OverflowError, ValueError) as error:  # a time after the year 9999, or text that is not UTF-8
        said = f"column {name!r}: the value cannot be a parameter of a statement: {str(error)[:200]}"
        raise Rejected(said, [place for place in range(len(column)) if not _is_readable(column[place])]) from None


def _is_readable(value: Any) -> bool:
    with suppress(OverflowError, ValueError):
        value.as_py()
        return True
    return False


def _text(value: Any) -> str | None:
    """As the warehouse casts it back to the same value."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return value.isoformat(sep=" ") if hasattr(value, "tzinfo") else str(value)
