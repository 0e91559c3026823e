"""The dead letters in state.db: buried with their batch, looked at, and closed when they are replayed or discarded.

`open` is one that nobody has looked after, `replay` one that the next batch takes, `replayed` and `discarded` are closed: of those
the values are dropped, so that room for others comes free.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from attrs import frozen

from lakeward.statefile import MAX_DETAIL, now

COLUMNS = ("stage", "reason", "detail", "origin", "epoch", "row_low", "row_high", "payload", "first_seen")
SHOWN = ("id", *COLUMNS, "attempts", "status", "note")
OPEN = "status IN ('open', 'replay')"
KEYED = "status != 'replayed' AND stage NOT LIKE 'sink %'"  # those that say why a row is dead


@frozen
class DeadLetter:
    """A row refused, or a range of rows, kept with its reason."""

    stage: str
    reason: str
    detail: str
    origin: str
    epoch: int
    row: int | None
    payload: str
    row_high: int | None = None


@frozen
class Closing:
    """What becomes of the dead letters whose rows are in a batch again."""

    replayed: Sequence[int] = ()
    """Ids of those that are needed no more."""
    again: Mapping[int, str] = {}
    """Ids of those that stay open, and why."""


class Letters:
    """All of one state. Methods that take `execute` are steps of a transaction of its owner."""

    def __init__(
        self, rows: Callable[..., list[Any]], transaction: Callable[[], AbstractContextManager[Callable[..., Any]]]
    ) -> None:  # fmt: skip
        self._rows, self._transaction = rows, transaction
        self._size = math.inf  # not known yet; then at least what the open ones hold

    # -- reading -------------------------------------------------------------------------------------------------------

    def find(self, limit: int = 100, where: str = "1", *values: object) -> list[dict[str, Any]]:
        """The newest, or the newest of those for which the SQL `where` is true."""
        found = self._rows(f"SELECT {', '.join(SHOWN)} FROM dead_letters WHERE {where} ORDER BY id DESC LIMIT ?", *values, limit)
        return [dict(zip(SHOWN, row, strict=True)) for row in found]

    def counts(self, where: str = OPEN, *values: object) -> dict[tuple[str, str], int]:
        """How many by stage and reason, of the open ones or those for which `where` is true."""
        query = f"SELECT stage, reason, count(*) FROM dead_letters WHERE {where} GROUP BY stage, reason ORDER BY stage, reason"
        return {(stage, reason): count for stage, reason, count in self._rows(query, *values)}

    def dead_rows(self, origin: str, epoch: int, without: Sequence[int]) -> set[int]:
        """Keys of the rows of one input that are dead by other letters than these."""
        others = f"{KEYED} AND id NOT IN (SELECT value FROM json_each(?))"
        query = f"SELECT row_low FROM dead_letters WHERE origin = ? AND epoch = ? AND row_low IS NOT NULL AND {others}"
        return {row for (row,) in self._rows(query, origin, epoch, json.dumps(without))}

    def outlived(self, origin: str, since: str) -> bool:
        """Whether that input began another life after that moment, so that its keys may be those of other rows."""
        return bool(self._rows("SELECT 1 FROM events WHERE kind = 'source_reset' AND origin = ? AND at > ? LIMIT 1", origin, since))

    def have_room_for(self, dead: Iterable[DeadLetter], size: float) -> bool:
        """Whether these and the open ones have no more characters than that."""
        more = sum(len(one.payload) for one in dead)
        if self._size + more > size:  # unless some were replayed or discarded since it was counted
            query = f"SELECT coalesce(sum(length(payload)), 0) FROM dead_letters WHERE {OPEN}"
            self._size = next(float(total) for (total,) in self._rows(query))
        return self._size + more <= size

    # -- changing ------------------------------------------------------------------------------------------------------

    def mark(self, ids: Iterable[int]) -> int:
        """Have open ones replayed by the run that holds the state, or else by the next one. How many."""
        with self._transaction() as execute:
            return _change(execute, "status = 'replay'", dict.fromkeys(ids, ()), "open")

    def discard(self, ids: Iterable[int], reason: str) -> int:
        """Close open ones for a reason that is kept; their rows are given up. How many."""
        with self._transaction() as execute:
            return _change(execute, "status = 'discarded', payload = '', note = ?", dict.fromkeys(ids, (reason[:MAX_DETAIL],)), "open")

    def reopen(self, why: Mapping[int, str]) -> None:
        """Those that could not be replayed are open again, and say why."""
        with self._transaction() as execute:
            self.close(execute, Closing(again=why), "")

    def close(self, execute: Any, closing: Closing, note: str) -> None:
        """Those whose rows are in a batch are needed no more; the others stay open."""
        _change(execute, "status = 'replayed', payload = '', note = ?", dict.fromkeys(closing.replayed, (note,)))
        why = {number: (reason[:MAX_DETAIL],) for number, reason in closing.again.items()}
        _change(execute, "status = 'open', attempts = attempts + 1, note = ?", why)

    def bury(self, execute: Any, dead: Iterable[DeadLetter]) -> None:
        """Keep more of them."""
        at = now()
        for one in dead:
            values = (one.stage, one.reason, one.detail[:MAX_DETAIL], one.origin, one.epoch, one.row, one.row_high, one.payload, at)
            execute(f"INSERT INTO dead_letters ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            self._size += len(one.payload)


def _change(execute: Any, change: str, values: Mapping[int, tuple[object, ...]], status: str = "replay") -> int:
    """Change those, by id, that have a status. How many had it."""
    query = f"UPDATE dead_letters SET {change} WHERE id = ? AND status = ?"
    return sum(execute(query, (*given, number, status)).rowcount for number, given in values.items())
