"""DELIVER and SETTLE: from the spool to one sink, in order, at its own pace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from attrs import evolve

from lakeward.bell import Bell
from lakeward.components import Parcel, Receipt, Sink
from lakeward.config import Limits
from lakeward.deadletters.box import DeadLetter
from lakeward.deadletters.letters import refused_letters, require_few, require_room
from lakeward.errors import LakewardError, Refused, Rejected, Retry
from lakeward.pacing import OPENS_AFTER, Pace
from lakeward.recording import Share
from lakeward.secrets import redact
from lakeward.spool import Spool
from lakeward.state import State

log = logging.getLogger("lakeward.deliver")
PATIENCE = 5  # attempts of a `--once` run before it ends with what it could not deliver still in the spool


class Courier(threading.Thread):
    """The worker of one sink."""

    def __init__(
        self, name: str, sink: Sink, state: State, spool: Spool, pipeline: str, bell: Bell,
        tell: Callable[[Parcel, Receipt], None], patient: bool, limits: Limits,
    ) -> None:  # fmt: skip
        super().__init__(name=f"courier-{name}", daemon=True)
        self.sink_name = name
        self.delivered = 0
        """Rows delivered by this worker."""
        self.failure = ""
        """Why the sink does not take its parcels now; empty when it does."""
        self.gave_up = False
        """True when the worker ended by itself, with parcels left: it was impatient, or something broke."""
        self._sink, self._state, self._spool, self._pipeline = sink, state, spool, pipeline
        self._bell, self._tell, self._patient, self._limits = bell, tell, patient, limits
        self._pace = Pace()
        self._news = threading.Event()
        self._leaving = False

    def wake(self) -> None:
        """Something was recorded."""
        self._news.set()

    def leave(self) -> None:
        """Finish the parcel in hand, then end."""
        self._leaving = True
        self._news.set()

    def run(self) -> None:
        """Deliver what waits, wait for more."""
        try:
            while self._deliver_next():
                pass
            self.gave_up = not self._leaving
        except BaseException as error:  # the thread's edge: nothing may end this worker in silence
            self.failure, self.gave_up = redact(f"the worker failed: {type(error).__name__}: {error}"), True
            log.exception("sink %s: the worker failed", self.sink_name)
        finally:
            self._bell.ring()

    def _deliver_next(self) -> bool:
        """Deliver the oldest parcel, or wait until there may be one. False when it is time to end."""
        self._news.clear()  # before looking, so that nothing is missed between looking and waiting
        if self._leaving:
            return False
        parcel = None
        try:
            parcel = self._state.next_parcel(self.sink_name, self._pipeline, self._spool.folder)
            if parcel is not None:
                self._attempt(parcel)
            elif self.failure:  # the state did not answer, and does now
                self._works()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a third party's sink may raise anything, state.db has its troubles
            return self._wait_for_retry(parcel, error)
        if parcel is None:
            self._news.wait()
        return True

    def _attempt(self, parcel: Parcel) -> None:
        self._spool.verify(parcel)
        try:
            receipt = self._sink.deliver(parcel)
        except Rejected as error:
            last = self._refuse(parcel, error)
        else:
            receipt = _clean(receipt)
            dead = self._refused(parcel, receipt.rejected)
            last = self._state.settle(parcel, receipt, dead)
            self.delivered += parcel.rows - len(dead)
            self._tell(parcel, receipt)
        self._works()
        if last:
            self._spool.drop(parcel.path.name)
        self._bell.ring()

    def _works(self) -> None:
        if self._pace.is_open:
            log.warning("sink %s: works again, after %d failures in a row", self.sink_name, self._pace.failures)
        self._pace.answered()
        self._note("")

    # -- rows that it will never take ----------------------------------------------------------------------------------

    def _refuse(self, parcel: Parcel, error: Rejected) -> bool:
        """Bad rows become dead letters, the others go on as parts of the parcel. True when nobody needs its file any more."""
        reason = redact(str(error))
        bad = sorted({row for row in error.rows if 0 <= row < parcel.rows}) or ([0] if parcel.rows == 1 else [])
        dead, rows = self._refused(parcel, dict.fromkeys(bad, reason)), parcel.table()
        if bad:
            good = pa.array(np.delete(np.arange(parcel.rows), bad), pa.int64())
            parts = [rows.take(good)] if len(good) else []
        else:
            parts = [rows.slice(0, parcel.rows // 2), rows.slice(parcel.rows // 2)]
            log.info("sink %s rejected some of %d rows, so each half is tried alone: %s", self.sink_name, parcel.rows, reason)
        return self._state.refuse(parcel, dead, self._spooled(parcel, parts))

    def _refused(self, parcel: Parcel, reasons: Mapping[int, str]) -> list[DeadLetter]:
        """Dead letters of these rows. So many may be a wrong table rather than wrong rows: then a human must look first."""
        if not reasons:
            return []
        dead = refused_letters(parcel, reasons)
        dead_before, tried = self._state.tried(parcel)
        require_few(self._limits, dead, dead_before + len(dead), tried)
        require_room(self._limits, self._state.letters, dead)
        log.error("sink %s rejected %d of %d rows, now dead letters: %s", self.sink_name, len(dead), parcel.rows, dead[0].detail)
        return dead

    def _spooled(self, parcel: Parcel, parts: list[pa.RecordBatch]) -> list[Share]:
        """The parts as files of their own, durable before the state names them: their bytes are the same on every retry."""
        encoding = evolve(self._sink.encoding, row_key=True, inserted_at="")  # the rows have what they should have
        first = parcel.token.part[0] if parcel.token.part else 0
        shares = []
        for rows in parts:
            part = (first, first + rows.num_rows)
            file = self._spool.write(evolve(parcel.token, part=part).name, rows, encoding, datetime.now(UTC))
            shares.append(Share(self.sink_name, file.name, rows.num_rows, file.bytes, file.sha256, part))
            first = part[1]
        if shares:
            self._spool.sync()
        return shares

    # -- failures ------------------------------------------------------------------------------------------------------

    def _wait_for_retry(self, parcel: Parcel | None, error: BaseException) -> bool:
        refused, before, pause = isinstance(error, Refused), self.failure, self._pace.failed(error)
        self.failure = redact(str(error) if refused or isinstance(error, Retry) else f"{type(error).__name__}: {error}")
        gives_up = not self._patient and (refused or self._pace.failures >= PATIENCE)
        if gives_up or refused or self._pace.is_open:
            self._note(self.failure)
        if gives_up:
            rows = f"{parcel.rows} rows" if parcel else "its rows"
            log.error("sink %s: %s; %s stay in the spool for the next run", self.sink_name, self.failure, rows)
            return False
        if self._pace.failures == OPENS_AFTER:
            seldom = "failures in a row; until it works it is only tried out, at most once in a minute"
            log.error("sink %s: %s; %d %s", self.sink_name, self.failure, OPENS_AFTER, seldom)
        elif not self._pace.is_open or self.failure != before:
            log.warning("sink %s: %s; next attempt in %.1f s", self.sink_name, self.failure, pause)
        end = time.monotonic() + pause
        while not self._leaving and (left := end - time.monotonic()) > 0:  # news of more parcels does not shorten a pause
            self._news.wait(left)
            self._news.clear()
        return not self._leaving

    def _note(self, failure: str) -> None:
        self.failure = failure
        with suppress(LakewardError):  # it may be the state itself that does not work now
            self._state.trouble(f"sink {self.sink_name}", failure)


def _clean(receipt: Receipt) -> Receipt:
    """A receipt is kept and shown, so a URL in it must not tell its password."""
    details = {name: redact(value) if isinstance(value, str) else value for name, value in receipt.details.items()}
    return Receipt(redact(receipt.location), details, {place: redact(reason) for place, reason in receipt.rejected.items()})
