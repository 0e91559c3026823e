"""Reading in the order of the INTEGER PRIMARY KEY: unlike a time it never comes twice, late or backwards."""

from __future__ import annotations

import numpy as np

from lakeward import ROW, OptionError
from lakeward.components import Event
from lakeward_plugins.sources.sqlite.batch import Taken, take
from lakeward_plugins.sources.sqlite.bookmark import Bookmark, traits_of
from lakeward_plugins.sources.sqlite.connection import Corrupt, Query
from lakeward_plugins.sources.sqlite.guard import check, must_renew, renew, renew_beside_damage
from lakeward_plugins.sources.sqlite.salvage import Salvage
from lakeward_plugins.sources.sqlite.table import LEAST_KEY, Table


def advance(
    query: Query, table: Table, mark: Bookmark, limit: int, file: int, *, going_on: bool
) -> tuple[Bookmark, Taken | None, tuple[Event, ...]]:
    """The guard, then the next rows, and the bookmark after them. `going_on` says that the last batch was a moment ago."""
    traits = traits_of(query, table, file)
    checked = check(query, table, mark, traits, briefly=going_on)
    taken = _rows(query, table, checked.mark.last, limit, mark.until)
    if taken is None and not must_renew(table, mark, checked):
        return mark, None, ()
    first, last, rows = (None, None, None) if taken is None else (_first(taken), taken.last, taken.rows)
    try:
        renewed, events = renew(query, table, checked, traits, first, last)
    except Corrupt:
        renewed, events = renew_beside_damage(query, table, checked, traits, rows, last)
    return renewed, taken, events + (taken.events if taken else ())


def _rows(query: Query, table: Table, after: int | None, limit: int, until: int | None) -> Taken | None:
    """The next ones, and what can be had of them when pages are damaged."""
    try:
        return take(query, table, after, limit, "" if until is None else f"{table.key_ref} <= {until}")
    except Corrupt:
        return Salvage(query, table, after, limit, until).take()


def require_within(query: Query, table: Table, key: int) -> None:
    """The table has come as far as this key: rows of later ones are not there, nor could a bookmark be told from ids set back."""
    try:
        highest = query(f"SELECT max({table.key_ref}) AS highest FROM {table.source}", 1).column(0)[0].as_py()
    except Corrupt:  # whoever reads on will say what is damaged
        return
    ends = [end for end in (highest, traits_of(query, table, 0).sequence) if end is not None]
    if key > max(ends, default=0):
        raise OptionError("key", f"table {table.name!r} ends at {max(ends, default=0)}, before {key}; name a row that is there")


def reread(first: int, last: int | None, epoch: int) -> Bookmark:
    """From where the rows with these keys come again."""
    return Bookmark(first - 1 if first > LEAST_KEY else None, epoch, until=last)


def _first(taken: Taken) -> int:
    """The lowest key, of a good row or not."""
    parts = [taken.rows] if taken.rejected is None else [taken.rows, taken.rejected]
    return min(int(np.from_dlpack(part.column(ROW)).min()) for part in parts if part.num_rows)
