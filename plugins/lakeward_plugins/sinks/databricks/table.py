"""What the table has, and whether the rows fit into it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
from attrs import evolve as evolve_column
from attrs import frozen

from lakeward import ROW, Refused
from lakeward.delta_types import Type, nearest
from lakeward_plugins.sinks.databricks.names import TableName, quoted
from lakeward_plugins.sinks.databricks.types import ARROW, INTEGERS, same_type, sql_type

FORBIDDEN = re.compile(r"[ ,;{}()\n\t=\x00-\x1f\x7f]")  # in column names, by Delta when there is no column mapping
LONGEST = 255  # characters of a column name in Unity Catalog
DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)")
TOKEN_COLUMN = "lakeward_token"  # noqa: S105  # names the parcel that a row came with


@frozen
class Column:
    """A column of the rows, and where it goes."""

    name: str
    kind: Type
    """Of the rows, before they are sent: a type that Databricks has."""
    target: str
    """Of the table."""
    empty: bool = False
    """All NULL, and no type says of what."""

    @property
    def narrow(self) -> Type | None:
        """The Arrow type of whole numbers in the table, when not all of ours fit into it: they are looked at before they are sent."""
        theirs = INTEGERS.get(self.target.lower())
        return theirs if theirs and pa.types.is_integer(self.kind) and theirs.bit_width < self.kind.bit_width else None


def stored(schema: pa.Schema, row_key: bool, inserted_at: str) -> list[Column]:
    """The columns as they would be in a table made for them; Refused when there can be none."""
    fields = [(one.name, one.type) for one in schema if one.name != ROW or row_key]
    if inserted_at and inserted_at not in schema.names:  # a plan knows the rows without it; in a parcel it is there
        fields.append((inserted_at, pa.timestamp("us", "UTC")))
    _require_names([name for name, _ in fields])
    kinds = [(name, nearest(kind, name, "Databricks"), pa.types.is_null(kind)) for name, kind in fields]
    return [Column(name, kind, sql_type(kind), empty) for name, kind, empty in kinds]


def _require_names(names: Sequence[str]) -> None:
    for name in names:
        alike = [other for other in names if other.lower() == name.lower()]
        if not name or FORBIDDEN.search(name) or len(name) > LONGEST:
            shown = repr(name if len(name) <= LONGEST else name[:40] + "...")
            rule = f"Delta allows no empty name, none of more than {LONGEST} characters, nor blank, tab, newline or ,;{{}}()= in it"
            raise Refused(f"column {shown}: {rule}; rename it with schematize")
        if len(alike) > 1:
            raise Refused(
                f"columns {alike} are one for Databricks, which does not tell upper and lower case apart; rename one with schematize"
            )


def create_table(table: TableName, columns: Iterable[Column]) -> str:
    """The statement; changes nothing when the table is there."""
    lines = [f"  {quoted(one.name)} {one.target}" for one in columns]
    return f"CREATE TABLE IF NOT EXISTS {table.sql} (\n" + ",\n".join(lines) + "\n) USING DELTA"


def lacking(columns: Sequence[Column], theirs: Mapping[str, str]) -> list[Column]:
    """Columns that the table does not have."""
    known = {name.lower() for name in theirs}
    return [one for one in columns if one.name.lower() not in known]


def fitted(columns: Sequence[Column], theirs: Mapping[str, str], table: TableName, evolve: bool) -> list[Column]:
    """The columns with the types of the table; those that it lacks are left out. Raises Refused, less often when it may `evolve`.

    Only the same type, a wider one of its kind, a narrower integer or no value at all is let through: Databricks would make 1 of 1.5.
    """
    known, ours = {name.lower(): kind for name, kind in theirs.items()}, {one.name.lower() for one in columns}
    for one in [] if evolve else lacking(columns, theirs):
        todo = f"ALTER TABLE {table.sql} ADD COLUMNS ({quoted(one.name)} {one.target}), or set `schema_change: evolve`"
        raise Refused(f"{table}: the table has no column {one.name!r}; leave it out with schematize, run {todo}")
    for name in theirs:
        if name.lower() not in ours and not evolve:
            todo = "add it with schematize, or set `schema_change: evolve` to have NULL in it"
            raise Refused(f"{table}: the table has a column {name!r} that the rows do not have; {todo}")
    found = []
    for one in columns:
        kind = known.get(one.name.lower())
        if kind is None or same_type(one.target, kind):
            found += [one] if kind else []
        elif one.empty or _widens(one.kind, kind.lower()):
            found.append(evolve_column(one, target=kind.upper()))
        else:
            raise Refused(f"{table}: column {one.name!r} is {one.target} in rows and {kind.upper()} in the table; cast it with schematize")
    return found


def _widens(kind: Type, theirs: str) -> bool:
    """Whether every value of a type, or every one that was looked at, is one of theirs too."""
    if pa.types.is_integer(kind):
        return theirs in INTEGERS
    if pa.types.is_float32(kind):
        return ARROW.get(theirs) == pa.float64()
    if pa.types.is_decimal(kind) and (wide := DECIMAL.fullmatch(theirs)):
        precision, scale = int(wide[1]), int(wide[2])
        return bool(scale >= kind.scale and precision - scale >= kind.precision - kind.scale)
    return False
