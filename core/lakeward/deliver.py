"""DELIVER and SETTLE: from the spool to one sink, in order, at its own pace."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable

from lakeward.bell import Bell
from lakeward.components import Parcel, Receipt, Sink
from lakeward.deadletters import refused_letters
from lakeward.errors import Refused, Rejected, Retry
from lakeward.secrets import redact
from lakeward.spool import Spool
from lakeward.state import State

log = logging.getLogger("lakeward.deliver")
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_WISH = 0.5, 60.0, 3600.0  # seconds
PATIENCE = 5  # attempts of a `--once` run before it ends with what it could not deliver still in the spool


def pause_after(attempt: int, wanted: float | None, jitter: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds until the next attempt: what was asked for, up to an hour, else exponential backoff with full jitter."""
    if wanted is not None:
        return min(wanted, LONGEST_WISH)
    return jitter(0.0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 10)))


class Courier(threading.Thread):
    """The worker of one sink."""

    def __init__(
        self, name: str, sink: Sink, state: State, spool: Spool, pipeline: str, bell: Bell,
        tell: Callable[[Parcel, Receipt], None], patient: bool,
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
        self._bell, self._tell, self._patient = bell, tell, patient
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
        parcel = self._state.next_parcel(self.sink_name, self._pipeline, self._spool.folder)
        if parcel is None:
            self._news.wait()
            return True
        for attempt in itertools.count(1):
            try:
                self._attempt(parcel)
                break
            except (Exception, SystemExit) as error:  # noqa: BLE001  # a third party's sink may raise anything, state.db has its troubles
                if not self._wait_for_retry(parcel, error, attempt):
                    return False
        return True

    def _attempt(self, parcel: Parcel) -> None:
        try:
            self._spool.verify(parcel)
            receipt = self._sink.deliver(parcel)
        except Rejected as error:
            reason = redact(str(error))
            log.error("sink %s rejected %d rows, now dead letters: %s", self.sink_name, parcel.rows, reason)
            last = self._state.refuse(parcel, refused_letters(parcel, reason))
        else:
            receipt = _clean(receipt)
            last = self._state.settle(parcel, receipt)
            self.delivered += parcel.rows
            self._tell(parcel, receipt)
        self.failure = ""
        if last:
            self._spool.drop(parcel.path.name)
        self._bell.ring()

    def _wait_for_retry(self, parcel: Parcel, error: BaseException, attempt: int) -> bool:
        expected = isinstance(error, (Retry, Refused))
        self.failure = redact(str(error) if expected else f"{type(error).__name__}: {error}")
        if not self._patient and (attempt >= PATIENCE or isinstance(error, Refused)):
            log.error("sink %s: %s; %d rows stay in the spool for the next run", self.sink_name, self.failure, parcel.rows)
            return False
        pause = LONGEST_PAUSE if isinstance(error, Refused) else pause_after(attempt, getattr(error, "after", None))
        log.warning("sink %s: %s; next attempt in %.1f s", self.sink_name, self.failure, pause)
        end = time.monotonic() + pause
        while not self._leaving and (left := end - time.monotonic()) > 0:  # news of more parcels does not shorten a pause
            self._news.wait(left)
            self._news.clear()
        return not self._leaving


def _clean(receipt: Receipt) -> Receipt:
    """A receipt is kept and shown, so a URL in it must not tell its password."""
    details = {name: redact(value) if isinstance(value, str) else value for name, value in receipt.details.items()}
    return Receipt(redact(receipt.location), details)
