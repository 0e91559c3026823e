"""The contracts: what a source, a transform and a sink promise, and the values that go between them.

A component is an attrs class whose init fields are its YAML options (see `lakeward.option`). It inherits from nothing.
Rows are Arrow record batches from the source to the last sink. Every batch that comes from a source carries the reserved
int64 column `_row`: with `origin` and `epoch` of its batch it is the row's key for ever. Transforms keep it by not touching it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:  # `lakeward --help` and announcing a plugin must not pay for pyarrow
    import pyarrow as pa

ROW = "_row"
"""Name of the reserved row key column."""
ROW_HIGH = "_row_high"
"""Beside it in rejected rows: the last key of a range that cannot be read. int64; null where a row stands for itself."""

Kind = Literal["source", "transform", "sink"]
Position = Mapping[str, Any]
"""Where to go on in a source: a JSON object that only the source understands."""


@frozen
class Component:
    """What a plugin announces: cheap to make, so that nothing heavy is imported before a pipeline names it."""

    kind: Kind
    name: str
    target: str
    """`package.module:Class`, imported when a pipeline names the component."""
    summary: str
    extra: str = ""
    """What to pip install when the import fails, such as `lakeward[delta]`."""


# -- values ------------------------------------------------------------------------------------------------------------


@frozen
class Event:
    """Something about its input that a person must hear of, such as a file that was replaced. Kept with its batch, shown by `status`."""

    kind: str
    """A short code, such as `source_reset` or `gap`."""
    detail: str
    """What happened and what it means, for a person."""
    rows: int = 0
    """How many rows it is about, such as those that may be sent again; 0 when unknown or none."""


@frozen(eq=False)
class Batch:
    """Rows read in one short transaction, and where to go on after them."""

    rows: pa.RecordBatch
    """Strictly ascending in `_row`; its schema is `Source.schema()`, also when there are no rows."""
    position: Position
    rejected: pa.RecordBatch | None = None
    """Rows that could not be typed or read, made by `rejected()`. They are dead letters; `position` is after them too.

    With the column `ROW_HIGH` as well, a row of it may stand for a range.
    """
    origin: str = ""
    """Which of its inputs the source read, such as a path below its folder."""
    epoch: int = 0
    """The life of that input: grows when the file was replaced or rewound and keys may be used again."""
    events: tuple[Event, ...] = ()
    """What a person must hear of; recorded together with the position, so told once. A batch may have nothing else."""


@frozen
class Encoding:
    """How a sink wants its Parquet. Sinks of one input that want the same share one file."""

    compression: Literal["snappy", "zstd", "gzip", "none"] = "snappy"
    row_key: bool = False
    """Keep the column `_row` in the file."""
    inserted_at: str = ""
    """Name of a column for the time at which the rows were spooled; empty for none. Every retry delivers the same."""


@frozen
class Token:
    """The name of one parcel: the same on every retry, never used again for other rows."""

    pipeline: str
    sink: str
    life: str
    """Of the state directory: a directory made anew starts a new life, so that its tokens cannot meet old ones."""
    epoch: int
    sequence: int
    part: tuple[int, int] | None = None
    """First row and the one after the last, when the sink rejected rows of the parcel and these are delivered on their own.

    Counted without the rows that were rejected before, so a part of a part is smaller: no two have the same name.
    """

    @property
    def name(self) -> str:
        """Safe as a file name, unique, and sorted by sequence within a sink, life and epoch."""
        part = f".{self.part[0]:07d}-{self.part[1]:07d}" if self.part else ""
        return f"{self.sink}-{self.life}-{self.epoch:04d}-{self.sequence:010d}{part}"

    @property
    def number(self) -> int:
        """For sinks that remember the newest number only: it grows from each parcel that a sink takes to the next (below 2^63)."""
        return self.sequence << 31 | (self.part[0] if self.part else 0)

    def __str__(self) -> str:
        return f"{self.pipeline}/{self.name}"


@frozen
class Parcel:
    """One spooled batch for one sink: a whole, synced Parquet file that never changes."""

    token: Token
    path: Path
    rows: int
    sha256: str
    origin: str = ""
    """Which input of the source the rows are from: with the epoch of the token and `_row` it is the key of a row."""

    def batches(self, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The rows again, for sinks that cannot ship the file as it is."""
        import pyarrow.parquet as pq  # only sinks that read rows back pay for it

        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(batch_size=rows)

    def table(self) -> pa.RecordBatch:
        """All rows at once."""
        import pyarrow as pa

        return pa.concat_batches(self.batches())  # type: ignore[attr-defined,no-any-return]  # missing in the stubs


@frozen
class Receipt:
    """A sink's proof of delivery, kept in the state."""

    location: str
    """Where the rows are now: a path, a table version, a URL."""
    details: Mapping[str, str | int | float | bool] = field(factory=dict)
    rejected: Mapping[int, str] = field(factory=dict)
    """Rows, by their place in the parcel, that will never be taken, and why; all others are there. For sinks that take rows one by one."""


# -- contracts ---------------------------------------------------------------------------------------------------------


class Source(Protocol):
    """Reads batches after a position. Never remembers what it has given: the position in the batch does."""

    def schema(self) -> pa.Schema:
        """Schema of every batch, `_row` first, from what is declared and not from the first rows.

        Called before the first read. Raises `OptionError` when the input does not exist or is not what the options say.
        """

    def read(self, after: Position | None, limit: int) -> Iterator[Batch]:
        """Batches of at most `limit` rows that follow `after` (None: from the start) until nothing more is there now.

        Called again and again with the position of the last recorded batch. Holds no transaction, lock or cursor while
        it is suspended at a yield. A batch without rows is allowed when its position moved, or it has rejected rows or events.
        Raises `Retry` for what heals by itself and `Refused` for what does not.
        """

    def close(self) -> None:
        """Give back all that was taken. May be called twice."""


class Transform(Protocol):
    """Takes a batch, gives batches on its ports. A pure function of the batch and the state.

    The clock and randomness come from the rows, never from the machine. The input is never changed. The schema of each
    port depends on the schema of the input only: the kernel sends an empty batch first to learn it, and `apply` raises
    `OptionError` then when a column that it needs is missing or has an unusable type.
    """

    ports: ClassVar[tuple[str, ...]]
    """Names of its outputs, `("main",)` for most. (With `block: ClassVar[str]`, options may also stand in one mapping of that name; with
    `port_synonyms: ClassVar[Mapping[str, str]]`, `from:` may call a port by another name.)"""
    row_wise: ClassVar[bool]
    """True when each row in leaves exactly once: on a port, or `rejected`, or `filtered`. Checked on every batch."""

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch | Mapping[str, pa.RecordBatch]:
        """The rows of each port; a plain RecordBatch means `main`, a port left out means no rows (not of an empty batch).

        Two more ports are reserved and always there: `rejected` for rows that cannot be taken (made by `rejected()`, they
        become dead letters) and `filtered` for rows removed on purpose (made by `filtered()`, counted by rule).
        """


@runtime_checkable
class Stateful(Protocol):
    """What a transform has as well when it remembers rows or sums from batch to batch.

    The same rows cut into other batches give the same final result. `state` is recorded in the same transaction as the
    position after the batch, so after a crash both are of one moment.
    """

    def state(self) -> bytes:
        """All that is remembered, small and bounded. Called after each batch."""

    def restore(self, state: bytes) -> None:
        """Go back to exactly that. Called once, before the first batch, when there is a recorded state."""

    def finish(self, watermark: datetime) -> pa.RecordBatch | Mapping[str, pa.RecordBatch]:
        """Give out what is complete when no row older than `watermark` will come; `END_OF_INPUT` means no row at all."""


@runtime_checkable
class Clocked(Protocol):
    """What a transform has as well when it refuses rows from the future: it must not look at the machine's clock itself."""

    def clock(self, now: datetime) -> None:
        """Called before each batch, with the time of now. Not called where the rows alone shall count, such as in most tests."""


@runtime_checkable
class Named(Protocol):
    """What a transform has as well when it makes ids: the same rows in another pipeline are other things."""

    def named(self, pipeline: str) -> None:
        """Called once, before everything else, with the name of the pipeline. Not called in direct use, such as in most tests."""


@runtime_checkable
class Holding(Protocol):
    """What a row-wise, stateful transform has as well when it can judge a row only by those that follow.

    The rows wait in its state, counted as held, and leave with a later batch, under its token, or at `finish`. So the check is: rows in
    and held before = rows out and held after.
    """

    @property
    def held(self) -> pa.RecordBatch | None:
        """The rows that wait; they have `_row`."""


class Sink(Protocol):
    """Takes parcels, in order. Delivering the same token twice has the effect of once."""

    @property
    def encoding(self) -> Encoding:
        """How it wants its files."""

    def deliver(self, parcel: Parcel) -> Receipt:
        """Make the rows durable and visible, all or none, and say where they are.

        Raises `Retry` (again, same token), `Rejected` (these rows never; none of the parcel was taken) or `Refused` (a human must
        act). A parcel has at least one row. Called from one thread of its own. A client library inside must not retry by itself.
        """

    def close(self) -> None:
        """Give back all that was taken. May be called twice."""


@runtime_checkable
class Probing(Protocol):
    """What a sink has as well when it can say beforehand that it would not work."""

    def probe(self, schema: pa.Schema) -> str:
        """Change nothing; say in one line what `deliver` would do. Raises `OptionError`, `Retry` or `Refused`."""


@runtime_checkable
class Explaining(Protocol):
    """What a source has as well when it can say how it reads, for `lakeward explain`."""

    def explain(self) -> str:
        """A few lines: what was found, and the query it runs."""


@runtime_checkable
class Keeping(Protocol):
    """What a source or a sink has as well when it needs room on disk, such as for a copy of a database that cannot be opened there."""

    def keep_in(self, folder: Path) -> None:
        """A folder of its own in the state directory, maybe not there yet. Called once before the first read or delivery of a run."""


@runtime_checkable
class Rereading(Protocol):
    """What a source has as well when a part of it can be read again, for `lakeward backfill` and `lakeward position set`."""

    def reread(self, first: int, last: int | None, epoch: int, origin: str = "") -> Position:
        """A position from which `read` gives the rows with keys from `first` to `last` again, under another epoch, and then ends.

        With `last` None it goes on to the end and beyond. `origin` says which input when there are several. Raises `OptionError`.
        """


MEMBERS = {"source": ("schema", "read", "close"), "transform": ("ports", "row_wise", "apply"), "sink": ("encoding", "deliver", "close")}
"""What the attrs class of each kind must have."""


# -- rows that leave ---------------------------------------------------------------------------------------------------

REJECTED = "rejected"
FILTERED = "filtered"
RESERVED_PORTS = (REJECTED, FILTERED)
END_OF_INPUT = datetime.max.replace(tzinfo=UTC)


def rejected(rows: pa.RecordBatch, reason: str | pa.Array[Any], detail: str | pa.Array[Any] = "") -> pa.RecordBatch:
    """These rows, marked for the port `rejected`.

    `reason` is a short code such as `type` or `time_parse`; `detail` says it to a person. Either is one text, or one for each row.
    """
    return _marked(rows, rows.schema.names, _reason=reason, _detail=detail)


def filtered(rows: pa.RecordBatch, rule: str | pa.Array[Any]) -> pa.RecordBatch:
    """The keys of these rows, marked for the port `filtered` with the rule that removed them: its name, or one for each row."""
    return _marked(rows, [name for name in rows.schema.names if name == ROW], _rule=rule)


def _marked(rows: pa.RecordBatch, keep: list[str], **marks: str | pa.Array[Any]) -> pa.RecordBatch:
    import pyarrow as pa  # announcing must stay free of it

    columns = {name: rows.column(name) for name in keep}
    for name, mark in marks.items():
        columns[name] = pa.repeat(pa.scalar(mark), rows.num_rows) if isinstance(mark, str) else mark
    return pa.RecordBatch.from_pydict(columns)
