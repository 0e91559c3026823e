"""One line on the terminal that says how far a run is."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

from lakeward.cli.logs import CLEAR
from lakeward.components import Parcel
from lakeward.hookspecs import BatchInfo, hookimpl


class Progress:
    """Hears of batches and parcels like any plugin."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream, self._lock = stream, threading.Lock()
        self._read = self._parcels = self._delivered = 0
        self._shown = 0.0

    @hookimpl
    def lakeward_batch_recorded(self, batch: BatchInfo) -> None:
        """Count what was read."""
        with self._lock:
            self._read += batch.read
            self._parcels += len(batch.sinks)
            self._show()

    @hookimpl
    def lakeward_parcel_delivered(self, parcel: Parcel) -> None:
        """Count what arrived."""
        with self._lock:
            self._delivered += 1
            self._show()

    @hookimpl
    def lakeward_run_finished(self) -> None:
        """Leave the line clean for what follows."""
        self._stream.write(CLEAR)
        self._stream.flush()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._shown >= 0.1:
            self._shown = now
            self._stream.write(f"{CLEAR}{self._read:,} rows read, {self._delivered:,} of {self._parcels:,} parcels delivered")
            self._stream.flush()
