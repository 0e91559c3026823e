"""state.db: what must survive a crash, changed in single transactions.

Checkpoint, transform state, batches waiting for delivery, dead letters and totals. One process holds a state directory at a
time (a lock that dies with its holder). Every commit is synced before it returns.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from lakeward.components import Event, Parcel, Position, Receipt, Token
from lakeward.deadletters.box import DeadLetter, Letters
from lakeward.durable import make_folder
from lakeward.errors import NoRoom
from lakeward.recording import Recording, Share
from lakeward.room import Room, needing_room
from lakeward.statefile import (
    DAMAGED,
    MAX_DETAIL,
    SCHEMA_VERSION,
    Checkpoint,
    UnusableState,
    connect,
    copy_between_runs,
    explained,
    now,
    prepare,
    read_checkpoint,
    read_position,
    take,
    version,
    write_position,
)

ANY = "SELECT 1 FROM parcels WHERE file = ? LIMIT 1"


class State:
    """The state of one pipeline. Safe to use from several threads; open it with `with State.hold(directory) as state`."""

    def __init__(self, directory: Path, connection: sqlite3.Connection) -> None:
        self.directory = directory
        self.room = Room(directory)
        self._connection = connection
        self._lock = threading.RLock()
        self._file = directory / "state.db"
        self.life = self._about("life")
        self._position: Position = read_position(connection)
        self._troubles = self.troubles()
        self._spooled: int | None = None  # bytes that wait; None is not known
        self.letters = Letters(self._rows, self._transaction)

    # -- opening -------------------------------------------------------------------------------------------------------

    @classmethod
    @contextmanager
    def hold(cls, directory: Path) -> Iterator[State]:
        """The state in a directory, made if needed, for this process alone. Raises StateInUse or UnusableState."""
        try:
            with needing_room(directory):
                make_folder(directory.absolute())
                lock = (directory / "lock").open("a+b", buffering=0)
        except OSError as error:
            remedy = "choose another --state-dir, or give this user the right to write there"
            raise UnusableState(f"{directory}: {error.strerror}; {remedy}") from error
        file = directory / "state.db"
        with lock:
            take(lock, directory)
            with explained(file):
                connection = connect(file.absolute().as_uri())
            with closing(connection):
                with explained(file):
                    found = version(connection, file)
                    if not found and (directory / "spool").exists():  # only runs make it, after they made the state
                        raise UnusableState(f"{file}: is empty or gone, although runs were here; {DAMAGED}")
                    prepare(connection, found)
                    state = cls(directory, connection)
                yield state

    @classmethod
    @contextmanager
    def look(cls, directory: Path) -> Iterator[State | None]:
        """The state for reading only, also while a run holds it; None when there is none yet. Raises UnusableState."""
        with cls._opened(directory, "ro") as state:
            yield state

    @classmethod
    @contextmanager
    def beside(cls, directory: Path) -> Iterator[State]:
        """The state for a small change that leaves position and troubles alone, also while a run holds it. Raises UnusableState."""
        with cls._opened(directory, "rw") as state:
            if state is None:
                raise UnusableState(f"{directory}: no run has made a state here yet; run the pipeline first")
            yield state

    @classmethod
    @contextmanager
    def _opened(cls, directory: Path, mode: str) -> Iterator[State | None]:
        file = directory / "state.db"
        with explained(file):
            copy = None if mode == "rw" and file.exists() else copy_between_runs(file)
            connection = copy or connect(f"{file.absolute().as_uri()}?mode={mode}")
        with closing(connection):
            with explained(file):
                found = version(connection, file)
                if 0 < found < SCHEMA_VERSION:
                    raise UnusableState(f"{file}: made by an older lakeward; the next run brings it up to date")
                if found and mode == "rw":
                    prepare(connection, found)
                elif found:
                    connection.execute("BEGIN")  # all that is asked is of one moment
                state = cls(directory, connection) if found else None
            yield state

    # -- reading -------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint | None:
        """Where to go on; None before the first batch."""
        with self._lock, explained(self._file):
            return read_checkpoint(self._connection)

    def transform_state(self, node: str) -> bytes | None:
        """What a transform remembered at the checkpoint."""
        for (state,) in self._rows("SELECT state FROM transform_state WHERE node = ?", node):
            return bytes(state)
        return None

    def remembering(self) -> set[str]:
        """Names under which transforms remembered something."""
        return {node for (node,) in self._rows("SELECT node FROM transform_state")}

    def next_parcel(self, sink: str, pipeline: str, spool: Path) -> Parcel | None:
        """The oldest parcel that waits for a sink."""
        columns = "sequence, first_row, end_row, epoch, file, rows, sha256, origin"
        query = f"SELECT {columns} FROM parcels WHERE sink = ? ORDER BY sequence, first_row LIMIT 1"
        for sequence, first, end, epoch, file, rows, sha256, origin in self._rows(query, sink):
            part = None if end is None else (first, end)
            return Parcel(Token(pipeline, sink, self.life, epoch, sequence, part), spool / file, rows, sha256, origin)
        return None

    def tried(self, parcel: Parcel) -> tuple[int, int]:
        """Of the whole parcel that this is a part of: the rows rejected so far, and how many a sink has seen, with those of the part."""
        query = "SELECT max(dead), max(whole) - sum(rows) FROM parcels WHERE sink = ? AND sequence = ?"
        ((dead, settled),) = self._rows(query, parcel.token.sink, parcel.token.sequence)
        return dead, settled + parcel.rows

    def waiting(self) -> dict[str, tuple[int, int]]:
        """Parcels and rows that wait, by sink."""
        return {sink: (parcels, rows) for sink, parcels, rows in self._rows("SELECT sink, count(*), sum(rows) FROM parcels GROUP BY sink")}

    def awaits(self, sink: str) -> bool:
        """Whether a parcel waits for a sink."""
        return bool(self._rows("SELECT 1 FROM parcels WHERE sink = ? LIMIT 1", sink))

    def waiting_bytes(self) -> int:
        """Bytes of the spooled files that wait."""
        with self._lock:
            if self._spooled is None:  # asked for each batch, when tens of thousands may wait
                query = "SELECT coalesce(sum(bytes), 0) FROM (SELECT DISTINCT file, bytes FROM parcels)"
                self._spooled = next(int(total) for (total,) in self._rows(query))
            return self._spooled

    def checksums(self) -> dict[str, str]:
        """Names of the files that a parcel needs, and their SHA-256."""
        return dict(self._rows("SELECT DISTINCT file, sha256 FROM parcels"))

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with state.db itself."""
        return [text for (text,) in self._rows("PRAGMA integrity_check(10)") if text != "ok"]

    def totals(self) -> dict[str, dict[str, int]]:
        """Rows counted since the state began, by kind and name."""
        totals: dict[str, dict[str, int]] = {}
        for kind, name, rows in self._rows("SELECT kind, name, rows FROM totals ORDER BY kind, name"):
            totals.setdefault(kind, {})[name] = rows
        return totals

    def receipts(self) -> list[dict[str, Any]]:
        """The newest receipt of each sink."""
        query = "SELECT sink, sequence, location, details, at FROM receipts ORDER BY sink"
        names = ("sink", "sequence", "location", "details", "at")
        return [dict(zip(names, (*row[:3], json.loads(row[3]), row[4]), strict=True)) for row in self._rows(query)]

    def events(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest events."""
        names = ("at", "kind", "origin", "detail", "rows")
        query = f"SELECT {', '.join(names)} FROM events ORDER BY id DESC LIMIT ?"
        return [dict(zip(names, row, strict=True)) for row in self._rows(query, limit)]

    def troubles(self) -> dict[str, str]:
        """What does not work now, by part of the pipeline."""
        return dict(self._rows("SELECT part, problem FROM troubles ORDER BY part"))

    # -- changing ------------------------------------------------------------------------------------------------------

    def claim(self, pipeline: str) -> None:
        """A state is of one pipeline for ever: another one would go on at a position in a source that is not its own."""
        with self._transaction() as execute:
            execute("INSERT OR IGNORE INTO about VALUES ('pipeline', ?)", (pipeline,))
        if (owner := self._about("pipeline")) != pipeline:
            raise UnusableState(f"{self.directory}: is the state of pipeline {owner!r}; give {pipeline!r} another --state-dir")

    def record(self, recording: Recording) -> None:
        """RECORD: everything about a batch, or nothing."""
        position = recording.position or {}
        with self._transaction() as execute:
            execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?, ?)", (recording.epoch, recording.sequence, now()))
            write_position(self._connection, self._position, position)
            for node, state in recording.states.items():
                execute("INSERT OR REPLACE INTO transform_state VALUES (?, ?)", (node, state))
            for share in recording.shares:
                self._await(execute, share, recording.sequence, recording.epoch, recording.origin, share.rows, 0)
            self.letters.close(execute, recording.closing, f"in batch {recording.sequence:,}")
            self.letters.bury(execute, recording.dead)
            self._tell(execute, recording.events, recording.origin)
            self._count(execute, recording.totals)
        self._position = position

    def settle(self, parcel: Parcel, receipt: Receipt, dead: Sequence[DeadLetter] = ()) -> bool:
        """SETTLE: the sink has the parcel but for dead rows. True when no other sink needs its file any more."""
        token = parcel.token
        with self._transaction() as execute:
            values = (token.sink, token.sequence, receipt.location, json.dumps(dict(receipt.details)), now())
            execute("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?)", values)
            self.letters.bury(execute, dead)
            return self._remove(execute, parcel, parcel.rows - len(dead), len(dead))

    def refuse(self, parcel: Parcel, dead: Sequence[DeadLetter], parts: Sequence[Share] = ()) -> bool:
        """The sink will never take some rows: they become dead letters, and parts stand for the parcel. True as for `settle`."""
        token, rejected = parcel.token, parcel.rows - sum(share.rows for share in parts)
        with self._transaction() as execute:
            query = "UPDATE parcels SET dead = dead + ? WHERE sink = ? AND sequence = ? RETURNING whole, dead"
            (whole, dead_now), *_ = execute(query, (rejected, token.sink, token.sequence)).fetchall()
            last = self._remove(execute, parcel, 0, rejected)
            for share in parts:
                self._await(execute, share, token.sequence, token.epoch, parcel.origin, whole, dead_now)
            self.letters.bury(execute, dead)
            return last

    def new_epoch(self) -> int:
        """An epoch for rows that a person has read again: never given before, and a million from the next, so that resets meet none."""
        with self._transaction() as execute:
            execute("INSERT INTO about VALUES ('reread', 1000000) ON CONFLICT DO UPDATE SET value = value + 1000000")
        return int(self._about("reread"))

    def make_room(self) -> None:
        """After NoRoom: give up the reserve and fold the log, so that parcels can be settled and their files dropped."""
        self.room.release()
        with suppress(NoRoom):
            self._rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def tell(self, event: Event, origin: str = "") -> None:
        """Keep an event that belongs to no batch, such as a position that a person set."""
        with self._transaction() as execute:
            self._tell(execute, [event], origin)

    def trouble(self, part: str, problem: str) -> None:
        """Note what keeps a part of the pipeline (`source`, a sink) from working now, or with "" that it works again."""
        if problem == self._troubles.get(part, ""):
            return
        with self._transaction() as execute:
            execute("DELETE FROM troubles WHERE part = ?", (part,))
            if problem:
                execute("INSERT INTO troubles VALUES (?, ?, ?)", (part, now(), problem[:MAX_DETAIL]))
        self._troubles[part] = problem

    # -- inside --------------------------------------------------------------------------------------------------------

    def _await(self, execute: Any, share: Share, sequence: int, epoch: int, origin: str, whole: int, dead: int) -> None:
        first, end = share.part or (0, None)
        if self._spooled is not None and not execute(ANY, (share.file,)).fetchall():
            self._spooled += share.bytes
        values = (share.sink, sequence, first, end, epoch, share.file, share.rows, share.bytes, share.sha256, origin, whole, dead)
        execute(f"INSERT INTO parcels VALUES ({', '.join('?' * len(values))})", values)

    def _remove(self, execute: Any, parcel: Parcel, delivered: int, refused: int) -> bool:
        token = parcel.token
        where = (token.sink, token.sequence, token.part[0] if token.part else 0)
        gone = execute("DELETE FROM parcels WHERE sink = ? AND sequence = ? AND first_row = ? RETURNING bytes", where).fetchall()
        self._count(execute, {(kind, token.sink): rows for kind, rows in (("delivered", delivered), ("refused", refused)) if rows})
        last = not execute(ANY, (parcel.path.name,)).fetchall()
        if last and self._spooled is not None:
            self._spooled -= sum(size for (size,) in gone)
        return last

    def _tell(self, execute: Any, events: Iterable[Event], origin: str) -> None:
        for event in events:
            values = (now(), event.kind, origin, event.detail[:MAX_DETAIL], event.rows)
            execute("INSERT INTO events (at, kind, origin, detail, rows) VALUES (?, ?, ?, ?, ?)", values)

    def _count(self, execute: Any, totals: Mapping[tuple[str, str], int]) -> None:
        for (kind, name), rows in totals.items():
            execute("INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET rows = rows + excluded.rows", (kind, name, rows))

    def _about(self, name: str) -> str:
        return next(str(value) for (value,) in self._rows("SELECT value FROM about WHERE name = ?", name))

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._lock, explained(self._file):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        try:
            with self._lock, explained(self._file):
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection.execute
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._spooled = None
                    if self._connection.in_transaction:  # on a full disk SQLite has rolled back by itself
                        self._connection.execute("ROLLBACK")
                    raise
        except NoRoom:
            self.make_room()
            raise
