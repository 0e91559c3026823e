"""Notes in the table that a parcel is in, and what we remember of the table from one commit to the next.

A note is two application transactions (the Delta protocol's `txn` actions), in the commit that has the rows: the number of the parcel under
the id of the note, and what tells its content under another id. A table keeps the last of each id for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attrs import define
from deltalake import DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from lakeward.notes import Note


def as_transactions(note: Note) -> list[Transaction]:
    """As the table keeps it."""
    return [Transaction(note.id, note.number), Transaction(_content_id(note), note.content)]


def transactions(commit: bytes) -> Iterator[dict[str, Any]]:
    """Those of a commit, as the log has it."""
    return (action["txn"] for action in map(json.loads, commit.splitlines()) if "txn" in action)


def has_note(commit: bytes, note: Note) -> bool:
    """Whether this commit, as the log has it, is that of the parcel."""
    return any((txn["appId"], txn["version"]) == (note.id, note.number) for txn in transactions(commit))


def bring_up_to_date(table: DeltaTable, note: Note) -> None:
    """With all that others committed since it was asked for the note. Raises CommitFailedError when the note is there by now."""
    table.update_incremental()
    require_absent(table, note)


def require_absent(table: DeltaTable, note: Note) -> None:
    """Of a table that is newer than the one that was asked. Raises CommitFailedError: another instance has the same parcel in hand."""
    if (table.transaction_version(note.id) or 0) >= note.number:
        raise CommitFailedError("another writer delivers for this sink")


def _content_id(note: Note) -> str:
    return f"{note.id}/content"


@define
class Known:
    """What the last commit left in memory, so that the next one need not look at the whole table again."""

    table: DeltaTable
    """As it was when it was last loaded or brought up to date."""
    version: int
    """The newest that is known; the table may be some versions older, but was the same in all but its rows."""
    ours: tuple[int, Note] | None = None
    """The last commit that we made: while the log has it there, it is the same table."""
    newest: Note | None = None
    """Of our notes up to this version, when that is certain; otherwise the table is asked."""

    def has(self, note: Note, where: str) -> bool:
        """Whether the parcel is in; `Refused` when the rows under its name are others."""
        if self.newest:
            return note.is_in(self.newest.number, self.newest.content, where)
        number = self.table.transaction_version(note.id)  # reads the log, which takes longer than a commit
        content = None if number is None or number < note.number else self.table.transaction_version(_content_id(note))
        return note.is_in(number, content, where)


def known_after(table: DeltaTable, version: int, note: Note) -> Known:
    """After our commit of that version, which the table may not have seen yet, or which it has seen followed by others."""
    return Known(table, max(version, table.version()), (version, note), note if table.version() <= version else None)
