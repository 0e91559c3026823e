"""Seven bugs that would lose rows or let them take effect twice. The harness must see each of them, or it is blind.

They are patched into the killed process by names that stay: the contracts of sources and sinks, and what the state and the spool do.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from attrs import NOTHING, evolve, fields_dict

from crash.documents import DocumentSink
from crash.points import for_each_sink, reach
from lakeward.components import Batch, Parcel, Receipt
from lakeward.recording import Recording
from lakeward.state import State
from lakeward.statefile import Checkpoint
from lakeward_plugins.sources.sqlite import SqliteSource

_held: list[State] = []


def plant(bug: str) -> None:
    """Change this process for the worse."""
    claim = State.claim

    def remembered(self: State, pipeline: str) -> None:
        claim(self, pipeline)
        _held.append(self)

    State.claim = remembered  # type: ignore[method-assign]
    BUGS[bug]()


def checkpoint_before_spool() -> None:
    """The position is saved when the rows are read, before they are anywhere safe."""
    read = SqliteSource.read

    def planted(self: SqliteSource, after: Any, limit: int) -> Iterator[Batch]:
        for batch in read(self, after, limit):
            _record_alone(position=batch.position, epoch=batch.epoch)
            reach("inside_bug")
            yield batch

    SqliteSource.read = planted  # type: ignore[method-assign]


def window_state_apart() -> None:
    """Open windows are saved in a transaction of their own, before the position."""
    record = State.record

    def planted(self: State, recording: Recording) -> None:
        _record_alone(states=recording.states, record=record)
        reach("inside_bug")
        record(self, recording)

    State.record = planted  # type: ignore[method-assign]


def settle_before_deliver() -> None:
    """A parcel is marked as delivered before the sink has it."""

    def planted(deliver: Callable[..., Receipt], sink: Any, parcel: Parcel) -> Receipt:
        _held[-1].settle(parcel, Receipt("planted", {}))
        reach("inside_bug")
        return deliver(sink, parcel)

    _around_deliver(planted)


def another_token() -> None:
    """Each attempt is another parcel to the sink: it writes under another name, and finds nothing of an attempt before."""

    def planted(deliver: Callable[..., Receipt], sink: Any, parcel: Parcel) -> Receipt:
        return deliver(sink, evolve(parcel, token=evolve(parcel.token, life=uuid.uuid4().hex[:16])))

    _around_deliver(planted)


def no_rename() -> None:
    """A file is written under its final name, piece by piece; a file that is there is taken for whole."""

    def planted(deliver: Callable[..., Receipt], sink: Any, parcel: Parcel) -> Receipt:
        target = sink.path / f"{parcel.token.name}.parquet"
        sink.path.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            content = parcel.path.read_bytes()
            with target.open("wb", buffering=0) as file:
                for at in range(0, len(content), 500):
                    file.write(content[at : at + 500])
                    reach("inside_bug")
        return Receipt(str(target), {})

    _around_deliver(planted)


def any_sink_is_enough() -> None:
    """What one sink has is dropped for all, as in programs that go on when any upload succeeded."""
    done: set[int] = set()
    one_by_one = threading.Lock()  # so that it is not left to chance whether the second sees what the first has done

    def planted(deliver: Callable[..., Receipt], sink: Any, parcel: Parcel) -> Receipt:
        with one_by_one:
            if parcel.token.sequence in done:
                return Receipt("planted", {})
            receipt = deliver(sink, parcel)
            done.add(parcel.token.sequence)
            return receipt

    _around_deliver(planted)


def random_document_id() -> None:
    """A document gets another id on each attempt."""
    put = DocumentSink.put

    def planted(self: DocumentSink, store: Any, document: str, values: list[object]) -> None:
        put(self, store, uuid.uuid4().hex, values)
        reach("inside_bug")

    DocumentSink.put = planted  # type: ignore[method-assign]


BUGS = {
    bug.__name__: bug
    for bug in (
        checkpoint_before_spool, window_state_apart, settle_before_deliver, another_token, no_rename, any_sink_is_enough,
        random_document_id,
    )
}  # fmt: skip


def _around_deliver(planted: Callable[..., Receipt]) -> None:
    def change(sink: type) -> None:
        deliver = sink.deliver  # type: ignore[attr-defined]
        sink.deliver = lambda self, parcel: planted(deliver, self, parcel)  # type: ignore[attr-defined]

    for_each_sink(change)


def _record_alone(record: Callable[[State, Recording], None] = State.record, **part: Any) -> None:
    """Record a part of a batch, and leave all else as it is."""
    state = _held[-1]
    last = state.checkpoint() or Checkpoint()
    same = {"position": last.position, "epoch": last.epoch, "sequence": last.sequence}
    needed = (name for name, one in fields_dict(Recording).items() if one.default is NOTHING)
    empty: dict[str, Any] = {name: {} if name in ("states", "totals") else () for name in needed}
    record(state, Recording(**(empty | same | part)))
