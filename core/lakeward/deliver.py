"""DELIVER and SETTLE: from the spool to one sink, in order, at its own pace."""

from __future__ import annotations

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
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds
PATIENCE = 5  # attempts of a `--once` run before it ends with what it could not deliver still in the spool


def pause_after(attempt: int, wanted: float | None, jitter: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds until the next attempt: what the sink asked for, else exponential backoff with full jitter."""
    if wanted is not None:
        return wanted
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

    @property
    def gave_up(self) -> bool:
        """True when an impatient worker ended with parcels left."""
        return bool(self.failure) and not self._patient and not self.is_alive()

    def run(self) -> None:
        """Deliver what waits, wait for more."""
        try:
            while not self._leaving:
                self._news.clear()
                parcel = self._state.next_parcel(self.sink_name, self._pipeline, self._spool.folder)
                if parcel is None:
                    self._news.wait()
                elif not self._deliver(parcel):
                    break
        except Exception as error:  # the thread's edge: without it a bug of ours would end this worker in silence
            self.failure, self._patient = redact(f"{type(error).__name__}: {error}"), False
            log.exception("sink %s: the worker failed", self.sink_name)
        finally:
            self._bell.ring()

    def _deliver(self, parcel: Parcel) -> bool:
        """Until the parcel is settled. False when told to leave, or out of patience."""
        attempt = 0
        while True:
            try:
                self._spool.verify(parcel)
                receipt = self._sink.deliver(parcel)
            except Rejected as error:
                self._give_up_rows(parcel, redact(str(error)))
                return True
            except (Exception, SystemExit) as error:  # noqa: BLE001  # a third party's sink may raise anything; it is tried again
                attempt += 1
                if not self._wait_for_retry(parcel, error, attempt):
                    return False
            else:
                self._settle(parcel, receipt)
                return True

    def _settle(self, parcel: Parcel, receipt: Receipt) -> None:
        if self._state.settle(parcel, receipt):
            self._spool.drop(parcel.path.name)
        self.delivered += parcel.rows
        self.failure = ""
        self._tell(parcel, receipt)
        self._bell.ring()

    def _give_up_rows(self, parcel: Parcel, reason: str) -> None:
        log.error("sink %s rejected %d rows, now dead letters: %s", self.sink_name, parcel.rows, reason)
        if self._state.refuse(parcel, refused_letters(parcel, reason)):
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
