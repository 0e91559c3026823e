"""A batch out of a table of which some pages cannot be read: the good rows, and a dead letter for each range of the others.

SQLite gives up a statement at the first bad page, so the rows around it are asked for in smaller and smaller portions. A portion
has a number of rows and no last key: a page that belongs elsewhere would end such a range early, and the rows behind it were lost
in silence.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import pyarrow as pa
from attrs import asdict, define, field, frozen

from lakeward import ROW, Refused, rejected
from lakeward.components import ROW_HIGH, Event
from lakeward_plugins.sources.sqlite.batch import Taken, take
from lakeward_plugins.sources.sqlite.connection import Corrupt, Query, Unsorted
from lakeward_plugins.sources.sqlite.table import LEAST_KEY, Table, literal

MOST_QUERIES = 2_000  # for one batch; the next one goes on from there
WIDEST_PAGE = 10_000  # rows; a page has at most 64 KiB
SHOWN = 3  # ranges in a message
GROWTH = 4  # a jump over bad pages grows by a quarter of itself, so it passes no good part larger than that


class _SpentError(Exception):
    """So many queries were run that the batch must do with what it has."""


class _EndlessError(Exception):
    """Nothing after this can be read, and there is no saying how many rows that is."""


@frozen
class _Sought(Table):
    """The same table, read from the page where the next row should be; `>` goes to the page of the row before."""

    def after(self, last: int | str | None) -> str:
        return "1" if last is None else f"{self.key_ref} >= {int(last) + 1}"


@define
class Salvage:
    """One batch in the making: what is up to the key `low` has been looked at."""

    ask: Query
    table: Table
    low: int | None
    limit: int
    until: int | None = None
    """The last key that is wanted."""
    parts: list[Taken] = field(init=False, factory=list)
    lost: list[tuple[int, int, str]] = field(init=False, factory=list)
    """First and last key of each range that cannot be read, and why."""
    _left: int = field(init=False, factory=lambda: MOST_QUERIES)
    _unfinished: bool = field(init=False, default=False)
    _way: Table = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin as a batch without damage does."""
        self._way = self.table

    def take(self) -> Taken | None:
        """At most `limit` rows and the ranges between them; None when there is nothing more. Raises Corrupt when nothing comes out."""
        portion = self.limit
        try:
            while portion := min(portion, self._room):
                try:
                    part = self._taken(self._way, self.low, portion)
                except Unsorted as error:
                    self._leave_out(portion, str(error))
                except Corrupt as error:
                    if portion == 1:
                        self._jump(str(error))
                    portion = max(portion // 2, 1)
                else:
                    if part is None:
                        break
                    self._keep(part)
                    portion *= 2
        except (_SpentError, _EndlessError) as error:
            self._unfinished = True
            if not self.parts and not self.lost:
                raise Corrupt(
                    f"{error}; rows after id {self.low} cannot be read. Repair the database, as `.recover` of sqlite3 does"
                ) from None
        return self._together()

    @property
    def _room(self) -> int:
        return self.limit - sum(part.count for part in self.parts)

    @property
    def _within(self) -> str:
        return "" if self.until is None else f"{self.table.key_ref} <= {self.until}"

    def _taken(self, way: Table, after: int | None, rows: int) -> Taken | None:
        return take(self._query, way, after, rows, self._within)

    def _query(self, sql: str, rows: int) -> pa.Table:
        self._left -= 1
        if self._left < 0:
            raise _SpentError(f"table {self.table.name!r}: {MOST_QUERIES} queries gave not one row")
        return self.ask(sql, rows)

    @property
    def _first(self) -> int:
        """The first key that is not looked at yet, if it exists."""
        return LEAST_KEY if self.low is None else self.low + 1

    def _keep(self, part: Taken) -> None:
        self.parts.append(part)
        self.low, self._way = part.last, self.table

    def _lose(self, last: int, why: str) -> None:
        if self._first <= last:
            self.lost.append((self._first, last, why))
            self.low = last
        self._way = self._sought

    @property
    def _sought(self) -> Table:
        return _Sought(**asdict(self.table, recurse=False))

    # -- pages that cannot be read -------------------------------------------------------------------------------------

    def _jump(self, why: str) -> None:
        """Go to the first row after the bad pages."""
        start = 0 if self.low is None else self.low
        bad, good, step = start - 1, start, 1
        if not self._reads_after(start):
            top = self._top(start, why)
            while not self._reads_after(good) and bad < good:
                step += max(step // GROWTH, 1)
                bad, good = good, min(start + step, top)
            while good - bad > 1:
                middle = (good + bad) // 2
                bad, good = (bad, middle) if self._reads_after(middle) else (middle, good)
        self._lose(good, why)

    def _reads_after(self, key: int) -> bool:
        try:
            self._taken(self._sought, key, 1)
        except Corrupt:
            return False
        return True

    def _top(self, start: int, why: str) -> int:
        """The largest key there ever was, as far as that can be known."""
        for sql in (
            f"SELECT max(k) AS top FROM (SELECT {self.table.key_ref} AS k FROM {self.table.source} ORDER BY 1 DESC LIMIT 1)",
            f"SELECT max(seq) AS top FROM sqlite_sequence WHERE name = {literal(self.table.name)}",
        ):
            try:
                top = self._query(sql, 1).column("top")[0].as_py()
            except Refused:  # no such table, too
                continue
            if isinstance(top, int) and top > start:
                return top if self.until is None else min(top, self.until)
        raise _EndlessError(why)

    # -- pages that belong elsewhere -----------------------------------------------------------------------------------

    def _leave_out(self, portion: int, why: str) -> None:
        """Take the rows before the first one that is not in its place; what should be there is lost, up to the next that is."""
        keys = self._keys(portion)
        places = _in_place(keys, self._first)
        before = sum(index == place for index, place in enumerate(places))
        if before == len(keys):  # all seem to be, but there are rows in the largest gap
            before = max(range(before), key=lambda index: keys[index] - (keys[index - 1] if index else self._first - 1))
            places = places[:before]
        if before < len(places):
            self._keep_next(before)
            if keys[places[before]] > self._first:
                self._lose(keys[places[before]] - 1, why)
            elif not before:  # the next row is there, but asked for by its key SQLite finds another one first
                self._jump(why)
        elif before:
            self._keep_next(before)
        else:
            self._step_over(why)

    def _step_over(self, why: str) -> None:
        """Nothing that can be seen from here on is in its place: ask for the next row by its key."""
        try:
            part = self._taken(self._sought, self.low, 1)
        except Corrupt:
            self._jump(why)
        else:
            if part is None:
                raise _EndlessError(why)
            self._lose(part.last - 1, why)

    def _keep_next(self, rows: int) -> None:
        part = self._taken(self._way, self.low, rows) if rows else None
        if part is not None:
            self._keep(part)

    def _keys(self, portion: int) -> list[int]:
        """In the order in which they are stored, and so many that the rows of a whole page can be seen between others."""
        wide = portion + WIDEST_PAGE
        try:
            return self._stored(wide)
        except Corrupt:
            return self._stored(portion)

    def _stored(self, limit: int) -> list[int]:
        where = " AND ".join(filter(None, [self._way.after(self.low), self._within]))
        sql = f"SELECT {self.table.key_ref} AS k FROM {self.table.source} WHERE {where} ORDER BY 1 LIMIT {limit}"
        return [int(key) for key in self._query(sql, limit).column("k").to_pylist() if key is not None]

    # -- what comes out ------------------------------------------------------------------------------------------------

    def _together(self) -> Taken | None:
        if not self.parts and not self.lost:
            return None
        kept = [part.rows for part in self.parts if part.rows.num_rows]
        rows = pa.Table.from_batches(kept, self.table.schema).combine_chunks().to_batches()
        letters = [part.rejected for part in self.parts if part.rejected is not None] + _letters(self.lost)
        count = sum(part.count for part in self.parts) + len(self.lost)
        return Taken(
            rows[0] if rows else pa.RecordBatch.from_pylist([], self.table.schema),
            _joined(letters),
            max(count, self.limit) if self._unfinished else count,  # as good as full, so that another batch is asked for
            self.lost[-1][1] if self.low is None else self.low,
            _events(self.table.name, self.lost),
        )


def _letters(lost: Sequence[tuple[int, int, str]]) -> list[pa.RecordBatch]:
    if not lost:
        return []
    first, last, why = zip(*lost, strict=True)
    ranges = pa.RecordBatch.from_pydict({ROW: pa.array(first, pa.int64()), ROW_HIGH: pa.array(last, pa.int64())})
    return [rejected(ranges, "source_corrupt", pa.array(why, pa.string()))]


def _joined(letters: Sequence[pa.RecordBatch]) -> pa.RecordBatch | None:
    if not letters:
        return None
    table = pa.concat_tables(map(pa.Table.from_batches, ([one] for one in letters)), promote_options="default")
    return table.sort_by(ROW).combine_chunks().to_batches()[0]


def _events(table: str, lost: Sequence[tuple[int, int, str]]) -> tuple[Event, ...]:
    if not lost:
        return ()
    spans = [f"up to {last}" if first == LEAST_KEY else f"{first} to {last}" for first, last, _ in lost]
    shown = ", ".join(spans[:SHOWN]) + (f" and {len(spans) - SHOWN} more ranges" if len(spans) > SHOWN else "")
    rows = sum(last - max(first, 1) + 1 for first, last, _ in lost)
    detail = f"table {table!r}: rows {shown} cannot be read ({lost[0][2]}); each range is a dead letter, and reading goes on after it"
    return (Event("unreadable", detail, max(rows, 1)),)


def _in_place(keys: Sequence[int], first: int) -> list[int]:
    """Where the longest ascending sequence of keys from `first` on is: the others have come in from elsewhere."""
    ends: list[int] = []  # the smallest last key of a sequence of each length, where it is, and what comes before each key
    at: list[int] = []
    before: dict[int, int] = {}
    for place, key in enumerate(keys):
        if key < first:
            continue
        length = bisect_left(ends, key)
        ends[length : length + 1] = [key]
        at[length : length + 1] = [place]
        before[place] = at[length - 1] if length else -1
    found, place = [], at[-1] if at else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]
