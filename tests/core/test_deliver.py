"""One worker over a real state and real files; the sinks are as bad as third parties can be."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from attrs import define, field

from lakeward import Encoding, Parcel, Receipt, Refused, Rejected
from lakeward.bell import Bell
from lakeward.config import Limits
from lakeward.deliver import Courier
from lakeward.recording import Recording, Share
from lakeward.secrets import Secret
from lakeward.spool import Spool
from lakeward.state import State

LIMITS = Limits()
ROWS = pa.RecordBatch.from_pydict({"_row": [1, 2, 3], "a": [1.0, 2.0, 3.0]})


@define
class Scripted:
    """Does what the script says, then takes everything."""

    script: list[Callable[[], object]] = field(factory=list)
    encoding: Encoding = Encoding(row_key=True)
    given: list[int] = field(factory=list)
    location: str = "x"

    def deliver(self, parcel: Parcel) -> Receipt:
        if self.script:
            self.script.pop(0)()
        self.given.append(parcel.token.sequence)
        return Receipt(self.location, {"url": self.location, "rows": parcel.rows})

    def close(self) -> None: ...


def failing(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


class Desk:
    """A state with some parcels, and a worker for them."""

    def __init__(self, state: State, sink: Scripted, bell: Bell, patient: bool, limits: Limits) -> None:
        self.state, self.heard = state, list[tuple[Parcel, Receipt]]()
        self.spool = Spool(state.directory / "spool")
        self.courier = Courier("out", sink, state, self.spool, "p", bell, lambda *news: self.heard.append(news), patient, limits)

    def record(self, sequence: int) -> None:
        file = self.spool.write(f"{sequence}", ROWS, Encoding(row_key=True), datetime(2026, 1, 1, tzinfo=UTC))
        share = Share("out", file.name, ROWS.num_rows, file.bytes, file.sha256)
        self.state.record(Recording(sequence, 0, {"row": sequence}, {}, [share], [], {}))

    def until(self, true: Callable[[], Any]) -> None:
        end = time.monotonic() + 8
        while not true():
            assert time.monotonic() < end, self.courier.failure
            time.sleep(0.01)


@contextmanager
def desk(folder: Path, sink: Scripted, *, parcels: int = 2, patient: bool = True, limits: Limits = LIMITS) -> Iterator[Desk]:
    bell = Bell()
    with State.hold(folder) as state:
        found = Desk(state, sink, bell, patient, limits)
        for sequence in range(1, parcels + 1):
            found.record(sequence)
        yield found
        if found.courier.ident:
            found.courier.leave()
            found.courier.join(5)
            assert not found.courier.is_alive()
    bell.close()


def test_delivers_in_order_then_waits_for_news(tmp_path: Path) -> None:
    sink = Scripted()
    with desk(tmp_path, sink) as at:
        at.courier.start()
        at.until(lambda: len(at.heard) == 2)
        at.record(3)
        at.courier.wake()
        at.until(lambda: len(at.heard) == 3)
        assert (sink.given, at.courier.delivered, at.courier.gave_up) == ([1, 2, 3], 9, False)
        at.until(lambda: not list(at.spool.folder.iterdir()))


def test_trouble_with_the_state_is_tried_again_and_counted_once(tmp_path: Path) -> None:
    sink = Scripted()
    with desk(tmp_path, sink, parcels=1) as at, closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        at.state._connection.execute("PRAGMA busy_timeout=10")
        other.execute("BEGIN IMMEDIATE")
        at.courier.start()
        at.until(lambda: "database is locked; another program has it open" in at.courier.failure)
        other.execute("ROLLBACK")
        at.until(lambda: at.heard)
        assert at.state.totals() == {"delivered": {"out": 3}}
        assert (at.courier.delivered, at.courier.failure, len(at.heard)) == (3, "", 1)


def test_a_state_that_cannot_be_asked_for_a_parcel_is_asked_again(tmp_path: Path) -> None:
    sink = Scripted()
    with desk(tmp_path, sink, parcels=0) as at, closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("ALTER TABLE parcels RENAME TO away")
        at.courier.start()
        at.until(lambda: "no such table: parcels" in at.courier.failure)
        other.execute("ALTER TABLE away RENAME TO parcels")
        at.until(lambda: not at.courier.failure)
        at.record(1)
        at.courier.wake()
        at.until(lambda: at.heard)
        assert (sink.given, at.courier.gave_up) == ([1], False)


def test_the_impatient_give_up_on_a_state_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakeward.pacing.LONGEST_PAUSE", 0.01)
    with desk(tmp_path, Scripted(), patient=False) as at, closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("ALTER TABLE parcels RENAME TO away")
        at.courier.start()
        at.courier.join(5)
        assert at.courier.gave_up
        assert "no such table: parcels" in at.courier.failure
        other.execute("ALTER TABLE away RENAME TO parcels")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("patient", [True, False])
def test_a_sink_that_ends_its_thread_does_not_end_it_in_silence(tmp_path: Path, patient: bool) -> None:
    with desk(tmp_path, Scripted([interrupt]), patient=patient) as at:
        at.courier.start()
        at.courier.join(5)
        assert at.courier.gave_up
        assert at.courier.failure == "the worker failed: KeyboardInterrupt: "
        assert at.state.waiting() == {"out": (2, 6)}


def test_the_impatient_give_up_at_once_when_a_human_must_act(tmp_path: Path) -> None:
    with desk(tmp_path, Scripted([failing(Refused("no permission"))]), patient=False) as at:
        at.courier.start()
        at.courier.join(5)
        assert (at.courier.gave_up, at.courier.failure) == (True, "no permission")


def test_leaving_ends_a_pause_and_is_not_giving_up(tmp_path: Path) -> None:
    with desk(tmp_path, Scripted([failing(Refused("no permission"))])) as at:
        at.courier.start()
        at.until(lambda: at.courier.failure)
        at.courier.leave()
        at.courier.join(1)
        assert (at.courier.is_alive(), at.courier.gave_up) == (False, False)


def test_who_is_told_to_leave_just_before_looking_for_work_leaves(tmp_path: Path) -> None:
    class TellsToLeave(threading.Event):
        def clear(self) -> None:
            at.courier.leave()
            super().clear()

    with desk(tmp_path, Scripted(), parcels=0) as at:
        at.courier._news = TellsToLeave()
        at.courier.start()
        at.courier.join(2)
        assert not at.courier.is_alive()


def test_a_receipt_keeps_no_secret(tmp_path: Path) -> None:
    Secret("hunter2hunter2", "env:PASSWORD")
    with desk(tmp_path, Scripted(location="https://me:hunter2hunter2@lake/x"), parcels=1) as at:
        at.courier.start()
        at.until(lambda: at.heard)
        (receipt,) = at.state.receipts()
        assert receipt["location"] == "https://me:***@lake/x"
        assert receipt["details"] == {"url": "https://me:***@lake/x", "rows": 3}
        assert at.heard[0][1].location == "https://me:***@lake/x"


def test_rejected_rows_are_dead_letters_and_the_next_parcel_goes_on(tmp_path: Path) -> None:
    sink = Scripted([failing(Rejected("too odd", [0, 1, 2]))])
    with desk(tmp_path, sink) as at:
        at.courier.start()
        at.until(lambda: at.heard)
        assert [letter["row_low"] for letter in at.state.letters.find()] == [3, 2, 1]
        assert (sink.given, at.state.totals()) == ([2], {"delivered": {"out": 3}, "refused": {"out": 3}})


def test_a_sink_that_does_not_work_for_long_is_told_of_once_and_noted_until_it_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakeward.pacing.LONGEST_PAUSE", 0.01)
    caplog.set_level("WARNING", "lakeward")
    with desk(tmp_path, Scripted([failing(OSError("cable"))] * 9), parcels=2) as at:
        at.courier.start()
        at.until(lambda: at.state.troubles())
        assert at.state.troubles() == {"sink out": "OSError: cable"}
        at.until(lambda: len(at.heard) == 2)
        at.until(lambda: not at.state.troubles())
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if "next attempt" not in text] == [
        "sink out: OSError: cable; 5 failures in a row; until it works it is only tried out, at most once in a minute",
        "sink out: works again, after 9 failures in a row",
    ]
    assert len(told) == 4 + 2


def test_a_new_cause_is_told_while_the_circuit_is_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakeward.pacing.LONGEST_PAUSE", 0.01)
    with desk(tmp_path, Scripted([failing(OSError("cable"))] * 6 + [failing(OSError("bucket"))] * 2), parcels=1) as at:
        at.courier.start()
        at.until(lambda: at.heard)
    assert caplog.text.count("OSError: bucket; next attempt") == 1


def test_what_the_impatient_could_not_deliver_is_noted_for_the_next_run(tmp_path: Path) -> None:
    for script, problem in (([failing(Refused("no permission"))], {"sink out": "no permission"}), ([], {})):
        with desk(tmp_path, Scripted(script), parcels=len(script), patient=False) as at:
            at.courier.start()
            at.until(lambda: at.courier.gave_up or at.heard)
            at.until(lambda wanted=problem: at.state.troubles() == wanted)
