"""Sessions: rows of a key that are less than a pause apart, however many there are. A session is [first row, last row + gap).

Rows that cannot meet a session which is over are sorted and cut where a pause is; that is all of them, unless some are older than the
watermark. The keys of those are taken row by row, so that the result is what the rule gives record by record.
"""

from __future__ import annotations

import numpy as np
from attrs import define, evolve, field

from lakeward.grouping import Array
from lakeward_plugins.transforms.window.book import Book, Cut
from lakeward_plugins.transforms.window.clocks import Clocks, Passing
from lakeward_plugins.transforms.window.fields import Fields
from lakeward_plugins.transforms.window.kept import Due, Rules
from lakeward_plugins.transforms.window.onebyone import Pause, Retraction, Session, SessionsOfKey
from lakeward_plugins.transforms.window.shape import Calendar
from lakeward_plugins.transforms.window.table import Table

NONE = np.zeros(0, np.int64)


@define(eq=False)
class SessionWindows:
    """Sessions while they can change. A slot is a serial number."""

    gap: int
    derived: Calendar | None
    rules: Rules
    clocks: Clocks
    table: Table
    book: Book = field(factory=Book.of)
    next_slot: int = 0
    _ended: set[int] = field(init=False, factory=set)
    """Slots of sessions that were over at some row of this batch and have not been changed since."""
    _retracted: list[tuple[int, Retraction]] = field(init=False, factory=list)
    _passing: Passing = field(init=False)

    def add(self, fields: Fields, keys: Array) -> Array:
        """Take rows in; says which are late."""
        times, clocks = fields.times, self.clocks.of(keys)
        whole = keys if self.derived is None else keys * self.derived.count + self.derived.newest(times)
        watermarks = self.clocks.before(clocks, times, times)
        self._ended, self._retracted = set(), []
        late = self._hopeless(whole, times, watermarks)
        odd = ~late & np.isin(whole, self._odd_keys(whole, times, watermarks, late))
        slots, moves = np.full(len(times), -1, np.int64), dict[int, int]()
        books = [self.book]
        if odd.any():
            always = np.full(len(times), np.iinfo(np.int64).min)
            exact = self.clocks.before(clocks, times, always)
            books = self._one_by_one(np.flatnonzero(odd), whole, times, exact, slots, moves)
            late = late | (odd & (slots < 0))
        calm = np.flatnonzero(~odd & ~late)
        self.book = books[0]
        self.book = self._all_at_once(calm, whole, times, slots, moves).plus(*books[1:])
        self._merge(fields, slots, late, moves)
        self._passing = self.clocks.advance(clocks, times)
        return np.asarray(late)

    def _merge(self, fields: Fields, slots: Array, late: Array, moves: dict[int, int]) -> None:
        """The rows and what was known of their sessions, in one table again."""
        if moves:
            old = np.array(sorted(moves), np.int64)
            new = np.array([_end_of(slot, moves) for slot in old.tolist()], np.int64)
            slots = _moved(slots, old, new)
            self.table = self.table.moved(_moved(self.table.slots, old, new), self.rules.exact_max)
        taken = np.flatnonzero(~late)
        part = Table.of(fields if len(taken) == len(late) else fields.take(taken), slots[taken])
        self.table = self.table.plus(part, self.rules.exact_max)

    def _odd_keys(self, keys: Array, times: Array, watermarks: Array, late: Array) -> Array:
        """Keys of rows that may meet a session which came out."""
        if self.rules.emit == "on_batch":  # each row makes its session come out
            return keys
        return np.concatenate([keys[(times < watermarks) & ~late], self.book.keys[self.book.out & ~self.book.closed]])

    def _hopeless(self, keys: Array, times: Array, watermarks: Array) -> Array:
        """Rows that would be late even if all others of their key were taken."""
        late = times + self.gap + self.rules.lateness <= watermarks
        if late.any():
            held, some = self.book.only(np.isin(self.book.keys, keys[late])), np.flatnonzero(np.isin(keys, keys[late]))
            cut = self._cut(held, keys[some], times[some])
            ends = (cut.last + self.gap)[cut.of[len(held.slots) :]]
            late[some] &= ends + self.rules.lateness <= watermarks[some]
        return np.asarray(late)

    def _cut(self, held: Book, keys: Array, times: Array) -> Cut:
        """Sessions and then rows, as one."""
        spans = [(held.keys, keys), (held.first, times), (held.last, times)]
        return Cut.at(self.gap, *(np.concatenate(pair) for pair in spans))

    def _all_at_once(self, rows: Array, keys: Array, times: Array, slots: Array, moves: dict[int, int]) -> Book:
        """Rows that meet only sessions which are not over and never came out."""
        meet = ~self.book.closed & np.isin(self.book.keys, keys[rows])
        held = self.book.only(meet)
        cut = self._cut(held, keys[rows], times[rows])
        slot = np.full(len(cut.first), -1, np.int64)
        mine = cut.of[: len(held.slots)]
        slot[mine] = held.slots
        fresh = np.flatnonzero(slot < 0)
        slot[fresh] = self.next_slot + np.arange(len(fresh))
        self.next_slot += len(fresh)
        away = held.slots != slot[mine]
        moves |= dict(zip(held.slots[away].tolist(), slot[mine][away].tolist(), strict=True))
        slots[rows] = slot[cut.of[len(held.slots) :]]
        return self.book.only(~meet).plus(Book.fresh(slot, cut.keys, cut.first, cut.last))

    def _one_by_one(self, rows: Array, keys: Array, times: Array, marks: Array, slots: Array, moves: dict[int, int]) -> list[Book]:
        """Keys with rows that may meet sessions which are over: the other sessions, and those of these keys."""
        emit = self.rules.emit
        pause = Pause(self.gap, self.rules.lateness, emit == "on_batch", emit == "on_final")
        theirs = np.isin(self.book.keys, keys[rows])
        by_key: dict[int, SessionsOfKey] = {key: SessionsOfKey(pause, moves) for key in np.unique(keys[rows]).tolist()}
        told: dict[int, int] = {}
        for slot, key, first, last, out, closed, revision, last_told in zip(
            *(column.tolist() for column in self.book.only(theirs).columns()), strict=True
        ):
            by_key[key].sessions.append(Session(slot, first, last, out, closed, revision))
            told[slot] = last_told
        for row, key, moment, mark in zip(rows.tolist(), keys[rows].tolist(), times[rows].tolist(), marks[rows].tolist(), strict=True):
            found = by_key[key].add(moment, mark, self.next_slot)
            if found is not None:
                slots[row] = found
                self.next_slot += found == self.next_slot
        left = []
        for key, of in by_key.items():
            self._retracted += [(key, retraction) for retraction in of.retracted]
            for one in of.sessions + of.gone:
                last_told = -1 if one.renamed else told.get(one.slot, -1)
                left.append((one.slot, key, one.first, one.last, one.out, one.closed, one.revision, last_told))
                self._ended |= {one.slot} if one.ended else set()
        return [self.book.only(~theirs), Book.of(left)]

    def keys(self) -> Array:
        """Of the sessions that can still change."""
        return np.asarray(self.book.keys // (self.derived.count if self.derived else 1))

    def renumber(self, numbers: Array) -> None:
        """Keys have other numbers now."""
        keys, rest = np.divmod(self.book.keys, self.derived.count if self.derived else 1)
        self.book = evolve(self.book, keys=numbers[keys] * (self.derived.count if self.derived else 1) + rest)

    def finish(self, watermark: int | None) -> None:
        """No row before the watermark will come; None says that no row at all will."""
        self._ended, self._retracted = set(), []
        self._passing = self.clocks.advance(NONE, NONE)
        if watermark is None:
            of = self._clocks()
            np.maximum.at(self.clocks.marks, of, self.book.last + self.gap + self.rules.lateness)
        else:
            self.clocks.raise_to(watermark)

    def due(self) -> Due:
        """What is to come out after that; sessions that cannot change any more are forgotten."""
        book, rules, clocks = self.book, self.rules, self._clocks()
        ends = book.last + self.gap
        can_change = ends + rules.lateness > self.clocks.marks[clocks]
        if rules.make_room(self.clocks, clocks[can_change], ends[can_change]):
            can_change = ends + rules.lateness > self.clocks.marks[clocks]
        over = ends <= self.clocks.marks[clocks]
        closes = over & ~book.closed
        revision = book.revision + (closes & book.out if rules.emit == "on_batch" else 0)
        out = book.out | (over if rules.emit != "on_final" else ~can_change)
        chosen = out & (revision > book.told) & (over | (rules.emit == "on_batch"))
        told = np.where(chosen, revision, book.told)
        final = chosen & ~can_change
        if rules.lateness and rules.emit != "on_final":
            final &= closes | np.isin(book.slots, np.array(sorted(self._ended), np.int64))
            final[final] = self._passing.at_once(clocks[final], ends[final], ends[final] + rules.lateness)
        self.book = evolve(book, out=out, closed=over, revision=revision, told=told)
        due = self._due(chosen, final, ~over)
        if not can_change.all():
            self.book, self.table = self.book.only(can_change), self.table.only(can_change)
        return due

    def _due(self, chosen: Array, final: Array, partial: Array) -> Due:
        """The chosen sessions, and those that came out and are no more: without a row, and they never come again."""
        book, gone = self.book.only(chosen), self._retracted
        keys = np.append(book.keys, np.array([key for key, _ in gone], np.int64))
        derived = None
        if self.derived is not None:
            keys, number = np.divmod(keys, self.derived.count)
            derived = self.derived.starts(number)
        slots = np.append(book.slots, self.next_slot + np.arange(len(gone)))
        return Due(
            self.table.only(chosen).spread(np.arange(len(book.slots)), slots),
            keys,
            derived,
            np.append(book.first, np.array([one.start for _, one in gone], np.int64)),
            np.append(book.last + self.gap, np.array([one.end for _, one in gone], np.int64)),
            np.append(book.revision, np.array([one.revision for _, one in gone], np.int64)),
            np.append(final[chosen], np.ones(len(gone), np.bool_)),
            np.append(partial[chosen], np.zeros(len(gone), np.bool_)),
        )

    def _clocks(self) -> Array:
        return self.clocks.of(self.keys())


def _end_of(slot: int, moves: dict[int, int]) -> int:
    """Where a slot is in the end, when sessions were joined again and again."""
    while slot in moves:
        slot = moves[slot]
    return slot


def _moved(slots: Array, old: Array, new: Array) -> Array:
    place = np.minimum(np.searchsorted(old, slots), len(old) - 1)
    return np.where(old[place] == slots, new[place], slots)
