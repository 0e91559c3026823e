"""How far a table was read by its key, and how it looked there: the position of `cursor: id`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import field, frozen

from lakeward import Refused
from lakeward_plugins.sources.sqlite.connection import Corrupt, Query
from lakeward_plugins.sources.sqlite.table import Table, literal


@frozen
class Traits:
    """What tells one life of a table from another, besides its rows. None of it is enough alone: a new file often has the same."""

    sequence: int | None
    """The highest id that was ever given out, with AUTOINCREMENT."""
    schema: int
    """How often SQLite has changed the schema; a VACUUM counts too."""
    file: int
    """The inode."""


@frozen
class Bookmark:
    """Its JSON is the position."""

    last: int | None = None
    """The last key that was read; None is the start."""
    epoch: int | None = None
    """None in a position of before there were anchors."""
    anchors: Mapping[int, str] = field(factory=dict)
    """Digests of rows that were read, by ascending key. A row that is gone stays: it may come back as another."""
    columns: Mapping[str, str] = field(factory=dict)
    """The columns that are in the digests, each with a digest of what is in the row `last`."""
    traits: Traits | None = None
    near_end: bool = False
    until: int | None = None
    """The last key of a part that is read again."""

    may_give_less: ClassVar = False

    @property
    def at_end(self) -> bool:
        """Nothing more is wanted."""
        return self.until is not None and self.last is not None and self.last >= self.until

    @classmethod
    def of(cls, position: Mapping[str, Any] | None) -> Bookmark:
        """Raises Refused when it is the position of something else: parts of it become parts of a statement."""
        if position is None:
            return cls(epoch=0)
        numbers = [position.get(name) for name in ("id", "epoch", "until", "sequence", "schema", "file")]
        last, epoch, until, sequence, schema, file = numbers
        if not all(number is None or _is_id(number) for number in numbers) or (last is None and epoch is None):
            raise Refused(f"{dict(position)} is not a position in a SQLite table, which looks like {{'id': 123}}")
        traits = None if schema is None or file is None else Traits(sequence, schema, file)
        anchors = {int(key): str(digest) for key, digest in position.get("anchors", ())}
        return cls(last, epoch, anchors, position.get("columns", {}), traits, "near_end" in position, until)

    def position(self) -> dict[str, Any]:
        """As JSON."""
        traits = self.traits
        told = {
            "id": self.last, "epoch": self.epoch, "anchors": [list(pair) for pair in self.anchors.items()], "columns": dict(self.columns),
            "sequence": traits and traits.sequence, "schema": traits and traits.schema, "file": traits and traits.file,
            "near_end": self.near_end or None, "until": self.until,
        }  # fmt: skip
        return {name: value for name, value in told.items() if value is not None}


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def traits_of(query: Query, table: Table, file: int) -> Traits:
    """As it is now; without a sequence when it cannot be read."""
    highest = f"SELECT CAST(seq AS INTEGER) FROM sqlite_sequence WHERE name = {literal(table.name)}"
    sequence = f"coalesce(({highest}), 0)" if table.autoincrement else "-1"
    try:
        now = query(f"SELECT {sequence} AS sequence, schema_version FROM pragma_schema_version", 1).to_pylist()[0]
    except Corrupt:
        return Traits(None, 0, file)
    return Traits(now["sequence"] if table.autoincrement else None, now["schema_version"], file)
