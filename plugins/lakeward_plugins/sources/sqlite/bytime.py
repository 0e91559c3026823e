"""Reading in the order of a time column, for tables whose row ids do not say when a row was written, or are not kept.

A row is given when it is settled: when no other is expected before it, because the newest is `lateness` newer. So nothing that was
given needs to be remembered but how far, and rows keep one order whatever the batches. Row keys are their numbers in that order, as the
ids of such tables may be given out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

import pyarrow as pa
from attrs import evolve, frozen

from lakeward import ROW, Refused
from lakeward.components import Event
from lakeward_plugins.sources.sqlite.batch import Taken, take
from lakeward_plugins.sources.sqlite.connection import Query
from lakeward_plugins.sources.sqlite.table import Table, literal

Value = int | float | str
FORMS = (("%Y-%m-%d{0}%H:%M:%S", 19), ("%Y-%m-%d{0}%H:%M", 16), ("%Y-%m-%d", 10))  # without fraction and zone, which all rows share
DATE = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"


@frozen
class Mark:
    """How far a table was read. Its JSON is the position."""

    time: Value | None = None
    """All rows up to this time were given; None is the start."""
    row: int | None = None
    """Of the rows of that time only those up to this row id were: there are more than fit into a batch."""
    given: int = 0
    outside: int = 0
    """Rows that lie behind, and will never be given: those that were, and those without a time or too late."""

    epoch: ClassVar = 0
    at_end: ClassVar = False
    may_give_less: ClassVar = True
    """Than was asked for, although there is more."""

    @classmethod
    def of(cls, position: Mapping[str, Any] | None) -> Mark:
        """Raises Refused when it is the position of something else."""
        if position is None:
            return cls()
        time, row = position.get("time"), position.get("row")
        given, outside = position.get("given"), position.get("outside")
        if type(time) not in (int, float, str, type(None)) or not all(type(number) is int for number in (given, outside, row or 0)):
            raise Refused(f"{dict(position)} is no position of `cursor: timestamp`; after a change of `cursor` give another --state-dir")
        return cls(time, row, int(given or 0), int(outside or 0))

    def position(self) -> dict[str, Any]:
        """As JSON."""
        told = {"time": self.time, "row": self.row, "given": self.given, "outside": self.outside}
        return {name: value for name, value in told.items() if value is not None}


@frozen
class Times:
    """The SQL of one table and its time column."""

    query: Query
    table: Table
    column: str

    def rows(self, where: str, order: str) -> list[tuple[Value, int]]:
        """Time and row id of a few rows. Values of each type have a column of their own, so that none is converted."""
        kinds = ("integer", "real", "text")
        values = ", ".join(f"CASE WHEN typeof({self.column}) = '{kind}' THEN {self.column} END" for kind in kinds)
        some = f"SELECT {self.table.key_ref}, {values} FROM {self.table.source} WHERE {where} {order}"
        read = self.query(f"SELECT NULL AS k, 0 AS i, 0.5 AS r, '' AS t UNION ALL SELECT * FROM ({some})", 3)
        rows = list(zip(*read.to_pydict().values(), strict=True))[1:]  # without the made-up one
        found = [(next(value for value in values if value is not None), int(key)) for key, *values in rows]
        return sorted(found, key=lambda row: (isinstance(row[0], str), row))

    def count(self, where: str) -> int:
        """How many rows there are."""
        return int(self.query(f"SELECT count(*) FROM {self.table.source} WHERE {where}", 1).column(0)[0].as_py())

    def after(self, mark: Mark) -> str:
        """The condition for rows that were not given."""
        if mark.time is None:
            return f"{self.column} IS NOT NULL"
        if mark.row is None:
            return f"{self.column} > {_literal(mark.time)}"
        return f"({self.column}, {self.table.key_ref}) > ({_literal(mark.time)}, {mark.row})"

    def newest(self) -> Value | None:
        """The newest that is a time. Raises Refused when there are others only."""
        from lakeward.timestamps import plausible  # brings pyarrow.compute, which reading by id must not pay

        ranges = " OR ".join(f"{self.column} BETWEEN {low} AND {high}" for low, high in plausible().values())
        text = f"typeof({self.column}) = 'text' AND {self.column} GLOB '{DATE}' AND julianday({self.column}) IS NOT NULL"
        for where in (text, f"typeof({self.column}) IN ('integer', 'real') AND ({ranges})"):
            found = self.rows(where, f"ORDER BY {self.column} DESC LIMIT 1")
            if found:
                return found[0][0]
        if self.count(f"{self.column} IS NOT NULL"):
            raise Refused(
                f"table {self.table.name!r}: no {self.table.timestamp} is ISO text, Unix time or a Julian day, as `cursor: timestamp` needs"
            )
        return None


def advance(query: Query, table: Table, mark: Mark, limit: int, lateness: timedelta) -> tuple[Mark, Taken | None, tuple[Event, ...]]:
    """The next settled rows, with their numbers as row keys."""
    times = Times(query, table, table.time_ref)
    newest = times.newest()
    if newest is None:
        return mark, None, ()
    outside = times.count("1") - times.count(f"{times.after(mark)} AND {times.column} <= {_literal(newest)}")
    events = _late(table, outside - mark.outside, lateness)
    mark = evolve(mark, outside=outside)
    settled = f"{times.after(mark)} AND {times.column} < {_literal(_before(newest, lateness))}"
    where, time, row = _cut(times, settled, limit)
    taken = take(query, table, None, limit, where) if time is not None else None
    if taken is None:
        return mark, None, events
    keys = query(f"SELECT {table.key_ref} FROM {table.source} WHERE {where} ORDER BY {times.column}, 1", taken.count).column(0)
    rows = _numbered(taken.rows, keys, mark.given)
    rejected = _numbered(taken.rejected, keys, mark.given) if taken.rejected else None
    mark = Mark(time, row, mark.given + taken.count, outside + taken.count)
    return mark, evolve(taken, rows=rows, rejected=rejected), events


def _late(table: Table, rows: int, lateness: timedelta) -> tuple[Event, ...]:
    if rows <= 0:
        return ()
    detail = (
        f"table {table.name!r}: {rows} rows are not sent: their {table.timestamp} is missing or no time, or they came more than {lateness} "
        "after newer ones; raise `lateness`, and read them in a run of their own"
    )
    return (Event("late", detail, rows),)


def explain(query: Query, table: Table, lateness: timedelta) -> str:
    """What it means for this table."""
    indexes = f"pragma_index_list({literal(table.name)}) AS i JOIN pragma_index_info(i.name) AS c"
    of_time = f"c.seqno = 0 AND c.name = {literal(table.timestamp or '')}"
    indexed = query(f"SELECT count(*) FROM {indexes} WHERE {of_time}", 1).column(0)[0].as_py()
    lines = [
        f"-- by time: a row is read when one that is more than {lateness} newer is there, so the newest rows wait",
        "-- rows that come later than that are counted and told, never sent; a file that is replaced is not noticed; row keys are numbers",
    ]
    if not indexed:
        lines.append(f"-- without an index on {table.timestamp} each poll goes over the whole table")
    return "\n".join([*lines, table.select(f"{table.time_ref} > :time AND {table.time_ref} < :newest_less_lateness", ":rows")])


def _cut(times: Times, settled: str, limit: int) -> tuple[str, Value | None, int | None]:
    """At most `limit` of these rows: the condition, and where they end.

    Rows of one time stay together where they can, because their ids, by which they could be parted, may change in a VACUUM.
    """
    order, key = f"ORDER BY {times.column}, {times.table.key_ref}", times.table.key_ref
    edge = times.rows(settled, f"{order} LIMIT 2 OFFSET {limit - 1}")
    where, row = settled, None
    if len(edge) == 2:
        (time, last), (following, _) = edge
        where = f"{settled} AND {times.column} <= {_literal(time)}"
        if time == following:
            before = f"{settled} AND {times.column} < {_literal(time)}"
            if times.rows(before, "LIMIT 1"):
                where = before
            else:
                where, row = f"{where} AND {key} <= {last}", last
    end = times.rows(where, f"ORDER BY {times.column} DESC LIMIT 1")
    return where, end[0][0] if end else None, row


def _numbered(rows: pa.RecordBatch, keys: pa.ChunkedArray[Any], given: int) -> pa.RecordBatch:
    """In the order of these keys, and with their place in it as the row key."""
    import pyarrow.compute as pc  # 25 ms that reading by id must not pay

    places: Any = pc.index_in(rows.column(ROW), value_set=keys.combine_chunks())
    order = pc.sort_indices(places)
    numbers = pc.add(places.take(order).cast(pa.int64()), given + 1)
    return rows.take(order).set_column(rows.schema.get_field_index(ROW), rows.schema.field(ROW), numbers)


def _before(newest: Value, lateness: timedelta) -> Value:
    """The time that is so much older, in the same form, rounded down."""
    if isinstance(newest, str):
        return _text_before(newest, lateness)
    from lakeward.timestamps import PER_SECOND, plausible  # as above

    unit = next(unit for unit, (low, high) in plausible().items() if low <= newest <= high)
    if unit == "julian":
        return newest - lateness / timedelta(days=1)
    earlier = newest - lateness.total_seconds() * PER_SECOND[unit]
    return earlier if isinstance(newest, float) else newest - lateness // timedelta(microseconds=1) * PER_SECOND[unit] // 1_000_000


def _text_before(newest: str, lateness: timedelta) -> str:
    """Without fraction and zone it sorts before all that has the same second."""
    for form, length in FORMS:
        pattern = form.format(newest[10:11])
        try:
            return (datetime.strptime(newest[:length], pattern) - lateness).strftime(pattern)
        except ValueError:
            continue
        except OverflowError:
            return ""
    raise Refused(f"{newest!r} cannot be read as a time; `cursor: timestamp` needs ISO text or Unix times")


def _literal(value: Value) -> str:
    return literal(value) if isinstance(value, str) else repr(value)
