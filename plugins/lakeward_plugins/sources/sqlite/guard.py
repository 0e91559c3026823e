"""Noticing that a table is not the one that was read before, although its ids look as if it were.

A sensor that starts again may unlink its database, a power cut rolls back rows and their ids are given out again, a backup is
restored, a table is emptied. So a bookmark does not hold an id alone: it holds digests of rows that were read, the anchors. Each poll
looks at them in the same transaction as it reads. The newest anchor that is there as it was proves that all rows up to it are those
that were read; anything else starts a new epoch behind the newest proof, so nothing is lost and no row key comes twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pyarrow as pa
from attrs import evolve, frozen

from lakeward import ROW, Refused
from lakeward.components import Event
from lakeward_plugins.sources.sqlite.bookmark import Bookmark, Traits
from lakeward_plugins.sources.sqlite.connection import Corrupt, Query
from lakeward_plugins.sources.sqlite.fingerprint import fingerprints
from lakeward_plugins.sources.sqlite.table import Table

DENSE = 64  # each of so many rows is an anchor, then one for each doubling of the distance, and the first row
COUNTED = 1_000_000  # rows at most that are counted for a message: a transaction stays short
SHOWN = 10  # ids in a message
NEAR_END = 2**62


# -- checking ----------------------------------------------------------------------------------------------------------


@frozen
class Checked:
    """Where to read on, and what to tell."""

    mark: Bookmark
    events: tuple[Event, ...] = ()
    newest_gone: bool = False
    """The last row that was read is not there any more."""


def check(query: Query, table: Table, mark: Bookmark, traits: Traits, *, briefly: bool = False) -> Checked:
    """Is this the table that the bookmark is of? `briefly`, for the next batch of the same read, looks at the last row only.

    A page that cannot be read says nothing against it: whoever reads on will say what is damaged.
    """
    try:
        return _check(query, table, mark, traits, briefly)
    except Corrupt:
        return Checked(mark)


def _check(query: Query, table: Table, mark: Bookmark, traits: Traits, briefly: bool) -> Checked:
    if mark.last is None or (mark.traits is None and mark.epoch is not None):  # the start, of all or of a part
        return Checked(mark)
    watched = [name for name in mark.columns if name in table.names]
    if len(watched) < len(mark.columns):
        return _check_without_columns(query, table, mark, watched)
    if briefly:
        some = [name for name in watched if name == table.timestamp] or watched
        if some and fingerprints(query, table, some, [mark.last]).cells() == {name: mark.columns[name] for name in some}:
            return Checked(mark)
    found = _rows_now(query, table, watched, mark.anchors) if mark.anchors else {}
    often = Counter(mark.anchors.values())
    same = [key for key, digest in mark.anchors.items() if found.get(key) == digest]
    other = [key for key in found if found[key] != mark.anchors[key]]
    # what several rows hold alike proves nothing: a stuck sensor writes it again in a new life
    proof = max((key for key in same if often[mark.anchors[key]] == 1), default=None)
    if any(proof is None or key > proof for key in other):
        return _reset(query, table, mark, proof, "rows that were read are not what they were")
    if mark.last not in found:
        why = _given_again(query, table, mark, traits, max(same, default=mark.last if mark.traits is None else None))
        if why:
            return _reset(query, table, mark, proof, why)
    return Checked(evolve(mark, anchors={**mark.anchors, **found}), _mutated(table, mark, other), mark.last not in found)


def _rows_now(query: Query, table: Table, watched: Sequence[str], anchors: Mapping[int, str]) -> Mapping[int, str]:
    """Digests of the rows with these keys. Those that cannot be read are taken for what they were."""
    try:
        return fingerprints(query, table, watched, list(anchors)).rows()
    except Corrupt:
        if len(anchors) == 1:
            return anchors
        known, half = list(anchors.items()), len(anchors) // 2
        return {**_rows_now(query, table, watched, dict(known[:half])), **_rows_now(query, table, watched, dict(known[half:]))}


def _check_without_columns(query: Query, table: Table, mark: Bookmark, watched: Sequence[str]) -> Checked:
    """Digests of rows are of no use without a column that was in them; those of the cells of the last row are."""
    assert mark.last is not None  # noqa: S101 - or there were no columns
    cells = fingerprints(query, table, watched, [mark.last]).cells()
    if watched and cells == {name: mark.columns[name] for name in watched}:
        return Checked(evolve(mark, anchors={}))
    return _reset(query, table, mark, None, "it has other columns, and its last row that was read is gone or not what it was")


def _given_again(query: Query, table: Table, mark: Bookmark, traits: Traits, newest: int | None) -> str:
    """Why ids up to the last one may be those of other rows, when the last row is gone and `newest` is the newest that is left."""
    key = table.key_ref
    known = mark.traits and mark.traits.sequence
    if traits.sequence is not None and traits.sequence < max(mark.last or 0, known or 0):
        return "its ids were set back"
    others = query(f"SELECT count(*) FROM (SELECT 1 FROM {table.source} WHERE {table.between(newest, mark.last)} LIMIT 1)", 1)
    some = bool(others.column(0)[0].as_py())
    if traits.sequence is not None:  # ids are never given out again, so what is gone was deleted; unless the table was made anew
        anew = newest is None and (not mark.anchors or _anew(mark, traits))
        return "none of its rows that were read is left, and it was made anew" if some and anew else ""
    highest = query(f"SELECT coalesce(max({key}) >= {mark.last}, 0) FROM {table.source}", 1).column(0)[0].as_py()
    if not highest:
        return "its newest rows were deleted, and without AUTOINCREMENT their ids are given out again"
    return "rows that were read are gone, and others have such ids" if some else ""


def _anew(mark: Bookmark, traits: Traits) -> bool:
    return mark.traits is None or (mark.traits.schema, mark.traits.file) != (traits.schema, traits.file)


def _reset(query: Query, table: Table, mark: Bookmark, proof: int | None, why: str) -> Checked:
    """A new epoch, from behind the newest row that is proved to be the one that was read."""
    if mark.until is not None:
        raise Refused(f"table {table.name!r} changed while a part of it was read again: {why}; look at it and start again")
    again = f"SELECT count(*) FROM (SELECT 1 FROM {table.source} WHERE {table.between(proof, mark.last)} LIMIT {COUNTED + 1})"
    rows = query(again, 1).column(0)[0].as_py()
    epoch = (mark.epoch or 0) + 1
    start = "the start" if proof is None else f"behind {table.key} {proof}"
    number = f"{rows:,}" if rows <= COUNTED else f"more than {COUNTED:,}"
    detail = f"table {table.name!r}: {why}. It is read again from {start}, as epoch {epoch}; up to {number} rows may be sent again"
    kept = {key: digest for key, digest in mark.anchors.items() if proof is not None and key <= proof}
    return Checked(evolve(mark, last=proof, epoch=epoch, anchors=kept, near_end=False), (Event("source_reset", detail, rows),))


def _mutated(table: Table, mark: Bookmark, keys: Sequence[int]) -> tuple[Event, ...]:
    if not keys:
        return ()
    shown = ", ".join(map(str, keys[:SHOWN])) + ("…" if len(keys) > SHOWN else "")
    return (
        Event(
            "mutated",
            f"table {table.name!r}: {len(keys)} of {len(mark.anchors)} rows that were looked at have changed since they were read "
            f"({table.key} {shown}); tables are read as append-only: changes are not sent. Leave a column that changes out with `columns`",
            len(keys),
        ),
    )


# -- the next bookmark -------------------------------------------------------------------------------------------------


def must_renew(table: Table, mark: Bookmark, checked: Checked) -> bool:
    """Is there a reason for another bookmark, even without new rows?"""
    if checked.events or checked.mark != mark or mark.epoch is None:
        return True
    return mark.last is not None and mark.until is None and (not mark.anchors or set(mark.columns) != set(table.watched))


def renew(
    query: Query, table: Table, checked: Checked, traits: Traits, first: int | None, last: int | None
) -> tuple[Bookmark, tuple[Event, ...]]:
    """The bookmark after a batch with the keys from `first` to `last` (None: no rows), and all that there is to tell."""
    mark, events = checked.mark, checked.events
    events += _columns_changed(table, mark)
    if first is not None and checked.newest_gone:
        events += _gap(query, table, mark, first)
    last = mark.last if last is None else last
    near_end = mark.near_end or (last is not None and last > NEAR_END)
    if near_end and not mark.near_end:
        events += (Event("ids_near_end", f"table {table.name!r} has reached {table.key} {last}, and after {2**63 - 1} SQLite gives out ids "
                         "at random or none at all, so rows would not be seen; start a new table"),)  # fmt: skip
    mark = evolve(mark, last=last, epoch=mark.epoch or 0, traits=traits, near_end=near_end)
    if last is None:
        return evolve(mark, anchors={}, columns={}), events
    keys = _spread(query, table, last)
    known = mark.anchors if set(mark.columns) == set(table.watched) else {}
    now = fingerprints(query, table, table.watched, sorted({*(key for key in keys if key not in known), last}))
    fresh = now.rows()
    anchors = {key: digest for key in keys if (digest := fresh.get(key) or known.get(key))}
    if last not in fresh:  # deleted: what is known of such rows stays, or others in their place would look new
        columns = mark.columns if known else dict.fromkeys(table.watched, "")
        return evolve(mark, anchors=dict(sorted({**known, **anchors}.items())), columns=columns), events
    return evolve(mark, anchors=anchors, columns=now.cells()), events


def renew_beside_damage(
    query: Query, table: Table, checked: Checked, traits: Traits, rows: pa.RecordBatch | None, last: int | None
) -> tuple[Bookmark, tuple[Event, ...]]:
    """The same for a table of which not all pages can be read: its anchors are rows that just were."""
    mark = checked.mark
    keys = [int(key) for key in rows.column(ROW)[-DENSE:].to_pylist() if key is not None] if rows else []
    fresh: Mapping[int, str] = {}
    cells: Mapping[str, str] = {}
    with suppress(Corrupt):
        now = fingerprints(query, table, table.watched, keys)
        fresh, cells = now.rows(), now.cells()
    known = mark.anchors if set(mark.columns) == set(table.watched) else {}
    last = mark.last if last is None else last
    columns = cells if last in fresh else mark.columns if known else dict.fromkeys(table.watched, "")
    anchors = dict(sorted({**known, **fresh}.items())[-2 * DENSE :])
    return evolve(mark, last=last, epoch=mark.epoch or 0, traits=traits, anchors=anchors, columns=columns), checked.events


def _spread(query: Query, table: Table, last: int) -> list[int]:
    """Keys of rows up to `last`: the newest, then at doubling distances, and the first."""
    key, rows = table.key_ref, table.source
    distances = f"SELECT {DENSE} UNION ALL SELECT x * 2 FROM distances WHERE x * 2 < {last} - (SELECT min({key}) FROM {rows})"
    newest = f"SELECT {key} AS k FROM {rows} WHERE {key} <= {last} ORDER BY 1 DESC LIMIT {DENSE}"
    # in steps of the distance, so that an anchor stays one while the ids grow
    far = f"SELECT (SELECT max({key}) FROM {rows} WHERE {key} <= ({last} - x) / x * x) FROM distances"
    first = f"SELECT min({key}) FROM {rows} WHERE {key} <= {last}"
    sql = f"WITH RECURSIVE distances(x) AS ({distances}) SELECT * FROM ({newest}) UNION {far} UNION {first} ORDER BY 1"
    return [found for found in query(sql, 2 * DENSE + 2).column(0).to_pylist() if found is not None]


def _columns_changed(table: Table, mark: Bookmark) -> tuple[Event, ...]:
    added, gone = (", ".join(sorted(names)) for names in (set(table.watched) - set(mark.columns), set(mark.columns) - set(table.watched)))
    if not mark.columns or not (added or gone):
        return ()
    words = "; ".join(filter(None, [added and f"now with {added}", gone and f"no longer with {gone}"]))
    return (Event("schema_changed", f"table {table.name!r} is read with other columns than before: {words}"),)


def _gap(query: Query, table: Table, mark: Bookmark, first: int) -> tuple[Event, ...]:
    """Rows that were deleted before they were read, when ids followed one another up to there and nothing older is left."""
    assert mark.last is not None  # noqa: S101 - or nothing could be gone
    newest = list(mark.anchors)[-DENSE:]
    dense = len(newest) > 1 and newest[-1] - newest[0] == len(newest) - 1
    missing = first - mark.last - 1
    if not dense or not missing or query(f"SELECT min({table.key_ref}) FROM {table.source}", 1).column(0)[0].as_py() != first:
        return ()
    ids = f"{table.key} {mark.last + 1} to {first - 1}"
    return (Event("gap", f"table {table.name!r}: rows with {ids} were deleted before they were read, or were never written", missing),)
