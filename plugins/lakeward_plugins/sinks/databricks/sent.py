"""Names of parcels, and whether those that the table has rows of can be of this state directory."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from lakeward import Parcel
from lakeward.components import Token
from lakeward_plugins.sinks.databricks.names import TableName, literal
from lakeward_plugins.sinks.databricks.table import TOKEN_COLUMN

NAME = re.compile(r"(.*-\d{10})(\.\d{7}-\d{7})?-[0-9a-f]{16}")
"""Whole parcel, rows of it when it was parted, and what the file has in it."""


def name_of(parcel: Parcel) -> str:
    """Of the parcel, among all that any machine sends into this table, also one with a copy of our state directory."""
    return f"{parcel.token.pipeline}-{parcel.token.name}-{parcel.sha256[:16]}"


def settled(name: str) -> str:
    """What a person puts into the table to say that rows of a parcel are not there on purpose."""
    return f"{name}-settled"


def later_names(token: Token) -> tuple[str, str]:
    """The least that this parcel or a later one of this state can have, and one that is greater than all of them."""
    ours = f"{token.pipeline}-{token.sink}-{token.life}-{token.epoch:04d}-"
    return f"{ours}{token.sequence:010d}", f"{ours}:"  # the letter after 9


def by_parcel(names: Iterable[str]) -> Mapping[str, set[str]]:
    """The names of each whole parcel."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if match := NAME.fullmatch(name):
            found[match[1]].add(name)
    return found


def clash(name: str, sent: Mapping[str, set[str]]) -> str:
    """A name that is there and says that rows under our token are not these, or that they are there in another cut; empty when none does.

    A parcel that was parted is not sent as a whole again, and the parts of one parcel are not of the same rows.
    """
    ours = NAME.fullmatch(name)
    if ours:
        for other in sorted(sent.get(ours[1], ())):
            theirs = NAME.fullmatch(other)
            if theirs and other != name and (theirs[2] == ours[2] or not theirs[2] or not ours[2]):
                return other
    return ""


def not_there(table: TableName, name: str, found: int, rows: int) -> str:
    """What to do when COPY INTO skips a file whose rows are not all there."""
    return (
        f"{table}: the warehouse skips {name}.parquet, which it has loaded before, but the table has {found} of its {rows} rows: "
        "it was emptied, replaced or restored since, or the file was not whole. To have the rows again, delete those and run the COPY INTO "
        "of this file that the query history shows with COPY_OPTIONS ('force' = 'true') behind it; if they were taken out on purpose, "
        f"say so by INSERT INTO {table.sql} ({TOKEN_COLUMN}) VALUES ({literal(settled(name))})"
    )


def not_ours(table: TableName, other: str, least: str, beyond: str) -> str:
    """What to do when rows of another parcel are there under a name of ours."""
    return (
        f"{table}: rows of other content are there under our token, as {other}: the state directory was restored from an old copy, "
        "or copied from another machine. If copied, start with an empty state directory. If restored, and the source still has all rows "
        "since then, have them sent again by "
        f"DELETE FROM {table.sql} WHERE {TOKEN_COLUMN} >= {literal(least)} AND {TOKEN_COLUMN} < {literal(beyond)}"
    )
