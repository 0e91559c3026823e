"""What the sinks `sqlite` and `duckdb` share: one table in one file on the node, written in transactions.

Rows and the note of their parcel go in together, so a parcel that comes again is known. No plugin: nothing is announced from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from attrs import define

from lakeward import Encoding, option
from lakeward.trail import Placed
from lakeward.upserts import require_revision

NOTES = '"_lakeward_parcels"'
"""Table of the notes, quoted."""


@define
class TableFile(Placed):
    """The options, and what follows from them."""

    placed_by: ClassVar = ("path", "table")
    path: Path = option(help="The database file.")
    table: str = option(help="Name of the table.")
    upsert_by: list[str] = option(
        factory=list, help="Columns that name a row: one with the same values and a greater `revision` replaces it."
    )
    revision: str = option("", help="Goes with `upsert_by`: a column; only a row with a greater value replaces the one in the table.")
    row_key: bool = option(False, help="Keep the row key, the column `_row`.")
    inserted_at: str = option("", help="Add a column of this name, such as databricks_inserted_at, with the time of spooling.")

    def __attrs_post_init__(self) -> None:
        require_revision(self.upsert_by, self.revision)

    @property
    def encoding(self) -> Encoding:
        """Rows are read back, so the cheapest."""
        return Encoding("snappy", self.row_key, self.inserted_at)

    @property
    def where(self) -> str:
        """Which table of which file."""
        return f"{self.path}#{self.table}"

    def endpoints(self) -> list[str]:
        """The folder of the file."""
        return [self.path.absolute().parent.as_uri()]

    def facts(self) -> dict[str, str]:
        """Which table of which file."""
        return {"place": self.where}

    def superseded(self) -> tuple[str, str]:
        """Conditions of rows `t` of the table and `s` that come: they are the same row; and the one that comes is newer."""
        same = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in self.upsert_by)
        revision = quoted(self.revision)  # of none, as in rows from before there was such a column, each is newer
        return same, f"(t.{revision} IS NULL OR s.{revision} > t.{revision})"


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'
