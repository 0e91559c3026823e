"""Whether rows fit into a table, and rows as they are spooled in the types of the table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import pyarrow as pa
from deltalake import DeltaTable, Field, Schema

from lakeward import Refused, Rejected
from lakeward.delta_types import cast, nearest
from lakeward_plugins.sinks.delta.place import NO_HOOKS

Policy = Literal["refuse", "add", "dead_letter"]
FORBIDDEN = re.compile(r"[ ,;{}()\n\t=]")  # in column names, by the Delta protocol when there is no column mapping
WIDER = {"byte": ("short", "integer", "long"), "short": ("integer", "long"), "integer": ("long",), "float": ("double",)}


# -- from the schema of the rows to the schema of the table ------------------------------------------------------------


def fitting(schema: pa.Schema, table: DeltaTable | None, where: str, policy: Policy = "refuse") -> tuple[pa.Schema, list[str]]:
    """The types to cast the rows to, and the columns to add to the table first.

    `Refused` when Delta or this table cannot hold them, `Rejected` when the policy says that such rows are dead letters.
    """
    stored = pa.schema([pa.field(field.name, nearest(field.type, field.name, "Delta")) for field in schema])
    for name in stored.names:
        alike = [other for other in stored.names if other.lower() == name.lower()]
        if not name or FORBIDDEN.search(name):
            raise Refused(
                f"column {name!r}: Delta allows no empty name, nor blank, tab, newline or ,;{{}}()= in it; rename it with schematize"
            )
        if len(alike) > 1:
            raise Refused(f"columns {alike} are one for Delta, which does not tell upper and lower case apart; rename one with schematize")
    return stored, _difference(schema, stored, table, where, policy) if table else []


def _difference(schema: pa.Schema, stored: pa.Schema, table: DeltaTable, where: str, policy: Policy) -> list[str]:
    """delta-rs would cast 1.5 to 1 to make rows fit; so only the same type, a wider one of its kind, or no value at all is let through."""
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise Refused(f"{where}: the table has column mapping, under which delta-rs loses values; give this sink another path")
    theirs = {field.name: field for field in table.schema().fields}
    ours = {field.name: field.type for field in Schema.from_arrow(stored).fields}
    alike, added = {name.lower() for name in theirs}, []
    for name in [*theirs, *ours]:
        if name not in ours:
            problem = f"the table has a column {name!r} that the rows do not have; add it with schematize"
            if policy == "add" and theirs[name].nullable:
                continue
        elif name not in theirs:
            problem = f"the table has no column {name!r}; add it to the table or set `new_columns: add`, leave it out with schematize"
            if policy == "add" and name.lower() not in alike:
                added.append(name)
                continue
        elif _fits(ours[name], theirs[name].type) or pa.types.is_null(schema.field(name).type):
            continue
        else:
            kinds = f"{_words(ours[name])} in rows and {_words(theirs[name].type)} in the table"
            problem = f"column {name!r} is {kinds}; cast it with schematize"
        if policy == "dead_letter":
            raise Rejected(f"{where}: {problem}")
        raise Refused(f"{where}: {problem}, or choose another path")
    return added


def columns_of(table: DeltaTable) -> pa.Schema:
    """The table's own types, as Arrow has them."""
    return pa.schema(table.schema())  # type: ignore[arg-type]  # it exports itself to Arrow


def add_columns(table: DeltaTable, fields: list[pa.Field[Any]]) -> None:
    """In a commit of its own; older rows have no value there."""
    table.alter.add_columns(
        [Field(one.name, one.type, nullable=True) for one in Schema.from_arrow(pa.schema(fields)).fields],
        post_commithook_properties=NO_HOOKS,
    )


def _fits(ours: Any, theirs: Any) -> bool:
    return bool(ours == theirs) or _words(theirs) in WIDER.get(_words(ours), ())


def _words(kind: Any) -> str:
    return str(getattr(kind, "type", kind))


# -- from the rows as they are spooled to the rows as they are stored --------------------------------------------------


def fitted(batches: Iterable[pa.RecordBatch], schema: pa.Schema, misfits: list[Exception]) -> Iterator[pa.RecordBatch]:
    """The rows in the types of the table. What goes wrong is told in `misfits` as well, as delta-rs makes text of any exception."""
    done = 0
    for batch in batches:
        try:
            columns = [cast(column, field.name, field.type) for column, field in zip(batch.columns, schema, strict=True)]
        except Rejected as error:
            misfits.append(Rejected(str(error), [done + row for row in error.rows]))
            raise misfits[-1] from None
        except Refused as error:
            misfits.append(error)
            raise
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        done += batch.num_rows
