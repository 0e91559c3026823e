"""Rows as items: their properties, and an id that is the same whenever the same row comes again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from attrs import frozen

from lakeward import ROW, OptionError, Parcel
from lakeward_plugins.sinks.cosmos.jsonable import jsonable, most_bytes, unsupported

SYSTEM = ("_rid", "_self", "_etag", "_attachments", "_ts")
"""Properties that the service writes itself."""
RUN = "development_run"
UNSAFE = re.compile(r"[^A-Za-z0-9._:@+-]")
LONGEST = 200
"""Characters of an id made of values; a longer one becomes its digest."""
LONGEST_KEY = 2_048
"""Bytes of a partition key."""
REVISIONS = (pa.types.is_integer, pa.types.is_timestamp, pa.types.is_date)
Item = dict[str, Any]


@frozen
class Shape:
    """How the rows of a sink become items."""

    partition_key: tuple[str, ...]
    """Names from the item down to its partition key."""
    upsert_by: tuple[str, ...]
    revision: str
    own_id: str
    row_key: bool
    run: str
    """In development: the name of this run, part of each id and a property of each item."""

    def check(self, schema: pa.Schema) -> None:
        """Raises OptionError when rows of this schema cannot be such items."""
        names = {name for name in schema.names if name != ROW or self.row_key}
        for place, name in enumerate(self.upsert_by):
            if name not in names:
                raise OptionError(f"upsert_by[{place}]", f"the rows have no column {name!r}, but {', '.join(sorted(names))}")
        if self.revision and not (self.revision in names and any(fits(schema.field(self.revision).type) for fits in REVISIONS)):
            cast = "name another, or cast it with schematize"
            raise OptionError("revision", f"{self.revision!r} is no column of whole numbers or times in the rows; {cast}")
        if self.partition_key[0] not in {"id", *map(self.property_of, names)}:
            make = "add it with schematize, or with path_columns of the source"
            raise OptionError("partition_key", f"the rows have no column {self.partition_key[0]!r}; {make}")
        if "id" in names and self.own_id in names:
            raise OptionError("own_id", f"the rows have a column {self.own_id!r} too; choose another name for their `id`")
        if taken := [name for name in SYSTEM if name in names]:
            raise OptionError("", f"column {taken[0]!r}: Cosmos DB writes a property of this name itself; rename it with schematize")
        if self.run and RUN in names:
            raise OptionError(
                "development", f"marks items with the property {RUN!r}, and the rows have such a column; rename it with schematize"
            )
        if strange := unsupported(schema):
            raise OptionError("", f"{strange} has no place in JSON; cast it with schematize")

    def property_of(self, column: str) -> str:
        """Its name in the items."""
        return self.own_id if column == "id" else column

    def phrase(self, count: bool, where: Mapping[str, str], newest: str, limit: int) -> str:
        """A query by columns of the rows. A text of JSON is one of Cosmos DB."""

        def path(column: str) -> str:
            return f"c[{json.dumps(self.property_of(column))}]"

        top = f"TOP {limit} " if limit and not count else ""
        conditions = " AND ".join(f"{path(column)} = {json.dumps(text)}" for column, text in where.items())
        parts = [
            "SELECT VALUE COUNT(1) FROM c" if count else f"SELECT {top}* FROM c",
            f"WHERE {conditions}" if conditions else "",
            f"ORDER BY {path(newest)} DESC" if newest else "",
        ]
        return " ".join(filter(None, parts))

    def items(self, rows: pa.RecordBatch, names: list[str]) -> tuple[list[Item | None], dict[int, str]]:
        """The item of each row, None where there cannot be one, and why not."""
        wanted = [name for name in rows.schema.names if name != ROW or self.row_key]
        bad: dict[int, str] = {}
        columns = [_column(rows.column(name), name, bad) for name in wanted]
        keys = ["id", *map(self.property_of, wanted)]
        if self.upsert_by:
            _require([(name, columns[wanted.index(name)]) for name in (*self.upsert_by, self.revision)], bad)
            names = _natural([columns[wanted.index(name)] for name in self.upsert_by])
        if self.run:
            keys.append(RUN)
            columns.append([self.run] * rows.num_rows)
            names = [f"dev-{self.run}-{name}" for name in names]
        items: list[Item | None] = [dict(zip(keys, values, strict=True)) for values in zip(names, *columns, strict=True)]
        for place in bad:
            items[place] = None
        return items, bad

    def partition_of(self, item: Item) -> Any:
        """The value of its partition key. Raises ValueError, which says why, when there is none that Cosmos DB would take."""
        value: Any = item
        for step in self.partition_key:
            value = value.get(step, []) if isinstance(value, dict) else []
        if isinstance(value, (dict, list)):
            raise ValueError(f"there is no plain value at /{'/'.join(self.partition_key)}, which must say the partition")
        if isinstance(value, str) and len(value) > LONGEST_KEY // 4 and len(value.encode()) > LONGEST_KEY:
            raise ValueError(
                f"the value at /{'/'.join(self.partition_key)} has more than {LONGEST_KEY:,} bytes: no partition key is so long"
            )
        return value

    def longest(self, rows: pa.RecordBatch) -> int:
        """Bytes that no item of these rows has more of as JSON."""
        ids = 2 * (LONGEST + len(RUN)) + len(self.own_id)
        return ids + sum(len(json.dumps(name)) + 2 + most_bytes(rows.column(name)) for name in rows.schema.names)


def namer(parcel: Parcel) -> Callable[[pa.RecordBatch, int], list[str]]:
    """Gives the ids of rows from a place of the parcel on.

    An id says which row of which parcel it is: life of the state, digest (of pipeline, sink, origin and content of the parcel), epoch,
    sequence number, row key. The key alone would not do: a row that a transform held back leaves under the origin and epoch of a later
    batch, where another row has the same key. Nor would it without the content: a state that was copied, or set back to an old backup,
    gives tokens again, and "409: it is there" would lose the rows. Where rows have no key, or two have the same, it is the place in the
    parcel: that is the same on every retry, too.
    """
    token = parcel.token
    about = "\0".join((token.pipeline, token.sink, parcel.origin, parcel.sha256))
    who = hashlib.blake2b(about.encode("utf-8", "surrogateescape"), digest_size=8)
    start = f"{token.life}-{who.hexdigest()}-{token.epoch}"
    if _has_own_keys(parcel):
        return lambda rows, first: [f"{start}-{token.sequence}-{key}" for key in rows.column(ROW).to_pylist()]
    part = f".{token.part[0]}" if token.part else ""
    return lambda rows, first: [f"{start}-b{token.sequence}{part}-{place}" for place in range(first, first + rows.num_rows)]


def _has_own_keys(parcel: Parcel) -> bool:
    import pyarrow.parquet as pq

    with pq.ParquetFile(parcel.path) as file:
        if ROW not in file.schema_arrow.names:
            return False
        keys = file.read([ROW]).column(ROW)
    return not keys.null_count and len(keys.unique()) == len(keys)


def _require(columns: list[tuple[str, list[Any]]], bad: dict[int, str]) -> None:
    """Rows without one of these values are bad."""
    for name, values in columns:
        if None in values:
            missing = f"{name} is missing, and an item that newer rows replace needs it"
            bad |= {place: missing for place, value in enumerate(values) if value is None and place not in bad}


def _natural(columns: list[list[Any]]) -> list[str]:
    """Ids made of the values that say what an item is about."""
    found = []
    for values in zip(*columns, strict=True):
        text = "|".join(UNSAFE.sub(_escaped, str(value)) for value in values)
        found.append(text if len(text) <= LONGEST else "|" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
    return found


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _column(column: pa.Array[Any], name: str, bad: dict[int, str]) -> list[Any]:
    try:
        return jsonable(column)
    except ValueError:  # seldom: row by row
        values = []
        for place in range(len(column)):
            try:
                values += jsonable(column.slice(place, 1))
            except ValueError as error:
                values.append(None)
                bad.setdefault(place, f"column {name!r} {_what(error)}")
        return values


def _what(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"is not valid UTF-8: {error.reason} at byte {error.start}"
    return f"has no place in JSON: {error}"
