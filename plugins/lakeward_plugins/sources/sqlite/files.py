"""Many databases as one source: a pattern of paths, a position for each file, batches of one file each.

One broken file does not stop the others, nor slow them down. It is named after all others have been read, and tried again after a
pause of its own, as waiting for a lock takes time.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
from attrs import define, evolve, field, frozen

from lakeward import Batch, OptionError, Refused, Retry
from lakeward.components import Event, Position
from lakeward.errors import LakewardError
from lakeward_plugins.sources.sqlite.database import Database, Wanted
from lakeward_plugins.sources.sqlite.opening import Stamp
from lakeward_plugins.sources.sqlite.pattern import Pattern
from lakeward_plugins.sources.sqlite.table import Table

SHOWN = 3  # broken files in a message
GONE = "/"  # before the name of a file in a position: it was there once; no name begins so
AGAIN = 2.0  # seconds after which the others may be read again, while some cannot
LONGEST_REST = 60.0  # seconds until a broken file is tried again
ONLY = "//"  # in a position: the one file that is read; no others


@frozen
class Rest:
    """Why a file is left alone, and until when."""

    problem: LakewardError
    failures: int
    """In a row."""
    until: float

    @classmethod
    def after(cls, problem: LakewardError, before: Rest | None) -> Rest:
        """No rest after the first failure, as most locks pass soon; then 1, 3, 7 seconds and so on."""
        failures = before.failures + 1 if before else 1
        return cls(problem, failures, time.monotonic() + min(LONGEST_REST, 2.0 ** min(failures - 1, 10) - 1))


@define
class Files:
    """All databases that match a pattern, each with the same columns."""

    pattern: Pattern
    wanted: Wanted
    path_columns: Sequence[str]
    _folder: Path | None = field(init=False, default=None)
    _databases: dict[str, Database] = field(init=False, factory=dict)
    _first: Database | None = field(init=False, default=None)
    _at_end: dict[str, tuple[Stamp | None, Mapping[str, Any] | None]] = field(init=False, factory=dict)
    """How each file was when it was read up to its end, and the position there."""
    _resting: dict[str, Rest] = field(init=False, factory=dict)
    """Files that could not be read."""

    def __attrs_post_init__(self) -> None:
        """Each name needs a star."""
        names, stars = self.path_columns, self.pattern.stars
        if names and len(names) != stars:
            raise OptionError("path_columns", f"gives {len(names)} names, and {self.pattern.path} has {stars} stars; name each of them")
        twice = next((index for index, name in enumerate(names) if name in names[:index] or name.startswith("_")), None)
        if twice is not None:
            why = "is there twice" if names[twice] in names[:twice] else "begins with _, as names that lakeward keeps for itself do"
            raise OptionError(f"path_columns[{twice}]", f"{names[twice]!r} {why}; take another name")

    # -- what there is -------------------------------------------------------------------------------------------------

    def first(self) -> Database:
        """The first file that can be read, whose columns all must have. Raises OptionError when there is none, Retry when all heal."""
        if self._first is None:
            names, problems = self.pattern.names(), dict[str, LakewardError]()
            for name in names:
                try:
                    found = self._database(name).table()
                except (OptionError, Refused, Retry) as error:
                    problems[name] = error
                else:
                    self._must_have_no_path_column(found)
                    self._first = self._database(name)
                    return self._first
            if not names:
                raise OptionError("path", f"no file matches {self.pattern.path}")
            broken = self._broken(problems, len(names))
            raise Retry(broken) if all(isinstance(error, Retry) for error in problems.values()) else OptionError("path", broken)
        return self._first

    def table(self) -> Table:
        """That of the first file."""
        return self.first().table()

    def schema(self) -> pa.Schema:
        """Of the first file, then what the stars of the pattern stand for."""
        return pa.schema([*self.table().schema, *(pa.field(name, pa.string()) for name in self.path_columns)])

    def explain(self) -> str:
        """What the first file shows, and which files cannot be read."""
        first, names, problems = self.first(), self.pattern.names(), dict[str, LakewardError]()
        for name in names:
            try:
                self._like_the_first(name)
            except (OptionError, Refused, Retry) as error:
                problems[name] = error
        found = [f"-- {len(names)} databases, of which {first.path} is the first that can be read"]
        return "\n".join([*found, *([f"-- {self._broken(problems, len(names))}"] if problems else []), first.explain()])

    def keep_in(self, folder: Path) -> None:
        """A folder for copies, each in one of its own."""
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        for database in self._databases.values():
            self._give_room(database)

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, after: Mapping[str, Any] | None, limit: int) -> Iterator[Batch]:
        """A batch of each file in turn, until none has more. Then raises Retry if some could not be read."""
        self.schema()
        position, names, problems = _positions(after), self.pattern.names(), dict[str, LakewardError]()
        if not names:
            raise Retry(f"no file matches {self.pattern.path} any more; waiting for them to come back", AGAIN)
        if ONLY in position:
            names = {name: found for name, found in names.items() if name == position[ONLY]["file"]}
        gone = [name for name in position if not name.startswith(GONE) and name not in names]
        if gone:
            position = {GONE + name if name in gone else name: place for name, place in position.items()}
            yield self._farewell(gone, position)
        places = {name: position.get(name, position.get(GONE + name)) for name in names}
        problems |= {name: rest.problem for name, rest in self._resting.items() if name in names and time.monotonic() < rest.until}
        awake = [name for name in names if name not in problems and not self._is_quiet(name, places[name])]
        turns = {name: self._batches(name, places[name], limit) for name in awake}
        while turns:
            for name in list(turns):
                try:
                    batch = next(turns[name], None)
                except (OptionError, Refused, Retry) as error:
                    problems[name], batch = error, None
                    self._resting[name] = Rest.after(error, self._resting.get(name))
                    if not isinstance(error, Retry):
                        self._databases.pop(name, None)  # so that the next attempt looks at its columns anew
                if batch is None:
                    del turns[name]
                    continue
                position = {key: place for key, place in position.items() if key != GONE + name} | {name: batch.position}
                yield self._with_path(batch, names[name], position)
        if problems:
            raise Retry(self._broken(problems, len(names)), AGAIN)

    def reread(self, first: int, last: int | None, epoch: int, origin: str) -> Position:
        """The position from which the rows of one file come again; with `last`, and then no others. Raises OptionError."""
        names = list(self.pattern.names())
        if origin not in names:
            hint = f"one of {len(names)}, such as {', '.join(names[:SHOWN])}" if names else f"no file matches {self.pattern.path}"
            raise OptionError("origin", f"there is no input {origin!r}; name it: {hint}" if origin else f"name the input: {hint}")
        place = self._database(origin).reread(first, last, epoch)
        return {origin: place} if last is None else {ONLY: {"file": origin}, origin: place}

    def _batches(self, name: str, after: Mapping[str, Any] | None, limit: int) -> Iterator[Batch]:
        database = self._like_the_first(name)
        before = database.opening.quiet()
        for batch in database.read(after, limit):
            after = batch.position
            yield batch
        self._at_end[name] = (before, after)
        self._resting.pop(name, None)

    def _is_quiet(self, name: str, place: Mapping[str, Any] | None) -> bool:
        """Whether the file was read up to there and was not written since: most of many are quiet, and opening each costs time."""
        before, end = self._at_end.get(name, (None, None))
        return before is not None and name in self._databases and end == place and self._databases[name].opening.quiet() == before

    def _with_path(self, batch: Batch, found: Sequence[str], position: Mapping[str, Any]) -> Batch:
        rows, refused = batch.rows, batch.rejected
        for column, text in zip(self.path_columns, found, strict=False):
            rows = _add(rows, column, text)
            refused = _add(refused, column, text) if refused is not None else None
        return evolve(batch, rows=rows, rejected=refused, position=position)

    def _farewell(self, gone: Sequence[str], position: Mapping[str, Any]) -> Batch:
        for name in gone:
            self._databases.pop(name, None)
        events = [Event("vanished", f"{self.pattern.folder / name} is gone; if it comes back, it is read on from there") for name in gone]
        return Batch(pa.RecordBatch.from_pylist([], self.schema()), position, events=tuple(events))

    # -- one file ------------------------------------------------------------------------------------------------------

    def _database(self, name: str) -> Database:
        if name not in self._databases:
            self._databases[name] = Database(self.pattern.folder / name, name, self.wanted)
            self._give_room(self._databases[name])
        return self._databases[name]

    def _give_room(self, database: Database) -> None:
        if self._folder is not None:
            database.opening.folder = self._folder / blake2b(database.origin.encode(errors="surrogateescape"), digest_size=8).hexdigest()

    def _like_the_first(self, name: str) -> Database:
        if not name.isprintable() or not _is_unicode(name):
            raise Refused(f"{name!r} is not a name that can be written down; rename it")
        database, first = self._database(name), self.first()
        found, wanted = database.table().schema, first.table().schema
        if found != wanted:
            del self._databases[name]  # so that the next attempt looks at its columns anew
            raise Refused(f"{database.path} has {_difference(found, wanted)}, unlike {first.path}")
        return database

    def _must_have_no_path_column(self, table: Table) -> None:
        for index, name in enumerate(self.path_columns):
            if name in table.schema.names:
                raise OptionError(f"path_columns[{index}]", f"table {table.name!r} has a column {name!r} already; take another name")

    def _broken(self, problems: Mapping[str, LakewardError], of: int) -> str:
        shown = [f"{name}: {_reason(error)}" for name, error in list(problems.items())[:SHOWN]]
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        return f"{len(problems)} of {of} databases in {self.pattern.folder} cannot be read: {'; '.join(shown + more)}"


def _positions(after: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if after is not None and not all(isinstance(place, Mapping) for place in after.values()):
        raise Refused(
            f"{dict(after)} is not a position in many databases; was `path` that of a single one before? Start with another state"
        )
    return after or {}


def _add(rows: pa.RecordBatch, column: str, text: str) -> pa.RecordBatch:
    values = pa.repeat(pa.scalar(text, pa.string()), rows.num_rows)
    return pa.RecordBatch.from_arrays([*rows.columns, values], schema=rows.schema.append(pa.field(column, pa.string())))


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    missing = [name for name in wanted.names if name not in found.names]
    extra = [name for name in found.names if name not in wanted.names]
    other = [f"{one.name} as {one.type}" for one in found if one.name in wanted.names and one.type != wanted.field(one.name).type]
    words = {"no column": missing, "a column": extra, "column": other}
    return " and ".join(f"{what} {', '.join(names)}" for what, names in words.items() if names) or "its columns in another order"


def _reason(error: LakewardError) -> str:
    return error.message if isinstance(error, OptionError) else str(error)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
